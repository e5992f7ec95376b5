//! A member's share of what the group may send while it slows down (`protocol.md` §7.10).

use core::time::Duration;

use crate::id::Round;
use crate::member::Member;
use crate::outbox::Outbox;
use crate::time::Time;

/// A member counts as a sender for this time beyond the duration of its slot at the minimum share.
const SENDS_FOR: Duration = Duration::from_secs(1);

/// The members that send.
#[derive(Debug, Default)]
pub(super) struct Senders {
    /// By rank: where the lane's messages end, and until when the member counts.
    lanes: Vec<(Round, Time)>,
}

impl Senders {
    /// Notes where the lanes' messages end, and how long the newest slot of each takes at the least share. Returns how many
    /// members send, one at least. At first all members count.
    fn count(&mut self, lanes: impl Iterator<Item = (Round, Duration)>, now: Time) -> u64 {
        let is_first = self.lanes.is_empty();
        for (at, (end, takes)) in lanes.enumerate() {
            match self.lanes.get_mut(at) {
                None => self.lanes.push((end, if is_first { now + SENDS_FOR } else { now })),
                Some(known) if known.0 != end => *known = (end, now + takes + SENDS_FOR),
                Some(_) => {}
            }
        }
        self.lanes.iter().filter(|(_, until)| *until > now).count().max(1) as u64
    }
}

impl Member {
    /// Every member that sends has an equal share.
    pub(super) fn share_limit(&mut self, now: Time, outbox: &mut Outbox) {
        let (throttle, members) = (outbox.throttle_mut(), self.lanes.len() as u64);
        let lanes = self.lanes.iter().map(|lane| {
            let bytes = lane.newest().map_or(0, |held| held.batch.fetch_bytes());
            (lane.message_end(), throttle.time_of(bytes * members))
        });
        let senders = self.senders.count(lanes, now);
        throttle.share(senders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_shares_the_limit_with_those_that_send() {
        let mut senders = Senders::default();
        let mut count = |ends: [u64; 3], takes_s: u64, ms: u64| {
            let lanes = ends.into_iter().map(|end| (Round(end), Duration::from_secs(takes_s)));
            senders.count(lanes, Time(ms * 1_000))
        };
        assert_eq!(count([5, 5, 5], 0, 1), 3, "nothing is known yet");
        assert_eq!(count([6, 5, 5], 0, 900), 3);
        assert_eq!(count([7, 5, 5], 0, 1_100), 1);
        assert_eq!(count([7, 9, 5], 0, 1_200), 2);
        assert_eq!(count([7, 9, 5], 0, 5_000), 1, "one share is the least");
        assert_eq!(count([8, 10, 5], 60, 6_000), 2);
        assert_eq!(count([8, 10, 5], 60, 60_000), 2, "the next slot of a member that sends comes after a minute");
    }
}
