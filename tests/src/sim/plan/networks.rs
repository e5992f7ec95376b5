//! Links that carry little, and messages that fill them.

use super::{Fault, Plan};
use crate::sim::dice::Dice;
use crate::sim::narrow::Narrow;

/// Times for which a link is narrow.
const NARROW_US: &[u64] = &[20_000, 150_000, 800_000];

impl Plan {
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
