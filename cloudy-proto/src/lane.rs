//! One member's slots of one view, as seen at one node (`protocol.md` §3).

use std::collections::VecDeque;

use crate::config::Durability;
use crate::id::Round;
use crate::limits::ROUND_MAX;
use crate::slot::{Batch, Slot};

/// A message slot outside the result.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) round: Round,
    pub(crate) prev: Round,
    pub(crate) batch: Batch,
}

/// The frontiers of a lane, and its message slots outside the result. Rounds below the frontier without a message are
/// skips.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    frontier: Round,
    /// The round after the last message slot: `prev` of the next.
    message_end: Round,
    approved: Round,
    /// Message slots below this round are synced; with `Memory` all are from the start.
    synced: Round,
    held: VecDeque<Held>,
    /// Number of slots in `held`, from the front, that are confirmed to the owner.
    held_confirmed: usize,
    /// The round below which all is confirmed to the owner. Only messages count; skips above it need no confirmation of
    /// their own.
    confirmed: Round,
    /// The cost of the confirmed slots of `held`.
    confirmed_bytes: u64,
    /// The cost of the other slots of `held`.
    unconfirmed_bytes: u64,
}

/// A peer's frame contradicts its lane: its link is closed, and the lane is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaneBreak {
    #[error("rounds {frontier}.. of the lane are missing before its frame with prev {prev}")]
    Gap { frontier: Round, prev: Round },
    #[error("prev is {prev}, but the lane's last message slot ended at {message_end}")]
    Chain { prev: Round, message_end: Round },
    #[error("round {0} is beyond what any lane reaches")]
    TooFar(Round),
}

impl Lane {
    pub(crate) fn new(durability: Durability) -> Self {
        let synced = if durability == Durability::Memory { Round(u64::MAX) } else { Round(0) };
        Self { synced, ..Self::default() }
    }

    /// A lane that an earlier incarnation stored: all of it up to `message_end` has passed the cursor.
    pub(crate) fn restored(message_end: Round) -> Self {
        let end = message_end;
        Self { frontier: end, message_end: end, approved: end, confirmed: end, synced: end, ..Self::default() }
    }

    /// Notes that messages below `end` are synced.
    pub(crate) fn sync(&mut self, end: Round) {
        self.synced = self.synced.max(end);
    }

