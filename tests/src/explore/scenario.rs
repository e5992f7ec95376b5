//! The scope of an exploration: the possible events in a group of three, and its bounds.

use std::time::Duration;

use cloudy_proto::{Parameters, RingKind, Rule};

use crate::explore::local::NODES;
use crate::explore::state::Budget;

/// States of the group, at most, in the usual run.
const USUAL_STATES_MAX: usize = 130_000;

/// The possible events, and the bounds of the exploration.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name, in a word or two.
    pub name: &'static str,
    /// When members send.
    pub ring: RingKind,
    /// Own slots of a member that may be outside its result.
    pub window_slots: u32,
    /// The rule that is off at every node.
    pub off: Option<Rule>,
    /// Every result has the newest message first, as a fault of the test.
    pub reversed: bool,
    /// By node: payloads that are in every result already.
    pub approved: [u8; NODES],
    /// By node: payloads that were broadcast already, and of which no frame has arrived.
    pub at_once: [u8; NODES],
    /// The possible events.
    pub budget: Budget,
    /// Consensus frames arrive in any order too, not only at once.
    pub consensus_is_free: bool,
    /// States of the group, at most.
    pub states_max: usize,
    /// Maximum number of final states from which a group without faults must settle.
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
            reversed: false,
            approved: [0; NODES],
            at_once: [0; NODES],
            budget: Budget::default(),
            consensus_is_free: false,
            states_max: USUAL_STATES_MAX,
            settles_max: 200,
        }
    }

    /// A number of payloads of each member are in every result before other events.
    #[must_use]
    pub fn approved(mut self, payloads: [u8; NODES]) -> Self {
        self.approved = payloads;
        self
    }

    /// Every result has the newest message first: a checker has to notice.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// Each member has broadcast a number of payloads before other events.
    #[must_use]
    pub fn at_once(mut self, payloads: [u8; NODES]) -> Self {
        self.at_once = payloads;
        self
    }

    /// Too few voters for progress may be left (`protocol.md` §6.6): only the results are checked.
    #[must_use]
    pub fn may_stop(mut self) -> Self {
        self.settles_max = 0;
        self
    }

    /// Consensus frames arrive in any order too.
    #[must_use]
    pub fn consensus_is_free(mut self) -> Self {
        self.consensus_is_free = true;
        self
    }

    /// Each member broadcasts a number of payloads.
    #[must_use]
    pub fn broadcasts(mut self, payloads: [u8; NODES]) -> Self {
        self.budget.broadcasts = payloads;
        self
    }

    /// A member requests to leave: a view change without a timer.
    #[must_use]
    pub fn leaves(mut self, node: usize) -> Self {
        self.budget.leaves[node] = true;
        self
    }

    /// The creator closes the group.
    #[must_use]
    pub fn ends(mut self) -> Self {
        self.budget.end = true;
        self
    }

    /// One of these members dies.
    #[must_use]
    pub fn crash_of(mut self, nodes: &[usize]) -> Self {
        self.budget.crashes = 1;
        nodes.iter().for_each(|&node| self.budget.may_crash[node] = true);
        self
    }

    /// Links are cut a number of times.
    #[must_use]
    pub fn cuts(mut self, cuts: u8) -> Self {
        self.budget.cuts = cuts;
        self
    }

    /// Each member runs without inputs for a number of times.
    #[must_use]
    pub fn spells(mut self, spells: [u8; NODES]) -> Self {
        self.budget.spells = spells;
        self
    }

    /// The deadline of each member passes a number of times.
    #[must_use]
    pub fn timers(mut self, timers: [u8; NODES]) -> Self {
        self.budget.timers = timers;
        self
    }

    /// The number of own slots of a member that may be outside its result.
    #[must_use]
    pub fn window(mut self, slots: u32) -> Self {
        self.window_slots = slots;
        self
    }

    /// Limits the number of states.
    #[must_use]
    pub fn within(mut self, states_max: usize) -> Self {
        self.states_max = states_max;
        self
    }

    /// Switches a rule off at every node.
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.off = Some(rule);
        self
    }

    pub(super) fn parameters(&self) -> Parameters {
        let (heartbeat, failure_timeout) = (Duration::from_millis(100), Duration::from_millis(300));
        let (window_slots, timeout_max) = (self.window_slots, Duration::ZERO);
        let ring = self.ring;
        // Measured values would make equal states different.
        Parameters::default()
            .ring(ring)
            .open(false)
            .window_slots(window_slots)
            .heartbeat(heartbeat)
            .failure_timeout(failure_timeout)
            .timeout_max(timeout_max)
            .resume_timeout(Duration::ZERO)
    }
}

/// The scenarios of every test run, and of the table in the guarantees.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let pipelined = |name| Scenario::new(name, RingKind::Pipelined);
    let token = |name| Scenario::new(name, RingKind::Token);
    let relay = |name| Scenario::new(name, RingKind::Relay);
    vec![
        pipelined("one message").broadcasts([0, 1, 0]),
        pipelined("two senders").broadcasts([1, 1, 0]),
        pipelined("three senders at once").at_once([1, 1, 1]),
        pipelined("two messages of one, a window of one").broadcasts([0, 2, 0]).window(1),
        token("two senders in turns").broadcasts([0, 1, 1]).timers([1, 1, 1]),
        relay("two senders, relayed").broadcasts([1, 1, 0]),
        pipelined("a link is cut").broadcasts([0, 1, 0]).cuts(1),
        relay("a link is cut, relayed").broadcasts([0, 1, 0]).cuts(1),
        pipelined("any one dies").broadcasts([0, 1, 0]).crash_of(&[0, 1, 2]),
        pipelined("a member leaves, another sends").broadcasts([0, 1, 0]).leaves(2),
        relay("a member leaves, another sends, relayed").broadcasts([0, 1, 0]).leaves(2),
        pipelined("a sender leaves").broadcasts([0, 0, 1]).leaves(2),
        pipelined("a member leaves, two have sent").at_once([1, 1, 0]).leaves(2),
        token("a member leaves, two send in turns").broadcasts([0, 1, 1]).leaves(2),
        pipelined("a member leaves, a link is cut").cuts(1).leaves(2),
        pipelined("a member leaves, consensus in any order").leaves(2).at_once([0, 1, 0]).consensus_is_free(),
        pipelined("a sender dies, another member leaves").at_once([0, 0, 1]).crash_of(&[2]).leaves(1),
        relay("a sender dies, another member leaves, relayed").at_once([0, 0, 1]).crash_of(&[2]).leaves(1),
        pipelined("the group ends, two have sent").at_once([0, 1, 1]).ends(),
        pipelined("the group ends, a sender dies").at_once([0, 0, 1]).ends().crash_of(&[2]),
        pipelined("the coordinator dies as a member leaves").at_once([0, 1, 0]).crash_of(&[0]).leaves(2).may_stop(),
        pipelined("a sender dies, and is suspected").at_once([0, 0, 1]).crash_of(&[2]).spells([1, 0, 0]),
        pipelined("the coordinator dies, and is followed").at_once([0, 1, 0]).crash_of(&[0]).spells([0, 1, 1]),
        pipelined("the coordinator suspects the living").at_once([0, 1, 0]).spells([1, 0, 0]),
    ]
}
