//! The effects of entries of the control log, at its voters and followers (`protocol.md` §6).

use std::sync::Arc;

use bytes::Bytes;

use crate::control::{Applied, Voter, VoterOutput};
use crate::due::Cause;
use crate::id::{ConsensusId, Incarnation, LogIndex, NodeId, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::consensus::Step;
use crate::machine::coordinating::Coordinating;
use crate::machine::install::Before;
use crate::rules::Rule;
use crate::stored::Record;
use crate::view::View;
use crate::wire::{CommandError, ConsensusMessage};

impl Machine {
    /// Runs the consensus library after the inputs so far, and applies committed entries.
    #[inline]
    pub(in crate::machine) fn run_consensus(&mut self) {
        while !self.log.voter().map_or(self.coordinating.is_none(), Voter::is_settled) {
            while let Some(output) = self.log.voter_mut().and_then(Voter::poll_output) {
                self.on_voter_output(output);
            }
            self.watch_leadership();
        }
        let has_output = self.log.compact(&mut self.storage.records);
        self.due.set_if(Cause::Outputs, has_output);
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn on_voter_output(&mut self, output: VoterOutput) {
        match output {
            VoterOutput::Send(message) => self.consensus().send(message),
            VoterOutput::Keep(record) => self.consensus().keep(record),
            VoterOutput::Skipped { index, term, state } => self.on_log_state_or_halt(index, term, state),
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
    pub(in crate::machine) fn halt_at_log(&mut self, index: LogIndex, error: CommandError) {
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

    pub(in crate::machine) fn on_consensus(&mut self, from: NodeId, message: ConsensusMessage) {
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

    pub(in crate::machine) fn on_consensus_tick(&mut self) {
        self.links().probe();
        self.consensus().on_tick();
        self.run_consensus();
        self.reconfigure();
        if self.level().raise() {
            self.run_consensus();
        }
        self.completeness().check();
    }

    /// Handles a request for the log from an entry on: the coordinator sends future entries too, other nodes those that
    /// they have.
    pub(in crate::machine) fn on_follow(&mut self, from: NodeId, next: LogIndex, voter: ConsensusId, level: u16) {
        self.log.on_voter_named(from, voter);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_follow(from, next, voter, level);
            self.flush_log();
            self.view_change().send_wedge(from);
        } else {
            self.coordinator().on_follow(from, next);
        }
    }

    /// Coordinator: sends each follower the log entries that it lacks.
    #[inline]
    pub(in crate::machine) fn flush_log(&mut self) {
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.send_log(&self.log, &self.peers, &mut self.outputs);
        }
    }

    /// Handles committed entries of the log, which may be known in part.
    pub(in crate::machine) fn on_log(&mut self, from: NodeId, first: LogIndex, entries: Vec<Bytes>, term: u64) {
        let last = LogIndex((first.0 + entries.len() as u64).saturating_sub(1));
        for (at, entry) in entries.into_iter().enumerate() {
            let index = LogIndex(first.0 + at as u64);
            if index > self.log.state().next() && self.arrival.is_joining() {
                // Earlier entries were taken for a stranger's.
                return self.coordinator().send_follow(from);
            }
            if index > self.log.state().next() {
                return self.outputs.close_link(from, format!("the control log has a gap before entry {index}"));
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
                self.rejoin().notice_forgotten();
                if node == self.identity.me && run == self.identity.run {
                    self.on_incarnated(incarnation);
                }
                if let Some(mut creation) = self.creation() {
                    creation.install_first();
                }
                self.retry_claim();
                self.view_change().on_incarnation(node);
                self.view_change().replace_stale();
            }
            Applied::Installed { view, before, cut, dropped } => {
                self.installing().report_dropped(&dropped);
                self.on_view(view, before.as_deref().map_or(Before::Nothing, |view| Before::View { view, cut: &cut }));
                self.rejoin().notice_forgotten();
            }
            Applied::Outdated => self.view_change().restart(),
            Applied::Kickstarted(plan) => self.phases().on_kickstart(plan),
            Applied::Grace => self.phases().enter_grace(),
            Applied::Reported { node, result, report } => {
                self.event(Event::Reported { node, result, report });
                self.divergence().compare_final();
                self.close().try_close();
            }
            Applied::Closed => self.on_closed(),
            Applied::Left { node } => {
                if node != self.identity.me {
                    self.event(Event::Left { node });
                }
                self.reconfigure();
            }
            Applied::Level => self.log.check_level(&self.identity)?,
            #[cfg(feature = "next-version")]
            Applied::Next => self.storage.records.keep(Record::Next),
            Applied::Nothing => {}
        }
        self.leaving().try_finish();
        Ok(())
    }

    /// Notes this process's incarnation in the log.
    pub(in crate::machine) fn on_incarnated(&mut self, incarnation: Incarnation) {
        self.identity.incarnation = incarnation;
        self.send_rejoin();
        if self.closing.is_wanted() {
            // Before, there was no group to send the request to.
            self.on_close_request();
        }
    }

    /// Handles a state of the log, or stops for good if it is unreadable.
    pub(in crate::machine) fn on_log_state_or_halt(&mut self, index: LogIndex, term: u64, encoded: Bytes) {
        if let Err(error) = self.on_log_state(index, term, encoded) {
            self.halt_at_log(index, error);
        }
    }

    /// Handles a state of the log from a node that does not keep the entries before it.
    pub(in crate::machine) fn on_log_state(
        &mut self,
        index: LogIndex,
        term: u64,
        encoded: Bytes,
    ) -> Result<(), CommandError> {
        if let Some(voter) = self.log.voter_mut() {
            // Its leader may have died before it reported that.
            voter.learn_committed(index, term);
        }
        if index < self.log.state().next() {
            return Ok(());
        }
        let before = self.log.state().view().cloned();
        let skipped = self.log.skip_to(index, encoded.clone(), self.identity.rules)?;
        self.log.check_level(&self.identity)?;
        self.log.set_term(term);
        self.storage.records.keep(Record::Log { index, term, state: encoded });
        let listed = self.log.incarnation_of(&self.identity);
        if let Some(incarnation) = listed.filter(|listed| *listed != self.identity.incarnation) {
            self.on_incarnated(incarnation);
        }
        self.retry_claim();
        self.stay_off_ring();
        let view = self.log.state().view().cloned();
        if let Some(view) = view.filter(|view| before.as_ref().is_none_or(|before| before.id < view.id)) {
            self.pass_into(view, before.as_deref());
        }
        let (kickstarted, grace) = self.log.state().phases();
        if let Some(plan) = kickstarted {
            self.phases().on_kickstart(plan);
        }
        if grace {
            self.phases().enter_grace();
        }
        self.rejoin().notice_forgotten();
        self.tell_reports(&skipped.known_reports);
        if self.log.state().is_closed() && !skipped.was_closed {
            self.on_closed();
        }
        self.leaving().try_finish();
        Ok(())
    }

    /// Reports the complete results in the log's state, except those that were known before.
    pub(in crate::machine) fn tell_reports(&mut self, known: &[NodeId]) {
        let fresh = self.log.state().reports().filter(|(node, ..)| !known.contains(node));
        let said = fresh.map(|(node, result, report)| Event::Reported { node, result, report: report.clone() });
        let said: Vec<Event> = said.collect();
        said.into_iter().for_each(|event| self.event(event));
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
            self.installing().report_dropped(&dropped);
        }
        self.on_view(view, before);
    }
    /// Handles a view that the log installs.
    pub(in crate::machine) fn on_view(&mut self, view: Arc<View>, before: Before<'_>) {
        let installed = self.installing().begin(&view, before);
        self.links().on_view(&view);
        self.phases().on_view(&view);
        self.installing().enter(&view, &installed);
        let follows = installed.follows(self.catch_up.fetches.is_fetching());
        if view.last {
            self.close().on_last_view();
        }
        if installed.is_complete() && view.last && follows {
            self.on_final(None);
        } else if !installed.is_complete() && follows {
            self.fetch().start(&view);
        }
        if installed.rank.is_none() && !view.last {
            if installed.was_member && !self.closing.departure().is_wanted() {
                self.event(Event::Evicted { view: view.id });
            }
            self.send_rejoin();
        }
        if view.last && self.arrival.observes() {
            self.close().send_report();
        }
        if self.is_coordinator() {
            self.view_change().finish(&view);
            self.let_go();
            self.on_early_reports(&view);
        }
    }
}
