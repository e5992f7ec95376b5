//! The control log's older entries, replaced by what they come to (`protocol.md` §6).

use std::sync::Arc;

use bytes::Bytes;

use crate::id::{LogIndex, NodeId, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::install::Before;
use crate::stored::Record;
use crate::view::View;
use crate::wire::CommandError;

impl Machine {
    /// What the log up to an entry comes to, from a node that does not keep these entries.
    pub(super) fn skip_log(&mut self, index: LogIndex, term: u64, encoded: Bytes) -> Result<(), CommandError> {
        if let Some(voter) = self.log.voter_mut() {
            // Its leader may have died before it said so.
            voter.learn_committed(index, term);
        }
        if index < self.log.state().next() {
            return Ok(());
        }
        let before = self.log.state().view().cloned();
        let skipped = self.log.skip_to(index, encoded.clone(), self.identity.rules)?;
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
        self.take_claim();
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
        self.try_go();
        Ok(())
    }

    /// What the log's state says of results that are complete, but for those that were known before.
    pub(super) fn tell_reports(&mut self, known: &[NodeId]) {
        let fresh = self.log.state().reports().filter(|(node, ..)| !known.contains(node));
        let said = fresh.map(|(node, result, report)| Event::Reported { node, result, report: report.clone() });
        let said: Vec<Event> = said.collect();
        said.into_iter().for_each(|event| self.event(event));
    }

    /// A view is in force; entries before the one that installs it were skipped, and views among them, perhaps.
    fn pass_into(&mut self, view: Arc<View>, before: Option<&View>) {
        let (cut, dropped) = self.log.state().passage();
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
