//! The control log, at its voters and followers (`protocol.md` §6).

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Command, Dropped};
use crate::control::{Applied, Voter, VoterOutput};
use crate::due::Cause;
use crate::id::{ConsensusId, Incarnation, LogIndex, NodeId, ViewId};
use crate::io::{Event, VotesLost};
use crate::machine::Machine;
use crate::machine::consensus::Step;
use crate::machine::coordinating::Coordinating;
use crate::machine::coordinator::votes_lost;
use crate::machine::install::Before;
use crate::rules::Rule;
use crate::stored::Record;
use crate::view::View;
use crate::wire::{CommandError, ConsensusMessage, ControlFrame};

impl Machine {
    /// Coordinator: proposes a command. It appears in the log, or this node stops coordinating.
    pub(super) fn propose(&mut self, command: &Command) {
        if self.is_coordinator() {
            self.log.propose(command);
        }
    }

    /// Runs the consensus library after the inputs so far, and applies committed entries.
    pub(super) fn run_consensus(&mut self) {
        while !self.log.voter().map_or(self.coordinating.is_none(), Voter::is_settled) {
            while let Some(output) = self.log.voter_mut().and_then(Voter::poll_output) {
                self.take_voter_output(output);
            }
            self.watch_leadership();
        }
        let has_output = self.log.compact(&mut self.storage.records);
        self.due.set_if(Cause::Outputs, has_output);
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn take_voter_output(&mut self, output: VoterOutput) {
        match output {
            VoterOutput::Send(message) => self.consensus().send(message),
            VoterOutput::Keep(record) => self.consensus().keep(record),
            VoterOutput::Skipped { index, term, state } => {
                if let Err(error) = self.skip_log(index, term, state) {
                    self.halt_at_log(index, error);
                }
            }
            VoterOutput::Committed { index, term, command } if index == self.log.state().next() => {
                if let Err(error) = self.apply(command, term) {
                    self.halt_at_log(index, error);
                }
            }
            // Another node sent it before, or an earlier incarnation knew it.
            VoterOutput::Committed { index, term, .. } => {
                if index.next() == self.log.state().next() {
                    self.log.set_term(term);
                }
            }
            VoterOutput::Unreadable { index, error } => self.halt_at_log(index, error),
        }
    }

    /// Stops for good, and stops voting: every later entry builds on one that this node cannot apply. An entry that a
    /// peer reports as committed counts as committed, as everywhere in the log.
    pub(super) fn halt_at_log(&mut self, index: LogIndex, error: CommandError) {
        if !self.identity.rules.holds(Rule::UnreadableLogStops) {
            return;
        }
        self.outputs.halt();
        self.log.stop_voting();
        self.coordinating = None;
        self.event(Event::UnreadableLog { index, error });
    }

    /// Starts or stops to coordinate, as the consensus library decides.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn watch_leadership(&mut self) {
        let leading = self.log.voter().and_then(|voter| voter.leads(self.identity.rules));
        if leading == self.coordinating.as_ref().map(Coordinating::term) {
            return;
        }
        if self.coordinating.take().is_some() {
            self.end_coordinating();
        }
        if let Some(term) = leading {
            self.begin_coordinating(term);
        }
    }

    pub(super) fn on_consensus(&mut self, from: NodeId, message: ConsensusMessage) {
        match self.consensus().on_message(from, message) {
            Step::Nothing => {}
            Step::Moved => {
                self.run_consensus();
                self.reconfigure();
            }
            Step::GaveUp => {
                self.run_consensus();
                self.greet_coordinator();
            }
            Step::Unreadable(index, error) => self.halt_at_log(index, error),
        }
    }

    pub(super) fn consensus_tick(&mut self) {
        self.probe_peers();
        self.consensus().on_tick();
        self.run_consensus();
        self.reconfigure();
        self.raise_level();
        self.completeness().check();
    }

