//! The causes of view changes, and the faults during them: the coordinator is not spared.

use super::{Fault, Plan, Step, Who};
use crate::sim::dice::Dice;

/// Lengths of cuts, slowness and partitions that timeouts are meant to notice.
const LONG_US: &[u64] = &[60_000, 150_000, 400_000, 800_000];

/// After which time something goes wrong at a step: at once, while it is in progress, or a little later.
const AFTER_STEP_US: &[u64] = &[0, 50, 500, 2_000, 6_000, 30_000];

impl Plan {
    /// Adds faults that last long enough to be noticed.
    pub(super) fn add_evicting_faults(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 1, 2, 4]) {
            let at = dice.between(0, self.heal_at_us);
            let node = dice.below(self.nodes);
            let (who, outage_us) = (Who::Node(node), dice.pick(LONG_US));
            let fault = match dice.below(4) {
                0 => Fault::Slow { who, for_us: outage_us },
                1 => Fault::Isolate { who, outage_us },
                _ if self.nodes < 2 => continue,
                _ => Fault::Cut { a: node, b: (node + 1 + dice.below(self.nodes - 1)) % self.nodes, outage_us },
            };
            self.faults.push((at, fault));
        }
    }

    /// Adds crashes and partitions.
    pub(super) fn add_failover_faults(&mut self, dice: &mut Dice) {
        self.kills_anybody = dice.chance(60);
        if self.kills_anybody && dice.chance(400) {
            self.faults.push((dice.between(0, 10_000), Fault::Kill { who: Who::Coordinator }));
        }
        let kills = dice.pick(&[0, 0, 1, 1, 2, 3]);
        for _ in 0..kills {
            let at = if dice.chance(100) { dice.between(0, 20_000) } else { dice.between(0, self.heal_at_us) };
            self.faults.push((at, Fault::Kill { who: self.whom(dice) }));
        }
        for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
            let at = dice.between(0, self.heal_at_us);
            let fault = self.falls_apart(dice);
            self.faults.push((at, fault));
        }
        let steps = [
            Step::Created,
            Step::Kickstart,
            Step::Wedge,
            Step::Wedge,
            Step::Wedge,
            Step::Install,
            Step::Install,
            Step::Install,
            Step::Stop,
            Step::Final,
        ];
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2]) {
            let (step, after_us) = (dice.pick(&steps), dice.pick(AFTER_STEP_US));
            let kills = dice.chance(600);
            let fault = if kills { Fault::Kill { who: self.whom(dice) } } else { self.falls_apart(dice) };
            self.at_steps.push((step, after_us, fault));
        }
    }

    /// The coordinator as often as not.
    fn whom(&self, dice: &mut Dice) -> Who {
        if dice.chance(500) { Who::Coordinator } else { Who::Node(dice.below(self.nodes)) }
    }

    /// The network parts, or a node can only hear, or does not run for a while.
    fn falls_apart(&self, dice: &mut Dice) -> Fault {
        let outage_us = dice.pick(LONG_US);
        let (from, other) = (dice.below(self.nodes), dice.below(self.nodes - 1));
        let side = dice.between(1, (1 << self.nodes) - 2) as u32;
        match dice.below(8) {
            0 => Fault::Partition { side, bridge: None, outage_us },
            1 if self.nodes > 2 => Fault::Partition { side, bridge: Some(from), outage_us },
            2 | 3 => Fault::PartCoordinator { companions: if dice.chance(500) { 0 } else { 1 << from }, outage_us },
            4 => Fault::OneWay { from, to: (from + 1 + other) % self.nodes, for_us: outage_us },
            5 => Fault::Mute { who: self.whom(dice), for_us: outage_us },
            6 => Fault::Slow { who: Who::Coordinator, for_us: outage_us },
            _ => Fault::Isolate { who: self.whom(dice), outage_us },
        }
    }
}
