//! The checkers: what must hold after every step of every run, whatever went wrong (`protocol.md` §1, §11).
//!
//! They see what nodes are handed and what they put out, and believe no node's word about itself.

mod entries;
mod hold;
mod lanes;
mod result;
mod settled;
mod wedge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cloudy_proto::wire::{ControlFrame, LaneFrame, Stream, TallyFrame};
use cloudy_proto::{Approval, Checkpoint, Event, Frame, Machine, NodeId, Output, Seq, View};

use crate::sim::plan::Plan;
use crate::sim::queue::Packet;
use crate::sim::stats::{Met, Stats};
use entries::Way;
use lanes::Lanes;
use result::Ghost;
pub use settled::{has_settled, unsettled};
use wedge::Wedges;

/// A checker found something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What should hold, in words.
    pub rule: &'static str,
    /// The node at which it does not.
    pub node: usize,
    /// When.
    pub at_us: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" fails at node {} after {} us: {}", self.rule, self.node, self.at_us, self.what)
    }
}

/// What the checkers remember of a node.
#[derive(Debug, Default)]
struct Seen {
    /// The length of its result.
    index: u64,
    /// An approval whose entry has to follow.
    approval: Option<Approval>,
    /// The last view is in force there.
    last_view: bool,
    final_result: Option<Checkpoint>,
    /// It has stopped, because its result differs from the others'.
    diverged: bool,
    /// From where on its payloads are in no result.
    rejected_from: Option<Seq>,
}

/// All checkers.
#[derive(Debug)]
pub struct Judge {
    /// True time, for reports.
    pub now_us: u64,
    /// Nodes whose result was corrupted on purpose: it may differ, and nobody else's.
    pub tainted: BTreeSet<usize>,
    places: BTreeMap<NodeId, usize>,
    /// The first view, once somebody has installed it.
    view: Option<Arc<View>>,
    /// By rank: the node's place.
    ring: Vec<usize>,
    /// The members of the last view.
    survivors: Vec<usize>,
    token_session: bool,
    nodes: Vec<Seen>,
    ghost: Ghost,
    lanes: Lanes,
    wedges: Wedges,
    /// The place of the last slot that entered a result by the walk.
    walked: Option<(u64, usize)>,
    kicked_off: bool,
}

impl Judge {
    /// The checkers of a run.
    #[must_use]
    pub fn new(plan: &Plan, ids: Vec<NodeId>) -> Self {
        let token = plan.parameters.ring == cloudy_proto::RingKind::Token;
        Self {
            now_us: 0,
            tainted: plan.network.corrupt_towards.into_iter().collect(),
            view: None,
            ring: Vec::new(),
            survivors: Vec::new(),
            token_session: token && plan.session.is_some(),
            nodes: ids.iter().map(|_| Seen::default()).collect(),
            ghost: Ghost::new(ids.len()),
            lanes: Lanes::new(ids.len()),
            wedges: Wedges::new(ids.len()),
            walked: None,
            kicked_off: false,
            places: ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect(),
        }
    }

    /// A node's place among the nodes of the run.
    #[must_use]
    pub fn place_of(&self, node: NodeId) -> usize {
        self.places[&node]
    }

    /// The first view, once somebody has installed it.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// Somebody has begun to SEND.
    #[must_use]
    pub fn kicked_off(&self) -> bool {
        self.kicked_off
    }

    /// The length of the longest result that was ever seen.
    #[must_use]
    pub fn approved(&self) -> u64 {
        self.ghost.index()
    }

    /// The length of a node's result.
    #[must_use]
    pub fn index_of(&self, node: usize) -> u64 {
        self.nodes[node].index
    }

    /// From which of its payloads on a node was told that they are in no result.
    #[must_use]
    pub fn rejected_of(&self, node: usize) -> Option<Seq> {
        self.nodes[node].rejected_from
    }

    /// The members of the last view, once somebody has installed it.
    #[must_use]
    pub fn survivors(&self) -> &[usize] {
        &self.survivors
    }

    /// The final result that a node has told of.
    #[must_use]
    pub fn final_of(&self, node: usize) -> Option<Checkpoint> {
        self.nodes[node].final_result
    }

