//! How many replies a responder gives: a bucket of tokens, filled at a steady rate.

use std::time::Duration;

use tokio::time::Instant;

/// Replies that a responder sends in any one second after a quiet one, at most twice; over longer times this is the
/// mean. A finder sends five queries in its first second, so several can ask at a time.
pub const REPLIES_PER_SECOND_MAX: u32 = 32;

/// A token bucket that starts full and holds [`REPLIES_PER_SECOND_MAX`] tokens.
#[derive(Debug)]
pub(super) struct RateLimit {
    tokens: u32,
    /// Up to when tokens have been added.
    filled_at: Instant,
}

impl RateLimit {
    const INTERVAL: Duration = Duration::from_micros(1_000_000 / REPLIES_PER_SECOND_MAX as u64);

    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: REPLIES_PER_SECOND_MAX, filled_at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let earned = elapsed.as_micros() / Self::INTERVAL.as_micros();
        if earned >= u128::from(REPLIES_PER_SECOND_MAX - self.tokens) {
            self.tokens = REPLIES_PER_SECOND_MAX;
            self.filled_at = now;
        } else {
            // Less than a full bucket, so the cast is exact. What is left of an interval counts towards the next token.
            self.tokens += earned as u32;
            self.filled_at += Self::INTERVAL * earned as u32;
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limit: &mut RateLimit, now: Instant) -> u32 {
        (0..10 * REPLIES_PER_SECOND_MAX).filter(|_| limit.take(now)).count() as u32
    }

    #[test]
    fn a_full_bucket_gives_a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        assert_eq!(taken(&mut limit, start), REPLIES_PER_SECOND_MAX);
        assert_eq!(taken(&mut limit, start + RateLimit::INTERVAL / 2), 0);
        assert_eq!(taken(&mut limit, start + RateLimit::INTERVAL), 1);
        assert_eq!(taken(&mut limit, start + RateLimit::INTERVAL * 4), 3);
    }

    #[test]
    fn a_long_rest_fills_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        taken(&mut limit, start);
        assert_eq!(taken(&mut limit, start + Duration::from_secs(3_600)), REPLIES_PER_SECOND_MAX);
        // A clock that seems to step back gives nothing and breaks nothing.
        assert_eq!(taken(&mut limit, start), 0);
    }

    #[test]
    fn asking_too_often_does_not_delay_the_next_token() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        taken(&mut limit, start);
        let tenth = RateLimit::INTERVAL / 10;
        let given = (1..=20).filter(|step| limit.take(start + tenth * *step)).count();
        assert_eq!(given, 2);
    }
}
