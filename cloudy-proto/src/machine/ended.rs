//! A closed group: its nodes tell those that were away, and give them the final result (`protocol.md` §6.9).

use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::Event;
use crate::machine::Machine;
use crate::rules::Rule;
use crate::wire::ControlFrame;

/// For how many coordinator timeouts nobody gives anything of the final result before that is reported.
const FINAL_PATIENCE: u32 = 5;

/// What is known of the group's closing.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// The last peer that said that the group is closed.
    pub(super) told_by: Option<NodeId>,
    /// The application learns of it once the result is final here.
    pub(super) delayed: bool,
}

impl Machine {
    /// The group is closed here, as the control log says.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.is_closed()
    }

    /// The final result, once it is complete here.
    #[must_use]
    pub fn final_result(&self) -> Option<Checkpoint> {
        self.final_result
    }

    /// A node has, or had, a part in this group, as far as the control log says.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.state.founder() == Some(node) || self.state.incarnation(node).is_some() || self.state.was_member(node)
    }

    /// What this node says of the group to a node that asks for it by its name; none before its log begins.
    #[must_use]
    pub fn running(&self) -> Option<ControlFrame> {
        let (name, durability) = (self.identity.name.clone(), self.identity.durability);
        self.state.founder().map(|founder| ControlFrame::Running { name, founder, durability })
    }

    /// Gives up the memory that holds the result for other nodes. They get it from the disk, if the group is on disk.
    pub fn forget_retained(&mut self) {
        self.result.forget_retained();
    }

    /// The bytes of the result that are in memory for other nodes.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.result.retained().bytes()
    }

    /// Nothing is agreed on any more: this node only answers.
    pub(super) fn retire(&mut self) {
        if self.state.is_closed() && (self.voter.is_some() || self.is_coordinator()) {
            (self.voter, self.coordinating) = (None, None);
            self.timers.stop_all_but_fetch();
        }
    }

    /// A peer of a closed group speaks of what is over.
    pub(super) fn say_ended(&mut self, to: NodeId) {
        if self.identity.rules.hold(Rule::EndIsTold) {
            self.send_control(to, ControlFrame::Ended);
        }
    }

    /// A peer says that the group is closed: it is asked for the rest of the log, or for the final result.
    pub(super) fn take_ended(&mut self, from: NodeId) {
        self.closing.told_by = Some(from);
        if !self.state.is_closed() {
            return self.say_follow(from);
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.add_source(from);
            self.fetch_if_idle();
        }
    }

    /// The group is closed, and nobody in reach gives what is missing of the final result.
    pub(super) fn miss_final(&mut self) {
        let Some(view) = self.state.view().filter(|_| self.state.is_closed()) else { return };
        let patience = view.parameters.coordinator_timeout * FINAL_PATIENCE;
        let now = self.now;
        let Some(fetching) = self.fetching.as_mut() else { return };
        let since = *fetching.stands_since.get_or_insert(now);
        if now.since(since) >= patience && !core::mem::replace(&mut fetching.missed, true) {
            let sources = fetching.sources.clone();
            self.event(Event::FinalResultMissing { sources });
        }
    }
}
