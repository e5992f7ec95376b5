//! Members that leave by themselves or stop and return, also while no node reaches another (`protocol.md` §6.8).

use super::{Fault, Plan, Step, Who};
use crate::sim::dice::Dice;

impl Plan {
    /// Some members announce that they stop, and start again, one after another or several at once.
    pub(super) fn add_planned_stops(&mut self, dice: &mut Dice) {
        if self.session.is_some() || !dice.chance(150) {
            return;
        }
        let at = dice.between(0, self.heal_at_us);
        let apart_us = dice.pick(&[0, 10_000, 200_000]);
        for nth in 0..dice.pick(&[1, 1, 2, self.nodes as u64]) {
            let (node, after_us) = (dice.below(self.nodes), dice.pick(&[1_000, 50_000, 400_000]));
            self.faults.push((at + nth * apart_us, Fault::Suspend { node, after_us, announced: false }));
        }
    }

    /// Some or all members leave, at any time; in a part of the runs while all are cut off from each other.
    pub(super) fn add_leaves(&mut self, dice: &mut Dice) {
        if self.session.is_some() || !dice.chance(300) {
            return;
        }
        let outage_us = dice.pick(&[60_000, 400_000, 800_000]);
        let cut_off_at = dice.chance(400).then(|| dice.between(0, self.heal_at_us));
        if let Some(at) = cut_off_at {
            let isolate = |node| (at, Fault::Isolate { who: Who::Node(node), outage_us });
            self.faults.extend((0..self.nodes).map(isolate));
        }
        for _ in 0..dice.pick(&[1, 1, 2, 3]) {
            let leave = Fault::Leave { node: dice.below(self.nodes) };
            match cut_off_at {
                Some(at) => self.faults.push((at + dice.between(0, outage_us), leave)),
                None if dice.chance(300) => {
                    self.at_steps.push((dice.pick(&[Step::Wedge, Step::Install]), dice.between(0, 2_000), leave));
                }
                None => self.faults.push((dice.between(0, self.heal_at_us), leave)),
            }
        }
    }
}
