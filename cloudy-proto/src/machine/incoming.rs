//! A received part of a transfer without its end.

use bytes::BytesMut;

use crate::digest::Digest;
use crate::id::Index;
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
        matches!(self, Self::Snapshot(incoming) if incoming.is_of(header))
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

/// A snapshot that is partly received.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) header: Header,
    pub(super) bytes: BytesMut,
}

impl Incoming {
    fn is_of(&self, header: Header) -> bool {
        self.header == header
    }

    /// The received part of it.
    fn held(&self) -> HeldPart {
        let Header { index, digest, .. } = self.header;
        HeldPart::Snapshot { index, digest, offset: self.bytes.len() as u64 }
    }
}
