//! Disks, processes that come back, and nodes that come later.

use std::time::Duration;

use cloudy_node::fault::DiskFault;
use cloudy_proto::Durability;

use super::{DiskPlan, Fault, Newcomer, Plan, RETAIN_BYTES, Step, Who};
use crate::sim::dice::Dice;

/// After which time a process is started again: at once, before it is missed, or long after.
const RESTART_US: &[u64] = &[0, 1_000, 20_000, 100_000, 300_000, 700_000];

/// After which time something goes wrong at a step.
const AFTER_STEP_US: &[u64] = &[0, 50, 500, 2_000, 6_000, 30_000];

/// The moments at which processes die and come back.
const STEPS: &[Step] =
    &[Step::Created, Step::Kickstart, Step::Wedge, Step::Wedge, Step::Install, Step::Install, Step::Stop, Step::Final];

impl Plan {
    /// Decides where the result is kept, and which nodes are restarted or added.
    pub(super) fn add_restarts(&mut self, dice: &mut Dice) {
        if dice.chance(350) {
            self.add_disks(dice);
        }
        let restarts = dice.pick(&[0, 0, 0, 1, 1, 2, 3]);
        for _ in 0..restarts {
            let who = self.some_node(dice);
            let fault = Fault::Restart { who, after_us: dice.pick(RESTART_US) };
            self.add_at_some_time(dice, fault);
        }
        if self.on_disk() && dice.chance(200) {
            let fault = Fault::LoseDisk { who: self.some_node(dice), after_us: dice.pick(RESTART_US) };
            self.add_at_some_time(dice, fault);
        }
        if self.on_disk() && dice.chance(400) {
            for _ in 0..dice.pick(&[1, 1, 2, 3]) {
                let within_us = dice.pick(&[0, 5_000, 50_000, 300_000]);
                self.add_at_some_time(dice, Fault::PowerCut { within_us });
            }
        }
        if self.session.is_none() && dice.chance(150) {
            for _ in 0..dice.between(1, 2) {
                let what = if dice.chance(600) { Newcomer::Member } else { Newcomer::Observer };
                self.newcomers.push((dice.between(self.heal_at_us / 8, self.heal_at_us), what));
                self.drift_ppm.push(0);
            }
        }
    }

    /// Applications that keep their state, and so need not keep the whole result.
    pub(super) fn add_snapshots(&mut self, dice: &mut Dice) {
        if dice.chance(300) {
            self.snapshot_every = Some(dice.pick(&[1, 3, 10, 40]));
            let windows = dice.pick(&[8, 32, 128, 1_024]);
            // A node that misses a part which no reachable node retains asks the others for the failure timeout.
            if self.parameters.failure_timeout < Duration::from_secs(10) {
                self.retain_bytes = windows * self.parameters.window_bytes;
            }
        }
    }

    /// Uses real stores in a small part of the runs: they take time.
    pub(super) fn add_real_disks(&mut self, dice: &mut Dice) {
        let goes_back = |(_, fault): &(u64, Fault)| matches!(fault, Fault::StaleDisk { .. });
        if self.on_disk() && !self.faults.iter().any(goes_back) && dice.chance(60) {
            self.disk.real = true;
            // So that some records are not synced when a process crashes.
            self.disk.sync_us = self.disk.sync_us.max(5_000);
            let within_us = dice.pick(&[0, 5_000, 50_000]);
            self.faults.push((dice.between(self.heal_at_us / 4, self.heal_at_us), Fault::PowerCut { within_us }));
        }
    }

