//! The baseline's frames: a length of four bytes, little endian, and a payload.

use bytes::{BufMut, BytesMut};

use crate::bench::load::{stamp, stamped};
use crate::bench::spec::STAMP_BYTES;

const LENGTH_BYTES: usize = 4;

/// Messages that were due together. Those without a stamp count as due at 0, which no run measures.
pub(super) type Run = (u64, u64);

/// The size of a frame for a payload.
pub(super) fn frame_bytes(payload_bytes: usize) -> usize {
    LENGTH_BYTES + payload_bytes
}

/// Appends a frame.
pub(super) fn push(write: &mut BytesMut, payload_bytes: usize, due_us: u64) {
    write.put_u32_le(payload_bytes as u32);
    let payload_at = write.len();
    write.put_bytes(0, payload_bytes);
    stamp(&mut write[payload_at..], due_us);
}

/// Decodes frames from a stream, in pieces of any size.
#[derive(Default)]
pub(super) struct Decoder {
    /// The first bytes of an incomplete frame: its length and stamp.
    head: Vec<u8>,
    /// Missing bytes of its payload.
    left: usize,
}

impl Decoder {
    /// Adds the frames that these bytes complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], runs: &mut Vec<Run>) {
        while !bytes.is_empty() {
            if self.head.is_empty() {
                bytes = whole(bytes, runs);
            }
            if self.head.len() < LENGTH_BYTES {
                self.take(&mut bytes, LENGTH_BYTES);
                let Some(length) = self.head.first_chunk() else { return };
                self.left = u32::from_le_bytes(*length) as usize;
            }
            let stamp_left = (LENGTH_BYTES + STAMP_BYTES - self.head.len()).min(self.left);
            self.left -= self.take(&mut bytes, self.head.len() + stamp_left);
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left == 0 {
                add(runs, stamped(&self.head[LENGTH_BYTES..]));
                self.head.clear();
            }
        }
    }

    /// Moves bytes into the head until it has this length; returns their number.
    fn take(&mut self, bytes: &mut &[u8], length: usize) -> usize {
        let (taken, rest) = bytes.split_at((length - self.head.len()).min(bytes.len()));
        self.head.extend_from_slice(taken);
        *bytes = rest;
        taken.len()
    }
}

/// Takes the complete frames, and returns the rest.
fn whole<'a>(mut bytes: &'a [u8], runs: &mut Vec<Run>) -> &'a [u8] {
    while let Some((length, rest)) = bytes.split_first_chunk()
        && let Some((payload, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)
    {
        add(runs, stamped(payload));
        bytes = rest;
    }
    bytes
}

fn add(runs: &mut Vec<Run>, due_us: Option<u64>) {
    let due_us = due_us.unwrap_or(0);
    match runs.last_mut() {
        Some((last_us, messages)) if *last_us == due_us => *messages += 1,
        _ => runs.push((due_us, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_in_any_pieces() {
        for payload_bytes in [0, 1, 7, 8, 9, 100] {
            let mut stream = BytesMut::new();
            [5, 5, 6].into_iter().for_each(|due_us| push(&mut stream, payload_bytes, due_us));
            let expected: &[Run] = if payload_bytes < 8 { &[(0, 3)] } else { &[(5, 2), (6, 1)] };
            for piece in 1..=stream.len() {
                let (mut decoder, mut runs) = (Decoder::default(), Vec::new());
                stream.chunks(piece).for_each(|bytes| decoder.feed(bytes, &mut runs));
                assert_eq!(runs, expected, "{payload_bytes} bytes in pieces of {piece}");
            }
        }
    }
}
