//! Lane frames: a fixed header, and a slot's body after it as it is.

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

/// Appends a frame's header to `head`. What it returns is a slot's body, not copied, which is to be written right after.
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

/// Reads the frames of one lane stream, after its header.
#[derive(Debug, Default)]
pub struct LaneDecoder {
    head: Head,
    /// The slot whose body is arriving, with an empty body.
    slot: Option<Slot>,
    body: Body,
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
    /// Takes bytes from the front of `chunk` until one frame is complete or the chunk is empty, so a caller repeats it
    /// until it returns none.
    ///
    /// # Errors
    /// A header out of bounds is told before memory is reserved for the body. Nothing more of the stream can be read.
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
        slot.batch.body = Bytes::from(self.body.take());
        check_body(&slot.batch.body, slot.batch.count)?;
        Ok(Some(LaneFrame::Slot(slot)))
    }

    /// What it has reserved for a body.
    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.body.bytes.capacity()
    }
}

impl Head {
    /// A header, checked, and the length of the body that follows a slot's.
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
