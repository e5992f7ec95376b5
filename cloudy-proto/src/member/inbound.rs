//! What the other members say.

use crate::config::RingKind;
use crate::delivery::Delivery;
use crate::id::{Rank, Round};
use crate::lane::LaneBreak;
use crate::member::Member;
use crate::pending::ConfirmedTooMuch;
use crate::rules::Rule;
use crate::time::Time;
use crate::wire::{Heartbeat, LaneFrame, TallyFrame};

/// A member broke the protocol: its link is closed and may be dialled again; nothing of the frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error(transparent)]
    Lane(#[from] LaneBreak),
    #[error(transparent)]
    Confirm(#[from] ConfirmedTooMuch),
    #[error("{bytes} bytes in flight, where the view's window allows {max}")]
    Window { bytes: u64, max: u64 },
    #[error("it wants to resume the own lane at round {wanted}, but that ends at {end}")]
    Resume { wanted: Round, end: Round },
}

impl Member {
    /// A frame of a member's lane.
    pub(crate) fn take_lane(&mut self, from: Rank, frame: LaneFrame, delivery: &mut Delivery) -> Result<(), Breach> {
        if self.wedged {
            return Ok(());
        }
        let gaps_are_skips = !self.rules.hold(Rule::NoSkipFromGap);
        let lane = &mut self.lanes[from.at()];
        match frame {
            LaneFrame::Slot(slot) => {
                let round = slot.round;
                if lane.take_slot(slot, gaps_are_skips)? {
                    self.taken_max = self.taken_max.max(Some(round));
                    delivery.keep_slot(self.view.id, from, lane.newest());
                }
                let (bytes, max) = (lane.unconfirmed_bytes(), self.view.parameters.window_bytes);
                // One slot may exceed the window; more than one may not.
                let alone = lane.held_from(lane.confirmable()).count() <= 1;
                if bytes > max && !alone && self.view.parameters.ring == RingKind::Pipelined {
                    return Err(Breach::Window { bytes, max });
                }
            }
            LaneFrame::Skip { prev, frontier } => lane.take_skip(prev, frontier, gaps_are_skips)?,
        }
        self.arrived = true;
        Ok(())
    }

    /// A frame of a member's tally. Gives back its heartbeat, if that is what it is.
    pub(crate) fn take_tally(&mut self, from: Rank, frame: TallyFrame, now: Time) -> Result<Option<Heartbeat>, Breach> {
        match frame {
            TallyFrame::Heartbeat(heartbeat) => {
                self.peers[from.at()].waiting = heartbeat.waiting;
                return Ok(Some(heartbeat));
            }
            TallyFrame::Resume { frontiers } => self.take_resume(from, &frontiers)?,
            TallyFrame::Confirm { frontier } if !self.frozen(Rule::WedgedSendsNothing) => {
                let end = self.lanes[self.rank.at()].frontier();
                self.pending.confirm(from, frontier, end, now)?;
            }
            TallyFrame::Approved { frontier } if !self.wedged => {
                self.lanes[from.at()].approve(frontier);
            }
            TallyFrame::Confirm { .. } | TallyFrame::Approved { .. } => {}
        }
        Ok(None)
    }

    /// §4: the peer's frontier of the own lane, from which it is sent again.
    fn take_resume(&mut self, from: Rank, frontiers: &[(Rank, Round)]) -> Result<(), Breach> {
        let own = &self.lanes[self.rank.at()];
        let named = frontiers.iter().find(|(lane, _)| *lane == self.rank);
        let wanted = named.map_or(Round(0), |(_, round)| *round);
        if wanted > own.frontier() {
            return Err(Breach::Resume { wanted, end: own.frontier() });
        }
        let peer = &mut self.peers[from.at()];
        peer.receiving = true;
        peer.lane_sent = wanted;
        if !self.rules.hold(Rule::ResumeRepeatsSkip) && own.held_from(wanted).next().is_none() {
            peer.lane_sent = own.frontier();
        }
        Ok(())
    }
}
