//! Encoding and decoding of frames (`docs/reference/wire.md`).
//!
//! An encoder trusts its caller to keep within the bounds; a decoder trusts no input. It takes bytes in chunks of any
//! size, checks every length before it allocates, and holds at most twice the received bytes plus
//! [`RESERVE_BYTES_MAX`]. After an error the stream has no meaning: the link has to be closed and the decoder dropped.

mod command;
mod header;
mod lane;
mod log_state;
mod message;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use command::{CommandError, decode_command, encode_command};
pub use header::{HeaderDecoder, HeaderError, encode_header};
pub use lane::{LaneDecoder, encode_lane};
pub(crate) use log_state::{decode_log_state, encode_log_state};
pub use message::{
    ControlDecoder, NodeDecoder, TallyDecoder, encode_control, encode_node, encode_tally, encode_tally_in,
};
pub(crate) use message::{decode_base, encode_base};

use crate::config::ParametersError;
pub use crate::limits::DURATION_MAX;
use crate::limits::{ADDRESSES_MAX, ADVERTISED_BYTES_MAX, ROUND_MAX};
use crate::slot::BodyError;
use crate::words::is_advertisable;

/// A node frame, encoded: the largest names the nodes that open a group.
pub const NODE_FRAME_BYTES_MAX: usize = 6 << 10;
/// Maximum of an encoded command of the control log: the largest installs a full ring with all its addresses
/// and advertised names.
pub const COMMAND_BYTES_MAX: usize = 48 << 10;
/// Maximum of views, incarnations, indexes, sequence numbers and log positions. Correct nodes cannot reach it, and
/// additions to one cannot overflow.
pub const COUNTER_MAX: u64 = ROUND_MAX;
/// Bytes that a decoder reserves for a body before any of it has arrived.
const RESERVE_BYTES_MAX: usize = 128 << 10;

/// A value above the protocol's maximum; nothing of its frame or command was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {value}; at most {max} is allowed")]
pub struct BoundError {
    /// The name of the value.
    pub what: &'static str,
    /// The value.
    pub value: u64,
    /// The maximum.
    pub max: u64,
}

