//! `Disk`: outputs that wait for their sync (`protocol.md` §3.2, §6.2).

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::{Index, NodeId, Round, ViewId};
use crate::path::Peak;
use crate::records::Records;
use crate::stored::{Record, StoredBody, StoredEntry};
use crate::time::Time;

/// Cost of a stored entry beside its payloads.
const RECORD_BYTES: u64 = 256;

/// Actions that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Syncs {
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
    pub(super) fn next_due(&mut self, ticket: u64) -> Option<Sync> {
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

    /// The number of the last consensus state that was output.
    pub(super) fn consensus(&self) -> u64 {
        self.consensus
    }

    /// Notes that the result was fetched up to a view's first index: the next output completes it.
    pub(super) fn on_fetched_all(&mut self, view: ViewId, first: Index) {
        self.fetched = Some((view, first));
    }

    /// The ticket for an output of these records, with the state that is durable after its sync. None if nothing is new.
    pub(super) fn next_ticket(
        &mut self,
        records: &[Record],
        consensus: Option<u64>,
        ends: Option<(ViewId, Vec<Round>)>,
        now: Time,
    ) -> Option<u64> {
        let consensus = consensus.unwrap_or(self.consensus);
        let ends = ends.filter(|ends| self.ends.as_ref() != Some(ends));
        let fetched = self.fetched.take();
        if records.is_empty() && ends.is_none() && fetched.is_none() && consensus == self.consensus {
            return None;
        }
        self.consensus = consensus;
        if ends.is_some() {
            self.ends.clone_from(&ends);
        }
        self.ticket += 1;
        let fetched_bytes = fetched_bytes(records);
        self.fetched_bytes += fetched_bytes;
        let ticket = self.ticket;
        self.waiting.push_back(Sync { ticket, given_at: now, consensus, ends, fetched, fetched_bytes });
        Some(ticket)
    }

    fn has_synced(&self, ticket: u64) -> bool {
        ticket <= self.ticket && self.waiting.front().is_none_or(|sync| sync.ticket > ticket)
    }
}

/// The effect of the sync of a ticket.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) ticket: u64,
    pub(super) given_at: Time,
    pub(super) consensus: u64,
    pub(super) ends: Option<(ViewId, Vec<Round>)>,
    pub(super) fetched: Option<(ViewId, Index)>,
    pub(super) fetched_bytes: u64,
}

/// Bytes of fetched entries and states among these records while they wait for the disk.
pub(super) fn fetched_bytes(records: &[Record]) -> u64 {
    let bytes = |record: &Record| match record {
        Record::Entry(StoredEntry { body: StoredBody::Here(body), .. }) => body.len() as u64 + RECORD_BYTES,
        Record::SnapshotPart { part, .. } => part.len() as u64 + RECORD_BYTES,
        _ => 0,
    };
    records.iter().map(bytes).sum()
}
