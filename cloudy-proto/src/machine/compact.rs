//! The control log's older entries, replaced by what they come to (`protocol.md` §6).

use std::sync::Arc;

use bytes::Bytes;

use crate::control::{ControlState, Voter};
use crate::due::Cause;
use crate::id::{LogIndex, NodeId, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::install::Before;
use crate::stored::Record;
use crate::view::View;
use crate::wire::{CommandError, decode_log_state, encode_log_state};

impl Machine {
    /// Replaces older entries of the log by what they come to, once they are many, and tells another voter if it misses
    /// some of them.
    pub(super) fn compact_log(&mut self) {
        let too_many = |voter: &Voter| voter.kept() > self.log_entries_max as u64 || voter.wants_state();
        if self.state.kept() <= self.log_entries_max && !self.voter.as_ref().is_some_and(too_many) {
            return;
        }
        let last = LogIndex(self.state.next().0 - 1);
        let voter = self.voter.as_ref().filter(|voter| self.state.elector(voter.id()).is_some());
        // A log that others have told of further than this voter has applied it gives nothing to replace its own by.
        let in_step = voter.is_none_or(|voter| voter.applied() == last);
        let voter_full = voter.is_some_and(|voter| voter.kept() > self.log_entries_max as u64);
        let full = self.state.kept() > self.log_entries_max || voter_full;
        let wanted = voter.is_some_and(|voter| voter.wants_state());
        if !in_step || !(full || wanted) {
            return;
        }
        let state = encode_log_state(&self.state.log_state());
        let keep = self.log_entries_max / 2;
        let votes = voter.is_some();
        if let Some(voter) = self.voter.as_mut().filter(|_| votes && wanted) {
            voter.offer_state(state.clone());
        }
        if full {
            self.records.keep(Record::Log { index: last, term: self.log_term, state: state.clone() });
            if let Some(voter) = self.voter.as_mut().filter(|_| votes) {
                voter.compact(state.clone(), keep as u64);
                self.due.set(Cause::Outputs);
            }
            self.state.compact(state, keep);
        }
    }

    /// What the log up to an entry comes to, from a node that does not keep these entries.
    pub(super) fn skip_log(&mut self, index: LogIndex, term: u64, encoded: Bytes) -> Result<(), CommandError> {
        if let Some(voter) = &mut self.voter {
            // Its leader may have died before it said so.
            voter.learn_committed(index, term);
        }
        if index < self.state.next() {
            return Ok(());
        }
        let state = decode_log_state(&encoded)?;
        let before = self.state.view().cloned();
        let was_closed = self.state.is_closed();
        let known: Vec<NodeId> = self.state.reports().map(|(node, ..)| node).collect();
        let resumed = ControlState::resumed(self.identity.rules, index, state, encoded.clone());
        let _skipped = core::mem::replace(&mut self.state, resumed);
        #[cfg(feature = "mutations")]
        {
            self.state.history = _skipped.history;
        }
        self.log_term = term;
        self.records.keep(Record::Log { index, term, state: encoded });
        let listed = self
            .state
            .incarnation(self.identity.me)
            .filter(|_| self.state.is_latest_run(self.identity.me, self.identity.run));
        if let Some(incarnation) = listed.filter(|listed| *listed != self.identity.incarnation) {
            self.incarnated(incarnation);
        }
        self.take_claim();
        self.stay_off_ring();
        let view = self.state.view().cloned();
        if let Some(view) = view.filter(|view| before.as_ref().is_none_or(|before| before.id < view.id)) {
            self.pass_into(view, before.as_deref());
        }
        let (kickstarted, grace) = self.state.phases();
        if let Some(plan) = kickstarted {
            self.kickstarted(plan);
        }
        if grace {
            self.enter_grace();
        }
        self.notice_forgotten();
        self.tell_reports(&known);
        if self.state.is_closed() && !was_closed {
            self.closed();
        }
        self.try_go();
        Ok(())
    }

    /// What the log's state says of results that are complete, but for those that were known before.
    pub(super) fn tell_reports(&mut self, known: &[NodeId]) {
        let fresh = self.state.reports().filter(|(node, ..)| !known.contains(node));
        let said = fresh.map(|(node, result, report)| Event::Reported { node, result, report: report.clone() });
        let said: Vec<Event> = said.collect();
        said.into_iter().for_each(|event| self.event(event));
    }

    /// A view is in force; entries before the one that installs it were skipped, and views among them, perhaps.
    fn pass_into(&mut self, view: Arc<View>, before: Option<&View>) {
        let (cut, dropped) = self.state.passage();
        let (cut, dropped) = (cut.to_vec(), dropped.to_vec());
        let before = match before {
            None if view.id == ViewId(0).next() => Before::Nothing,
            Some(before) if view.id == before.id.next() => Before::View { view: before, cut: &cut },
            _ => Before::Skipped,
        };
        if !matches!(before, Before::Skipped) {
            self.dropped(&dropped);
        }
        self.install(view, before);
    }
}
