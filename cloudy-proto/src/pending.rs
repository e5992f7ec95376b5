//! The pending table: own slots, their recipients and the tally of confirmations (`protocol.md` §3.1).

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::{NodeId, Rank, Round, Seq};
use crate::time::Time;
use crate::view::View;

/// An own message slot outside the own result.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) round: Round,
    pub(crate) first_seq: Seq,
    pub(crate) count: u32,
    pub(crate) cost_bytes: u64,
    pub(crate) sent_at: Time,
    /// By rank: the time at which its confirmation was counted.
    confirmed_at: Vec<Option<Time>>,
}

impl Record {
    /// A slot that was sent at a time, without confirmations. `payloads` are the first sequence number and the count.
    pub(crate) fn new(round: Round, payloads: (Seq, u32), cost_bytes: u64, sent_at: Time, members: usize) -> Self {
        let (first_seq, count) = payloads;
        Self { round, first_seq, count, cost_bytes, sent_at, confirmed_at: vec![None; members] }
    }

    /// The members that have confirmed, each with the time from the sending of the slot.
    pub(crate) fn confirmations(&self, view: &View) -> Vec<(NodeId, Duration)> {
        let counted = view.ring.iter().zip(&self.confirmed_at);
        counted.filter_map(|(member, at)| at.map(|at| (member.node, at.since(self.sent_at)))).collect()
    }

    /// The members that have not confirmed.
    pub(crate) fn waits_for(&self, view: &View) -> Vec<NodeId> {
        let missing = view.ring.iter().zip(&self.confirmed_at).filter(|(_, at)| at.is_none());
        missing.map(|(member, _)| member.node).collect()
    }
}

/// A recipient confirmed a slot that was never sent: its link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("round {confirmed} is confirmed, but the lane ends at {end}")]
pub(crate) struct ConfirmedTooMuch {
    confirmed: Round,
    end: Round,
}

/// Own slots outside the own result, and the confirmations of each recipient.
#[derive(Debug)]
pub(crate) struct PendingTable {
    records: VecDeque<Record>,
    bytes: u64,
    /// By rank: all of the own lane below this round is confirmed.
    confirmed: Vec<Round>,
    /// The members whose confirmations count: all.
    recipients: Vec<Rank>,
}

impl PendingTable {
    pub(crate) fn new(members: usize, recipients: Vec<Rank>) -> Self {
        Self { records: VecDeque::new(), bytes: 0, confirmed: vec![Round(0); members], recipients }
    }

    /// Number of slots outside the own result.
    pub(crate) fn slots(&self) -> usize {
        self.records.len()
    }

    /// Their cost.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn confirmed(&self, rank: Rank) -> Round {
        self.confirmed[rank.at()]
    }

    pub(crate) fn record(&mut self, round: Round, payloads: (Seq, u32), cost_bytes: u64, sent_at: Time) {
        self.bytes += cost_bytes;
        self.records.push_back(Record::new(round, payloads, cost_bytes, sent_at, self.confirmed.len()));
    }

    /// Counts a confirmation. `end` is the own lane's frontier.
    pub(crate) fn confirm(
        &mut self,
        rank: Rank,
        frontier: Round,
        end: Round,
        now: Time,
    ) -> Result<(), ConfirmedTooMuch> {
        if frontier > end {
            return Err(ConfirmedTooMuch { confirmed: frontier, end });
        }
        let before = self.confirmed[rank.at()];
        if frontier > before {
            self.confirmed[rank.at()] = frontier;
            let first = self.records.partition_point(|record| record.round < before);
            for record in self.records.range_mut(first..).take_while(|record| record.round < frontier) {
                record.confirmed_at[rank.at()] = Some(now);
            }
        }
        Ok(())
    }

    /// The round below which every recipient has confirmed all of the own lane.
    #[inline]
    pub(crate) fn approved(&self) -> Round {
        self.recipients.iter().map(|rank| self.confirmed[rank.at()]).min().unwrap_or_default()
    }

    /// The slots that wait for confirmations, oldest first.
    pub(crate) fn unapproved(&self) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|record| record.round < self.approved());
        self.records.range(first..)
    }

    /// Removes the oldest record: its slot enters the own result.
    pub(crate) fn pop(&mut self, round: Round) -> Option<Record> {
        let record = self.records.pop_front()?;
        debug_assert_eq!(record.round, round, "own slots enter the result in their order");
        self.bytes -= record.cost_bytes;
        Some(record)
    }
}
