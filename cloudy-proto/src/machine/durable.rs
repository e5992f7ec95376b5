//! `Disk`: output of records, and actions that follow their sync (`protocol.md` §3.2, §6.2, §7.2).

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::Durability;
use crate::id::{Index, NodeId, Round, ViewId};
use crate::io::Output;
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::member::Start;
use crate::path::Peak;
use crate::records::Records;
use crate::rules::Rule;
use crate::stored::{Record, StoredBody, StoredEntry};
use crate::time::Time;
use crate::view::{InstalledView, View};

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

    fn finished(&mut self, now: Time) {
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
fn fetched_bytes(records: &[Record]) -> u64 {
    let bytes = |record: &Record| match record {
        Record::Entry(StoredEntry { body: StoredBody::Here(body), .. }) => body.len() as u64 + RECORD_BYTES,
        _ => 0,
    };
    records.iter().map(bytes).sum()
}

impl Machine {
    /// Outputs all records that were added after the last output, together.
    pub(super) fn give_out_records(&mut self) {
        if self.identity.durability == Durability::Memory {
            return;
        }
        self.keep_checkpoint();
        self.let_stored_go();
        let records = self.storage.records.take();
        let consensus = self.log.voter().and_then(|voter| voter.unsynced()).unwrap_or(self.storage.syncs.consensus);
        let ends = self.message_ends().filter(|ends| self.storage.syncs.ends.as_ref() != Some(ends));
        let fetched = self.storage.syncs.fetched.take();
        if records.is_empty() && ends.is_none() && fetched.is_none() && consensus == self.storage.syncs.consensus {
            return;
        }
        self.storage.syncs.consensus = consensus;
        if ends.is_some() {
            self.storage.syncs.ends.clone_from(&ends);
        }
        self.storage.syncs.ticket += 1;
        let ticket = self.storage.syncs.ticket;
        let fetched_bytes = fetched_bytes(&records);
        self.storage.syncs.fetched_bytes += fetched_bytes;
        let given_at = self.timers.now();
        self.storage.syncs.waiting.push_back(Sync { ticket, given_at, consensus, ends, fetched, fetched_bytes });
        self.outputs.push(Output::Persist { ticket, records });
    }

    /// Handles the sync of all records up to a ticket.
    pub(super) fn persisted(&mut self, ticket: u64) {
        self.storage.syncs.finished(self.timers.now());
        while let Some(sync) = self.storage.syncs.next_due(ticket) {
            if let Some(voter) = self.log.voter_mut() {
                let is_its_own = self.identity.rules.holds(Rule::TicketIsOfItsState);
                voter.persisted(if is_its_own { sync.consensus } else { self.storage.syncs.consensus });
            }
            let member = self.plane.member_mut();
            if let Some(((view, ends), member)) = sync.ends.zip(member)
                && member.view.id == view
            {
                member.synced(&ends, &mut self.due);
            }
            if let Some((view, first)) = sync.fetched {
                self.complete_at(view, first);
            }
        }
        self.view_change().on_synced();
        self.fetch_held_back();
    }

    /// Bytes of the fetched result that wait for the disk.
    pub(super) fn unsynced_fetch_bytes(&self) -> u64 {
        self.storage.syncs.fetched_bytes + fetched_bytes(self.storage.records.waiting())
    }

    /// Notes that the result was fetched up to the first index of the present view: this member is complete once that
    /// is synced.
    pub(super) fn fetched_all(&mut self, view: &Arc<View>, first: Index) {
        self.delivery().begin_view(InstalledView { first, view: Arc::clone(view) });
        let view = view.id;
        self.storage.records.keep(Record::Complete { view, first });
        if self.identity.durability == Durability::Memory || !self.identity.rules.holds(Rule::CompleteIsSynced) {
            self.complete_at(view, first);
        } else {
            self.storage.syncs.fetched = Some((view, first));
        }
    }

    fn complete_at(&mut self, view: ViewId, first: Index) {
        let before = self.result.state().end_before(first);
        if let Some(member) = self.plane.member_mut().filter(|member| member.view.id == view) {
            member.complete(Start { first, before });
            // The others learn of it at once: a member that leaves may wait for it.
            self.set_timer(Timer::Heartbeat, Duration::ZERO);
            self.let_go();
        }
    }
}
