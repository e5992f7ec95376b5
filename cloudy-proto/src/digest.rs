//! The result's digest: XXH3-128 chained from checkpoint to checkpoint (`protocol.md` §8).

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::id::{Incarnation, Index, NodeId, Seq};
use crate::limits::{CHECKPOINT_BYTES, CHECKPOINT_EVERY, CHECKPOINTS_KEPT};
use crate::slot::{Batch, offset_of};
use crate::view::{InstalledView, View};

/// A digest of everything in a result up to an index. It detects corruption; TLS keeps attackers out.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub u128);

/// The digest of some bytes, piece by piece.
pub(crate) fn digest_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = Xxh3::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    Digest(hasher.digest128())
}

/// A digest of bytes that arrive piece by piece.
#[derive(Clone, Default)]
pub(crate) struct DigestOfPieces(Xxh3);

impl DigestOfPieces {
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.0.digest128())
    }
}

impl fmt::Debug for DigestOfPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DigestOfPieces").field(&self.digest()).finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The digest of a result up to an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Up to and with this index.
    pub index: Index,
    /// The digest of everything up to it.
    pub digest: Digest,
}

/// The state from which a result continues after a checkpoint: a node with this, and with the later entries, has the
/// result's digest and knows its messages (`protocol.md` §3.4, §8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultBase {
    /// The index, with the digest of everything up to it.
    pub checkpoint: Checkpoint,
    /// The view of the last message; none before the first view.
    pub view: Option<InstalledView>,
    /// The id that the next message continues, if it is of the same incarnation.
    pub run: Option<(NodeId, Incarnation, Seq)>,
    /// The last sequence number of each incarnation in the result.
    pub last_numbers: BTreeMap<(NodeId, Incarnation), Seq>,
}

/// The running digest of one result.
///
/// The stream is a run header (origin, incarnation, number) wherever an id is not the previous plus one, then the slot
/// bodies, so it does not depend on how payloads were batched. A view is in it with its id, its members, and whether it is the
/// last.
#[derive(Clone)]
pub struct ResultDigest {
    index: Index,
    hasher: Xxh3,
    /// The id that the next message continues, if it is of the same incarnation.
    run: Option<(NodeId, Incarnation, Seq)>,
    /// Bytes of slot bodies after the newest checkpoint: zero at each one, so no base has to contain them.
    bytes: u64,
    checkpoints: VecDeque<Checkpoint>,
}

impl Default for ResultDigest {
    fn default() -> Self {
        let start = Checkpoint::default();
        Self::begun(start, None)
    }
}

impl PartialEq for ResultDigest {
    fn eq(&self, other: &Self) -> bool {
        let of = |digest: &Self| (digest.index, digest.hasher.digest128(), digest.run, digest.bytes);
        of(self) == of(other) && self.checkpoints == other.checkpoints
    }
}

impl Eq for ResultDigest {}

impl fmt::Debug for ResultDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultDigest")
            .field("index", &self.index)
            .field("latest", &self.latest())
            .finish_non_exhaustive()
    }
}

impl ResultDigest {
    /// The digest of entries after an index only: it differs from that of nodes with the earlier entries.
    #[must_use]
    pub fn after(index: Index) -> Self {
        Self::begun(Checkpoint { index, digest: Digest::default() }, None)
    }

    /// A digest that continues from a checkpoint.
    #[must_use]
    pub fn resumed(base: &ResultBase) -> Self {
        Self::begun(base.checkpoint, base.run)
    }

    fn begun(start: Checkpoint, run: Option<(NodeId, Incarnation, Seq)>) -> Self {
        let checkpoints = VecDeque::from([start]);
        Self { index: start.index, hasher: chained(start.digest), run, bytes: 0, checkpoints }
    }

    /// The id that the next message continues, if it is of the same incarnation.
    pub(crate) fn run(&self) -> Option<(NodeId, Incarnation, Seq)> {
        self.run
    }

    /// Appends the next payloads of the result. Returns the checkpoints among them, in order (`protocol.md` §8).
    pub fn append(&mut self, origin: NodeId, incarnation: Incarnation, batch: &Batch) -> Vec<Checkpoint> {
        if self.run != Some((origin, incarnation, batch.first_seq)) {
            self.hasher.update(&origin.0);
            self.hasher.update(&incarnation.0.to_le_bytes());
            self.hasher.update(&batch.first_seq.0.to_le_bytes());
        }
        let mut checkpoints = Vec::new();
        let mut rest: &[u8] = &batch.body;
        let mut left = batch.count;
        while left > 0 {
            let (take, end) = self.up_to_checkpoint(rest, left);
            self.hasher.update(&rest[..end]);
            rest = &rest[end..];
            left -= take;
            self.index.0 += u64::from(take);
            self.bytes += end as u64;
            if self.index.0.is_multiple_of(CHECKPOINT_EVERY) || self.bytes >= CHECKPOINT_BYTES {
                checkpoints.push(self.checkpoint());
            }
        }
        self.run = Some((origin, incarnation, batch.last_seq().next()));
        checkpoints
    }

    /// The number of the next payloads before the next checkpoint, and their bytes.
    fn up_to_checkpoint(&self, rest: &[u8], left: u32) -> (u32, usize) {
        let until_checkpoint = CHECKPOINT_EVERY - self.index.0 % CHECKPOINT_EVERY;
        let take = u64::from(left).min(until_checkpoint) as u32;
        let end = if take == left { rest.len() } else { offset_of(rest, take) };
        let bytes_left = CHECKPOINT_BYTES.saturating_sub(self.bytes);
        if (end as u64) < bytes_left {
            return (take, end);
        }
        let (mut fewer, mut end) = (0, 0);
        while fewer < take && (end as u64) < bytes_left {
            end += offset_of(&rest[end..], 1);
            fewer += 1;
        }
        (fewer, end)
    }