    /// Handles a request for the log from an entry on: the coordinator sends future entries too, other nodes those that
    /// they have.
    pub(super) fn follow(&mut self, from: NodeId, next: LogIndex, voter: ConsensusId, level: u16) {
        self.log.on_voter_named(from, voter);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_follow(from, next, voter, level);
            self.flush_log();
            self.view_change().send_wedge(from);
        } else {
            let mut first = next;
            let frames = self.log.frames_after(&mut first);
            frames.into_iter().for_each(|frame| self.send_control(from, frame));
            self.send_control(from, ControlFrame::Resigned);
            if next > self.log.state().next() && self.identity.rules.holds(Rule::AskedAsksBack) {
                // A node that requests these entries knows more. It need not be on the ring: a former member may not
                // know yet that the log continues without a voter that is gone.
                self.coordinator().send_follow(from);
            }
        }
    }

    /// Coordinator: sends each follower the log entries that it lacks.
    pub(super) fn flush_log(&mut self) {
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.send_log(&self.log, &self.peers, &mut self.outputs);
        }
    }

    /// Handles committed entries of the log, which may be known in part.
    pub(super) fn take_log(&mut self, from: NodeId, first: LogIndex, entries: Vec<Bytes>, term: u64) {
        let last = LogIndex((first.0 + entries.len() as u64).saturating_sub(1));
        for (at, entry) in entries.into_iter().enumerate() {
            let index = LogIndex(first.0 + at as u64);
            if index > self.log.state().next() && self.arrival.is_joining() {
                // Earlier entries were taken for a stranger's.
                return self.coordinator().send_follow(from);
            }
            if index > self.log.state().next() {
                return self.breach(from, format!("the control log has a gap before entry {index}"));
            }
            if index == self.log.state().next() {
                let term = if index == last { term } else { 0 };
                if let Err(error) = self.apply(entry, term) {
                    return self.halt_at_log(index, error);
                }
            }
        }
        if let Some(voter) = self.log.voter_mut() {
            // Its leader may have died before it reported that.
            voter.learn_committed(last, term);
        }
    }

    fn apply(&mut self, entry: Bytes, term: u64) -> Result<(), CommandError> {
        let applied = self.log.apply(entry, term, &mut self.storage.records)?;
        self.stay_off_ring();
        match applied {
            Applied::Incarnated { node, incarnation, run } => {
                if let Some(coordinating) = &mut self.coordinating {
                    coordinating.on_run_listed(node, run);
                }
                self.notice_forgotten();
                if node == self.identity.me && run == self.identity.run {
                    self.incarnated(incarnation);
                }
                if let Some(mut creation) = self.creation() {
                    creation.install_first();
                }
                self.retry_claim();
                self.view_change().on_incarnation(node);
                self.view_change().replace_stale();
            }
            Applied::Installed { view, before, cut, dropped } => {
                self.report_dropped(&dropped);
                self.install(view, before.as_deref().map_or(Before::Nothing, |view| Before::View { view, cut: &cut }));
                self.notice_forgotten();
            }
            Applied::Outdated => self.view_change().restart(),
            Applied::Kickstarted(plan) => self.kickstarted(plan),
            Applied::Grace => self.enter_grace(),
            Applied::Reported { node, result, report } => {
                self.event(Event::Reported { node, result, report });
                self.divergence().compare_final();
                self.try_close();
            }
            Applied::Closed => self.closed(),
            Applied::Left { node } => {
                if node != self.identity.me {
                    self.event(Event::Left { node });
                }
                self.reconfigure();
            }
            Applied::Level => self.check_level()?,
            #[cfg(feature = "next-version")]
            Applied::Next => self.storage.records.keep(Record::Next),
            Applied::Nothing => {}
        }
        self.leaving().try_finish();
        Ok(())
    }

    /// Notes this process's incarnation in the log.
    pub(super) fn incarnated(&mut self, incarnation: Incarnation) {
        self.identity.incarnation = incarnation;
        self.send_rejoin();
        if self.closing.is_wanted() {
            // Before, there was no group to send the request to.
            self.end();
        }
    }

    #[cold]
    pub(super) fn breach(&mut self, peer: NodeId, reason: String) {
        self.outputs.close_link(peer, reason);
    }

    /// Handles a state of the log from a node that does not keep the entries before it.
    pub(super) fn skip_log(&mut self, index: LogIndex, term: u64, encoded: Bytes) -> Result<(), CommandError> {
        if let Some(voter) = self.log.voter_mut() {
            // Its leader may have died before it reported that.
            voter.learn_committed(index, term);
        }
        if index < self.log.state().next() {
            return Ok(());
        }
        let before = self.log.state().view().cloned();
        let skipped = self.log.skip_to(index, encoded.clone(), self.identity.rules)?;
        self.check_level()?;
        self.log.set_term(term);
        self.storage.records.keep(Record::Log { index, term, state: encoded });
        let listed = self
            .log
            .state()
            .incarnation(self.identity.me)
            .filter(|_| self.log.state().is_latest_run(self.identity.me, self.identity.run));
        if let Some(incarnation) = listed.filter(|listed| *listed != self.identity.incarnation) {
            self.incarnated(incarnation);
        }
        self.retry_claim();
        self.stay_off_ring();
        let view = self.log.state().view().cloned();
        if let Some(view) = view.filter(|view| before.as_ref().is_none_or(|before| before.id < view.id)) {
            self.pass_into(view, before.as_deref());
        }
        let (kickstarted, grace) = self.log.state().phases();
        if let Some(plan) = kickstarted {
            self.kickstarted(plan);
        }
        if grace {
            self.enter_grace();
        }
        self.notice_forgotten();
        self.tell_reports(&skipped.known_reports);
        if self.log.state().is_closed() && !skipped.was_closed {
            self.closed();
        }
        self.leaving().try_finish();
        Ok(())
    }

    /// Reports the complete results in the log's state, except those that were known before.
    pub(super) fn tell_reports(&mut self, known: &[NodeId]) {
        let fresh = self.log.state().reports().filter(|(node, ..)| !known.contains(node));
        let said = fresh.map(|(node, result, report)| Event::Reported { node, result, report: report.clone() });
        let said: Vec<Event> = said.collect();
        said.into_iter().for_each(|event| self.event(event));
    }

    /// Reports the nodes that a view change excluded.
    fn report_dropped(&mut self, dropped: &[(NodeId, Dropped)]) {
        for &(node, why) in dropped {
            if why != Dropped::Left {
                self.peers.evictions.evict(node, self.timers.now());
            } else if node == self.identity.me {
                continue;
            }
            self.event(match why {
                Dropped::Silent => Event::Silent { node },
                Dropped::Blamed => Event::Blamed { node },
                Dropped::Left => Event::Left { node },
            });
        }
    }

    /// Enters a view after skipped entries, and perhaps skipped views.
    fn pass_into(&mut self, view: Arc<View>, before: Option<&View>) {
        let (cut, dropped) = self.log.state().passage();
        let (cut, dropped) = (cut.to_vec(), dropped.to_vec());
        let before = match before {
            None if view.id == ViewId(0).next() => Before::Nothing,
            Some(before) if view.id == before.id.next() => Before::View { view: before, cut: &cut },
            _ => Before::Skipped,
        };
        if !matches!(before, Before::Skipped) {
            self.report_dropped(&dropped);
        }
        self.install(view, before);
    }

    /// The lost votes, if most voters returned without theirs: no node can coordinate the group.
    pub(super) fn votes_lost(&self) -> Option<VotesLost> {
        votes_lost(&self.identity, &self.log, self.has_coordinator())
    }
}
