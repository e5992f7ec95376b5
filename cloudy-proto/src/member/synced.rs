//! `Disk`: what of a view is synced, and what an earlier run stored of it.

use crate::due::{Cause, Due};
use crate::id::{Rank, Round};
use crate::lane::Lane;
use crate::member::Member;
use crate::slot::Slot;
use crate::view::Place;
use crate::walk::Walk;

impl Member {
    /// By rank: where each lane's messages end. What was given out to be stored reaches there.
    pub(crate) fn message_ends(&self) -> Vec<Round> {
        self.lanes.iter().map(Lane::message_end).collect()
    }

    /// Message slots below these rounds are synced.
    pub(crate) fn synced(&mut self, ends: &[Round], due: &mut Due) {
        due.set(Cause::Confirmable);
        self.lanes.iter_mut().zip(ends).for_each(|(lane, &end)| lane.sync(end));
    }

    /// The view as an earlier run stored it: wedged from birth. `passed` is the last slot in the result.
    ///
    /// # Errors
    /// The first lane whose slots do not follow each other.
    pub(crate) fn restored<'a>(
        mut self,
        slots: impl Iterator<Item = (Rank, &'a Slot)>,
        passed: Option<Place>,
        ends: &[Round],
    ) -> Result<Self, Rank> {
        self.wedged = true;
        self.walk = Walk::at(passed.unwrap_or_default());
        for (rank, slot) in slots {
            let lane = self.lanes.get_mut(rank.at()).ok_or(rank)?;
            if passed.is_some_and(|passed| Place { round: slot.round, rank } <= passed) {
                *lane = Lane::restored(slot.round.next());
            } else {
                if lane.message_end() == Round(0) {
                    // What came before it in its lane is behind a snapshot.
                    *lane = Lane::restored(slot.prev);
                }
                let taken = lane.take_slot(slot.clone(), false).map_err(|_| rank)?;
                lane.sync(lane.message_end());
                taken.then_some(()).ok_or(rank)?;
            }
        }
        // Lanes of which nothing is left but what a snapshot took in.
        for (lane, &end) in self.lanes.iter_mut().zip(ends).filter(|(lane, _)| lane.message_end() == Round(0)) {
            *lane = Lane::restored(end);
        }
        Ok(self)
    }
}
