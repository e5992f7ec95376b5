//! A limit on what a member sends, in bytes per second, while the group slows down for a node (`protocol.md` §7.10).

use core::time::Duration;

use crate::time::Time;

/// The time by which a member may send ahead of its limit, because timers are not exact.
const AHEAD_MAX: Duration = Duration::from_millis(20);

/// The maximum time by which a slot delays the next one, at any limit.
const TAKES_MAX: Duration = Duration::from_secs(3_600);

/// The limit of one member. Without one, everything may be sent at once.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    bytes_per_second: Option<u64>,
    /// Number of other members that share the limit.
    others: u64,
    /// The time until which sent bytes have used up the limit.
    used_until: Time,
}

impl Throttle {
    /// Sets or ends the limit. Bytes that were sent so far still count.
    pub(crate) fn limit(&mut self, bytes_per_second: Option<u64>) {
        self.bytes_per_second = bytes_per_second.map(|bytes| bytes.max(1));
    }

    /// Sets the number of members that share the limit.
    pub(crate) fn share(&mut self, senders: u64) {
        self.others = senders.saturating_sub(1);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    /// The time at which the next slot may be sent, if there is a limit.
    pub(crate) fn free_at(&self) -> Option<Time> {
        self.bytes_per_second.map(|_| Time(self.used_until.0.saturating_sub(AHEAD_MAX.as_micros() as u64)))
    }

    pub(crate) fn allows(&self, now: Time) -> bool {
        self.free_at().is_none_or(|at| at <= now)
    }

    /// The time that a number of bytes takes at the whole limit.
    pub(crate) fn time_of(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let takes_us = u128::from(bytes) * 1_000_000 / u128::from(rate);
        Duration::from_micros(u64::try_from(takes_us).unwrap_or(u64::MAX)).min(TAKES_MAX)
    }

    /// Notes a sent slot of any size. The next one waits for as long as this one takes at the limit.
    pub(crate) fn sent(&mut self, bytes: u64, now: Time) {
        if self.is_limited() {
            self.used_until = self.used_until.max(now) + self.time_of(bytes.saturating_mul(self.others + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a member sends in slots of a size, in a number of milliseconds.
    fn sent_in(throttle: &mut Throttle, slot_bytes: u64, from_ms: u64, to_ms: u64) -> u64 {
        let sends = |ms: &u64| {
            let now = Time(ms * 1_000);
            let allowed = throttle.allows(now);
            if allowed {
                throttle.sent(slot_bytes, now);
            }
            allowed
        };
        (from_ms..to_ms).filter(sends).count() as u64 * slot_bytes
    }

    #[test]
    fn a_member_sends_at_its_limit_with_slots_of_any_size() {
        for slot_bytes in [100, 10_000, 1_000_000] {
            let mut throttle = Throttle::default();
            throttle.limit(Some(100_000));
            let sent = sent_in(&mut throttle, slot_bytes, 0, 20_000);
            assert!(sent.abs_diff(2_000_000) <= slot_bytes.max(4_000), "{sent} in slots of {slot_bytes}");
        }
    }

    #[test]
    fn time_without_messages_is_not_made_up_for_and_no_limit_is_none() {
        let mut throttle = Throttle::default();
        assert_eq!(sent_in(&mut throttle, 1_000, 0, 10), 10_000);
        throttle.limit(Some(100_000));
        assert!(sent_in(&mut throttle, 1_000, 10_000, 10_100) <= 10_000 + 3_000);
        throttle.limit(None);
        assert_eq!(sent_in(&mut throttle, 1_000, 10_100, 10_110), 10_000);
    }
}
