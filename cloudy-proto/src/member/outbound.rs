//! The frames that one peer has received and still needs. Derived from watermarks when the driver polls, so that any
//! number of inputs costs at most one confirmation, approval and skip each.

use crate::due::{Cause, Due};
use crate::id::{Rank, Round};
use crate::io::Frame;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::rules::Rule;
use crate::slot::Slot;
use crate::wire::{Heartbeat, KnownSkip, LaneFrame, Stream, TallyFrame};

/// A lane on its way to one member.
#[derive(Debug)]
pub(super) struct LaneFlow {
    pub(super) lane: Rank,
    /// All of it below this round was sent.
    pub(super) sent: Round,
    /// Whether the peer has just sent its resume: earlier skips may be lost, so none waits.
    pub(super) resumes: bool,
}

/// The frames for the other members.
#[derive(Debug)]
pub(super) struct Flows {
    /// By rank.
    pub(super) peers: Vec<PeerFlow>,
    /// The lane ends with the highest approved own message slot.
    pub(super) approval_due: Round,
    /// Number of messages of others that were confirmed to their owners.
    pub(super) confirmations_given: u64,
}

impl Flows {
    pub(super) fn new(members: usize) -> Self {
        let peers = (0..members).map(|_| PeerFlow::default()).collect();
        Self { peers, approval_due: Round(0), confirmations_given: 0 }
    }
}

/// The frames for one member of the view.
#[derive(Debug, Default)]
pub(super) struct PeerFlow {
    /// Whether its link is up.
    pub(super) linked: bool,
    /// Whether it was sent the round at which to resume its lane.
    resumed: bool,
    /// The lanes that it receives from here: none before its resume.
    pub(super) lanes: Vec<LaneFlow>,
    /// By rank: the skips of others that were sent to it.
    skips_told: Vec<Round>,
    confirm_sent: Round,
    approved_sent: Round,
    /// Whether the last report to it was that this member waits for its turn.
    waiting_sent: bool,
    /// Whether it waits for its turn.
    pub(super) waiting: bool,
    /// The reported bytes of unfinished slots.
    moved_sent: (u64, u64),
}

/// The extent of a flush of a tally.
#[derive(Clone, Copy)]
struct TallyFlush {
    /// Whether confirmations are included that rose by skips only.
    with_skips: bool,
    /// Whether skips of other members came after the last flush.
    skips_came: bool,
}

impl Member {
    /// Notes a new link: everything is sent again from the peer's resume on.
    pub(crate) fn link_up(&mut self, rank: Rank) {
        self.flows.peers[rank.at()] = PeerFlow { linked: true, ..PeerFlow::default() };
    }

    pub(crate) fn link_down(&mut self, rank: Rank) {
        self.flows.peers[rank.at()] = PeerFlow::default();
    }

    /// Whether links to all other members are up.
    pub(crate) fn all_linked(&self) -> bool {
        self.flows.peers.iter().enumerate().all(|(at, peer)| at == self.rank.at() || peer.linked)
    }

    /// Outputs the frames that each linked peer still needs. `heartbeat`: present if
    /// [`reports_waiting`](Self::reports_waiting).
    pub(crate) fn flush(&mut self, heartbeat: Option<Heartbeat>, outputs: &mut Outputs, due: &mut Due) {
        let skips_came = due.take(Cause::Skips);
        // The successor first: with `Token` the ring waits for it.
        for rank in self.view.ranks_after(self.rank) {
            if !self.flows.peers[rank.at()].linked {
                continue;
            }
            self.flush_resume(rank, outputs);
            let mut sends = false;
            if !(self.frozen(Rule::WedgedSendsNothing) && self.frozen(Rule::WedgedConfirmsNothing)) {
                sends = self.flush_lanes(rank, false, outputs);
                self.flush_tally(rank, TallyFlush { with_skips: false, skips_came }, outputs);
            }
            let Some(heartbeat) = heartbeat else { continue };
            // A member that has just sent its last slot may receive more in this turn.
            let stays = heartbeat.waiting || !sends;
            if stays && self.flows.peers[rank.at()].waiting_sent != heartbeat.waiting {
                self.flush_heartbeat(rank, heartbeat, outputs);
            }
        }
    }

    /// Whether a linked peer has another report than this on whether messages wait here, and needs a new one.
    pub(crate) fn reports_waiting(&self, waiting: bool) -> bool {
        self.model.reports_waiting()
            && !self.view.parameters.session
            && self.rules.holds(Rule::WaitingIsReported)
            && self.flows.peers.iter().any(|peer| peer.linked && peer.waiting_sent != waiting)
    }

    /// Sends to each linked peer everything that may wait for a heartbeat: confirmations of skips, and the heartbeat
    /// itself.
    pub(crate) fn beat(&mut self, heartbeat: Heartbeat, outputs: &mut Outputs, due: &Due) {
        let skips_came = due.has(Cause::Skips);
        for rank in self.view.ranks() {
            if rank != self.rank && self.flows.peers[rank.at()].linked {
                if !self.wedged {
                    self.flush_lanes(rank, true, outputs);
                    self.flush_tally(rank, TallyFlush { with_skips: true, skips_came }, outputs);
                    self.flush_moved(rank, outputs);
                }
                self.flush_heartbeat(rank, heartbeat, outputs);
            }
        }
    }

    fn tally(&self, rank: Rank, frame: TallyFrame, outputs: &mut Outputs) {
        let stream = Stream::Tally { view: self.view.id };
        outputs.send(self.view.member(rank).node, stream, Frame::Tally(frame));
    }

