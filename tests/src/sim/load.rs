//! Load that continues after the faults: the gaps in its approvals, and the time until all members are on the ring.

use crate::invariants::{Failure, excuse};
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::World;

/// The approvals and the ring since the faults ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    begun_us: u64,
    until_us: u64,
    approved: u64,
    approved_us: u64,
    gap_us: u64,
    back_us: u64,
}

impl World {
    /// Applications broadcast: until the faults end, and for the plan's time after that.
    pub(super) fn is_loaded(&self) -> bool {
        let ends = |load: Load| self.now_us >= load.until_us;
        !self.healed || (self.plan.load_for_us > 0 && !self.load.is_some_and(ends))
    }

    /// The load after the faults is not over.
    #[must_use]
    pub fn load_continues(&self) -> bool {
        self.healed && self.is_loaded()
    }

    /// The faults are over, and the group exists.
    pub(super) fn begin_load(&mut self) {
        if self.plan.load_for_us == 0 || self.load.is_some() {
            return;
        }
        let (now, until_us) = (self.now_us, self.now_us + self.plan.load_for_us);
        let approved = self.judge.approved();
        self.load = Some(Load { begun_us: now, until_us, approved, approved_us: now, gap_us: 0, back_us: now });
        // Also a group without any event reaches the end of the load.
        self.queue.at(until_us, Event::Wake { node: 0 });
    }

    /// Notes approvals and the ring; at the end of the load, judges them.
    ///
    /// # Errors
    /// If the longest gap in the approvals, or the time until all members are on the ring, exceeds its bound.
    pub(super) fn watch_load(&mut self) -> Result<(), Failure> {
        let Some(mut load) = self.load.filter(|load| load.until_us > 0) else { return Ok(()) };
        let now = self.now_us.min(load.until_us);
        let approved = self.judge.approved();
        let is_over = self.now_us >= load.until_us;
        if approved > load.approved || is_over {
            load.gap_us = load.gap_us.max(now - load.approved_us);
            (load.approved, load.approved_us) = (approved, now);
        }
        if !self.all_are_back() {
            load.back_us = now;
        }
        if is_over {
            self.judge_load(load)?;
            // Judged once.
            load.until_us = 0;
        }
        self.load = Some(load);
        Ok(())
    }

    /// Every running member is on the ring of the view in force.
    fn all_are_back(&self) -> bool {
        let Some(view) = self.judge.view().map(|view| view.id) else { return false };
        let stays = |place: &usize| self.nodes[*place].app.leaves.is_none() && !self.nodes[*place].diverged;
        let members = (0..self.latest.len()).filter(|&home| self.plan.is_member(home));
        members
            .filter_map(|home| self.running(home))
            .filter(stays)
            .all(|place| self.judge.view_of(place) == (view, true))
    }

    fn judge_load(&mut self, load: Load) -> Result<(), Failure> {
        let ends = self.end_wanted || self.judge.view().is_none_or(|view| view.last);
        let sends = |place: &usize| {
            let node = &self.nodes[*place];
            let is_quiet = !self.plan.is_member(node.home) || self.plan.traffic.quiet.contains(&node.home);
            node.app.open && node.app.leaves.is_none() && !is_quiet
        };
        let is_sent = (0..self.latest.len()).filter_map(|home| self.running(home)).any(|place| sends(&place));
        if ends || !is_sent || excuse(self).is_some() {
            return Ok(());
        }
        self.stats.met(Met::LoadJudged);
        let (gap_max_us, back_max_us) = self.plan.load_bounds_us();
        let back_us = load.back_us - load.begun_us;
        if load.gap_us > gap_max_us {
            let what = format!("none for {} us, and {gap_max_us} us is the bound", load.gap_us);
            return Err(self.judge.failure("approvals continue under load once faults are over", 0, what));
        }
        if back_us > back_max_us {
            let what = format!("only after {back_us} us, and {back_max_us} us is the bound");
            return Err(self.judge.failure("all members return under load", 0, what));
        }
        Ok(())
    }
}
