//! Every frame in every chunking; refused bytes, and the exact encodings, in the modules below.

mod encodings;
mod examples;
mod refused;
mod refused_log;

use core::fmt::Debug;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Cut;

use super::*;
use crate::id::LogIndex;
use crate::wire::{ControlFrame, LaneFrame, NodeFrame, StreamHeader, TallyFrame};

/// A decoder, its frame and its encoder, so that each test speaks for all of them.
pub(super) trait Codec: Default {
    type Frame: Debug + Clone + PartialEq;
    type Error: Debug + PartialEq;

    fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<Self::Frame>, Self::Error>;
    fn reserved_bytes(&self) -> usize;
    fn encode(frame: &Self::Frame, out: &mut BytesMut);
}

macro_rules! codec {
    ($decoder:ident, $frame:ident, $error:ident, $reserved:expr, $encode:expr) => {
        impl Codec for $decoder {
            type Frame = $frame;
            type Error = $error;

            fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<$frame>, $error> {
                $decoder::feed(self, chunk)
            }

            fn reserved_bytes(&self) -> usize {
                $reserved(self)
            }

            fn encode(frame: &$frame, out: &mut BytesMut) {
                $encode(frame, out);
            }
        }
    };
}

codec!(HeaderDecoder, StreamHeader, HeaderError, |_: &HeaderDecoder| 0, |header, out: &mut BytesMut| {
    out.extend_from_slice(&encode_header(header));
});
codec!(LaneDecoder, LaneFrame, FrameError, LaneDecoder::reserved_bytes, |frame, out: &mut BytesMut| {
    if let Some(body) = encode_lane(frame, out) {
        out.extend_from_slice(&body);
    }
});
codec!(TallyDecoder, TallyFrame, FrameError, TallyDecoder::reserved_bytes, encode_tally);
codec!(ControlDecoder, ControlFrame, FrameError, ControlDecoder::reserved_bytes, encode_control);
codec!(NodeDecoder, NodeFrame, FrameError, NodeDecoder::reserved_bytes, encode_node);

pub(super) fn encoded<C: Codec>(frames: &[C::Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| C::encode(frame, &mut bytes));
    bytes
}

/// Reads bytes that come in chunks of the given sizes, over and over, until their end or the first error; and holds the
/// decoder to its promises: a chunk is used up unless a frame is complete, and memory is paid for with bytes.
pub(super) fn read<C: Codec>(bytes: &[u8], sizes: &[usize]) -> (Vec<C::Frame>, Option<C::Error>) {
    let (mut decoder, mut frames, mut fed) = (C::default(), Vec::new(), 0);
    for &size in sizes.iter().cycle() {
        if fed == bytes.len() {
            break;
        }
        let mut chunk = &bytes[fed..bytes.len().min(fed + size)];
        fed += chunk.len();
        while !chunk.is_empty() {
            let before = chunk.len();
            match decoder.feed(&mut chunk) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => assert!(chunk.is_empty(), "{} of {before} bytes left without a frame", chunk.len()),
                Err(error) => return (frames, Some(error)),
            }
            assert!(decoder.reserved_bytes() <= 2 * fed + RESERVE_BYTES_MAX, "{} reserved", decoder.reserved_bytes());
        }
    }
    (frames, None)
}

fn comes_back<C: Codec>(frames: &[C::Frame], sizes: &[usize]) {
    let bytes = encoded::<C>(frames);
    for sizes in [&[bytes.len()], &[1], sizes] {
        assert_eq!(read::<C>(&bytes, sizes), (frames.to_vec(), None), "in chunks of {sizes:?}");
    }
}

/// A frame without its last bytes is neither a frame nor an error.
fn waits_for_the_rest<C: Codec>(frame: &C::Frame, cut: &Cut) {
    let bytes = encoded::<C>(core::slice::from_ref(frame));
    assert_eq!(read::<C>(&bytes[..cut.index(bytes.len())], &[bytes.len()]), (vec![], None));
}

/// For any bytes, the chunking does not matter. `read` checks the rest.
fn chunking_does_not_matter<C: Codec>(bytes: &[u8], sizes: &[usize]) {
    let whole = read::<C>(bytes, &[bytes.len().max(1)]);
    assert_eq!(read::<C>(bytes, &[1]), whole);
    assert_eq!(read::<C>(bytes, sizes), whole);
}

/// Encodings with one byte changed get past more checks than noise does.
fn survives_a_changed_byte<C: Codec>(frames: &[C::Frame], at: &Cut, byte: u8, sizes: &[usize]) {
    let mut bytes = encoded::<C>(frames);
    let at = at.index(bytes.len());
    bytes[at] = byte;
    chunking_does_not_matter::<C>(&bytes, sizes);
}

