//! Admission of other nodes to a running group: the coordinator admits them, and every other node names the coordinator
//! (`protocol.md` §7).

use crate::command::Command;
use crate::config::Durability;
use crate::digest::Checkpoint;
use crate::id::{NodeId, ViewId};
use crate::io::MissingVoters;
use crate::limits::{MEMBERS_MAX, OBSERVERS_MAX, RUNS_ADMITTED_MAX};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::coordinator::{missing_voters, votes_lost};
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::wire::{ControlFrame, Refusal};
use crate::words::harmless;

/// Answers nodes that want to join the group.
pub(super) struct AdmissionHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a mut Peers,
    pub(super) result: &'a ResultLog,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a Timers,
}

impl AdmissionHandler<'_> {
    /// Handles a request of a node's process to join the group, or to observe it.
    pub(super) fn on_join(&mut self, from: NodeId, (run, level): (u64, u16), observer: bool, result: Checkpoint) {
        if self.log.state().view().is_none() {
            // Before the first view there is nothing to join; the node repeats its request.
            return;
        }
        let is_listed = self.log.state().is_latest_run(from, run);
        if self.identity.durability == Durability::Memory && !is_listed {
            // In memory, no vote has outlived the earlier process.
            self.log.on_votes_lost(from);
        }
        if let Some((view, ours)) = self.contradicts(result) {
            let node = self.identity.me;
            return self.send(from, ControlFrame::Diverged { view, node, theirs: ours, ours: result });
        }
        let is_new = !observer && !is_listed;
        let refused = if is_new { self.may_add_run() } else { Ok(()) };
        let refused = refused.and_then(|()| self.may_come(from, observer)).and_then(|()| self.supports_level(level));
        let refused = refused.map_err(|reason| (reason, Refusal::Final));
        if let Err((reason, refusal)) = self.is_not_gone(observer).and(refused) {
            let reason = harmless(reason.as_bytes());
            return self.send(from, ControlFrame::Refuse { reason, refusal });
        }
        if let Some(missing) = self.missing_voters().filter(|_| is_new) {
            let reason = harmless(format!("no coordinator is in reach; {missing}").as_bytes());
            return self.send(from, ControlFrame::Refuse { reason, refusal: Refusal::NotYet });
        }
        if observer {
            self.peers.on_observer(from);
        }
        if let Some(coordinating) = self.coordinating {
            if is_new && coordinating.propose_run(from, run) {
                self.log.propose(&Command::Incarnate { node: from, run });
            }
            let term = coordinating.term();
            self.send(from, ControlFrame::Coordinates { term });
        }
        self.refer(from);
    }

    /// Names the coordinator to a node that joins, if it is in reach.
    fn refer(&mut self, to: NodeId) {
        if !self.is_in_reach() {
            return;
        }
        let coordinator = self.tracking.node();
        let is_own = coordinator == self.identity.me;
        let known = if is_own { Some(&self.identity.addresses) } else { self.peers.addresses(coordinator) };
        let addresses = known.cloned().unwrap_or_default();
        let left = self.timers.left(Timer::Period, self.timers.now()).unwrap_or_default();
        self.send(to, ControlFrame::Refer { coordinator, addresses, left });
    }

    /// The present view, and the digest here if it differs from a checkpoint of a joiner.
    fn contradicts(&self, theirs: Checkpoint) -> Option<(ViewId, Checkpoint)> {
        let view = self.log.state().view().filter(|_| self.identity.reads_all)?.id;
        let ours = self.result.state().digest_at(theirs.index)?;
        (ours != theirs.digest).then_some((view, Checkpoint { index: theirs.index, digest: ours }))
    }

    /// Checks whether the coordinator may add an incarnation; the error is the reason. The result keeps the last
    /// sequence number of each of its incarnations, for good, so that it can determine the outcome of any message.
    fn may_add_run(&self) -> Result<(), String> {
        let runs = self.result.state().last_seqs().len();
        if self.coordinating.is_some() && runs >= RUNS_ADMITTED_MAX {
            let name = &self.identity.name;
            return Err(format!(
                "the result of group {name:?} has messages of {runs} process starts, and {RUNS_ADMITTED_MAX} is the limit of one group; create another group"
            ));
        }
        Ok(())
    }

    /// The voters that the group needs before a node can join.
    fn missing_voters(&self) -> Option<MissingVoters> {
        let missing = missing_voters(self.identity, self.log, self.peers, self.tracking, self.timers.now());
        missing.filter(|_| !self.is_in_reach())
    }

    /// Checks whether the group has stopped for good; the error is the reason, for a node to which that matters.
    fn is_not_gone(&self, observer: bool) -> Result<(), (String, Refusal)> {
        let lost = votes_lost(self.identity, self.log, self.is_in_reach());
        let lost = lost.filter(|_| self.tracking.is_loss_reported() && !observer);
        lost.map_or(Ok(()), |lost| Err((lost.to_string(), Refusal::Gone)))
    }

    /// Checks whether a node may join; the error is the reason.
    fn may_come(&self, from: NodeId, observer: bool) -> Result<(), String> {
        let (name, me) = (&self.identity.name, self.identity.me.short());
        let known = self.peers.observers();
        if observer && known.len() >= OBSERVERS_MAX && !known.contains(&from) {
            return Err(format!(
                "node {me} has {OBSERVERS_MAX} observers of group {name:?} already; ask another member"
            ));
        }
        if observer || !self.coordinating.is_some() || self.log.state().was_member(from) {
            return Ok(());
        }
        let Some(view) = self.log.state().view() else { return Ok(()) };
        if !view.parameters.open {
            return Err(format!("group {name:?} takes no newcomers: only nodes that were on its ring may come back"));
        }
        if view.last || self.closing.is_stopping() {
            return Err(format!("group {name:?} ends"));
        }
        if view.members() >= MEMBERS_MAX {
            return Err(format!("the ring of group {name:?} is full: it has {MEMBERS_MAX} members"));
        }
        Ok(())
    }

    /// Checks whether a node supports the feature level of the group; the error is the reason.
    fn supports_level(&self, supported: u16) -> Result<(), String> {
        let (name, level) = (&self.identity.name, self.log.state().level());
        if level > supported {
            return Err(format!(
                "group {name:?} has feature level {level}, and the program of this node supports levels up to {supported}; start it with a newer release of cloudy"
            ));
        }
        Ok(())
    }

    fn is_in_reach(&self) -> bool {
        self.coordinating.is_some() || self.tracking.linked(self.identity.me, self.peers).is_some()
    }

    fn send(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(self.peers, self.outputs, to, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::digest::ResultBase;
    use crate::id::{Incarnation, Seq};
    use crate::io::{Frame, Input, Output};
    use crate::machine::tests::alone;
    use crate::stored::StoredBase;
    use crate::wire::{Stream, WIRE_VERSION};

    const NEWCOMER: NodeId = NodeId([9; 32]);

    /// The answers of a group to a newcomer, if its result has messages of this number of incarnations.
    fn answer(runs: usize) -> Vec<ControlFrame> {
        let mut machine = alone(Parameters::default());
        let last_numbers = (0..runs as u64).map(|run| ((NodeId([8; 32]), Incarnation(run)), Seq(1))).collect();
        let base = StoredBase { base: ResultBase { last_numbers, ..ResultBase::default() }, ..StoredBase::default() };
        machine.result.resume_at(&base);
        machine.on_link_up(NEWCOMER, Default::default());
        let join = ControlFrame::Join { run: 7, observer: false, result: Checkpoint::default(), level: WIRE_VERSION };
        let (incarnation, frame) = (Incarnation(0), Frame::Control(join));
        machine
            .handle(machine.timers.now(), Input::Frame { from: NEWCOMER, incarnation, stream: Stream::Control, frame });
        let outputs = core::iter::from_fn(|| machine.poll_output());
        let said = outputs.filter_map(|output| match output {
            Output::Send { to: NEWCOMER, frame: Frame::Control(frame), .. } => Some(frame),
            _ => None,
        });
        said.collect()
    }

    #[test]
    fn a_newcomer_is_refused_with_the_limit_once_a_result_knows_too_many_incarnations() {
        let refused = |said: &[ControlFrame]| said.iter().any(|frame| matches!(frame, ControlFrame::Refuse { .. }));
        assert!(!refused(&answer(RUNS_ADMITTED_MAX - 1)));
        let said = answer(RUNS_ADMITTED_MAX);
        let reason = said.iter().find_map(|frame| match frame {
            ControlFrame::Refuse { reason, .. } => Some(reason),
            _ => None,
        });
        assert!(reason.is_some_and(|reason| reason.contains("63488 is the limit")), "{said:?}");
    }
}