/// A frame that no correct peer sends; the link has to be closed, and nothing of the frame was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A lane frame begins with an unknown kind.
    #[error("a lane frame of kind {0}; only 0 (slot) and 1 (skip) exist")]
    Kind(u8),
    /// The length of a frame is above the maximum of its kind.
    #[error("a {stream} frame of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// The kind of stream.
        stream: &'static str,
        /// Its length.
        bytes: u64,
        /// The maximum.
        max: u64,
    },
    /// A lane frame ends before it begins.
    #[error("a lane frame whose prev {prev} is above its round {round}")]
    Order {
        /// The round after the lane's previous message slot.
        prev: u64,
        /// The slot's round, or the skip's frontier.
        round: u64,
    },
    /// The bytes do not decode to a frame.
    #[error("a {stream} frame that does not decode: {error}")]
    Malformed {
        /// The kind of stream.
        stream: &'static str,
        /// The cause.
        error: postcard::Error,
    },
    /// Bytes follow the frame.
    #[error("a {stream} frame with {bytes} bytes after its end")]
    Trailing {
        /// The kind of stream.
        stream: &'static str,
        /// Number of these bytes.
        bytes: usize,
    },
    /// A slot body contradicts its header.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A view of the result is none that a group can have.
    #[error(transparent)]
    View(#[from] CommandError),
    /// A value is above its maximum.
    #[error(transparent)]
    Bound(#[from] BoundError),
    /// The sender advertises a name that cannot be `HOST:PORT`.
    #[error(transparent)]
    Advertised(#[from] AdvertisedError),
    /// The parameters of a group that is opened cannot work.
    #[error("the parameters of a group that is opened: {0}")]
    Parameters(#[from] ParametersError),
}

/// Checks a value against its maximum.
fn at_most(what: &'static str, value: u64, max: u64) -> Result<(), BoundError> {
    if value > max { Err(BoundError { what, value, max }) } else { Ok(()) }
}

/// Checks a length against its maximum.
fn at_most_len(what: &'static str, length: usize, max: usize) -> Result<(), BoundError> {
    at_most(what, length as u64, max as u64)
}

/// Checks a view, an incarnation, an index, a sequence number or a log position.
fn counter(what: &'static str, value: u64) -> Result<(), BoundError> {
    at_most(what, value, COUNTER_MAX)
}

/// Checks a round.
fn check_round(value: u64) -> Result<(), BoundError> {
    at_most("round", value, ROUND_MAX)
}

/// Checks the number of a node's addresses.
fn addresses(count: usize) -> Result<(), BoundError> {
    at_most_len("addresses", count, ADDRESSES_MAX)
}

/// An advertised name with characters that `HOST:PORT` does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an advertised name that is empty or has other characters than visible ASCII ones")]
pub struct AdvertisedError;

/// Checks the length of an advertised name.
fn advertised_len(name: Option<&String>) -> Result<(), BoundError> {
    at_most_len("an advertised name's bytes", name.map_or(0, String::len), ADVERTISED_BYTES_MAX)
}

/// Checks the characters of an advertised name.
fn advertised_text(name: Option<&String>) -> Result<(), AdvertisedError> {
    if name.is_none_or(|name| is_advertisable(name)) { Ok(()) } else { Err(AdvertisedError) }
}

/// The received bytes of an unfinished frame.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    length: usize,
}

impl Body {
    /// Expects `length` bytes, which the caller has checked.
    fn expect(&mut self, length: usize) {
        self.bytes.clear();
        self.length = length;
    }

    /// Takes missing bytes from the chunk; true once the frame is complete. Each byte is copied once as long as the
    /// body fits the first reservation. It grows with received bytes, so a peer pays for memory with bytes.
    fn fill(&mut self, chunk: &mut &[u8]) -> bool {
        while self.bytes.len() < self.length && !chunk.is_empty() {
            if self.bytes.len() == self.bytes.capacity() {
                let capacity = self.length.min((2 * self.bytes.len()).max(RESERVE_BYTES_MAX));
                self.bytes.reserve_exact(capacity - self.bytes.len());
            }
            let left = self.bytes.capacity().min(self.length) - self.bytes.len();
            let (taken, rest) = chunk.split_at(left.min(chunk.len()));
            self.bytes.extend_from_slice(taken);
            *chunk = rest;
        }
        self.bytes.len() == self.length
    }

    /// Removes the complete bytes.
    fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    /// Releases the memory of a large frame and keeps that of a small one for the next.
    fn shrink(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(RESERVE_BYTES_MAX);
    }
}

/// Copies missing bytes of `field` from the chunk; true once its whole length is filled.
fn fill(field: &mut [u8], filled: &mut usize, chunk: &mut &[u8]) -> bool {
    if let Some(lacking) = field.get_mut(*filled..) {
        let (taken, rest) = chunk.split_at(chunk.len().min(lacking.len()));
        lacking[..taken.len()].copy_from_slice(taken);
        *filled += taken.len();
        *chunk = rest;
    }
    *filled >= field.len()
}

/// The reason for which bytes are not one postcard value.
enum NotOne {
    Malformed(postcard::Error),
    Trailing(usize),
}

/// Decodes one postcard value that fills the bytes exactly.
fn decode_exact<T: DeserializeOwned>(encoded: &[u8]) -> Result<T, NotOne> {
    match postcard::take_from_bytes(encoded) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(NotOne::Trailing(rest.len())),
        Err(error) => Err(NotOne::Malformed(error)),
    }
}

/// Appends to a buffer: postcard's own writers copy byte by byte or into a vector first.
struct Append<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.put_u8(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a value's encoding.
fn append<T: Serialize>(value: &T, out: &mut BytesMut) {
    // The buffer grows and every sequence knows its length, so no error is possible.
    postcard::serialize_with_flavor(value, Append(out)).expect("plain data encodes into a growing buffer");
}

#[cfg(test)]
mod tests;
