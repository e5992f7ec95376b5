//! What is explored: what may happen in a group of three, and how far it is followed.

use std::time::Duration;

use cloudy_proto::{Parameters, RingKind, Rule};

use crate::explore::state::Budget;

/// What may happen, and how far that is followed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// In a word or two.
    pub name: &'static str,
    /// When members send.
    pub ring: RingKind,
    /// Own slots of a member that may be outside its result.
    pub window_slots: u32,
    /// The rule that is off at every node.
    pub off: Option<Rule>,
    /// What happens.
    pub budget: Budget,
    /// Consensus frames arrive in any order too, not only at once.
    pub consensus_is_free: bool,
    /// Choices one after another, at most.
    pub depth_max: usize,
    /// States of the group, at most.
    pub states_max: usize,
    /// From how many states in which nothing is left to happen a calm group must settle, at most.
    pub settles_max: usize,
}

impl Scenario {
    /// Nothing happens.
    #[must_use]
    pub fn new(name: &'static str, ring: RingKind) -> Self {
        Self {
            name,
            ring,
            window_slots: 64,
            off: None,
            budget: Budget::default(),
            consensus_is_free: false,
            depth_max: usize::MAX,
            states_max: 4_000_000,
            settles_max: 200,
        }
    }

    /// Members broadcast so many payloads each.
    #[must_use]
    pub fn broadcasts(mut self, payloads: [u8; 3]) -> Self {
        self.budget.broadcasts = payloads;
        self
    }

    /// A member asks to leave: a view change without a timer.
    #[must_use]
    pub fn leaves(mut self, node: usize) -> Self {
        self.budget.leaves[node] = true;
        self
    }

    /// One of these members dies.
    #[must_use]
    pub fn crash_of(mut self, nodes: &[usize]) -> Self {
        self.budget.crashes = 1;
        nodes.iter().for_each(|&node| self.budget.may_crash[node] = true);
        self
    }

    /// Links are cut so often.
    #[must_use]
    pub fn cuts(mut self, cuts: u8) -> Self {
        self.budget.cuts = cuts;
        self
    }

    /// Members go on without being handed anything for so many spells each.
    #[must_use]
    pub fn spells(mut self, spells: [u8; 3]) -> Self {
        self.budget.spells = spells;
        self
    }

    /// Deadlines of members come so often each.
    #[must_use]
    pub fn timers(mut self, timers: [u8; 3]) -> Self {
        self.budget.timers = timers;
        self
    }

    /// So many own slots of a member may be outside its result.
    #[must_use]
    pub fn window(mut self, slots: u32) -> Self {
        self.window_slots = slots;
        self
    }

    /// Followed so far only.
    #[must_use]
    pub fn within(mut self, states_max: usize) -> Self {
        self.states_max = states_max;
        self
    }

    /// A rule is off at every node.
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.off = Some(rule);
        self
    }

    pub(super) fn parameters(&self) -> Parameters {
        let (heartbeat, failure_timeout) = (Duration::from_millis(100), Duration::from_millis(300));
        let window_slots = self.window_slots;
        Parameters { ring: self.ring, open: false, window_slots, heartbeat, failure_timeout, ..Parameters::default() }
    }
}
