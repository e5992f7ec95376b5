//! The requirements on each decoder, for any bytes: the fuzz targets check them at random, and
//! `cloudy-proto/tests/corpus.rs` with every file of the corpus.
//!
//! A decoder must give the same frames and the same error in any chunks, and must return the same frames from their
//! encoding. Each function returns the number of frames in the bytes, or an error text.
#![forbid(unsafe_code)]

use core::fmt::{Debug, Display};

use bytes::{BufMut, BytesMut};
use cloudy_proto::wire::{
    ControlDecoder, HeaderDecoder, LaneDecoder, NodeDecoder, TallyDecoder, decode_command, encode_command,
    encode_control, encode_header, encode_lane, encode_node, encode_tally,
};

/// Headers, one after another.
pub fn header(data: &[u8]) -> Result<usize, String> {
    check(data, HeaderDecoder::feed, |header, out| out.put_slice(&encode_header(header)))
}

/// A lane stream after its header.
pub fn lane(data: &[u8]) -> Result<usize, String> {
    check(data, LaneDecoder::feed, |frame, out| {
        if let Some(body) = encode_lane(frame, out) {
            out.put_slice(&body);
        }
    })
}

/// A tally stream after its header.
pub fn tally(data: &[u8]) -> Result<usize, String> {
    check(data, TallyDecoder::feed, encode_tally)
}

/// A control stream after its header.
pub fn control(data: &[u8]) -> Result<usize, String> {
    check(data, ControlDecoder::feed, encode_control)
}

/// A node stream after its header.
pub fn node(data: &[u8]) -> Result<usize, String> {
    check(data, NodeDecoder::feed, encode_node)
}

/// One entry of the control log.
pub fn command(data: &[u8]) -> Result<usize, String> {
    let command = decode_command(data).map_err(|error| error.to_string())?;
    assert_eq!(decode_command(&encode_command(&command)), Ok(command));
    Ok(1)
}

type Feed<D, F, E> = fn(&mut D, &mut &[u8]) -> Result<Option<F>, E>;

fn check<D, F, E>(data: &[u8], feed: Feed<D, F, E>, encode: fn(&F, &mut BytesMut)) -> Result<usize, String>
where
    D: Default,
    F: Debug + PartialEq,
    E: Debug + Display + PartialEq,
{
    let whole = read(data, data.len().max(1), feed);
    for chunk_bytes in [1, 7] {
        assert_eq!(read(data, chunk_bytes, feed), whole, "in chunks of {chunk_bytes}");
    }
    let (frames, error) = whole;
    let mut again = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut again));
    let count = frames.len();
    assert_eq!(read(&again, again.len().max(1), feed), (frames, None), "encoded again");
    error.map_or(Ok(count), |error| Err(error.to_string()))
}

fn read<D: Default, F, E>(data: &[u8], chunk_bytes: usize, feed: Feed<D, F, E>) -> (Vec<F>, Option<E>) {
    let (mut decoder, mut frames) = (D::default(), Vec::new());
    for mut chunk in data.chunks(chunk_bytes) {
        while !chunk.is_empty() {
            match feed(&mut decoder, &mut chunk) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => assert!(chunk.is_empty(), "{} bytes left without a frame", chunk.len()),
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
