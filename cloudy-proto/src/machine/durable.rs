//! `Disk`: output of records, and actions that follow their sync (`protocol.md` §3.2, §6.2, §7.2).

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::Durability;
use crate::due::Due;
use crate::id::{Index, NodeId, Round, ViewId};
use crate::io::Output;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::retention::RetentionHandler;
use crate::machine::storage::Storage;
use crate::machine::timers::{Timer, Timers};
use crate::member::Start;
use crate::outputs::Outputs;
use crate::path::Peak;
use crate::records::Records;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::stored::{Record, StoredBody, StoredEntry};
use crate::time::Time;

/// Cost of a stored entry beside its payloads.
const RECORD_BYTES: u64 = 256;

/// Actions that wait for the disk.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    /// The ticket of the last output.
    ticket: u64,
    /// In order; at most one for each time that outputs were taken.
    waiting: VecDeque<Sync>,
    /// Bytes of fetched entries in all of them.
    fetched_bytes: u64,
    /// The number of the last consensus state that was output.
    consensus: u64,
    /// The end of each lane's messages in the last output.
    ends: Option<(ViewId, Vec<Round>)>,
    /// Set if the result was fetched up to a view's first index.
    fetched: Option<(ViewId, Index)>,
    /// The node that requested to wedge a view, and the ticket that the answer waits for.
    wedge_asked: Option<(NodeId, ViewId, u64)>,
    /// The longest recent sync, and the end of the last one.
    slowest: Peak,
    synced_at: Time,
}

impl Syncs {
    fn next_due(&mut self, ticket: u64) -> Option<Sync> {
        self.waiting.front().filter(|sync| sync.ticket <= ticket)?;
        let sync = self.waiting.pop_front()?;
        self.fetched_bytes -= sync.fetched_bytes;
        Some(sync)
    }

    /// Bytes of fetched entries that were output and are not synced.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Forgets the consensus state, because another voter replaces the one that output it.
    pub(super) fn forget_consensus(&mut self) {
        self.consensus = 0;
        self.waiting.iter_mut().for_each(|sync| sync.consensus = 0);
    }

    /// The duration of the sync at the front of the queue: it began when the one before it ended.
    fn pending(&self, now: Time) -> Duration {
        self.waiting.front().map_or(Duration::ZERO, |sync| now.since(sync.given_at.max(self.synced_at)))
    }

    /// The longest recent sync for a heartbeat, in milliseconds; a group in memory, which never syncs, has no cost for
    /// it.
    pub(super) fn slowest_ms(&self, now: Time) -> u32 {
        if self.ticket == 0 {
            return 0;
        }
        u32::try_from(self.slowest(now).as_millis()).unwrap_or(u32::MAX)
    }

    /// The longest recent sync, including one in progress.
    pub(super) fn slowest(&self, now: Time) -> Duration {
        self.slowest.at(now).max(self.pending(now))
    }

    pub(super) fn on_synced(&mut self, now: Time) {
        self.slowest.rise(self.pending(now), now);
        self.synced_at = now;
    }

    /// Notes a request to wedge a view: the answer waits for all records so far. True if they are synced.
    pub(super) fn on_wedge_request(&mut self, from: NodeId, view: ViewId, records: &Records) -> bool {
        let has_more = !records.is_empty() || self.fetched.is_some();
        let ticket = self.ticket + u64::from(has_more);
        self.wedge_asked = Some((from, view, ticket));
        self.has_synced(ticket)
    }

    /// Takes the request to wedge a view. `waits`: only if all records that the answer waits for are synced.
    pub(super) fn take_wedge_request(&mut self, waits: bool) -> Option<(NodeId, ViewId)> {
        let (from, view, ticket) = self.wedge_asked?;
        if waits && !self.has_synced(ticket) {
            return None;
        }
        self.wedge_asked = None;
        Some((from, view))
    }

    fn has_synced(&self, ticket: u64) -> bool {
        ticket <= self.ticket && self.waiting.front().is_none_or(|sync| sync.ticket > ticket)
    }
}

/// The effect of the sync of a ticket.
#[derive(Debug)]
struct Sync {
    ticket: u64,
    given_at: Time,
    consensus: u64,
    ends: Option<(ViewId, Vec<Round>)>,
    fetched: Option<(ViewId, Index)>,
    fetched_bytes: u64,
}

/// Bytes of fetched entries among these records while they wait for the disk.
pub(super) fn fetched_bytes(records: &[Record]) -> u64 {
    let bytes = |record: &Record| match record {
        Record::Entry(StoredEntry { body: StoredBody::Here(body), .. }) => body.len() as u64 + RECORD_BYTES,
        _ => 0,
    };
    records.iter().map(bytes).sum()
}

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
        let mut retention = RetentionHandler {
            identity: self.identity,
            peers: self.peers,
            plane: self.plane,
            result: self.result,
            storage: self.storage,
        };
        retention.keep_checkpoint();
        retention.drop_oldest();
        let records = self.storage.records.take();
        let syncs = &mut self.storage.syncs;
        let consensus = self.log.voter().and_then(|voter| voter.unsynced()).unwrap_or(syncs.consensus);
        let ends = self.plane.message_ends().filter(|ends| syncs.ends.as_ref() != Some(ends));
        let fetched = syncs.fetched.take();
        if records.is_empty() && ends.is_none() && fetched.is_none() && consensus == syncs.consensus {
            return;
        }
        syncs.consensus = consensus;
        if ends.is_some() {
            syncs.ends.clone_from(&ends);
        }
        syncs.ticket += 1;
        let ticket = syncs.ticket;
        let fetched_bytes = fetched_bytes(&records);
        syncs.fetched_bytes += fetched_bytes;
        let given_at = self.timers.now();
        syncs.waiting.push_back(Sync { ticket, given_at, consensus, ends, fetched, fetched_bytes });
        self.outputs.push(Output::Persist { ticket, records });
    }

    /// Handles the next synced output up to a ticket; none if there are no more. True if this member is complete with it.
    pub(super) fn next_synced(&mut self, ticket: u64) -> Option<bool> {
        let sync = self.storage.syncs.next_due(ticket)?;
        if let Some(voter) = self.log.voter_mut() {
            let is_its_own = self.identity.rules.holds(Rule::TicketIsOfItsState);
            voter.persisted(if is_its_own { sync.consensus } else { self.storage.syncs.consensus });
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
        self.storage.syncs.fetched = Some((view, first));
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
    fn records_are_put_out_together_and_a_sync_counts_once() {
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
