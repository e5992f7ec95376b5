//! The slot's layout: one for wire, digest and reader (`protocol.md` §2, *slot body*).
//!
//! A body is a sequence of payloads, each as its length (LEB128, at most five bytes) and its bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::{Round, Seq};
use crate::limits::{
    FETCH_PART_BYTES, FETCH_PART_COST_BYTES, PAYLOAD_BYTES_MAX, PAYLOAD_COST_BYTES_MIN, SLOT_BODY_BYTES_MAX,
    SLOT_PAYLOADS_MAX,
};

/// Payloads that are sent, confirmed and approved together. Their sequence numbers are consecutive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The sequence number of the first payload.
    pub first_seq: Seq,
    /// Number of payloads; at least one.
    pub count: u32,
    /// The slot body.
    pub body: Bytes,
}

impl Batch {
    /// The sequence number of the last payload.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// The cost in windows and limits.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        (self.body.len() as u64).max(u64::from(self.count) * PAYLOAD_COST_BYTES_MIN)
    }

    /// Its cost in the credit of a fetch, and towards the limit while a group slows down.
    pub(crate) fn fetch_bytes(&self) -> u64 {
        let bytes = self.body.len();
        bytes as u64 + bytes.div_ceil(FETCH_PART_BYTES) as u64 * FETCH_PART_COST_BYTES
    }

    /// The batch without its first payloads. `leave_out` is below `count`.
    #[must_use]
    pub fn without_first(&self, leave_out: u32) -> Self {
        let at = offset_of(&self.body, leave_out);
        Self {
            first_seq: Seq(self.first_seq.0 + u64::from(leave_out)),
            count: self.count - leave_out,
            body: self.body.slice(at..),
        }
    }
}

/// A message slot of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its round.
    pub round: Round,
    /// The round after the lane's previous message slot: the rounds from here to `round` are skips.
    pub prev: Round,
    /// Its content.
    pub batch: Batch,
}

/// The reason for which a slot body contradicts its header. Nothing of it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// There is no payload, or more than the protocol allows.
    #[error("a slot of {0} payloads; between 1 and {SLOT_PAYLOADS_MAX} are allowed")]
    Count(u32),
    /// The body is longer than the protocol allows.
    #[error("a slot body of {0} bytes; at most {SLOT_BODY_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A payload's length is malformed or above the limit.
    #[error("a payload's length is malformed or above {PAYLOAD_BYTES_MAX} bytes")]
    PayloadLength,
    /// The payloads do not fill the body exactly.
    #[error("the payloads do not fill the slot body exactly")]
    Extent,
}

/// Checks that a body has exactly `count` payloads.
///
/// # Errors
/// The first fault.
pub fn check_body(body: &[u8], count: u32) -> Result<(), BodyError> {
    if count == 0 || count > SLOT_PAYLOADS_MAX {
        return Err(BodyError::Count(count));
    }
    if body.len() > SLOT_BODY_BYTES_MAX {
        return Err(BodyError::TooLong(body.len()));
    }
    let (mut rest, mut lengths) = (body, Lengths::default());
    for _ in 0..count {
        let (length, payload_on) = lengths.split(rest).ok_or(BodyError::PayloadLength)?;
        if length > PAYLOAD_BYTES_MAX {
            return Err(BodyError::PayloadLength);
        }
        rest = payload_on.get(length..).ok_or(BodyError::Extent)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(BodyError::Extent) }
}

/// Appends one payload to an unfinished body. The caller has checked the payload's size.
pub fn push_payload(body: &mut BytesMut, payload: &[u8]) {
    let mut length = payload.len();
    body.reserve(length + 5);
    while length >= 0x80 {
        body.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    body.put_u8(length as u8);
    body.put_slice(payload);
}

/// The payloads of a checked body, in order, without copying.
#[derive(Clone, Debug)]
pub struct Payloads {
    rest: Bytes,
}

impl Payloads {
    /// The payloads of a body that [`check_body`] accepts.
    #[must_use]
    pub fn of(body: Bytes) -> Self {
        Self { rest: body }
    }
}

impl Iterator for Payloads {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (length, payload_on) = split_length(&self.rest)?;
        let prefix = self.rest.len() - payload_on.len();
        self.rest.advance(prefix);
        Some(self.rest.split_to(length.min(self.rest.len())))
    }
}

/// The payloads of a checked body, in order, as slices: cheaper than [`Payloads`] if none is kept.
#[inline]
pub fn payload_slices(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut lengths) = (body, Lengths::default());
    core::iter::from_fn(move || {
        let (length, payload_on) = lengths.split(rest)?;
        let (payload, after) = payload_on.split_at(length.min(payload_on.len()));
        rest = after;
        Some(payload)
    })
}

/// The offset behind the first `payloads` payloads in a checked body.
#[must_use]
pub fn offset_of(body: &[u8], payloads: u32) -> usize {
    let (mut rest, mut lengths) = (body, Lengths::default());
    for _ in 0..payloads {
        let Some((length, payload_on)) = lengths.split(rest) else { break };
        rest = &payload_on[length.min(payload_on.len())..];
    }
    body.len() - rest.len()
}

/// Reads lengths one after another. Most payloads of a slot have one size: while a length has the same encoding as the
/// one before, the processor knows the next payload's position without waiting for the read.
#[derive(Default)]
struct Lengths {
    /// The latest length of one byte: its encoding and its value.
    encoded: u8,
    length: usize,
}

impl Lengths {
    /// Like [`split_length`].
    #[inline]
    fn split<'a>(&mut self, body: &'a [u8]) -> Option<(usize, &'a [u8])> {
        match body.split_first() {
            Some((encoded, rest)) if *encoded == self.encoded => Some((self.length, rest)),
            _ => {
                let (length, rest) = split_length(body)?;
                if length < 0x80 {
                    (self.encoded, self.length) = (length as u8, length);
                }
                Some((length, rest))
            }
        }
    }
}

/// Splits a payload's length from the rest; none at the end of the body or for a malformed length. Only the shortest
/// encoding is accepted, so that equal payloads have equal bodies.
fn split_length(body: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0usize;
    for at in 0..5 {
        let byte = *body.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (at == 0 || byte != 0).then_some((length, &body[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