    /// Disks that are put back as they were: with a network and disks that let who runs on answer in time.
    pub(super) fn add_stale_disks(&mut self, dice: &mut Dice) {
        let is_calm = !self.kills_anybody && !self.has_long_paths();
        if !self.on_disk() || self.nodes < 3 || !is_calm || !dice.chance(700) {
            return;
        }
        self.parameters.wedge_timeout = Duration::from_millis(250);
        self.parameters.sync_timeout = Duration::from_secs(2);
        self.disk.slow_per_mille = 0;
        self.network.lost_per_mille = 0;
        for _ in 0..dice.between(1, 3) {
            let age_us = dice.pick(&[5_000, 50_000, 200_000, 500_000]);
            let node = dice.below(self.nodes);
            let (who, at_us) = (Who::Node(node), dice.between(0, self.heal_at_us * 3 / 4));
            self.faults.push((at_us, Fault::StaleDisk { who, age_us, after_us: dice.pick(&RESTART_US[..4]) }));
            if dice.chance(350) {
                // Another view follows in between.
                let other = Who::Node((node + 1 + dice.below(self.nodes - 1)) % self.nodes);
                self.faults.push((at_us + age_us / 4, Fault::Restart { who: other, after_us: 0 }));
            }
        }
    }

    /// Disks of which an operation fails.
    pub(super) fn add_failing_disks(&mut self, dice: &mut Dice) {
        let is_wanted = self.disk.real || dice.chance(200);
        if !self.on_disk() || !is_wanted {
            return;
        }
        for _ in 0..dice.between(1, 2) {
            let who = self.some_node(dice);
            let how = dice.pick(&[DiskFault::Io, DiskFault::Full, DiskFault::Short]);
            let fault = Fault::FailDisk { who, how, after_us: dice.pick(RESTART_US) };
            self.add_at_some_time(dice, fault);
        }
    }

    fn add_disks(&mut self, dice: &mut Dice) {
        self.parameters.durability = Durability::Disk;
        self.parameters.sync_timeout = Duration::from_millis(dice.pick(&[100, 500, 2_000]));
        let timeout_us = self.parameters.failure_timeout.as_micros() as u64;
        self.disk = DiskPlan {
            sync_us: dice.pick(&[0, 0, 200, 2_000, 20_000]),
            slow_per_mille: dice.pick(&[0, 0, 20]),
            slow_us: (4 * timeout_us).min(1_000_000),
            real: false,
        };
        self.retain_bytes = Dice::of(self.seed ^ 0x5e7a_17ed).pick(&[RETAIN_BYTES, 1, 1_000, 5_000]);
        let bounds = [None, None, Some(1), Some(1_000), Some(5_000), Some(20_000)];
        self.retain_disk_bytes = Dice::of(self.seed ^ 0x00d1_5cb0_07d5).pick(&bounds);
        for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
            let (who, for_us) = (self.some_node(dice), dice.pick(&[10_000, 100_000, 500_000, 1_500_000]));
            self.add_at_some_time(dice, Fault::SlowDisk { who, for_us });
        }
    }

    fn some_node(&self, dice: &mut Dice) -> Who {
        if dice.chance(350) { Who::Coordinator } else { Who::Node(dice.below(self.nodes)) }
    }

    fn add_at_some_time(&mut self, dice: &mut Dice, fault: Fault) {
        if dice.chance(350) {
            self.at_steps.push((dice.pick(STEPS), dice.pick(AFTER_STEP_US), fault));
        } else {
            self.faults.push((dice.between(0, self.heal_at_us), fault));
        }
    }
}

impl Plan {
    /// The number of restarts by the plan's faults and by a story.
    #[must_use]
    pub fn restarts(&self) -> usize {
        let at_steps = self.at_steps.iter().map(|(.., fault)| fault);
        let starts = |fault: &Fault| match fault {
            Fault::Suspend { .. } => 2,
            Fault::Restart { .. } | Fault::LoseDisk { .. } | Fault::FailDisk { .. } | Fault::StaleDisk { .. } => 1,
            Fault::PowerCut { .. } => self.homes(),
            _ => 0,
        };
        self.story_restarts + self.faults.iter().map(|(_, fault)| fault).chain(at_steps).map(starts).sum::<usize>()
    }
}
