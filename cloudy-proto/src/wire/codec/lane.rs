//! Lane frames: a fixed header, followed by a slot's body.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Body, FrameError, check_round, counter, fill};
use crate::id::{Round, Seq};
use crate::limits::{SLOT_BODY_BYTES_MAX, SLOT_PAYLOADS_MAX};
use crate::slot::{Batch, BodyError, Slot, check_body};
use crate::wire::LaneFrame;

const KIND_SLOT: u8 = 0;
const KIND_SKIP: u8 = 1;
/// Kind, prev, round, first number, count, body length.
const SLOT_HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 4 + 4;
/// Kind, prev, frontier.
const SKIP_BYTES: usize = 1 + 8 + 8;

/// Appends a frame's header to `head`. Returns a slot's body without a copy; the caller writes it right after.
#[must_use = "a slot's body follows its header"]
pub fn encode_lane(frame: &LaneFrame, head: &mut BytesMut) -> Option<Bytes> {
    match frame {
        LaneFrame::Slot(slot) => {
            head.reserve(SLOT_HEAD_BYTES);
            head.put_u8(KIND_SLOT);
            head.put_u64_le(slot.prev.0);
            head.put_u64_le(slot.round.0);
            head.put_u64_le(slot.batch.first_seq.0);
            head.put_u32_le(slot.batch.count);
            head.put_u32_le(slot.batch.body.len() as u32);
            Some(slot.batch.body.clone())
        }
        LaneFrame::Skip { prev, frontier } => {
            head.reserve(SKIP_BYTES);
            head.put_u8(KIND_SKIP);
            head.put_u64_le(prev.0);
            head.put_u64_le(frontier.0);
            None
        }
    }
}

/// Decodes the frames of one lane stream, after its header.
#[derive(Debug, Default)]
pub struct LaneDecoder {
    head: Head,
    /// The slot whose body is arriving, with an empty body.
    slot: Option<Slot>,
    body: SlotBody,
}

/// Bodies from this size on share an allocation with later ones: an allocation for each costs more than a copy.
const SHARED_BYTES_MIN: usize = 4 << 10;
/// The size of a shared allocation, and the maximum body in one.
const SHARED_BYTES_MAX: usize = 64 << 10;
/// Number of bodies in an allocation; slots under load have about equal sizes.
const SHARED_BY: usize = 4;

/// A slot's body as it arrives.
#[derive(Debug, Default)]
struct SlotBody {
    length: usize,
    /// Bodies of up to [`SHARED_BYTES_MAX`], and capacity for more behind.
    shared: BytesMut,
    /// A larger one.
    large: Body,
}

impl SlotBody {
    /// Expects `length` bytes, which the caller has checked.
    fn expect(&mut self, length: usize) {
        self.length = length;
        if length > SHARED_BYTES_MAX {
            self.large.expect(length);
        }
    }

    /// Takes missing bytes from the chunk; true once the body is complete. Only received bytes cost memory.
    fn fill(&mut self, chunk: &mut &[u8]) -> bool {
        if self.length > SHARED_BYTES_MAX {
            return self.large.fill(chunk);
        }
        let (taken, rest) = chunk.split_at((self.length - self.shared.len()).min(chunk.len()));
        if !taken.is_empty() && self.shared.capacity() < self.length {
            self.shared = BytesMut::with_capacity(self.capacity_left());
        }
        self.shared.extend_from_slice(taken);
        *chunk = rest;
        self.shared.len() == self.length
    }

    /// The size of an allocation for a body, and perhaps more of its size.
    fn capacity_left(&self) -> usize {
        let alone = self.length < SHARED_BYTES_MIN;
        if alone { self.length } else { SHARED_BYTES_MAX.min(SHARED_BY * (self.length + self.length / 8)) }
    }

    /// Removes the complete body.
    fn take(&mut self) -> Bytes {
        if self.length > SHARED_BYTES_MAX { Bytes::from(self.large.take()) } else { self.shared.split().freeze() }
    }
}

/// A frame's header as it arrives.
#[derive(Debug)]
struct Head {
    bytes: [u8; SLOT_HEAD_BYTES],
    filled: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; SLOT_HEAD_BYTES], filled: 0 }
    }
}

impl LaneDecoder {
    /// Takes bytes from the front of `chunk` until one frame is complete or the chunk is empty; the caller repeats it
    /// until it returns none.
    ///
    /// # Errors
    /// A header out of bounds is reported before memory is reserved for the body. Nothing more of the stream can be
    /// read.
    pub fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<LaneFrame>, FrameError> {
        if self.slot.is_none() {
            match self.head.feed(chunk)? {
                None => return Ok(None),
                Some((LaneFrame::Slot(slot), length)) => {
                    self.body.expect(length);
                    self.slot = Some(slot);
                }
                Some((skip, _)) => return Ok(Some(skip)),
            }
        }
        if !self.body.fill(chunk) {
            return Ok(None);
        }
        let Some(mut slot) = self.slot.take() else { return Ok(None) };
        slot.batch.body = self.body.take();
        check_body(&slot.batch.body, slot.batch.count)?;
        Ok(Some(LaneFrame::Slot(slot)))
    }

    /// Bytes that are reserved for a body.
    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.body.shared.capacity() + self.body.large.bytes.capacity()
    }
}

impl Head {
    /// A checked header, and the length of a slot's body behind it.
    fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<(LaneFrame, usize)>, FrameError> {
        let Some(&kind) = self.bytes[..self.filled].first().or(chunk.first()) else { return Ok(None) };
        let length = match kind {
            KIND_SLOT => SLOT_HEAD_BYTES,
            KIND_SKIP => SKIP_BYTES,
            kind => return Err(FrameError::Kind(kind)),
        };
        if !fill(&mut self.bytes[..length], &mut self.filled, chunk) {
            return Ok(None);
        }
        self.filled = 0;
        let (prev, round) = (self.u64_at(1), self.u64_at(9));
        check_round(round)?;
        if prev > round {
            return Err(FrameError::Order { prev, round });
        }
        if kind == KIND_SKIP {
            return Ok(Some((LaneFrame::Skip { prev: Round(prev), frontier: Round(round) }, 0)));
        }
        let (first_seq, count, body) = (self.u64_at(17), self.u32_at(25), self.u32_at(29) as usize);
        counter("sequence number", first_seq)?;
        if count == 0 || count > SLOT_PAYLOADS_MAX {
            return Err(BodyError::Count(count).into());
        }
        if body > SLOT_BODY_BYTES_MAX {
            return Err(BodyError::TooLong(body).into());
        }
        let batch = Batch { first_seq: Seq(first_seq), count, body: Bytes::new() };
        Ok(Some((LaneFrame::Slot(Slot { round: Round(round), prev: Round(prev), batch }), body)))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|byte| self.bytes[at + byte]))
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|byte| self.bytes[at + byte]))
    }
}
