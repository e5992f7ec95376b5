//! The result of a session: (count, Σ i·mᵢ), and a slave's report of it.

use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::Digest;
use serde::{Deserialize, Serialize};

/// (count, Σ i·mᵢ) over the approved messages, i the index from 1 (`protocol.md` §9).
///
/// Computed in f64: the index as f64 times the number, then added in index order, without fused multiply-add. So equal
/// results have equal sums to the last bit, on every machine. `Display` uses the shortest text that parses to the same
/// value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    count: u64,
    sum: f64,
}

impl Sum {
    /// Adds the number at the next index.
    pub fn add(&mut self, number: f64) {
        self.count += 1;
        let term = self.count as f64 * number;
        self.sum += term;
    }

    /// Number of added numbers: the index of the last one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Σ i·mᵢ.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

/// The result of one slave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of approved messages.
    pub count: u64,
    /// Σ i·mᵢ over them.
    pub sum: f64,
    /// The result's digest (`protocol.md` §8).
    pub digest: Digest,
    /// Number of approved messages that the slave broadcast.
    pub own: u64,
    /// Number of messages of others that it confirmed.
    pub confirmations: u64,
    /// The length of SEND at the slave, if it was stopped in SEND or GRACE. A slave that left and has a result was on
    /// the ring when the last slaves left, which ended the session early.
    pub left: Option<Duration>,
}

/// The reason for which a session's master cannot read a report. It comes from a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The bytes are not a summary.
    #[error("the report is not a session's summary ({0}); do all nodes run the same application?")]
    Malformed(postcard::Error),
    /// Number of bytes behind a summary.
    #[error("the report has {0} bytes too many; do all nodes run the same version?")]
    Trailing(usize),
    /// Numbers that no session can have.
    #[error("the report is impossible: {count} messages, {own} of them its own, and sum {sum}")]
    Impossible {
        /// Approved messages.
        count: u64,
        /// Approved messages of the slave itself.
        own: u64,
        /// Their sum.
        sum: f64,
    },
}

impl Summary {
    /// The encoding for [`Group::report`](crate::Group::report): postcard, at most 80 bytes.
    #[must_use]
    pub fn to_report(&self) -> Bytes {
        // A struct of numbers always encodes.
        postcard::to_allocvec(self).unwrap_or_default().into()
    }

    /// Decodes a slave's report.
    ///
    /// # Errors
    /// The fault of the bytes or the numbers.
    pub fn from_report(report: &[u8]) -> Result<Self, ReportError> {
        let (summary, rest) = postcard::take_from_bytes::<Self>(report).map_err(ReportError::Malformed)?;
        if !rest.is_empty() {
            return Err(ReportError::Trailing(rest.len()));
        }
        let Self { count, sum, own, .. } = summary;
        if own > count || !sum.is_finite() || sum < 0.0 || (count == 0) != (sum == 0.0) {
            return Err(ReportError::Impossible { count, own, sum });
        }
        Ok(summary)
    }

    /// Whether two summaries have the same result: count, sum to the last bit, and digest.
    #[must_use]
    pub fn same_result(&self, other: &Self) -> bool {
        (self.count, self.sum.to_bits(), self.digest) == (other.count, other.sum.to_bits(), other.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::Numbers;
    use super::*;

    const SUMMARY: Summary =
        Summary { count: 3, sum: 1.25, digest: Digest(u128::MAX - 5), own: 2, confirmations: u64::MAX, left: None };

    fn sum_of(numbers: &[f64]) -> Sum {
        let mut sum = Sum::default();
        numbers.iter().for_each(|number| sum.add(*number));
        sum
    }

    #[test]
    fn the_index_times_the_number_in_index_order() {
        assert_eq!(sum_of(&[]), Sum { count: 0, sum: 0.0 });
        assert_eq!(sum_of(&[0.5, 0.25, 1.0]), Sum { count: 3, sum: 0.5 + 0.5 + 3.0 });
    }

    #[test]
    fn products_are_rounded_before_they_are_added() {
        let mut numbers = Numbers::new(0, 0);
        let numbers: Vec<f64> = (0..10_000).map(|_| numbers.next_number()).collect();
        let fused = numbers.iter().zip(1..).fold(0.0, |sum, (number, index)| f64::from(index).mul_add(*number, sum));
        let found = sum_of(&numbers).sum();
        assert_ne!(found.to_bits(), fused.to_bits(), "the numbers do not tell the two apart");
        assert_eq!(found.to_bits(), ROUNDED_SUM, "{found:?}");
    }

    /// 24858934.938313685, computed in another language.
    const ROUNDED_SUM: u64 = 0x4177_b513_6f03_5536;

    #[test]
    fn reports_read_back() {
        let left = Summary { left: Some(Duration::MAX), ..SUMMARY };
        for summary in [SUMMARY, left, Summary { count: 0, sum: 0.0, own: 0, ..SUMMARY }] {
            let report = summary.to_report();
            assert_eq!(Summary::from_report(&report), Ok(summary));
            assert!(report.len() <= 80);
        }
        assert_eq!(SUMMARY.to_report()[..9], [3, 0, 0, 0, 0, 0, 0, 0xf4, 0x3f], "the encoding is agreed");
    }

    #[test]
    fn reports_of_peers_are_checked() {
        assert!(matches!(Summary::from_report(&[]), Err(ReportError::Malformed(_))));
        let report = SUMMARY.to_report();
        for length in 0..report.len() {
            assert!(Summary::from_report(&report[..length]).is_err(), "{length} bytes");
        }
        let longer = [&report[..], &[0]].concat();
        assert_eq!(Summary::from_report(&longer), Err(ReportError::Trailing(1)));
        for wrong in [
            Summary { own: 4, ..SUMMARY },
            Summary { sum: f64::NAN, ..SUMMARY },
            Summary { sum: f64::INFINITY, ..SUMMARY },
            Summary { sum: -1.0, ..SUMMARY },
            Summary { sum: 0.0, ..SUMMARY },
            Summary { count: 0, own: 0, ..SUMMARY },
        ] {
            let refused = Summary::from_report(&wrong.to_report());
            assert!(matches!(refused, Err(ReportError::Impossible { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn equal_is_to_the_last_bit() {
        let next = Summary { sum: f64::from_bits(SUMMARY.sum.to_bits() + 1), ..SUMMARY };
        assert!(SUMMARY.same_result(&Summary { own: 1, confirmations: 0, ..SUMMARY }));
        for other in [next, Summary { count: 4, ..SUMMARY }, Summary { digest: Digest(1), ..SUMMARY }] {
            assert!(!SUMMARY.same_result(&other), "{other:?}");
        }
    }
}
