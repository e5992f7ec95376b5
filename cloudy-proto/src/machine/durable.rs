//! `Disk`: output of records, and actions that follow their sync (`protocol.md` §3.2, §6.2, §7.2, §7.4).

use crate::config::Durability;
use crate::due::Due;
use crate::id::{Index, ViewId};
use crate::io::Output;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::storage::Storage;
use crate::machine::timers::{Timer, Timers};
use crate::member::Start;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::stored::{Record, StoredBase};

/// Puts out records, and handles their syncs.
pub(super) struct DurableHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
    pub(super) due: &'a mut Due,
}

impl DurableHandler<'_> {
    /// Outputs all records that were added after the last output, together.
    pub(super) fn give_out(&mut self) {
        self.keep_checkpoint();
        self.drop_oldest();
        let records = self.storage.records.take();
        let consensus = self.log.voter().and_then(|voter| voter.unsynced());
        let (ends, now) = (self.plane.message_ends(), self.timers.now());
        if let Some(ticket) = self.storage.syncs.next_ticket(&records, consensus, ends, now) {
            self.outputs.push(Output::Persist { ticket, records });
        }
    }

    /// Handles the next synced output up to a ticket; none if there are no more. True if this member is complete with it.
    pub(super) fn next_synced(&mut self, ticket: u64) -> Option<bool> {
        let sync = self.storage.syncs.next_due(ticket)?;
        if let Some(voter) = self.log.voter_mut() {
            let is_its_own = self.identity.rules.holds(Rule::TicketIsOfItsState);
            voter.persisted(if is_its_own { sync.consensus } else { self.storage.syncs.consensus() });
        }
        let member = self.plane.member_mut();
        if let Some(((view, ends), member)) = sync.ends.zip(member)
            && member.view.id == view
        {
            member.synced(&ends, self.due);
        }
        Some(sync.fetched.is_some_and(|(view, first)| self.complete(view, first)))
    }

    /// Handles a result that was fetched up to the first index of the present view: this member is complete once that is
    /// synced. True if it is complete at once.
    pub(super) fn on_fetched_all(&mut self, view: ViewId, first: Index) -> bool {
        self.storage.records.keep(Record::Complete { view, first });
        if self.identity.durability == Durability::Memory || !self.identity.rules.holds(Rule::CompleteIsSynced) {
            return self.complete(view, first);
        }
        self.storage.syncs.on_fetched_all(view, first);
        false
    }

    /// True if this node is a member of the view.
    fn complete(&mut self, view: ViewId, first: Index) -> bool {
        let before = self.result.state().end_before(first);
        let Some(member) = self.plane.member_mut().filter(|member| member.view.id == view) else { return false };
        member.complete(Start { first, before });
        // The others learn of it at once: a member that leaves may wait for it.
        self.timers.set(Timer::Heartbeat, self.timers.now());
        true
    }
}

/// The part of the result that stays on the disk.
impl DurableHandler<'_> {
    /// Stores the newest checkpoint.
    fn keep_checkpoint(&mut self) {
        let newest =
            self.result.state().newest_base().filter(|newest| newest.index() > self.storage.retention.newest());
        let Some(newest) = newest else { return };
        let base = StoredBase { ends: self.plane.message_ends(), ..newest.clone() };
        let instead_of = self.storage.retention.add(base.clone());
        self.storage.records.keep(Record::Checkpoint { base, instead_of });
    }

    /// Drops the oldest part of the stored result, if that is longer than its maximum. With a snapshot the application
    /// determines what is kept.
    fn drop_oldest(&mut self) {
        let end_bytes = self.result.state().bytes();
        if !self.storage.retention.is_too_long(end_bytes) || self.storage.snapshot.is_some() {
            return;
        }
        let Some(held_by_all) = self.held_by_all() else { return };
        let Some(mut base) = self.storage.retention.new_beginning(end_bytes, held_by_all).cloned() else { return };
        if !self.identity.rules.holds(Rule::BaseHasLastNumbers) {
            base.base.last_numbers.clone_from(self.result.state().last_seqs());
        }
        self.storage.retention.begin_at(&base);
        self.storage.records.keep(Record::Begin(base));
    }

    /// The index up to which no member of the present view lacks anything, or would lack it after a restart: a complete
    /// member has stored everything before the view, and everything that it has confirmed. The length of a result that
    /// is being fetched does not show what is on its disk.
    fn held_by_all(&self) -> Option<Index> {
        let member = self.plane.member().filter(|member| member.is_complete())?;
        if !self.identity.rules.holds(Rule::DeletesWhatAllHold) {
            return Some(self.result.state().index());
        }
        let mut others = member.view.ring.iter().filter(|other| other.node != self.identity.me);
        others.try_fold(self.result.state().index(), |all, other| {
            let said = self.peers.heartbeat(other.node)?;
            (said.complete && said.index >= member.first()).then(|| all.min(said.index))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::machine::Machine;
    use crate::machine::tests::{alone, drain, pair};

    fn tickets(machine: &mut Machine) -> Vec<u64> {
        let ticket = |output| match output {
            Output::Persist { ticket, .. } => Some(ticket),
            _ => None,
        };
        drain(machine).into_iter().filter_map(ticket).collect()
    }

    #[test]
    fn records_are_emitted_together_and_a_sync_counts_once() {
        let mut machine = alone(Parameters { durability: Durability::Disk, ..Parameters::default() });
        [1, 2].into_iter().for_each(|view| machine.storage.records.keep(Record::Wedged { view: ViewId(view) }));
        machine.durable().give_out();
        let tickets = tickets(&mut machine);
        let [ticket] = tickets[..] else { panic!("{tickets:?}") };
        machine.durable().give_out();
        assert!(drain(&mut machine).is_empty(), "nothing is new");
        assert_eq!(machine.durable().next_synced(ticket - 1), None);
        assert_eq!(machine.durable().next_synced(ticket), Some(false));
        assert_eq!(machine.durable().next_synced(ticket), None);
    }

    #[test]
    fn a_member_is_complete_at_once_in_memory_and_after_the_sync_on_disk() {
        let (_, mut member) = pair(Parameters::default());
        assert!(!member.durable().on_fetched_all(ViewId(2), Index(1)), "another view");
        assert!(member.durable().on_fetched_all(ViewId(1), Index(1)));
        let mut machine = alone(Parameters { durability: Durability::Disk, ..Parameters::default() });
        assert!(!machine.durable().on_fetched_all(ViewId(1), Index(1)));
        machine.durable().give_out();
        let ticket = tickets(&mut machine)[0];
        assert_eq!(machine.durable().next_synced(ticket), Some(true));
    }
}
