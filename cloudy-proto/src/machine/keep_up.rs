//! Whether a node that fetches keeps up with the group, and when it is near enough for a place on the ring
//! (`protocol.md` §7.9).

use core::time::Duration;

use crate::id::Index;
use crate::io::CannotKeepUp;
use crate::machine::pace::{in_time, per_second};
use crate::time::Time;
use crate::wire::Rates;

/// A node is near if it can fetch the missing part within this part of the stall timeout.
const NEAR_PART: u32 = 8;
/// The factor up to which a near node stays near, so that no view change starts for a node that is not near at its end.
const NEAR_STAYS: u32 = 2;
/// The minimum time over which the growth of the result is measured.
const GROWTH_TIME_MIN: Duration = Duration::from_millis(200);
/// The time over which it is measured whether a node keeps up, in halves of the stall timeout.
const KEEP_UP_HALF_STALLS: u32 = 5;

/// The progress of a node and its source at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) at: Time,
    /// Number of received bytes.
    pub(super) received: u64,
    pub(super) here: Index,
    pub(super) end: Index,
    /// Number of missing bytes; none if the source does not know.
    pub(super) ahead: Option<u64>,
}

impl Progress {
    /// The received bytes per second after an earlier moment, and the growth of the result. If a source does not know
    /// bytes, a message counts as much as a received one.
    fn rates_since(self, before: Self) -> Option<CannotKeepUp> {
        let took = self.at.since(before.at);
        let received = self.received.saturating_sub(before.received);
        let grown = match (before.ahead, self.ahead) {
            (Some(lacked), Some(lacks)) => (received + lacks).saturating_sub(lacked),
            _ => {
                let messages = self.here.0.saturating_sub(before.here.0);
                let grown = u128::from(self.end.0.saturating_sub(before.end.0)) * u128::from(received);
                u64::try_from(grown.checked_div(messages.into())?).unwrap_or(u64::MAX)
            }
        };
        Some(CannotKeepUp { fetched: per_second(received, took), grown: per_second(grown, took) })
    }
}

/// The state of a fetch, and of the result that it follows.
#[derive(Debug, Default)]
pub(super) struct KeepUp {
    /// The time of the last measurement of the growth, and whether the node keeps up.
    growth_from: Option<Progress>,
    keeps_from: Option<Progress>,
    /// The growth of the result in bytes per second.
    growth: Option<u64>,
    /// The received bytes per second while there is something to fetch.
    rate: u64,
    is_near: bool,
    /// The node could not keep up, and has not been on the ring since: the latest rates of that, and the highest at
    /// which it has fetched since.
    slower: Option<Rates>,
}

impl KeepUp {
    pub(super) fn slower(&self) -> Option<Rates> {
        self.slower
    }

    pub(super) fn is_near(&self) -> bool {
        self.is_near
    }

    /// Notes a view without this node, which was too late for it.
    pub(super) fn begin_view(&mut self) {
        self.is_near = false;
    }