    /// Whether every held message slot is synced.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced >= self.message_end
    }

    /// The first round that is not stored: held and, for a message, synced. Skips need no sync.
    pub(crate) fn stored(&self) -> Round {
        let first = if self.is_synced() { None } else { self.held_from(self.synced).next() };
        first.map_or(self.frontier, |held| held.round)
    }

    /// The first round that is not held; everything below is.
    pub(crate) fn frontier(&self) -> Round {
        self.frontier
    }

    pub(crate) fn message_end(&self) -> Round {
        self.message_end
    }

    pub(crate) fn approved(&self) -> Round {
        self.approved
    }

    pub(crate) fn confirmed(&self) -> Round {
        self.confirmed
    }

    /// Bytes that were confirmed to the owner and are not in the result.
    pub(crate) fn confirmed_bytes(&self) -> u64 {
        self.confirmed_bytes
    }

    /// Bytes of the owner in flight that are not confirmed to it.
    pub(crate) fn unconfirmed_bytes(&self) -> u64 {
        self.unconfirmed_bytes
    }

    pub(crate) fn held_slots(&self) -> usize {
        self.held.len()
    }

    /// The first slot outside the result that is not known to be a skip: a message, or the frontier.
    pub(crate) fn first_open(&self) -> Round {
        self.held.front().map_or(self.frontier, |held| held.round)
    }

    /// The first message slot outside the result, if it is approved.
    pub(crate) fn first_approved(&self) -> Option<&Held> {
        self.held.front().filter(|held| held.round < self.approved)
    }

    /// The message slots from a round on.
    pub(crate) fn held_from(&self, round: Round) -> impl Iterator<Item = &Held> {
        let start = self.held.partition_point(|held| held.round < round);
        self.held.range(start..)
    }

    /// The last received message slot, if it is not in the result.
    pub(crate) fn newest(&self) -> Option<&Held> {
        self.held.back()
    }

    /// The first message slot that is not confirmed to the owner.
    pub(crate) fn first_unconfirmed(&self) -> Option<&Held> {
        self.held.get(self.held_confirmed)
    }

    /// Adds a message slot; false if it is held already.
    #[inline]
    pub(crate) fn take_slot(&mut self, slot: Slot, gaps_are_skips: bool) -> Result<bool, LaneBreak> {
        if slot.round < self.frontier {
            return Ok(false);
        }
        self.check(slot.prev, slot.round, gaps_are_skips)?;
        self.frontier = slot.round.next();
        self.message_end = self.frontier;
        self.unconfirmed_bytes += slot.batch.cost_bytes();
        self.held.push_back(Held { round: slot.round, prev: slot.prev, batch: slot.batch });
        Ok(true)
    }

    /// Adds skips, from `prev` up to `frontier`.
    pub(crate) fn take_skip(&mut self, prev: Round, frontier: Round, gaps_are_skips: bool) -> Result<(), LaneBreak> {
        if frontier > self.frontier {
            self.check(prev, frontier, gaps_are_skips)?;
            self.frontier = frontier;
        }
        Ok(())
    }

    fn check(&self, prev: Round, round: Round, gaps_are_skips: bool) -> Result<(), LaneBreak> {
        if round.0 > ROUND_MAX {
            return Err(LaneBreak::TooFar(round));
        }
        if gaps_are_skips {
            return Ok(());
        }
        if prev > self.frontier {
            return Err(LaneBreak::Gap { frontier: self.frontier, prev });
        }
        if prev != self.message_end {
            return Err(LaneBreak::Chain { prev, message_end: self.message_end });
        }
        Ok(())
    }

    /// Breaks [`Rule::SkippedRoundUnused`](crate::Rule): takes its skips back, and returns the first of them.
    pub(crate) fn unskip(&mut self) -> Round {
        self.frontier = self.message_end;
        self.frontier
    }

    /// Counts the first unconfirmed message slot as confirmed.
    pub(crate) fn confirm_one(&mut self) {
        let Some(held) = self.held.get(self.held_confirmed) else { return };
        self.confirmed = held.round.next();
        let cost = held.batch.cost_bytes();
        self.held_confirmed += 1;
        self.confirmed_bytes += cost;
        self.unconfirmed_bytes -= cost;
    }

    /// The round of a confirmation: all that is confirmed, and the skips behind it.
    pub(crate) fn confirmable(&self) -> Round {
        self.first_unconfirmed().map_or(self.frontier, |held| held.round)
    }

    pub(crate) fn approve(&mut self, frontier: Round) {
        self.approved = self.approved.max(frontier);
    }

    /// Removes the first message slot: it enters the result.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        let cost = held.batch.cost_bytes();
        if self.held_confirmed > 0 {
            self.held_confirmed -= 1;
            self.confirmed_bytes -= cost;
        } else {
            self.confirmed = self.confirmed.max(held.round.next());
            self.unconfirmed_bytes -= cost;
        }
        Some(held)
    }

    /// Drops what a view change excluded: every slot from the cut on is a skip, every one below is approved. Returns
    /// the dropped batches.
    pub(crate) fn cut(&mut self, cut: Round) -> impl Iterator<Item = Batch> + use<> {
        let keep = self.held.partition_point(|held| held.round < cut);
        let cost = |held: &Held| held.batch.cost_bytes();
        self.confirmed_bytes -= self.held.iter().take(self.held_confirmed).skip(keep).map(cost).sum::<u64>();
        self.unconfirmed_bytes -= self.held.iter().skip(keep.max(self.held_confirmed)).map(cost).sum::<u64>();
        self.held_confirmed = self.held_confirmed.min(keep);
        let dropped = self.held.split_off(keep);
        self.approved = self.approved.max(cut);
        dropped.into_iter().map(|held| held.batch)
    }

    /// Checks the order of the watermarks.
    pub(crate) fn validate(&self) {
        assert!(self.message_end <= self.frontier, "a message slot above the frontier");
        assert!(self.confirmed <= self.frontier, "confirmed what is not held");
        assert!(self.held_confirmed <= self.held.len());
        let confirmed: u64 = self.held.iter().take(self.held_confirmed).map(|held| held.batch.cost_bytes()).sum();
        let all: u64 = self.held.iter().map(|held| held.batch.cost_bytes()).sum();
        assert_eq!((confirmed, all - confirmed), (self.confirmed_bytes, self.unconfirmed_bytes));
        assert!(self.held.iter().zip(self.held.iter().skip(1)).all(|(a, b)| b.prev == a.round.next()));
    }
}
