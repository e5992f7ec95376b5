//! The connections between nodes, and how long frames take on them.
//!
//! Frames of one stream arrive in their order; streams overtake each other. A connection that goes down loses what is
//! in flight on it. Each connection of a pair has its own number, the epoch: frames of an old one never arrive.

use std::collections::BTreeMap;

use cloudy_proto::wire::Stream;

use crate::sim::dice::Dice;
use crate::sim::plan::NetworkPlan;
use crate::sim::queue::Packet;
use crate::sim::stats::{Met, Stats};

/// All connections.
#[derive(Debug)]
pub struct Network {
    plan: NetworkPlan,
    /// By pair, the lower end first: the connection that lives.
    live: BTreeMap<(usize, usize), u64>,
    epochs: u64,
    /// When the last frame of a stream arrives, and on which connection.
    last_arrival: BTreeMap<(usize, usize, Stream), (u64, u64)>,
    /// By direction: the time until which nothing arrives, and the frames that wait for it.
    held: BTreeMap<(usize, usize), (u64, Vec<Packet>)>,
    /// By pair, the lower end first: until when no connection is made.
    parted: BTreeMap<(usize, usize), u64>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// No connection yet.
    #[must_use]
    pub fn new(plan: NetworkPlan) -> Self {
        Self {
            plan,
            live: BTreeMap::new(),
            epochs: 0,
            last_arrival: BTreeMap::new(),
            held: BTreeMap::new(),
            parted: BTreeMap::new(),
        }
    }

    /// A new connection, in the place of an older one. Gives its epoch.
    pub fn connect(&mut self, a: usize, b: usize) -> u64 {
        self.epochs += 1;
        self.live.insert(pair(a, b), self.epochs);
        self.epochs
    }

    /// The connection is gone; gives its epoch.
    pub fn cut(&mut self, a: usize, b: usize) -> Option<u64> {
        self.live.remove(&pair(a, b))
    }

    /// The epoch of the connection that lives.
    #[must_use]
    pub fn live(&self, a: usize, b: usize) -> Option<u64> {
        self.live.get(&pair(a, b)).copied()
    }

    /// Nothing arrives in a direction until a time: it waits.
    pub fn hold(&mut self, from: usize, to: usize, until_us: u64) {
        let held = self.held.entry((from, to)).or_default();
        held.0 = held.0.max(until_us);
    }

    /// Nothing arrives in a direction.
    #[must_use]
    pub fn is_held(&self, from: usize, to: usize) -> bool {
        self.held.contains_key(&(from, to))
    }

    /// The longest that a packet takes in one direction, unless it is lost and repeated.
    #[must_use]
    pub fn longest_us(&self) -> u64 {
        self.plan.latency_us + self.plan.jitter_us
    }

    /// A frame that arrives while its direction is held waits; otherwise it is given back.
    pub fn arrive(&mut self, packet: Packet) -> Option<Packet> {
        match self.held.get_mut(&(packet.from, packet.to)) {
            Some((_, waiting)) => {
                waiting.push(packet);
                None
            }
            None => Some(packet),
        }
    }

    /// Returns the frames that have waited in a direction, if their time is over.
    pub fn release(&mut self, from: usize, to: usize, now_us: u64) -> Vec<Packet> {
        if self.held.get(&(from, to)).is_none_or(|(until_us, _)| *until_us > now_us) {
            return Vec::new();
        }
        self.held.remove(&(from, to)).map(|(_, waiting)| waiting).unwrap_or_default()
    }

    /// All that has waited anywhere.
    pub fn release_all(&mut self) -> Vec<Packet> {
        core::mem::take(&mut self.held).into_values().flat_map(|(_, waiting)| waiting).collect()
    }

    /// No connection of a pair is made until a time.
    pub fn part(&mut self, a: usize, b: usize, until_us: u64) {
        let parted = self.parted.entry(pair(a, b)).or_default();
        *parted = until_us.max(*parted);
    }

    /// Until when no connection of a pair can be made, because it is parted, or nothing arrives in one direction.
    #[must_use]
    pub fn blocked_until(&self, a: usize, b: usize) -> u64 {
        let held = |from, to| self.held.get(&(from, to)).map_or(0, |(until_us, _)| *until_us);
        self.parted.get(&pair(a, b)).copied().unwrap_or_default().max(held(a, b)).max(held(b, a))
    }

    /// The time after which an end notices that a connection is up or gone.
    pub fn notice_us(&self, dice: &mut Dice) -> u64 {
        dice.between(0, self.plan.notice_us)
    }

    /// Faults end: frames take their time, and none of them much more.
    pub fn calm(&mut self) {
        self.plan.late_per_mille = 0;
        self.plan.lost_per_mille = 0;
        self.parted.clear();
    }

    /// Every frame goes through the wire's encoding.
    #[must_use]
    pub fn encoded(&self) -> bool {
        self.plan.encoded
    }

    /// When a frame that is sent arrives; none if it is lost.
    pub fn send(&mut self, now_us: u64, packet: &Packet, dice: &mut Dice, stats: &mut Stats) -> Option<u64> {
        stats.met(Met::Frame);
        if self.live(packet.from, packet.to) != Some(packet.epoch) {
            stats.met(Met::FrameLostWithLink);
            return None;
        }
        if matches!(packet.stream, Stream::Lane { .. }) && dice.chance(self.plan.lost_per_mille) {
            stats.met(Met::FrameLostFromStream);
            return None;
        }
        let mut after_us = self.plan.latency_us + dice.between(0, self.plan.jitter_us);
        if packet.stream == Stream::Result {
            after_us += self.plan.result_us;
        }
        if dice.chance(self.plan.late_per_mille) {
            stats.met(Met::FrameLate);
            after_us += dice.between(0, self.plan.late_us);
        }
        let last = self.last_arrival.entry((packet.from, packet.to, packet.stream)).or_default();
        let not_before = if last.0 == packet.epoch { last.1 } else { 0 };
        let arrival = not_before.max(now_us + after_us);
        *last = (packet.epoch, arrival);
        Some(arrival)
    }
}
