//! The three periods of a session (`protocol.md` §9).

use std::fmt;
use std::time::Duration;

use crate::duration;

/// The minimum of STOP, if SEND or GRACE can spare it.
pub(crate) const STOP_PERIOD_MIN: Duration = Duration::from_micros(200_000);

/// The lengths of a session's phases. The last is a maximum: STOP ends as soon as every member has its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Periods {
    /// SEND: slaves broadcast.
    pub(crate) send: Duration,
    /// GRACE: messages in flight are approved.
    pub(crate) grace: Duration,
    /// STOP: the cut and the reports of results, at most.
    pub(crate) stop: Duration,
}

impl Periods {
    /// Takes the third period out of the two given ones, so that the sum remains: out of `grace` if that is longer than
    /// [`STOP_PERIOD_MIN`], else out of `send` if that is, else each gets a third, in whole microseconds.
    pub(crate) fn new(send: Duration, grace: Duration) -> Self {
        let stop = STOP_PERIOD_MIN;
        if grace > stop {
            Self { send, grace: grace - stop, stop }
        } else if send > stop {
            Self { send: send - stop, grace, stop }
        } else {
            // Both are at most STOP_PERIOD_MIN, so neither the sum nor the cast can overflow.
            let third = Duration::from_micros((send + grace).as_micros() as u64 / 3);
            Self { send: third, grace: third, stop: third }
        }
    }
}

impl fmt::Display for Periods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [send, grace, stop] = [self.send, self.grace, self.stop].map(duration::show);
        write!(f, "send {send}, grace {grace}, stop {stop}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_period_comes_out_of_grace_then_send_then_both() {
        for (given, expected) in [
            ((2_000_000, 1_000_000), (2_000_000, 800_000, 200_000)),
            ((0, 200_001), (0, 1, 200_000)),
            ((5, 200_001), (5, 1, 200_000)),
            // Exactly the minimum is not more than it.
            ((2_000_000, 200_000), (1_800_000, 200_000, 200_000)),
            ((200_001, 200_000), (1, 200_000, 200_000)),
            ((200_001, 0), (1, 0, 200_000)),
            ((200_000, 200_000), (133_333, 133_333, 133_333)),
            ((200_000, 100_000), (100_000, 100_000, 100_000)),
            ((1, 1), (0, 0, 0)),
            ((2, 1), (1, 1, 1)),
            ((0, 0), (0, 0, 0)),
        ] {
            let [send, grace] = [given.0, given.1].map(Duration::from_micros);
            let [expected_send, expected_grace, stop] = [expected.0, expected.1, expected.2].map(Duration::from_micros);
            let periods = Periods::new(send, grace);
            assert_eq!(periods, Periods { send: expected_send, grace: expected_grace, stop }, "{given:?}");
        }
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let longest = duration::DURATION_MAX;
        let periods = Periods::new(longest, longest);
        assert_eq!(periods.send + periods.grace + periods.stop, longest * 2);
    }

    #[test]
    fn they_are_shown_in_words() {
        let periods = Periods::new(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(periods.to_string(), "send 2s, grace 800ms, stop 200ms");
    }
}