macro_rules! properties {
    ($($module:ident: $codec:ident, $frame:expr;)*) => {$(
        mod $module {
            use super::*;

            proptest! {
                #[test]
                fn frames_decode_to_the_same_value_in_any_chunks(frames in vec($frame, 1..6), sizes in vec(1usize..2_000, 1..20)) {
                    comes_back::<$codec>(&frames, &sizes);
                }

                #[test]
                fn a_cut_frame_waits_for_the_rest(frame in $frame, cut: Cut) {
                    waits_for_the_rest::<$codec>(&frame, &cut);
                }

                #[test]
                fn noise_is_refused_alike_in_any_chunks(bytes in vec(any::<u8>(), 0..400), sizes in vec(1usize..50, 1..20)) {
                    chunking_does_not_matter::<$codec>(&bytes, &sizes);
                }

                #[test]
                fn a_changed_byte_decodes_alike_in_any_chunks(
                    frames in vec($frame, 1..4), at: Cut, byte: u8, sizes in vec(1usize..50, 1..20),
                ) {
                    survives_a_changed_byte::<$codec>(&frames, &at, byte, &sizes);
                }
            }
        }
    )*};
}

properties! {
    header: HeaderDecoder, examples::header();
    lane: LaneDecoder, examples::lane();
    tally: TallyDecoder, examples::tally();
    control: ControlDecoder, examples::control();
    node: NodeDecoder, examples::node();
}

proptest! {
    #[test]
    fn commands_decode_to_the_same_value(command in examples::command()) {
        prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
    }

    #[test]
    fn a_cut_command_is_refused(command in examples::command(), cut: Cut) {
        let entry = encode_command(&command);
        let refused = decode_command(&entry[..cut.index(entry.len())]);
        prop_assert!(matches!(refused, Err(CommandError::Malformed(_))), "{:?}", refused);
    }

    #[test]
    fn a_changed_byte_of_a_command_never_panics(command in examples::command(), at: Cut, byte: u8) {
        let mut entry = encode_command(&command).to_vec();
        let at = at.index(entry.len());
        entry[at] = byte;
        if let Ok(command) = decode_command(&entry) {
            prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
        }
    }
}

#[test]
fn bodies_far_above_the_first_reservation_decode() {
    for bytes in [RESERVE_BYTES_MAX - 3, RESERVE_BYTES_MAX, 300_000] {
        let slot = examples::slot(4, 9, 1, &[vec![7; bytes], vec![8; 10]]);
        comes_back::<LaneDecoder>(&[LaneFrame::Slot(slot)], &[1_200, 16_384]);
    }
}

#[test]
fn slots_are_copied_once_and_those_of_middling_size_share_a_buffer() {
    let frames = |payload_bytes: usize| -> Vec<LaneFrame> {
        (0..3).map(|at| LaneFrame::Slot(examples::slot(at, at, at + 1, &[vec![at as u8; payload_bytes]]))).collect()
    };
    let bodies = |payload_bytes: usize| -> Vec<Bytes> {
        let bytes = encoded::<LaneDecoder>(&frames(payload_bytes));
        let (mut decoder, mut chunk) = (LaneDecoder::default(), &bytes[..]);
        let taken = core::iter::from_fn(|| decoder.feed(&mut chunk).unwrap_or_default());
        taken.filter_map(|frame| if let LaneFrame::Slot(slot) = frame { Some(slot.batch.body) } else { None }).collect()
    };
    let follow = |bodies: &[Bytes]| bodies.windows(2).all(|two| two[0].as_ptr_range().end == two[1].as_ptr());
    assert!(follow(&bodies(16_000)), "one allocation");
    let mut alone = bodies(100);
    assert!(!follow(&alone), "a small slot that is kept for long keeps no more than itself");
    assert_eq!(alone.remove(0).try_into_mut().map(|body| body.capacity()), Ok(101));
}

#[test]
fn a_slot_s_body_is_handed_out_without_a_copy() {
    let slot = examples::slot(0, 0, 1, &[vec![1; 100]]);
    let body = slot.batch.body.clone();
    let mut head = BytesMut::new();
    let handed = encode_lane(&LaneFrame::Slot(slot), &mut head);
    assert_eq!(handed.map(|bytes| bytes.as_ptr()), Some(body.as_ptr()));
    assert_eq!(head.len(), 33);
}

#[test]
fn a_decoder_keeps_no_large_buffer() {
    let mut decoder = ControlDecoder::default();
    let state = Bytes::from(vec![1; 300_000]);
    let frame = ControlFrame::LogState { index: LogIndex(1), term: 1, state };
    let bytes = encoded::<ControlDecoder>(core::slice::from_ref(&frame));
    assert_eq!(decoder.feed(&mut &bytes[..]), Ok(Some(frame)));
    assert!(decoder.reserved_bytes() <= RESERVE_BYTES_MAX);
}