    /// Notes the received bytes per second of one trip.
    pub(super) fn trip(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// Notes a source's progress. Returns both rates if the node is not near and comes no nearer.
    pub(super) fn measure(&mut self, now: Progress, stall_timeout: Duration) -> Option<CannotKeepUp> {
        let growth_from = *self.growth_from.get_or_insert(now);
        if now.at.since(growth_from.at) >= GROWTH_TIME_MIN {
            self.growth = now.rates_since(growth_from).map(|rates| rates.grown);
            self.growth_from = Some(now);
        }
        let limit = stall_timeout / NEAR_PART;
        self.is_near = match now.ahead {
            Some(0) => true,
            Some(ahead) if self.is_near => ahead <= in_time(self.rate, limit * NEAR_STAYS),
            Some(ahead) => ahead <= in_time(self.rate, limit) && self.growth.is_some_and(|growth| self.rate > growth),
            None => false,
        };
        let keeps_from = *self.keeps_from.get_or_insert(now);
        if now.at.since(keeps_from.at) < stall_timeout * KEEP_UP_HALF_STALLS / 2 {
            return None;
        }
        self.keeps_from = Some(now);
        let rates = now.rates_since(keeps_from)?;
        let is_slower = !self.is_near && rates.fetched <= rates.grown;
        if is_slower {
            self.slower = Some(Rates { fetched: rates.fetched, grown: rates.grown });
        } else if let Some(slower) = &mut self.slower {
            // A node that is nearly up to date fetches no more than the result grows.
            slower.fetched = slower.fetched.max(rates.fetched);
        }
        is_slower.then_some(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(2);
    const MESSAGE_BYTES: u64 = 1_000;

    /// The findings of a node that follows a result for some seconds.
    #[derive(Debug, Default)]
    struct Found {
        near_after: Option<u64>,
        slower: Vec<CannotKeepUp>,
    }

    /// Simulates a fetch at `rate` of a result that grows by `growth` bytes per second.
    fn follow(mut ahead: u64, rate: u64, growth: u64, knows_bytes: bool) -> Found {
        let (mut keep_up, mut found) = (KeepUp::default(), Found::default());
        let (mut received, mut end) = (0, ahead);
        keep_up.trip(rate);
        for step in 0..200 {
            let now = Progress {
                at: Time(1) + Duration::from_millis(100) * step,
                received,
                here: Index(received / MESSAGE_BYTES),
                end: Index(end / MESSAGE_BYTES),
                ahead: knows_bytes.then_some(ahead),
            };
            found.slower.extend(keep_up.measure(now, STALL));
            if keep_up.is_near() && found.near_after.is_none() {
                found.near_after = Some(u64::from(step) / 10);
            }
            let fetched = (rate / 10).min(ahead);
            received += fetched;
            end += growth / 10;
            ahead = end - received;
        }
        found
    }

    #[test]
    fn a_node_is_near_once_its_remaining_fetch_takes_a_fraction_of_the_stall_timeout() {
        let found = follow(40_000_000, 10_000_000, 5_000_000, true);
        assert_eq!((found.near_after, found.slower.len()), (Some(7), 0), "2.5 MB of 40 are left after 7.5 s");
        assert_eq!(follow(2_000_000, 10_000_000, 5_000_000, true).near_after, Some(0));
        assert_eq!(follow(0, 0, 0, true).near_after, Some(0), "nothing is missing, whatever the rate");
    }

    #[test]
    fn the_size_of_messages_does_not_count() {
        let found = follow(40 * MESSAGE_BYTES, 1_000, 0, true);
        assert_eq!(found.near_after, None, "40 messages take 40 s");
    }

    #[test]
    fn a_node_that_fetches_more_slowly_than_the_result_grows_is_not_near_and_learns_both_rates_every_5_s() {
        let slower = CannotKeepUp { fetched: 4_000_000, grown: 5_000_000 };
        for knows_bytes in [true, false] {
            let found = follow(1_000_000, 4_000_000, 5_000_000, knows_bytes);
            assert_eq!((found.near_after, found.slower), (None, vec![slower; 3]), "bytes known: {knows_bytes}");
        }
        let found = follow(40_000_000, 5_000_000, 4_000_000, true);
        assert!(found.near_after.is_none() && found.slower.is_empty(), "it comes nearer: {found:?}");
    }

    #[test]
    fn a_node_that_is_near_stays_so_for_a_while() {
        let mut keep_up = KeepUp::default();
        keep_up.trip(1_000);
        let mut lacks = |ahead| {
            let now = Progress { at: Time(1), received: 0, here: Index(0), end: Index(0), ahead: Some(ahead) };
            keep_up.measure(now, STALL);
            keep_up.is_near()
        };
        assert_eq!([250, 0, 450, 550, 450].map(&mut lacks), [false, true, true, false, false]);
    }
}
