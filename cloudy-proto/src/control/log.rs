//! The log itself: opaque entries, in one order, kept by the voters.

use bytes::Bytes;

use crate::id::LogIndex;

/// What the machine asks of a consensus library at a voter.
pub(crate) trait ControlLog {
    /// Puts a command up for agreement; it appears among the committed entries, or never.
    fn propose(&mut self, command: Bytes);

    /// The next committed entry that was not handed out yet.
    fn next_committed(&mut self) -> Option<(LogIndex, Bytes)>;

    /// Committed entries from a position on, for those who follow.
    fn tail(&self, next: LogIndex) -> &[Bytes];
}

/// The log of a group with one voter, in memory: what is proposed is committed, and dies with the process.
#[derive(Debug, Default)]
pub(crate) struct SoleVoter {
    entries: Vec<Bytes>,
    handed_out: usize,
}

impl ControlLog for SoleVoter {
    fn propose(&mut self, command: Bytes) {
        self.entries.push(command);
    }

    fn next_committed(&mut self) -> Option<(LogIndex, Bytes)> {
        let entry = self.entries.get(self.handed_out)?.clone();
        self.handed_out += 1;
        Some((LogIndex(self.handed_out as u64), entry))
    }

    fn tail(&self, next: LogIndex) -> &[Bytes] {
        let from = usize::try_from(next.0.saturating_sub(1)).unwrap_or(usize::MAX);
        self.entries.get(from..).unwrap_or_default()
    }
}
