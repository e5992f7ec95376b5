//! Paths that are long, links that carry little, messages that fill them, and load.

use std::time::Duration;

use cloudy_proto::limits::PAYLOAD_BYTES_MAX;
use cloudy_proto::{CatchUpPolicy, Parameters, ServeLimits};

use super::{Fault, Newcomer, Plan, Traffic, Who};
use crate::sim::dice::Dice;
use crate::sim::narrow::Narrow;

/// The maximum latency of most runs.
const LATENCY_MAX_US: u64 = 2_000;
/// The time that a path queues before a stream of a higher priority overtakes: the limit of the node's congestion control.
const OVERTAKE_AFTER_US: u64 = 300_000;
/// Times for which a link is narrow.
const NARROW_US: &[u64] = &[20_000, 150_000, 800_000];

impl Plan {
    /// In a part of the groups that evict, members send less for a node that cannot keep up; and in a part of these a member
    /// is cut off under load, and comes back over links that carry less than that.
    pub(super) fn add_slow_learners(&mut self, dice: &mut Dice) {
        if !self.evicts() || self.has_long_paths() || !dice.chance(500) {
            return;
        }
        self.parameters.catch_up = CatchUpPolicy::SlowDown;
        self.parameters.slow_down_bytes_min = dice.pick(&[1, 200, 5_000]);
        self.parameters.slow_down_max = Duration::from_millis(dice.pick(&[20, 200, 60_000]));
        if self.nodes < 3 || self.session.is_some() || !dice.chance(120) {
            return;
        }
        let node = dice.below(self.nodes);
        self.heal_at_us = 8_000_000;
        (self.parameters.window_bytes, self.parameters.window_slots) = (16_384, 8);
        (self.parameters.slot_bytes_max, self.parameters.slot_payloads_max) = (2_000, 4);
        self.traffic = Traffic {
            burst_max: 3,
            gap_us: 20_000,
            payloads_max: 1_600,
            payload_bytes_min: 500,
            payload_bytes_max: 1_500,
            large_per_mille: 0,
            quiet: vec![node],
        };
        let narrow = Narrow {
            bytes_per_second: dice.pick(&[60_000, 100_000, 150_000]),
            queue_bytes: None,
            overtake_after_us: None,
        };
        self.faults.push((100_000, Fault::Isolate { who: Who::Node(node), outage_us: 400_000 }));
        let others = (0..self.nodes).filter(|&other| other != node);
        let for_us = dice.pick(&[4_000_000, 7_000_000]);
        self.faults.extend(others.map(|b| (400_000, Fault::Narrow { a: node, b, narrow, for_us })));
    }

    /// One link is narrow, or all of a node's, one time or several; in a part of the runs messages are large.
    pub(super) fn add_narrow_links(&mut self, dice: &mut Dice) {
        if self.nodes < 2 || !dice.chance(250) {
            return;
        }
        for _ in 0..dice.pick(&[1, 1, 2, 4]) {
            let node = dice.below(self.nodes);
            let other = (node + 1 + dice.below(self.nodes - 1)) % self.nodes;
            let narrow = Narrow {
                bytes_per_second: dice.pick(&[2_000, 10_000, 50_000, 500_000]),
                queue_bytes: dice.pick(&[None, None, Some(500), Some(20_000)]),
                overtake_after_us: None,
            };
            let (at, for_us, all) = (dice.between(0, self.heal_at_us), dice.pick(NARROW_US), dice.chance(300));
            let ends = (0..self.nodes).filter(|&end| end != node && (all || end == other));
            self.faults.extend(ends.map(|b| (at, Fault::Narrow { a: node, b, narrow, for_us })));
        }
        if dice.chance(300) {
            self.traffic.payload_bytes_max = dice.pick(&[1_000, 10_000, 60_000]);
            self.traffic.payloads_max = self.traffic.payloads_max.min(40);
        }
        if dice.chance(500) {
            self.faults.iter_mut().for_each(|(_, fault)| {
                if let Fault::Narrow { narrow, .. } = fault {
                    narrow.overtake_after_us = Some(OVERTAKE_AFTER_US);
                }
            });
        }
    }