    /// Whether the stream of a lane runs from one member to another.
    pub(crate) fn carries(&self, from: Rank, to: Rank, lane: Rank) -> bool {
        lane.at() < self.lanes.len() && self.model.carries(&self.view, from, to, lane)
    }

    fn flush_resume(&mut self, rank: Rank, outputs: &mut Outputs) {
        if core::mem::replace(&mut self.flows.peers[rank.at()].resumed, true) {
            return;
        }
        let taken = self.view.ranks().filter(|&lane| self.carries(rank, self.rank, lane));
        let frontiers: Vec<_> = taken.map(|lane| (lane, self.lanes[lane.at()].frontier())).collect();
        if !frontiers.is_empty() {
            self.tally(rank, TallyFrame::Resume { frontiers }, outputs);
        }
    }

    /// Sends slots that were not sent on this link yet, and the skips behind them, unless these may wait. Forwarded
    /// slots are held as long as own ones: until they are approved, and so until the peer has them. True if there were
    /// any.
    fn flush_lanes(&mut self, rank: Rank, all: bool, outputs: &mut Outputs) -> bool {
        if self.flows.peers[rank.at()].lanes.iter().all(|flow| flow.sent >= self.lanes[flow.lane.at()].frontier()) {
            return false;
        }
        let to = self.view.member(rank).node;
        let skips_wait = !all && self.skips_can_wait(rank);
        for flow in &mut self.flows.peers[rank.at()].lanes {
            let lane = &self.lanes[flow.lane.at()];
            let skips_wait = skips_wait && !core::mem::take(&mut flow.resumes);
            if flow.sent >= lane.frontier() {
                continue;
            }
            let stream = Stream::Lane { view: self.view.id, lane: flow.lane };
            let mut send = |frame| outputs.send(to, stream, Frame::Lane(frame));
            for held in lane.held_from(flow.sent) {
                send(LaneFrame::Slot(Slot { round: held.round, prev: held.prev, batch: held.batch.clone() }));
                flow.sent = held.round.next();
            }
            if flow.sent < lane.frontier() && !skips_wait {
                send(LaneFrame::Skip { prev: lane.message_end(), frontier: lane.frontier() });
                flow.sent = lane.frontier();
            }
        }
        true
    }

    /// §3.3: whether skips can wait: none of the peer's own messages waits for the skips of the own lane, and it has
    /// all slots before them. A member that needs them for its approval forwards them, and a heartbeat has the rest.
    fn skips_can_wait(&self, rank: Rank) -> bool {
        let has_all = self.pending.confirmed(rank) >= self.lanes[self.rank.at()].message_end();
        self.model.passes_skips_on() && has_all && self.lanes[rank.at()].held_slots() == 0
    }

    /// Sends the confirmation of the peer's lane and the approval of the own one, if they are new, with the skips that
    /// the peer needs to pass approved slots. A rise by skips only waits for a heartbeat.
    fn flush_tally(&mut self, rank: Rank, flush: TallyFlush, outputs: &mut Outputs) {
        let lane = &self.lanes[rank.at()];
        let due = if flush.with_skips { lane.confirmable() } else { lane.confirmed() };
        let frontier = lane.confirmable();
        if due > self.flows.peers[rank.at()].confirm_sent {
            self.flows.peers[rank.at()].confirm_sent = frontier;
            self.tally(rank, TallyFrame::Confirm { frontier }, outputs);
        }
        let approves = self.flows.approval_due > self.flows.peers[rank.at()].approved_sent;
        if approves {
            let frontier = self.lanes[self.rank.at()].approved();
            self.flows.peers[rank.at()].approved_sent = frontier;
            self.tally(rank, TallyFrame::Approved { frontier }, outputs);
        }
        if (approves || flush.skips_came) && self.model.passes_skips_on() {
            self.flush_known_skips(rank, outputs);
        }
    }

    /// Sends the skips of others up to the highest approved own message, as far as the peer did not receive them from
    /// here.
    fn flush_known_skips(&mut self, rank: Rank, outputs: &mut Outputs) {
        let (me, due) = (self.rank.at(), self.flows.approval_due);
        let told = &mut self.flows.peers[rank.at()].skips_told;
        told.resize(self.lanes.len(), Round(0));
        let mut lanes = Vec::new();
        for (at, (lane, told)) in self.lanes.iter().zip(told).enumerate() {
            let (prev, frontier) = (lane.message_end(), lane.frontier());
            if at != me && at != rank.at() && *told < due && frontier > prev.max(*told) {
                *told = frontier;
                lanes.push(KnownSkip { lane: Rank(at as u16), prev, frontier });
            }
        }
        if !lanes.is_empty() {
            self.tally(rank, TallyFrame::Skips { lanes }, outputs);
        }
    }

    /// Sends the bytes of unfinished slots that arrived after the last report.
    fn flush_moved(&mut self, rank: Rank, outputs: &mut Outputs) {
        let moved = self.liveness.progress.told_to(rank);
        if core::mem::replace(&mut self.flows.peers[rank.at()].moved_sent, moved) != moved {
            let (taken, everywhere) = moved;
            self.tally(rank, TallyFrame::Moved { taken, everywhere }, outputs);
        }
    }

    fn flush_heartbeat(&mut self, rank: Rank, heartbeat: Heartbeat, outputs: &mut Outputs) {
        self.flows.peers[rank.at()].waiting_sent = heartbeat.waiting;
        self.tally(rank, TallyFrame::Heartbeat(heartbeat), outputs);
    }
}