    /// Takes the next view of the result, after a checkpoint at the present index.
    pub fn begin_view(&mut self, view: &View) {
        self.checkpoint();
        self.hasher.update(&view.id.0.to_le_bytes());
        self.hasher.update(&[u8::from(view.last)]);
        for member in &view.ring {
            self.hasher.update(&member.node.0);
            self.hasher.update(&member.incarnation.0.to_le_bytes());
        }
    }

    /// Makes a checkpoint at the present index: at a view's first index and at STOP.
    pub fn checkpoint(&mut self) -> Checkpoint {
        if self.latest().index < self.index {
            let checkpoint = Checkpoint { index: self.index, digest: Digest(self.hasher.digest128()) };
            self.hasher = chained(checkpoint.digest);
            self.bytes = 0;
            if self.checkpoints.len() == CHECKPOINTS_KEPT {
                self.checkpoints.pop_front();
            }
            self.checkpoints.push_back(checkpoint);
        }
        self.latest()
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn latest(&self) -> Checkpoint {
        self.checkpoints.back().copied().unwrap_or_default()
    }

    /// The digest at a checkpoint that is still kept.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<Digest> {
        let found = self.checkpoints.binary_search_by_key(&index, |checkpoint| checkpoint.index).ok()?;
        Some(self.checkpoints[found].digest)
    }
}

fn chained(previous: Digest) -> Xxh3 {
    let mut hasher = Xxh3::new();
    hasher.update(&previous.0.to_le_bytes());
    hasher
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::slot::push_payload;

    const ORIGIN: NodeId = NodeId([7; 32]);

    fn batch(first_seq: u64, count: u32) -> Batch {
        let mut body = BytesMut::new();
        (0..count).for_each(|at| push_payload(&mut body, &(first_seq + u64::from(at)).to_le_bytes()));
        Batch { first_seq: Seq(first_seq), count, body: body.freeze() }
    }

    fn digest_of(batches: &[Batch]) -> ResultDigest {
        let mut digest = ResultDigest::default();
        for batch in batches {
            digest.append(ORIGIN, Incarnation(1), batch);
        }
        digest
    }

    #[test]
    fn batching_does_not_matter_even_across_a_checkpoint() {
        let mut whole = digest_of(&[batch(1, 65_530), batch(65_531, 20)]);
        let mut parts = digest_of(&[batch(1, 3), batch(4, 65_533), batch(65_537, 14)]);
        assert_eq!(whole.at(Index(CHECKPOINT_EVERY)), parts.at(Index(CHECKPOINT_EVERY)));
        assert!(whole.at(Index(CHECKPOINT_EVERY)).is_some());
        assert_eq!(whole.checkpoint(), parts.checkpoint());
        assert_eq!(whole.latest().index, Index(65_550));
    }

    #[test]
    fn large_messages_have_checkpoints_by_their_bytes_wherever_batches_begin() {
        let large = |first_seq: u64, count: u32| {
            let mut body = BytesMut::new();
            (0..count).for_each(|_| push_payload(&mut body, &[1; 100_000]));
            Batch { first_seq: Seq(first_seq), count, body: body.freeze() }
        };
        let (mut whole, mut parts) = (ResultDigest::default(), ResultDigest::default());
        let checkpoints = whole.append(ORIGIN, Incarnation(1), &large(1, 100));
        let indexes: Vec<u64> = checkpoints.iter().map(|checkpoint| checkpoint.index.0).collect();
        assert_eq!(indexes, [42, 84], "the message with which 4 MiB are reached is the last one before a checkpoint");
        let batches = [(1, 41), (42, 1), (43, 40), (83, 18)].map(|(first_seq, count)| large(first_seq, count));
        let again: Vec<Checkpoint> =
            batches.iter().flat_map(|batch| parts.append(ORIGIN, Incarnation(1), batch)).collect();
        assert_eq!((again, &parts), (checkpoints, &whole));
        let base = ResultBase {
            checkpoint: whole.latest(),
            run: Some((ORIGIN, Incarnation(1), Seq(85))),
            ..ResultBase::default()
        };
        let mut resumed = ResultDigest::resumed(&base);
        resumed.append(ORIGIN, Incarnation(1), &large(85, 16));
        let next = large(101, 40);
        assert_eq!(resumed.append(ORIGIN, Incarnation(1), &next), whole.append(ORIGIN, Incarnation(1), &next));
    }

    #[test]
    fn a_gap_in_the_numbers_or_another_origin_changes_it() {
        let mut straight = digest_of(&[batch(1, 2)]);
        let mut renumbered = digest_of(&[batch(1, 1), Batch { first_seq: Seq(3), ..batch(2, 1) }]);
        assert_ne!(straight.checkpoint().digest, renumbered.checkpoint().digest);
        let mut other = ResultDigest::default();
        other.append(NodeId([8; 32]), Incarnation(1), &batch(1, 2));
        assert_ne!(straight.latest().digest, other.checkpoint().digest);
    }

    #[test]
    fn a_bounded_number_of_checkpoints_is_kept() {
        let mut digest = ResultDigest::default();
        for seq in 1..=CHECKPOINTS_KEPT as u64 + 5 {
            digest.append(ORIGIN, Incarnation(1), &batch(seq, 1));
            digest.checkpoint();
        }
        assert_eq!(digest.checkpoints.len(), CHECKPOINTS_KEPT);
        assert_eq!(digest.at(Index(1)), None);
        assert!(digest.at(Index(10)).is_some());
    }
}
