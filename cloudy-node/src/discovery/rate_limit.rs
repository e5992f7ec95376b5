//! Rate limit for replies: a token bucket for each source, and one for all sources.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Maximum replies of a responder in a second on average; twice as many in the first second.
pub const REPLIES_PER_SECOND_MAX: u32 = 256;
/// Maximum replies to one source address and port in a second. A finder sends five queries in its first second, and
/// then one each second.
pub const REPLIES_PER_SECOND_TO_ONE_MAX: u32 = 8;

/// Maximum of sources with a bucket; a new one replaces the source with the oldest query.
const SOURCES_MAX: usize = 1_024;

/// A token bucket that starts full and holds the tokens of one second.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    tokens: u32,
    /// The time up to which tokens were added.
    filled_at: Instant,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: per_second, filled_at: now }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    /// Removes a token, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let earned = elapsed.as_micros() / self.interval().as_micros();
        if earned >= u128::from(self.per_second - self.tokens) {
            self.tokens = self.per_second;
            self.filled_at = now;
        } else {
            // Less than a full bucket, so the cast is exact. The rest of an interval counts towards the next token.
            self.tokens += earned as u32;
            self.filled_at += self.interval() * earned as u32;
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = left;
        true
    }
}

/// The bounds of one responder. Only authentic queries are counted.
#[derive(Debug)]
pub(super) struct RateLimit {
    all: Bucket,
    sources: HashMap<SocketAddr, (Bucket, Instant)>,
}

impl RateLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: Bucket::new(REPLIES_PER_SECOND_MAX, now), sources: HashMap::new() }
    }

    /// Whether a reply to the source may be sent.
    pub(super) fn take(&mut self, source: SocketAddr, now: Instant) -> bool {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, (_, asked_at))| *asked_at).map(|(source, _)| *source);
            oldest.map(|oldest| self.sources.remove(&oldest));
        }
        let fresh = || (Bucket::new(REPLIES_PER_SECOND_TO_ONE_MAX, now), now);
        let (bucket, asked_at) = self.sources.entry(source).or_insert_with(fresh);
        *asked_at = now;
        bucket.take(now) && self.all.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 32;

    fn taken(bucket: &mut Bucket, now: Instant) -> u32 {
        (0..10 * RATE).filter(|_| bucket.take(now)).count() as u32
    }

    fn source(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    #[test]
    fn a_full_bucket_gives_a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        let interval = bucket.interval();
        assert_eq!(taken(&mut bucket, start), RATE);
        assert_eq!(taken(&mut bucket, start + interval / 2), 0);
        assert_eq!(taken(&mut bucket, start + interval), 1);
        assert_eq!(taken(&mut bucket, start + interval * 4), 3);
    }

    #[test]
    fn a_long_rest_fills_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        taken(&mut bucket, start);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3_600)), RATE);
        // A clock that steps back adds no tokens and has no other effect.
        assert_eq!(taken(&mut bucket, start), 0);
    }

    #[test]
    fn asking_too_often_does_not_delay_the_next_token() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        taken(&mut bucket, start);
        let tenth = bucket.interval() / 10;
        let given = (1..=20).filter(|step| bucket.take(start + tenth * *step)).count();
        assert_eq!(given, 2);
    }

    #[test]
    fn one_source_over_its_limit_leaves_replies_for_the_others() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        let replies = (0..2_000).filter(|_| limit.take(source(1), start)).count();
        assert_eq!(replies, REPLIES_PER_SECOND_TO_ONE_MAX as usize);
        assert!((2..100).all(|number| limit.take(source(number), start)));
    }

    #[test]
    fn the_number_of_sources_is_bounded() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        for number in 1..=SOURCES_MAX as u16 + 100 {
            limit.take(source(number), start + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(limit.sources.len(), SOURCES_MAX);
        assert!(!limit.sources.contains_key(&source(100)) && limit.sources.contains_key(&source(101)));
    }
}
