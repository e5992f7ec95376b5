//! A frame's way over the wire: header and frame to bytes and back, in chunks, and nothing may change.

use bytes::BytesMut;
use cloudy_proto::wire::{self, ControlDecoder, HeaderDecoder, LaneDecoder, StreamHeader, TallyDecoder};
use cloudy_proto::{Frame, GroupId};

use crate::sim::queue::Packet;

/// Encodes and decodes a packet's header and frame.
///
/// # Errors
/// A text, if the decoded frame differs from the encoded one.
pub fn round_trip(group: GroupId, packet: &Packet, chunk_bytes: usize) -> Result<Frame, String> {
    let header = StreamHeader {
        versions: wire::WireVersions::CURRENT,
        group,
        incarnation: packet.incarnation,
        stream: packet.stream,
    };
    let mut decoder = HeaderDecoder::default();
    let read = feed(&wire::encode_header(&header), chunk_bytes, |chunk| {
        decoder.feed(chunk).map_err(|error| error.to_string())
    })?;
    if read != header {
        return Err(format!("header {header:?} came out as {read:?}"));
    }
    let mut bytes = BytesMut::new();
    let read = match &packet.frame {
        Frame::Lane(frame) => {
            let body = wire::encode_lane(frame, &mut bytes);
            bytes.extend_from_slice(&body.unwrap_or_default());
            let mut decoder = LaneDecoder::default();
            Frame::Lane(feed(&bytes, chunk_bytes, |chunk| decoder.feed(chunk).map_err(|error| error.to_string()))?)
        }
        Frame::Tally(frame) => {
            wire::encode_tally(frame, &mut bytes);
            let mut decoder = TallyDecoder::default();
            Frame::Tally(feed(&bytes, chunk_bytes, |chunk| decoder.feed(chunk).map_err(|error| error.to_string()))?)
        }
        Frame::Control(frame) => {
            wire::encode_control(frame, &mut bytes);
            let mut decoder = ControlDecoder::default();
            Frame::Control(feed(&bytes, chunk_bytes, |chunk| decoder.feed(chunk).map_err(|error| error.to_string()))?)
        }
    };
    if read == packet.frame { Ok(read) } else { Err(format!("{:?} came out as {read:?}", packet.frame)) }
}

fn feed<T>(
    bytes: &[u8],
    chunk_bytes: usize,
    mut decode: impl FnMut(&mut &[u8]) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let mut read = None;
    for mut chunk in bytes.chunks(chunk_bytes.max(1)) {
        while let Some(frame) = decode(&mut chunk)? {
            if read.replace(frame).is_some() {
                return Err("one frame came out as two".to_owned());
            }
        }
    }
    read.ok_or_else(|| "a whole frame went in and none came out".to_owned())
}
