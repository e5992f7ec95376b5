//! Frames of the other members.

use crate::due::{Cause, Due};
use crate::id::{Rank, Round};
use crate::lane::LaneBreak;
use crate::member::Member;
use crate::member::outbound::LaneFlow;
use crate::pending::ConfirmedTooMuch;
use crate::records::Records;
use crate::rules::Rule;
use crate::time::Time;
use crate::wire::{Heartbeat, KnownSkip, LaneFrame, TallyFrame};

/// A member broke the protocol: its link is closed and may be dialled again; nothing of the frame was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error(transparent)]
    Lane(#[from] LaneBreak),
    #[error(transparent)]
    Confirm(#[from] ConfirmedTooMuch),
    #[error("{bytes} bytes in flight, where the view's window allows {max}")]
    Window { bytes: u64, max: u64 },
    #[error("it sends skips of lane {lane}, which another member carries")]
    Skips { lane: Rank },
    #[error("it resumes lane {lane} at round {wanted}, but the lane ends at {end}")]
    Resume { lane: Rank, wanted: Round, end: Round },
}

impl Member {
    /// Handles a frame of a lane, from the member whose link carries it.
    pub(crate) fn take_lane(
        &mut self,
        owner: Rank,
        frame: LaneFrame,
        records: &mut Records,
        due: &mut Due,
    ) -> Result<(), Breach> {
        if self.wedged {
            return Ok(());
        }
        due.set(Cause::Confirmable);
        let gaps_are_skips = !self.rules.holds(Rule::NoSkipFromGap);
        let lane = &mut self.lanes[owner.at()];
        match frame {
            LaneFrame::Slot(slot) => {
                let round = slot.round;
                if lane.take_slot(slot, gaps_are_skips)? {
                    self.taken_max = self.taken_max.max(Some(round));
                    records.keep_slot(self.view.id, owner, lane.newest());
                }
                let (bytes, max) = (lane.unconfirmed_bytes(), self.view.parameters.window_bytes);
                // One slot may exceed the window; more than one may not.
                let alone = lane.held_from(lane.confirmable()).count() <= 1;
                if bytes > max && !alone && self.model.bounds_window_bytes() {
                    return Err(Breach::Window { bytes, max });
                }
            }
            LaneFrame::Skip { prev, frontier } => {
                lane.take_skip(prev, frontier, gaps_are_skips)?;
                due.set(Cause::Skips);
            }
        }
        due.set(Cause::LaneFrame);
        Ok(())
    }

    /// Handles a frame of a member's tally. Returns its heartbeat, if it is one.
    pub(crate) fn take_tally(
        &mut self,
        from: Rank,
        frame: TallyFrame,
        now: Time,
        due: &mut Due,
    ) -> Result<Option<Heartbeat>, Breach> {
        match frame {
            TallyFrame::Heartbeat(heartbeat) => {
                self.flows.peers[from.at()].waiting = heartbeat.waiting;
                return Ok(Some(heartbeat));
            }
            TallyFrame::Resume { frontiers } => self.take_resume(from, &frontiers)?,
            TallyFrame::Confirm { frontier } if !self.frozen(Rule::WedgedSendsNothing) => {
                let end = self.lanes[self.rank.at()].frontier();
                let before = self.pending.approved();
                self.pending.confirm(from, frontier, end, now)?;
                due.set_if(Cause::Outputs, self.pending.approved() > before);
            }
            TallyFrame::Approved { frontier } if !self.wedged => {
                self.lanes[from.at()].approve(frontier);
                // The walk waits for one lane, unless a rule is off.
                let is_awaited = from == self.walk.cursor().rank || !self.rules.holds(Rule::CursorWaitsForUnknown);
                due.set_if(Cause::Outputs, is_awaited);
            }
            TallyFrame::Moved { taken, everywhere } => self.liveness.progress.take(from, (taken, everywhere), now),
            TallyFrame::Skips { lanes } if !self.wedged => self.take_known_skips(&lanes, due)?,
            TallyFrame::Confirm { .. } | TallyFrame::Approved { .. } | TallyFrame::Skips { .. } => {}
        }
        Ok(None)
    }

    /// §3.3: handles another member's skips from a member that knows them. If slots before them are missing they are
    /// ignored: the owner sends them again behind those.
    fn take_known_skips(&mut self, skips: &[KnownSkip], due: &mut Due) -> Result<(), Breach> {
        due.set(Cause::Confirmable);
        for skip in skips {
            let told = self.model.passes_skips_on() && skip.lane != self.rank;
            let Some(lane) = self.lanes.get_mut(skip.lane.at()).filter(|_| told) else {
                return Err(Breach::Skips { lane: skip.lane });
            };
            let chained = skip.prev == lane.message_end();
            if chained || !self.rules.holds(Rule::KnownSkipIsChained) {
                lane.take_skip(skip.prev, skip.frontier, !chained)?;
                due.set(Cause::LaneFrame);
            }
        }
        Ok(())
    }

    /// §4: handles the peer's frontiers of the lanes that it receives from this member, from which they are sent again.
    fn take_resume(&mut self, from: Rank, frontiers: &[(Rank, Round)]) -> Result<(), Breach> {
        let mut flows = Vec::new();
        for rank in self.view.ranks().filter(|&lane| self.carries(self.rank, from, lane)) {
            let lane = &self.lanes[rank.at()];
            let named = frontiers.iter().find(|(named, _)| *named == rank);
            let wanted = named.map_or(Round(0), |(_, round)| *round);
            if wanted > lane.frontier() {
                return Err(Breach::Resume { lane: rank, wanted, end: lane.frontier() });
            }
            let skips_only = lane.held_from(wanted).next().is_none();
            let forgets = !self.rules.holds(Rule::ResumeRepeatsSkip) && skips_only
                || !self.rules.holds(Rule::ForwardedIsResumed) && rank != self.rank;
            let sent = if forgets { lane.frontier() } else { wanted };
            let resumes = sent < lane.frontier() && self.rules.holds(Rule::ResumeSendsSkips);
            flows.push(LaneFlow { lane: rank, sent, resumes });
        }
        self.flows.peers[from.at()].lanes = flows;
        Ok(())
    }
}
