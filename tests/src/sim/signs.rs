//! Reports of drivers beside whole frames: bytes of a slot that crosses a narrow link, and datagrams of a peer whose
//! frames are late.

use cloudy_proto::Input;
use cloudy_proto::wire::Stream;

use crate::invariants::Failure;
use crate::sim::node::Item;
use crate::sim::queue::{Packet, Part};
use crate::sim::stats::Met;
use crate::sim::world::World;

/// A frame that takes at least this long to cross a link is reported in parts …
const PARTS_AFTER_US: u64 = 4_000;
/// … at least this many, the last of which completes it …
const PARTS_MIN: u64 = 4;
/// … and one for each such time, as a driver reports bytes that arrive many times a second.
const PART_EVERY_US: u64 = 500_000;

/// The parts of a frame of a lane that crosses a link from one time to another, each with the time at which it arrives. The
/// last part is not among them: with it the frame is complete.
pub(super) fn parts(packet: &Packet, bytes: u64, begins_us: u64, ends_us: u64) -> Vec<(u64, Part)> {
    let took_us = ends_us - begins_us;
    if took_us < PARTS_AFTER_US || !matches!(packet.stream, Stream::Lane { .. }) {
        return Vec::new();
    }
    let Packet { from, to, epoch, stream, incarnation, .. } = *packet;
    let count = (took_us / PART_EVERY_US).max(PARTS_MIN);
    let part = Part { from, to, epoch, stream, incarnation, bytes: bytes / count };
    (1..count).map(|at| (begins_us + took_us * at / count, part)).collect()
}

impl World {
    /// Bytes of a frame that is not complete arrive, unless their connection is gone or their direction is held.
    pub(super) fn part_arrives(&mut self, part: Part) -> Result<(), Failure> {
        let is_live = self.network.live(part.from, part.to) == Some(part.epoch);
        match self.latest[part.to].filter(|_| is_live && !self.network.is_held(part.from, part.to)) {
            Some(place) => self.give(place, Item::Part(part)),
            None => Ok(()),
        }
    }

    /// A driver reports bytes of streams that it reads.
    pub(super) fn take_part(&mut self, node: usize, part: Part) {
        let (from, machine) = (self.ids[part.from], &self.nodes[node].machine);
        let end = &self.nodes[node].links[part.from];
        let is_read = !end.parked.contains_key(&part.stream) && !end.stopped.contains(&part.stream);
        let is_admitted = machine.admits(from, part.incarnation, part.stream) == cloudy_proto::Admission::Read;
        if self.plan.reports_bytes && end.told == Some(part.epoch) && is_read && is_admitted {
            self.stats.met(Met::BytesReported);
            self.handle(node, Input::Arriving { from, stream: part.stream, bytes: part.bytes });
        }
    }

    /// Before its timers run, a driver reports the datagrams of peers whose frames are late.
    pub(super) fn report_datagrams(&mut self, node: usize) {
        if !self.plan.reports_bytes {
            return;
        }
        let home = self.nodes[node].home;
        for peer in self.nodes[node].machine.quiet() {
            let from = self.judge.home_of(peer);
            if !self.sends_datagrams(from, home) {
                continue;
            }
            // An acknowledgement of the latest packet takes a round trip.
            let since_us = self.now_us.saturating_sub(2 * self.network.longest_us());
            self.stats.met(Met::DatagramsReported);
            let since = self.nodes[node].clock.at(since_us);
            self.handle(node, Input::Alive { peer, since });
        }
    }

    /// Datagrams pass from one node to another: the first one's process runs, and they are connected.
    fn sends_datagrams(&self, from: usize, to: usize) -> bool {
        let runs = |place: usize| self.nodes[place].alive && self.nodes[place].asleep_until_us <= self.now_us;
        let is_held = self.network.is_held(from, to) || self.network.is_held(to, from);
        self.latest[from].is_some_and(runs) && self.network.live(from, to).is_some() && !is_held
    }
}