    /// In some runs paths are long, with delays that vary and differ between directions, and timeouts are the defaults.
    /// Returns whether this run is one of them.
    pub(super) fn add_long_paths(&mut self, dice: &mut Dice) -> bool {
        if self.nodes < 2 || !self.evicts() || !dice.chance(30) {
            return false;
        }
        // Of the round trip, half varies.
        let one_way_us = dice.pick(&[25_000, 65_000, 130_000, 200_000]);
        (self.network.latency_us, self.network.jitter_us) = (one_way_us * 3 / 4, one_way_us / 2);
        self.network.notice_us = dice.pick(&[10_000, one_way_us * 4]);
        for _ in 0..dice.pick(&[0, 0, 1, 3]) {
            let from = dice.below(self.nodes);
            let to = (from + 1 + dice.below(self.nodes - 1)) % self.nodes;
            self.slowness.delays.push((from, to, dice.between(0, 60_000)));
        }
        let defaults = Parameters::default();
        self.parameters.heartbeat = defaults.heartbeat;
        self.parameters.failure_timeout = defaults.failure_timeout;
        self.parameters.stall_timeout = defaults.stall_timeout;
        self.parameters.wedge_timeout = defaults.wedge_timeout;
        self.heal_at_us = dice.between(5_000_000, 10_000_000);
        (self.traffic.gap_us, self.traffic.burst_max) = (400_000, 3);
        self.traffic.payloads_max = self.traffic.payloads_max.min(40);
        for _ in 0..dice.pick(&[0, 1, 2]) {
            let (who, outage_us) = (Who::Node(dice.below(self.nodes)), dice.pick(&[1_000_000, 3_000_000]));
            let fault = if dice.chance(500) {
                Fault::Isolate { who, outage_us }
            } else {
                Fault::Slow { who, for_us: outage_us }
            };
            self.faults.push((dice.between(0, self.heal_at_us), fault));
        }
        true
    }

    /// In some runs links and nodes fail in the first milliseconds, and a node joins then.
    pub(super) fn add_early_faults(&mut self, dice: &mut Dice) {
        if self.nodes < 2 || !dice.chance(100) {
            return;
        }
        let within_us = 3 * (self.network.latency_us + self.network.notice_us) + 5_000;
        for _ in 0..dice.between(1, 3) {
            let a = dice.below(self.nodes);
            let b = (a + 1 + dice.below(self.nodes - 1)) % self.nodes;
            let outage_us = dice.pick(&[1_000, 30_000, 200_000, 800_000]);
            let fault = match dice.below(5) {
                0 => Fault::Isolate { who: Who::Node(a), outage_us },
                1 => Fault::Slow { who: Who::Node(a), for_us: outage_us },
                2 => Fault::OneWay { from: a, to: b, for_us: outage_us },
                3 => Fault::Mute { who: Who::Node(a), for_us: outage_us },
                _ => Fault::Cut { a, b, outage_us },
            };
            self.faults.push((dice.between(0, within_us), fault));
        }
        if self.session.is_none() && dice.chance(500) {
            let newcomer = if dice.chance(700) { Newcomer::Member } else { Newcomer::Observer };
            self.newcomers.push((dice.between(0, within_us), newcomer));
            self.drift_ppm.push(0);
        }
    }

    /// In a few runs members broadcast payloads of up to the maximum size, over links of any width.
    pub(super) fn add_large_payloads(&mut self, dice: &mut Dice) {
        if self.nodes < 2 || self.disk.real || !dice.chance(6) {
            return;
        }
        let bytes = dice.pick(&[1 << 20, 4 << 20, PAYLOAD_BYTES_MAX as u64]);
        self.traffic = Traffic {
            burst_max: 1,
            gap_us: self.heal_at_us / 4,
            payloads_max: 2,
            payload_bytes_min: bytes,
            payload_bytes_max: bytes,
            large_per_mille: 0,
            quiet: (2..self.nodes).collect(),
        };
        (self.serves, self.network.encoded) = (ServeLimits::default(), false);
        // Each payload takes some tenths of a second on a narrow link.
        let bytes_per_second = dice.pick(&[2, 10]) * bytes;
        let narrow = Narrow { bytes_per_second, queue_bytes: None, overtake_after_us: None };
        if dice.chance(500) {
            let node = dice.below(self.nodes);
            let (at, for_us) = (dice.between(0, self.heal_at_us), 800_000);
            let ends = (0..self.nodes).filter(|&end| end != node);
            self.faults.extend(ends.map(|b| (at, Fault::Narrow { a: node, b, narrow, for_us })));
        }
    }

    /// In some runs applications broadcast on for seconds after the faults.
    pub(super) fn add_load(&mut self, dice: &mut Dice) {
        let is_large = self.traffic.payload_bytes_min > 0;
        if self.nodes < 2 || !self.evicts() || self.session.is_some() || is_large || !dice.chance(60) {
            return;
        }
        self.load_for_us = self.load_bounds_us().1 + 1_000_000;
        self.traffic.payloads_max = u64::MAX;
        self.traffic.payload_bytes_max = self.traffic.payload_bytes_max.min(60);
        (self.traffic.gap_us, self.traffic.burst_max) = (200_000, 2);
        if self.has_long_paths() {
            // The windows carry more than the load, also where a turn of the token takes two seconds.
            (self.parameters.window_slots, self.parameters.window_bytes) = (8, 4_096);
            (self.parameters.slot_payloads_max, self.parameters.slot_bytes_max) = (16, 512);
        }
    }

    /// Once the faults are over, the maximum time without an approval under load, and the maximum time until all members
    /// are on the ring.
    #[must_use]
    pub fn load_bounds_us(&self) -> (u64, u64) {
        if self.has_long_paths() { (5_000_000, 10_000_000) } else { (3_000_000, 5_000_000) }
    }

    /// Frames take far longer than in most runs.
    pub(super) fn has_long_paths(&self) -> bool {
        self.network.latency_us > LATENCY_MAX_US
    }
}
