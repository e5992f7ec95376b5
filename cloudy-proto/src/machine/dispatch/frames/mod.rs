//! One frame in.

use core::net::SocketAddr;
use core::time::Duration;

use crate::id::{Incarnation, NodeId, Rank, ViewId};
use crate::io::{Admission, Event, Frame, Input};
use crate::limits::PROBE_EVERY;
use crate::machine::Machine;
use crate::time::Time;
use crate::wire::{ControlFrame, LaneFrame, Refusal, Stream, TallyFrame};

/// A confirmation or an approval, where the member reports whether anything follows from it; or signs of life, which
/// only the next check for failures looks at.
#[inline]
pub(in crate::machine) fn only_tallies(input: &Input) -> bool {
    let tallies =
        |frame: &Frame| matches!(frame, Frame::Tally(TallyFrame::Confirm { .. } | TallyFrame::Approved { .. }));
    match input {
        Input::Frame { frame, .. } => tallies(frame),
        Input::Arriving { .. } | Input::Alive { .. } => true,
        _ => false,
    }
}

impl Machine {
    #[inline]
    pub(in crate::machine) fn take_frame(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        stream: Stream,
        frame: Frame,
    ) {
        if !self.peers.is_linked(from) {
            return;
        }
        match self.admits(from, incarnation, stream) {
            Admission::Read => {}
            Admission::Refuse => {
                return self.outputs.close_link(from, format!("{stream:?} is not its to open in this view"));
            }
            Admission::Stop | Admission::Wait => return,
        }
        // Not a match of both: the tuple would cost a copy of the frame.
        match frame {
            Frame::Lane(frame) => {
                if let Stream::Lane { lane, .. } = stream {
                    return self.take_lane(from, lane, frame);
                }
            }
            Frame::Tally(frame) => {
                if let Stream::Tally { .. } = stream {
                    return self.take_tally(from, frame);
                }
            }
            Frame::Control(ControlFrame::Fetched(fetched)) if stream == Stream::Result => {
                return self.on_fetched(from, fetched);
            }
            Frame::Control(frame) if stream == Stream::Control => return self.take_control(from, frame),
            Frame::Control(_) => {}
        }
        self.outputs.close_link(from, format!("a frame that does not belong on {stream:?}"));
    }

    fn take_lane(&mut self, from: NodeId, lane: Rank, frame: LaneFrame) {
        let Some(member) = self.plane.member_mut() else { return };
        let Some(rank) = member.view.rank_of(from) else { return };
        member.heard(rank, self.timers.now());
        if let Err(breach) = member.take_lane(lane, frame, &mut self.storage.records, &mut self.due) {
            self.outputs.close_link(from, breach.to_string());
        }
    }

    /// A part of a frame of a lane.
    #[inline]
    pub(in crate::machine) fn take_arriving(&mut self, from: NodeId, stream: Stream, bytes: u64) {
        let Stream::Lane { view, lane } = stream else { return };
        let Some(member) = self.plane.member_mut().filter(|member| member.view.id == view) else { return };
        if let Some(rank) = member.view.rank_of(from).filter(|_| self.peers.is_linked(from)) {
            member.heard(rank, self.timers.now());
            member.arrive(lane, bytes, self.timers.now());
        }
    }

    /// Datagrams of a peer have come.
    #[inline]
    pub(in crate::machine) fn take_alive(&mut self, peer: NodeId, since: Time) {
        if let Some(member) = self.plane.member_mut()
            && let Some(rank) = member.view.rank_of(peer).filter(|_| self.peers.is_linked(peer))
        {
            member.alive(rank, since);
        }
    }

    /// Linked members of which no frame has come for two heartbeats: [`Input::Alive`] is of use.
    #[must_use]
    pub fn quiet(&self) -> Vec<NodeId> {
        let Some(member) = self.plane.member() else { return Vec::new() };
        let unheard = member.unheard_for(member.view.parameters.heartbeat * 2, self.timers.now());
        let nodes = unheard.map(|rank| member.view.member(rank).node);
        nodes.filter(|node| self.peers.is_linked(*node)).collect()
    }

    /// How long this group waits for a peer of which nothing arrives: a member of the view, or the coordinator, by what
    /// was measured of it (`protocol.md` §6.1). A link that ends earlier would count against a node that may be alive.
    /// None if the group does not wait for the peer.
    #[must_use]
    pub fn patience_with(&self, peer: NodeId) -> Option<Duration> {
        let is_member = self.log.state().view().is_some_and(|view| view.rank_of(peer).is_some());
        let is_waited_for = is_member || peer == self.tracking.node();
        is_waited_for.then(|| self.timeouts().silence_max(peer) + PROBE_EVERY * 2)
    }

    fn take_tally(&mut self, from: NodeId, frame: TallyFrame) {
        let taken = match (self.plane.member_mut(), &frame) {
            (Some(member), _) => {
                let Some(rank) = member.view.rank_of(from) else { return };
                member.heard(rank, self.timers.now());
                member.take_tally(rank, frame, self.timers.now(), &mut self.due)
            }
            (None, TallyFrame::Heartbeat(heartbeat)) => Ok(Some(*heartbeat)),
            (None, _) => Ok(None),
        };
        match taken {
            Ok(Some(heartbeat)) => self.on_heartbeat(from, heartbeat),
            Ok(None) => {}
            Err(breach) => self.outputs.close_link(from, breach.to_string()),
        }
    }

    /// The coordinator requests to wedge a view: a member freezes it, for good, and answers with what it holds.
    fn on_wedge(&mut self, from: NodeId, (view, last): (ViewId, bool), again: bool) {
        if from != self.tracking.node() || self.is_coordinator() {
            // It coordinated once, and does not know yet that another node does.
            return;
        }
        if self.wedge().freeze(view, again) {
            if last {
                self.close().enter_stop();
            }
            self.view_change().answer(from, view);
        }
    }

