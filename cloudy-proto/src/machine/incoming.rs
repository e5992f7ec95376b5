//! A part of a transfer that is here without its end.

use bytes::BytesMut;

use crate::digest::Digest;
use crate::id::Index;
use crate::wire::HeldPart;

/// A part that is here without its end.
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

    /// What a source need not send again to a node that misses an index.
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

/// What every part of a snapshot says of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) index: Index,
    pub(super) digest: Digest,
    pub(super) base_length: u64,
    pub(super) length: u64,
}

/// A snapshot of which a part is here.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) header: Header,
    pub(super) bytes: BytesMut,
}

impl Incoming {
    fn is_of(&self, header: Header) -> bool {
        self.header == header
    }

    /// What is here of it.
    fn held(&self) -> HeldPart {
        let Header { index, digest, .. } = self.header;
        HeldPart::Snapshot { index, digest, offset: self.bytes.len() as u64 }
    }
}
