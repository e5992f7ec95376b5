//! A received part of a transfer without its end.

use bytes::{Bytes, BytesMut};

use crate::config::Durability;
use crate::digest::{Digest, DigestOfPieces, digest_of};
use crate::id::{Index, NodeId};
use crate::limits::MEMORY_SNAPSHOT_BYTES_MAX;
use crate::stored::{Record, SnapshotState, StateParts};
use crate::wire::HeldPart;

/// A received part without its end.
#[derive(Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    Entry {
        first_index: Index,
        length: u64,
        body: BytesMut,
    },
    Snapshot(Incoming),
}

impl Held {
    /// A snapshot with this header.
    pub(super) fn is_of(&self, header: Header) -> bool {
        matches!(self, Self::Snapshot(incoming) if incoming.header == header)
    }

    /// All bytes of a snapshot are received.
    pub(super) fn is_complete_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot(incoming) if incoming.is_complete())
    }

    /// The part that a source need not send again to a node that lacks an index.
    pub(super) fn part(&self, next: Index) -> HeldPart {
        match self {
            Self::Entry { first_index, length, body } if *first_index == next => {
                HeldPart::Entry { length: *length, offset: body.len() as u64 }
            }
            Self::Snapshot(incoming) => incoming.held(),
            _ => HeldPart::Nothing,
        }
    }
}

/// The header in every part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) index: Index,
    pub(super) digest: Digest,
    pub(super) base_length: u64,
    pub(super) length: u64,
}

impl Header {
    /// The length of the state, in bytes.
    fn state_length(self) -> u64 {
        self.length - self.base_length
    }
}

/// The digest of a snapshot in its transferred form.
pub(super) fn snapshot_digest(base: &[u8], (digest, length): (Digest, u64)) -> Digest {
    digest_of([base, &digest.0.to_le_bytes(), &length.to_le_bytes()])
}

/// A snapshot that is partly received. With `Disk` its state is on its way to the disk, and only the base is in memory.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) header: Header,
    /// The node that sent the last part.
    source: NodeId,
    received: u64,
    base: BytesMut,
    state: IncomingState,
}

#[derive(Debug)]
enum IncomingState {
    Here(BytesMut),
    Parts { id: u64, digest: Box<DigestOfPieces> },
}

impl Incoming {
    /// A snapshot of which nothing is received. `id` is the one of its parts, with `Disk`. None if it is too large for
    /// memory.
    pub(super) fn new(header: Header, durability: Durability, id: u64) -> Option<Self> {
        let state = match durability {
            Durability::Memory if header.state_length() > MEMORY_SNAPSHOT_BYTES_MAX as u64 => return None,
            Durability::Memory => IncomingState::Here(BytesMut::new()),
            Durability::Disk => IncomingState::Parts { id, digest: Box::default() },
        };
        Some(Self { header, source: NodeId([0; 32]), received: 0, base: BytesMut::new(), state })
    }

    /// Number of received bytes.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn source(&self) -> NodeId {
        self.source
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received == self.header.length
    }

    /// Takes the next bytes of a source. Gives a record to store if there are any of the state.
    pub(super) fn take(&mut self, source: NodeId, part: &Bytes) -> Option<Record> {
        self.source = source;
        let of_base = self.header.base_length.saturating_sub(self.received).min(part.len() as u64) as usize;
        let offset = (self.received + of_base as u64).saturating_sub(self.header.base_length);
        self.received += part.len() as u64;
        self.base.extend_from_slice(&part[..of_base]);
        let part = part.slice(of_base..);
        match &mut self.state {
            _ if part.is_empty() => None,
            IncomingState::Here(state) => {
                state.extend_from_slice(&part);
                None
            }
            IncomingState::Parts { id, digest } => {
                digest.update(&part);
                Some(Record::SnapshotPart { id: *id, offset, part })
            }
        }
    }

    /// The received part of it.
    fn held(&self) -> HeldPart {
        let Header { index, digest, .. } = self.header;
        HeldPart::Snapshot { index, digest, offset: self.received }
    }

    /// Its base and its state, and whether they match the header.
    pub(super) fn finish(self) -> (Bytes, SnapshotState, bool) {
        let length = self.header.state_length();
        let base = self.base.freeze();
        let state = match self.state {
            IncomingState::Here(state) => SnapshotState::Here(state.freeze()),
            IncomingState::Parts { id, digest } => {
                SnapshotState::Parts(StateParts { id, length, digest: digest.digest() })
            }
        };
        let is_right = snapshot_digest(&base, (state.digest(), length)) == self.header.digest;
        (base, state, is_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let state = digest_of([&b"the state"[..]]);
        Header { index: Index(7), digest: snapshot_digest(b"base", (state, 9)), base_length: 4, length: 13 }
    }

    #[test]
    fn a_snapshot_on_disk_is_stored_part_by_part_and_only_its_base_is_in_memory() {
        let mut incoming = Incoming::new(header(), Durability::Disk, 5).expect("any size");
        let mut records = Vec::new();
        for part in [&b"ba"[..], b"sethe", b" sta", b"te"] {
            assert!(!incoming.is_complete());
            records.extend(incoming.take(NodeId([1; 32]), &Bytes::from_static(part)));
        }
        assert!(incoming.is_complete());
        let part = |offset, part| Record::SnapshotPart { id: 5, offset, part: Bytes::from_static(part) };
        assert_eq!(records, [part(0, b"the"), part(3, b" sta"), part(7, b"te")]);
        let (base, state, is_right) = incoming.finish();
        assert!(
            is_right && base == "base" && matches!(state, SnapshotState::Parts(StateParts { id: 5, length: 9, .. }))
        );
    }

    #[test]
    fn a_snapshot_in_memory_is_bounded_and_one_with_another_byte_is_not_right() {
        let large = Header { length: 5 + MEMORY_SNAPSHOT_BYTES_MAX as u64, ..header() };
        assert!(Incoming::new(large, Durability::Memory, 5).is_none());
        assert!(Incoming::new(large, Durability::Disk, 5).is_some());
        for (bytes, right) in [(&b"basethe state"[..], true), (b"basethe stale", false)] {
            let mut incoming = Incoming::new(header(), Durability::Memory, 5).expect("small enough");
            assert_eq!(incoming.take(NodeId([1; 32]), &Bytes::from_static(bytes)), None);
            let (_, state, is_right) = incoming.finish();
            assert_eq!((state, is_right), (SnapshotState::Here(Bytes::from_static(&bytes[4..])), right));
        }
    }
}
