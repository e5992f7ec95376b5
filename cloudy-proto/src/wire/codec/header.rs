//! The header of every stream: magic, range of versions, length, and the rest in postcard.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{BoundError, NotOne, append, at_most_len, counter, decode_exact, fill};
use crate::id::{GroupId, Incarnation};
use crate::limits::{MEMBERS_MAX, STREAM_HEADER_BYTES_MAX};
use crate::wire::{Stream, StreamHeader, WireVersions};

const MAGIC: [u8; 6] = *b"cloudy";
/// Magic, oldest and newest version: these bytes mean the same in every version.
const VERSIONED_BYTES: usize = MAGIC.len() + 4;
/// These and the length of the rest.
const PREFIX_BYTES: usize = VERSIONED_BYTES + 2;

/// The part of a header that may differ between versions.
#[derive(Serialize, Deserialize)]
struct Rest {
    group: GroupId,
    incarnation: Incarnation,
    stream: Stream,
}

/// A header that this node cannot read; the link has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin like the streams of any version of cloudy.
    #[error("the stream does not begin with `cloudy`: the peer speaks another protocol")]
    Magic,
    /// The peer and this node have no wire version in common. The text fits both sides.
    #[error("one node speaks wire version {ours}, the other {theirs}: run releases of cloudy that share a version")]
    Version {
        /// The peer's versions.
        theirs: WireVersions,
        /// This node's versions.
        ours: WireVersions,
    },
    /// Its length is above the maximum.
    #[error("a stream header of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length, with the fixed part.
        bytes: usize,
        /// The maximum.
        max: usize,
    },
    /// Its bytes do not decode to a header.
    #[error("a stream header that does not decode: {0}")]
    Malformed(postcard::Error),
    /// The header has extra bytes within its length.
    #[error("a stream header with {0} bytes after its end")]
    Trailing(usize),
    /// A value is above its maximum.
    #[error(transparent)]
    Bound(#[from] BoundError),
}

/// Encodes the header of a stream.
#[must_use]
pub fn encode_header(header: &StreamHeader) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_slice(&MAGIC);
    out.put_u16_le(header.versions.min);
    out.put_u16_le(header.versions.max);
    out.put_u16_le(0);
    append(&Rest { group: header.group, incarnation: header.incarnation, stream: header.stream }, &mut out);
    let length = (out.len() - PREFIX_BYTES) as u16;
    out[VERSIONED_BYTES..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    out.freeze()
}

/// Decodes one stream's header.
#[derive(Debug)]
pub struct HeaderDecoder {
    ours: WireVersions,
    bytes: [u8; STREAM_HEADER_BYTES_MAX],
    filled: usize,
}

impl Default for HeaderDecoder {
    fn default() -> Self {
        Self::new(WireVersions::CURRENT)
    }
}

impl HeaderDecoder {
    /// A decoder of a node that speaks these versions.
    #[must_use]
    pub fn new(ours: WireVersions) -> Self {
        Self { ours, bytes: [0; STREAM_HEADER_BYTES_MAX], filled: 0 }
    }

    /// Takes bytes from the front of `chunk` until the header is complete or the chunk is empty. The remaining bytes
    /// belong to the stream's frames. The decoder may be used again for another stream.
    ///
    /// # Errors
    /// As soon as the received bytes show a fault: versions without overlap are reported before anything that may
    /// differ between versions is read. Nothing more of the stream can be read.
    pub fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<StreamHeader>, HeaderError> {
        if !fill(&mut self.bytes[..VERSIONED_BYTES], &mut self.filled, chunk) {
            return Ok(None);
        }
        if self.bytes[..MAGIC.len()] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let versions = WireVersions { min: self.u16_at(MAGIC.len()), max: self.u16_at(MAGIC.len() + 2) };
        if self.ours.common(versions).is_none() {
            return Err(HeaderError::Version { theirs: versions, ours: self.ours });
        }
        if !fill(&mut self.bytes[..PREFIX_BYTES], &mut self.filled, chunk) {
            return Ok(None);
        }
        let bytes = PREFIX_BYTES + usize::from(self.u16_at(VERSIONED_BYTES));
        if bytes > STREAM_HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong { bytes, max: STREAM_HEADER_BYTES_MAX });
        }
        if !fill(&mut self.bytes[..bytes], &mut self.filled, chunk) {
            return Ok(None);
        }
        self.filled = 0;
        let Rest { group, incarnation, stream } =
            decode_exact(&self.bytes[PREFIX_BYTES..bytes]).map_err(|error| match error {
                NotOne::Malformed(error) => HeaderError::Malformed(error),
                NotOne::Trailing(bytes) => HeaderError::Trailing(bytes),
            })?;
        counter("incarnation", incarnation.0)?;
        counter("view", stream.view().map_or(0, |view| view.0))?;
        if let Stream::Lane { lane, .. } = stream {
            at_most_len("rank", lane.at(), MEMBERS_MAX - 1)?;
        }
        Ok(Some(StreamHeader { versions, group, incarnation, stream }))
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}
