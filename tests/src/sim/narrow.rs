//! Links with a limited rate for a while: frames from one node to another wait in a queue. If the queue has a bound and
//! exceeds it, the link breaks, as a node closes a link whose queue is too long.

use std::collections::{BTreeMap, VecDeque};

use cloudy_proto::wire::Stream;
use cloudy_proto::{Frame, wire};

use crate::invariants::Failure;
use crate::sim::queue::{Event, Packet, Part};
use crate::sim::signs::parts;
use crate::sim::stats::Met;
use crate::sim::world::World;

/// The rate of a narrow link, and its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrow {
    /// Bytes that pass in a second, in each direction.
    pub bytes_per_second: u64,
    /// Bytes that wait at most, if there is a bound.
    pub queue_bytes: Option<u64>,
    /// The maximum time for which frames of other streams wait behind those of lanes and results, whose streams have the
    /// lowest priority: what the path itself queues. Without it all frames wait in one order.
    pub overtake_after_us: Option<u64>,
}

/// One direction of a narrow link.
#[derive(Debug)]
struct Pipe {
    narrow: Narrow,
    until_us: u64,
    /// The waiting frames, with their sizes and the times at which they are through.
    queue: VecDeque<(u64, u64, Packet)>,
    /// The same for frames that overtake those. They are small, and do not delay them.
    overtaking: VecDeque<(u64, u64, Packet)>,
    queued_bytes: u64,
}

impl Pipe {
    /// Every frame that waits, each stream's in its order.
    fn into_packets(self) -> Vec<Packet> {
        self.overtaking.into_iter().chain(self.queue).map(|(.., packet)| packet).collect()
    }
}

/// The fate of a frame at a link.
enum Passage {
    /// The link is as wide as ever.
    Free(Box<Packet>),
    /// It is through at a time, and parts of it before that.
    At(u64, Vec<(u64, Part)>),
    /// There is no capacity for it.
    Full,
}

/// All narrow links, by direction.
#[derive(Debug, Default)]
pub(super) struct Pipes(BTreeMap<(usize, usize), Pipe>);

impl Pipes {
    fn narrow(&mut self, from: usize, to: usize, narrow: Narrow, until_us: u64) {
        let (queue, overtaking) = (VecDeque::new(), VecDeque::new());
        let pipe = self.0.entry((from, to)).or_insert(Pipe { narrow, until_us, queue, overtaking, queued_bytes: 0 });
        pipe.narrow = narrow;
        pipe.until_us = pipe.until_us.max(until_us);
    }

    /// A link of a pair is narrow.
    pub(super) fn is_narrow(&self, a: usize, b: usize) -> bool {
        self.0.contains_key(&(a, b)) || self.0.contains_key(&(b, a))
    }

    fn enter(&mut self, packet: Packet, now_us: u64) -> Passage {
        let Some(pipe) = self.0.get_mut(&(packet.from, packet.to)) else { return Passage::Free(Box::new(packet)) };
        let bytes = encoded_bytes(&packet.frame);
        let narrow = pipe.narrow;
        // A frame that is larger than the queue passes alone.
        if pipe.queued_bytes > 0 && narrow.queue_bytes.is_some_and(|bound| pipe.queued_bytes + bytes > bound) {
            return Passage::Full;
        }
        let end_us =
            |queue: &VecDeque<(u64, u64, Packet)>| queue.back().map_or(now_us, |(_, at_us, _)| *at_us).max(now_us);
        let is_bulk = matches!(packet.stream, Stream::Lane { .. } | Stream::Result);
        let overtakes = narrow.overtake_after_us.filter(|_| !is_bulk);
        let begins_us = match overtakes {
            Some(after_us) => end_us(&pipe.queue).min(now_us + after_us).max(end_us(&pipe.overtaking)),
            None => end_us(&pipe.queue),
        };
        let at_us = begins_us + bytes * 1_000_000 / narrow.bytes_per_second;
        pipe.queued_bytes += bytes;
        let parts = parts(&packet, bytes, begins_us, at_us);
        let queue = if overtakes.is_some() { &mut pipe.overtaking } else { &mut pipe.queue };
        queue.push_back((bytes, at_us, packet));
        Passage::At(at_us, parts)
    }

    /// Returns the frames of a direction that are through by a time; all of them once the link has its full rate again.
    fn leave(&mut self, from: usize, to: usize, now_us: u64) -> Vec<Packet> {
        let Some(pipe) = self.0.get_mut(&(from, to)) else { return Vec::new() };
        if pipe.until_us <= now_us {
            return self.0.remove(&(from, to)).map(Pipe::into_packets).unwrap_or_default();
        }
        let mut through = Vec::new();
        for queue in [&mut pipe.overtaking, &mut pipe.queue] {
            let count = queue.partition_point(|(_, at_us, _)| *at_us <= now_us);
            through.extend(queue.drain(..count));
        }
        pipe.queued_bytes -= through.iter().map(|(bytes, ..)| bytes).sum::<u64>();
        through.into_iter().map(|(.., packet)| packet).collect()
    }

    /// Drops a connection, and the frames that wait for it.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for direction in [(a, b), (b, a)] {
            if let Some(pipe) = self.0.get_mut(&direction) {
                pipe.queue.clear();
                pipe.overtaking.clear();
                pipe.queued_bytes = 0;
            }
        }
    }

    /// Every link is as wide as before: gives all that waits.
    pub(super) fn widen_all(&mut self) -> Vec<Packet> {
        core::mem::take(&mut self.0).into_values().flat_map(Pipe::into_packets).collect()
    }
}