    /// The inviter of this node, or the node that it wants to join, refuses it.
    fn on_refuse(&mut self, from: NodeId, reason: String, refusal: Refusal) {
        if let Some(mut creation) = self.creation() {
            creation.on_refuse(from, reason, refusal);
        } else if from == self.tracking.node() || self.is_of_group(from) {
            self.event(Event::Refused { node: from, reason, refusal });
            self.event(Event::Closed);
        }
    }

    /// Notes that this node accepts an invitation.
    pub(in crate::machine) fn accept_invitation(&mut self, to: NodeId) {
        self.arrival.on_accepted();
        self.send_control(to, ControlFrame::Accept { run: self.identity.run });
    }

    fn on_refer(&mut self, coordinator: NodeId, addresses: Vec<SocketAddr>, left: Duration) {
        if let Some(mut join) = self.join() {
            join.on_refer(coordinator, addresses, left);
        }
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn take_control(&mut self, from: NodeId, frame: ControlFrame) {
        let of_the_log = matches!(frame, ControlFrame::Log { .. } | ControlFrame::LogState { .. });
        let of_the_group = of_the_log || matches!(frame, ControlFrame::Wedge { .. } | ControlFrame::Consensus(_));
        let asked_for = of_the_log && (self.tracking.claimant() == Some(from) || self.closing.told_by() == Some(from));
        if of_the_group && !asked_for && !self.tracking.is_known(from, &self.log) {
            // A stranger, or a node whose coming is in a part of the log that this node does not have yet.
            return;
        }
        if self.log.state().is_closed() && speaks_of_a_running_group(&frame) {
            return self.links().send_ended(from);
        }
        match frame {
            ControlFrame::Invite { .. } if self.log.state().view().is_some() || self.identity.is_restored => {}
            ControlFrame::Invite { .. } if from == self.tracking.node() => self.accept_invitation(from),
            ControlFrame::Invite { .. } => {
                self.outputs.close_link(from, "it invites to a group that it did not found".to_owned())
            }
            ControlFrame::Accept { run } => {
                self.creation().into_iter().for_each(|mut creation| creation.on_accept(from, run))
            }
            ControlFrame::Refuse { reason, refusal } => self.on_refuse(from, reason, refusal),
            ControlFrame::Follow { next, voter, level } => self.on_follow(from, next, voter, level),
            ControlFrame::Log { first, entries, term } => self.on_log(from, first, entries, term),
            ControlFrame::LogState { index, term, state } => self.on_log_state_or_halt(index, term, state),
            ControlFrame::Ready { view } => self.on_ready(from, view),
            ControlFrame::Wedge { view, last, again } => self.on_wedge(from, (view, last), again),
            ControlFrame::Wedging { view } => self.view_change().on_wedging(from, view),
            ControlFrame::Wedged(wedged) => self.view_change().on_wedged(from, wedged),
            ControlFrame::Fetch(fetch) => self.serve().on_fetch(from, &fetch),
            ControlFrame::Fetched(_) => {
                self.outputs.close_link(from, "a part of a result on the control stream".to_owned())
            }
            ControlFrame::Final { result, report } => self.close().on_report(from, result, report),
            ControlFrame::End => self.on_peer_close_request(from),
            ControlFrame::Suspect { view, wedged, .. } => self.view_change().on_suspect(from, view, wedged),
            ControlFrame::Rejoin { view, ready, slower } => {
                self.view_change().on_rejoin(from, view, ready);
                self.slow_down().on_rates(from, slower);
            }
            ControlFrame::SlowDown { node, bytes_per_second } => {
                self.slow_down().on_limit(from, node, bytes_per_second)
            }
            ControlFrame::Coordinates { term } => self.on_claim(from, term),
            // A peer's driver needs the report that the group continues.
            ControlFrame::Running { .. } => {}
            ControlFrame::Join { run, observer, result, level } => {
                self.admission().on_join(from, (run, level), observer, result);
            }
            ControlFrame::Refer { coordinator, addresses, left } => self.on_refer(coordinator, addresses, left),
            ControlFrame::Resigned => self.coordinator().on_resign(from),
            ControlFrame::Leave { returns } => {
                let release = self.leaving().on_request(from, returns);
                self.release(release);
            }
            ControlFrame::NoCompleteMember { view, missing, lost } => {
                self.completeness().on_report(from, view, missing, lost);
            }
            ControlFrame::Diverged { view, node, theirs, ours } => {
                let asked_to_join = self.arrival.joining().is_some_and(|joining| joining.has_asked(from));
                self.divergence().on_diverged(from, view, (node, theirs), ours, asked_to_join);
            }
            ControlFrame::Consensus(message) => self.on_consensus(from, message),
            ControlFrame::Ended => self.on_peer_closed(from),
            ControlFrame::Absent => self.log.on_votes_lost(from),
            ControlFrame::Probe { sent_us } => self.links().on_probe(from, sent_us),
            ControlFrame::Echo { sent_us } => self.links().on_echo(from, sent_us),
        }
    }
}

/// Frames that are only sent by a node that does not know that the group is closed, other than a request for the log.
fn speaks_of_a_running_group(frame: &ControlFrame) -> bool {
    matches!(
        frame,
        ControlFrame::Accept { .. }
            | ControlFrame::Wedge { .. }
            | ControlFrame::End
            | ControlFrame::Suspect { .. }
            | ControlFrame::Rejoin { .. }
            | ControlFrame::Consensus(_)
            | ControlFrame::Leave { .. }
            | ControlFrame::Join { .. }
    )
}

#[cfg(test)]
mod tests;
