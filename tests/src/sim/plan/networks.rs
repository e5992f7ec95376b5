//! Links that carry little, and messages that fill them.

use std::time::Duration;

use cloudy_proto::CatchUpPolicy;

use super::{Fault, Plan, Traffic, Who};
use crate::sim::dice::Dice;
use crate::sim::narrow::Narrow;

/// Times for which a link is narrow.
const NARROW_US: &[u64] = &[20_000, 150_000, 800_000];

impl Plan {
    /// In a part of the groups that evict, members send less for a node that cannot keep up; and in a part of these a member
    /// is cut off under load, and comes back over links that carry less than that.
    pub(super) fn add_slow_learners(&mut self, dice: &mut Dice) {
        if !self.evicts() || !dice.chance(500) {
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
        let narrow = Narrow { bytes_per_second: dice.pick(&[60_000, 100_000, 150_000]), queue_bytes: None };
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
            };
            let (at, for_us, all) = (dice.between(0, self.heal_at_us), dice.pick(NARROW_US), dice.chance(300));
            let ends = (0..self.nodes).filter(|&end| end != node && (all || end == other));
            self.faults.extend(ends.map(|b| (at, Fault::Narrow { a: node, b, narrow, for_us })));
        }
        if dice.chance(300) {
            self.traffic.payload_bytes_max = dice.pick(&[1_000, 10_000, 60_000]);
            self.traffic.payloads_max = self.traffic.payloads_max.min(40);
        }
    }
}
