//! Members that leave by themselves, also while no node reaches another (`protocol.md` §6.8).

use super::{Fault, Plan, Step, Who};
use crate::sim::dice::Dice;

impl Plan {
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