    /// A failure at this moment.
    #[must_use]
    pub fn failure(&self, rule: &'static str, node: usize, what: impl Into<String>) -> Failure {
        Failure { rule, node, at_us: self.now_us, what: what.into() }
    }

    fn rank_of(&self, node: usize) -> Option<usize> {
        self.ring.iter().position(|&member| member == node)
    }

    /// An application broadcasts a payload.
    pub fn broadcast(&mut self, node: usize, payload: Bytes) {
        self.ghost.broadcast(node, payload);
    }

    /// A node is about to be handed a frame.
    pub fn frame_in(&mut self, node: usize, packet: &Packet) {
        match (packet.stream, &packet.frame) {
            (Stream::Lane { lane, .. }, Frame::Lane(frame)) => self.lanes.received(node, lane.at(), frame),
            (Stream::Tally { .. }, Frame::Tally(TallyFrame::Confirm { frontier })) => {
                if let Some(lane) = self.rank_of(node) {
                    self.lanes.tallied(lane, packet.from, frontier.0);
                }
            }
            _ => {}
        }
    }

    /// A node has put these out, in this order.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn outputs(&mut self, node: usize, outputs: &[Output], stats: &mut Stats) -> Result<(), Failure> {
        let cuts = |output: &Output| matches!(output, Output::Event(Event::ViewInstalled { view, .. }) if view.last);
        let way = match outputs.iter().any(cuts) {
            true => Way::Cut,
            false if self.nodes[node].last_view => Way::Fetch,
            false => Way::Walk,
        };
        for output in outputs {
            if self.nodes[node].diverged {
                let what = format!("{output:?}");
                return Err(self.failure("a node whose result differs says nothing more", node, what));
            }
            match output {
                Output::Send { to, frame, .. } => self.sent(node, self.place_of(*to), frame)?,
                Output::Approved(approval) => self.approved_own(node, approval, way)?,
                Output::Deliver(entry) => self.delivered(node, entry, way, stats)?,
                Output::Event(event) => self.event(node, event, stats)?,
                Output::CloseLink { .. } => {}
            }
        }
        if self.nodes[node].approval.is_some() {
            return Err(self.failure("an approval comes with its entry", node, "the entry is missing"));
        }
        Ok(())
    }

    fn sent(&mut self, node: usize, to: usize, frame: &Frame) -> Result<(), Failure> {
        let checked = match frame {
            Frame::Control(ControlFrame::Wedged(wedged)) => {
                self.rank_of(node).map_or(Ok(()), |rank| self.wedges.answered(rank, node, wedged, &self.lanes))
            }
            Frame::Control(ControlFrame::Log { entries, .. }) => {
                let through = self.ghost.through(self.ring.len());
                self.wedges.log(entries, self.view.as_deref(), &through, &self.lanes)
            }
            Frame::Control(_) | Frame::Tally(TallyFrame::Heartbeat(_) | TallyFrame::Resume { .. }) => Ok(()),
            Frame::Lane(_) | Frame::Tally(_) if self.wedges.is_frozen(node) => {
                Err(("a wedged member sends nothing of its view", format!("{frame:?}")))
            }
            Frame::Lane(frame) => self.sent_lane(node, frame),
            Frame::Tally(TallyFrame::Confirm { frontier }) => match self.rank_of(to) {
                Some(lane) => self.lanes.confirmed(node, lane, frontier.0),
                None => Err(("only lanes are confirmed", format!("{frame:?}"))),
            },
            Frame::Tally(TallyFrame::Approved { frontier }) => match self.rank_of(node) {
                Some(lane) => self.lanes.all_confirmed(lane, &self.ring, frontier.0),
                None => Err(("only lanes are approved", format!("{frame:?}"))),
            },
        };
        checked.map_err(|(rule, what)| self.failure(rule, node, what))
    }

    fn sent_lane(&mut self, node: usize, frame: &LaneFrame) -> Result<(), Broken> {
        let Some(lane) = self.rank_of(node) else {
            return Err(("only members have lanes", format!("{frame:?}")));
        };
        if let Some(round) = self.lanes.sent(lane, frame)? {
            // Beyond the walk lies the cut: who has not heard of it may go on sending.
            if self.walked >= Some((round, lane)) {
                return Err(("no slot is sent behind the result", format!("round {round} of lane {lane}")));
            }
        }
        Ok(())
    }

    fn event(&mut self, node: usize, event: &Event, stats: &mut Stats) -> Result<(), Failure> {
        match event {
            Event::ViewInstalled { view, first, active } => self.installed(node, view, first.0, *active, stats)?,
            Event::Send { stream, .. } => {
                self.kicked_off = true;
                let rank = self.rank_of(node).map(|rank| rank as u64);
                if *stream != rank {
                    let what = format!("stream {stream:?} at rank {rank:?}");
                    return Err(self.failure("random streams go by rank", node, what));
                }
            }
            Event::Stop => self.wedges.freeze(node),
            Event::Final { result } => {
                let through = self.ghost.through(self.ring.len());
                let checked = self.ghost.is_final(result).and_then(|()| self.wedges.reached_cut(&through, &self.lanes));
                self.nodes[node].final_result = Some(*result);
                if !self.tainted.contains(&node) {
                    checked.map_err(|(rule, what)| self.failure(rule, node, what))?;
                }
            }
            Event::Rejected { from } => {
                stats.met(Met::Rejected);
                self.nodes[node].rejected_from = Some(*from);
            }
            Event::Reported { node: whose, result, report } => {
                let whose = self.place_of(*whose);
                let said = self.nodes[whose].final_result;
                if said != Some(*result) || report[..] != result.index.0.to_le_bytes() {
                    let what = format!("{result:?}, but node {whose} said {said:?}");
                    return Err(self.failure("reports are what members found", node, what));
                }
            }
            Event::Diverged { .. } => {
                self.nodes[node].diverged = true;
                if self.tainted.is_empty() {
                    return Err(self.failure("healthy results do not differ", node, format!("{event:?}")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn installed(
        &mut self,
        node: usize,
        view: &Arc<View>,
        first: u64,
        active: bool,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        // Who is not complete does not know where its view begins.
        if first != 0 && first != self.nodes[node].index + 1 {
            return Err(self.failure("a view begins where the last one ended", node, format!("at index {first}")));
        }
        if !view.last {
            if let Some(known) = self.view.as_ref().filter(|known| known.id == view.id) {
                return if known == view { Ok(()) } else { Err(self.failure("all have one view", node, "another")) };
            }
            self.ring = view.ring.iter().map(|member| self.places[&member.node]).collect();
            self.lanes.begin(self.ring.len());
            self.wedges.begin(self.ring.len());
            self.view = Some(Arc::clone(view));
            return Ok(());
        }
        self.nodes[node].last_view = true;
        self.survivors = view.ring.iter().map(|member| self.places[&member.node]).collect();
        if active && self.nodes[node].index < self.ghost.index() && !self.tainted.contains(&node) {
            let what = format!("it walked to {}, others to {}", self.nodes[node].index, self.ghost.index());
            return Err(self.failure("nothing lies beyond the cut", node, what));
        }
        if !active && self.rank_of(node).is_some() {
            stats.met(Met::DroppedAlive);
        }
        Ok(())
    }

    /// A node's outputs were taken.
    ///
    /// # Errors
    /// If it holds back what it must confirm, or confirmed more than it may hold.
    pub fn after_step(
        &self,
        node: usize,
        machine: &Machine,
        linked: impl Fn(usize) -> bool,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let Some((view, rank)) = self.view.as_ref().zip(self.rank_of(node)) else { return Ok(()) };
        if self.wedges.is_frozen(node) || self.tainted.contains(&node) {
            return Ok(());
        }
        let delivered = self.ghost.through_at(self.nodes[node].index, &self.ring);
        let member = hold::MemberState { node, rank, machine, delivered: &delivered, ring: &self.ring };
        hold::check(&member, &view.parameters, &self.lanes, linked, stats)
            .map_err(|(rule, what)| self.failure(rule, node, what))
    }
}

/// A rule and what breaks it.
type Broken = (&'static str, String);