fn encoded_bytes(frame: &Frame) -> u64 {
    let mut bytes = bytes::BytesMut::new();
    let body = match frame {
        Frame::Lane(frame) => wire::encode_lane(frame, &mut bytes),
        Frame::Tally(frame) => {
            wire::encode_tally(frame, &mut bytes);
            None
        }
        Frame::Control(frame) => {
            wire::encode_control(frame, &mut bytes);
            None
        }
    };
    (bytes.len() + body.map_or(0, |body| body.len())) as u64
}

impl World {
    /// A link is narrow for a while, in both directions.
    pub(super) fn narrow(&mut self, a: usize, b: usize, narrow: Narrow, for_us: u64) {
        self.stats.met(Met::LinkNarrowed);
        let until_us = self.now_us + for_us;
        for (from, to) in [(a, b), (b, a)] {
            self.pipes.narrow(from, to, narrow, until_us);
            self.queue.at(until_us, Event::Through { from, to });
        }
    }

    /// A frame has come to the other end of its way, unless its link is narrow.
    pub(super) fn comes_through(&mut self, packet: Packet) -> Result<(), Failure> {
        let (from, to, epoch) = (packet.from, packet.to, packet.epoch);
        match self.pipes.enter(packet, self.now_us) {
            Passage::Free(packet) => self.is_heard(*packet),
            Passage::At(at_us, parts) => {
                self.stats.met(Met::FrameQueued);
                parts.into_iter().for_each(|(part_at_us, part)| self.queue.at(part_at_us, Event::PartArrives(part)));
                self.queue.at(at_us, Event::Through { from, to });
                Ok(())
            }
            Passage::Full => {
                self.stats.met(Met::QueueOverflowed);
                if self.network.live(from, to) == Some(epoch) {
                    self.cut_for(from, to, 1_000);
                }
                Ok(())
            }
        }
    }

    /// Frames are through a narrow link.
    pub(super) fn through(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        self.pipes.leave(from, to, self.now_us).into_iter().try_for_each(|packet| self.is_heard(packet))
    }

    /// A frame arrives, unless its direction is held.
    fn is_heard(&mut self, packet: Packet) -> Result<(), Failure> {
        self.network.arrive(packet).map_or(Ok(()), |packet| self.arrive(packet))
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::Incarnation;
    use cloudy_proto::wire::ControlFrame;

    use super::*;

    fn packet(term: u64) -> Packet {
        let frame = Frame::Control(ControlFrame::Coordinates { term });
        Packet { from: 0, sender: 0, to: 1, epoch: 1, stream: Stream::Control, incarnation: Incarnation(1), frame }
    }

    fn terms(packets: &[Packet]) -> Vec<u64> {
        let term = |packet: &Packet| match packet.frame {
            Frame::Control(ControlFrame::Coordinates { term }) => term,
            _ => 0,
        };
        packets.iter().map(term).collect()
    }

    #[test]
    fn frames_pass_in_their_order_at_the_rate_and_no_more_wait_than_the_bound() {
        let bytes = encoded_bytes(&packet(1).frame);
        let mut pipes = Pipes::default();
        let narrow = Narrow { bytes_per_second: bytes * 10, queue_bytes: Some(2 * bytes), overtake_after_us: None };
        pipes.narrow(0, 1, narrow, 1_000_000);
        let enters = |pipes: &mut Pipes, term, now_us| match pipes.enter(packet(term), now_us) {
            Passage::At(at_us, _) => Some(at_us),
            Passage::Free(_) | Passage::Full => None,
        };
        assert_eq!([1, 2, 3].map(|term| enters(&mut pipes, term, 50)), [Some(100_050), Some(200_050), None]);
        assert!(pipes.leave(0, 1, 100_049).is_empty());
        assert_eq!(terms(&pipes.leave(0, 1, 100_050)), [1]);
        assert_eq!(enters(&mut pipes, 4, 150_000), Some(300_050));
        assert_eq!(terms(&pipes.leave(0, 1, 1_000_000)), [2, 4], "the rest comes once the link is wide again");
        assert!(matches!(pipes.enter(packet(5), 1_000_001), Passage::Free(_)));
    }
    #[test]
    fn control_frames_overtake_bulk_after_the_time_that_the_path_queues() {
        let bytes = encoded_bytes(&packet(1).frame);
        let mut pipes = Pipes::default();
        let narrow = Narrow { bytes_per_second: bytes * 10, queue_bytes: None, overtake_after_us: Some(150_000) };
        pipes.narrow(0, 1, narrow, 10_000_000);
        let mut enters = |packet: Packet| match pipes.enter(packet, 0) {
            Passage::At(at_us, _) => at_us,
            Passage::Free(_) | Passage::Full => unreachable!("the link is narrow, without a bound"),
        };
        let bulk = |term| Packet { stream: Stream::Result, ..packet(term) };
        assert_eq!(enters(packet(1)), 100_000, "it waits for nothing");
        assert_eq!([2, 3, 4].map(|term| enters(bulk(term))), [100_000, 200_000, 300_000]);
        assert_eq!([5, 6].map(|term| enters(packet(term))), [250_000, 350_000]);
        assert_eq!(terms(&pipes.leave(0, 1, 250_000)), [1, 5, 2, 3]);
        assert_eq!(terms(&pipes.leave(0, 1, 10_000_000)), [6, 4]);
    }
}
