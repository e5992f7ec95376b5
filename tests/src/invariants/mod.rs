//! The checkers: the invariants that must hold after every step of every run, with any faults (`protocol.md` §1, §11).
//!
//! They see the inputs and outputs of nodes, and do not rely on a node's own statements.

mod control;
mod disk;
mod entries;
mod events;
mod failure;
mod hold;
mod items;
mod lanes;
mod outcomes;
mod result;
mod seen;
mod settled;
mod snapshots;
mod views;
mod wedge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cloudy_proto::wire::{ControlFrame, Fetched, KnownSkip, LaneFrame, Stream, TallyFrame};
use cloudy_proto::{ApprovedItem, Checkpoint, Event, Frame, Index, NodeId, Origin, Output, Seq, View, ViewId};

use crate::sim::plan::Plan;
use crate::sim::queue::Packet;
use crate::sim::stats::{Met, Stats};
use control::Control;
pub use disk::OnDisk;
use entries::Way;
pub use failure::Failure;
pub use items::ONE_SEQUENCE;
use items::ViewItems;
use outcomes::Verdicts;
use result::Ghost;
pub use result::REAL_TIME;
use seen::Seen;
pub use settled::{excuse, has_settled, unsettled};
use views::{ViewLog, Views, forwarded};

/// All checkers.
#[derive(Debug)]
pub struct Judge {
    /// True time, for reports.
    pub now_us: u64,
    /// The node with the altered value, and those that took something of it: their results may differ, and no other.
    tainted: BTreeSet<usize>,
    /// Its control log is.
    log_altered: bool,
    /// By name: the node.
    homes: BTreeMap<NodeId, usize>,
    /// By process: its node.
    home_of: Vec<usize>,
    /// By process: its disk, by the number of disks before it.
    disk_of: Vec<usize>,
    /// By node: its disk at this moment.
    disk_now: Vec<usize>,
    /// Nodes whose disk was reset to an older state.
    taken_back: BTreeSet<usize>,
    /// By node: its latest process.
    latest: Vec<usize>,
    /// The maximum number of processes.
    places_max: usize,
    /// By node, if approved messages are on disks.
    disks: Option<Vec<OnDisk>>,
    views: Views,
    /// The members of the last view.
    survivors: Vec<usize>,
    /// Processes that left by themselves.
    left: BTreeSet<usize>,
    token_session: bool,
    /// One view may follow another before STOP.
    views_change: bool,
    /// Also the last node that has the result may be killed.
    kills_anybody: bool,
    nodes: Vec<Seen>,
    ghost: Ghost,
    view_items: ViewItems,
    verdicts: Verdicts,
    control: Control,
    kicked_off: bool,
}

impl Judge {
    /// The checkers of a run.
    #[must_use]
    pub fn new(plan: &Plan, ids: Vec<NodeId>) -> Self {
        let token = plan.parameters.ring == cloudy_proto::RingKind::Token;
        Self {
            now_us: 0,
            tainted: BTreeSet::new(),
            log_altered: plan.corruption.is_some_and(|corruption| corruption.what.is_of_the_log()),
            views: Views::default(),
            survivors: Vec::new(),
            left: BTreeSet::new(),
            token_session: token && plan.session.is_some(),
            views_change: plan.changes_views(),
            kills_anybody: plan.kills_anybody,
            nodes: Vec::new(),
            ghost: Ghost::default(),
            view_items: ViewItems::default(),
            verdicts: Verdicts::default(),
            control: Control::default(),
            kicked_off: false,
            home_of: Vec::new(),
            disk_of: Vec::new(),
            disk_now: (0..ids.len()).collect(),
            taken_back: BTreeSet::new(),
            latest: vec![usize::MAX; ids.len()],
            places_max: plan.places(),
            disks: plan.on_disk().then(|| ids.iter().map(|_| OnDisk::default()).collect()),
            homes: ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect(),
        }
    }

    /// A process of a node starts: it has the next place.
    pub fn started(&mut self, home: usize) {
        self.latest[home] = self.nodes.len();
        self.home_of.push(home);
        self.disk_of.push(self.disk_now[home]);
        self.nodes.push(Seen::default());
        self.ghost.started();
        self.control.started();
    }

    /// Something of a process's node is altered.
    pub(crate) fn is_tainted(&self, place: usize) -> bool {
        self.tainted.contains(&self.home_of[place])
    }

    /// Something of a node is altered, or it takes something of a node that is.
    pub(crate) fn taint(&mut self, home: usize) {
        self.tainted.insert(home);
    }

    /// A node by its name.
    #[must_use]
    pub fn home_of(&self, node: NodeId) -> usize {
        self.homes[&node]
    }

    /// The latest process of a node, by its place.
    #[must_use]
    pub fn place_of(&self, node: NodeId) -> usize {
        self.latest[self.homes[&node]]
    }

    /// The state of a process is still there: it lives, or its node lives and has it on its disk.
    fn goes_on(&self, place: usize, alive: &dyn Fn(usize) -> bool) -> bool {
        match self.disks {
            None => alive(place),
            Some(_) => (0..self.nodes.len()).any(|other| self.disk_of[other] == self.disk_of[place] && alive(other)),
        }
    }

    /// The latest view that any node has installed.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.views.latest().map(|log| &log.view)
    }

    /// Every node that could determine the end of the latest view is gone: no live node has the result up to its first
    /// index. Such a group waits for ever (`protocol.md` §6.3).
    #[must_use]
    pub fn is_lost(&self, alive: impl Fn(usize) -> bool) -> bool {
        let Some(log) = self.views.latest().filter(|log| !log.view.last) else { return false };
        !(0..log.ring.len()).any(|rank| self.goes_on(log.ring[rank], &alive) && self.is_complete(log, rank))
    }

    /// A run is a member of the latest view, and has the result up to its first index.
    #[must_use]
    pub fn has_all(&self, place: usize) -> bool {
        let Some(log) = self.views.latest() else { return false };
        log.rank_of(place).is_some_and(|rank| self.is_complete(log, rank))
    }

    fn is_complete(&self, log: &ViewLog, rank: usize) -> bool {
        match self.disks {
            Some(_) => self.is_complete_on_disk(log.view.ring[rank].node, log.view.id),
            None => self.is_complete_in_memory(log, rank),
        }
    }

    /// A run had the result up to a view's first index, or has the part that its cut keeps.
    fn is_complete_in_memory(&self, log: &ViewLog, rank: usize) -> bool {
        let seen = &self.nodes[log.ring[rank]];
        let told = seen.told_first == log.view.id;
        let reached = told && log.first.is_some_and(|first| seen.index + 1 >= first);
        if seen.view == log.view.id { !seen.joined || reached } else { log.view.ring[rank].origin == Origin::Survivor }
    }

    /// The view in force at a node, and whether it is a member of it.
    #[must_use]
    pub fn view_of(&self, node: usize) -> (ViewId, bool) {
        (self.nodes[node].view, self.nodes[node].active)
    }

    /// A node has begun to SEND.
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

    /// The members of the last view, once a node has installed it.
    #[must_use]
    pub fn survivors(&self) -> &[usize] {
        &self.survivors
    }

    /// The final result that a node has reported.
    #[must_use]
    pub fn final_of(&self, node: usize) -> Option<Checkpoint> {
        self.nodes[node].final_result
    }

    /// A process has the final result, or a later one that began with its disk: an ended process keeps nothing.
    fn keeps_final(&self, place: usize, alive: &dyn Fn(usize) -> bool) -> bool {
        let mut runs =
            (0..self.nodes.len()).filter(|&other| self.disk_of[other] == self.disk_of[place] && alive(other));
        runs.any(|other| self.nodes[other].final_result.is_some())
    }

    /// A failure at this moment.
    #[must_use]
    pub fn failure(&self, rule: &'static str, node: usize, what: impl Into<String>) -> Failure {
        Failure { rule, node, at_us: self.now_us, what: what.into() }
    }

    /// An application broadcasts a payload.
    pub fn broadcast(&mut self, node: usize, payload: Bytes) {
        self.ghost.broadcast(node, payload);
    }

    /// A node is about to be handed a frame.
    pub fn frame_in(&mut self, node: usize, packet: &Packet) {
        if let Frame::Control(ControlFrame::Fetched(Fetched::End { view, first: Index(1..), .. })) = &packet.frame {
            // A late word of an earlier view takes nothing back; one that comes before its view is not kept.
            let seen = &mut self.nodes[node];
            seen.told_first = seen.told_first.max(if *view <= seen.view { *view } else { ViewId(0) });
        }
        if let Frame::Control(ControlFrame::Wedge { view, .. }) = &packet.frame {
            self.nodes[node].may_wedge = *view;
        }
        let Some(log) = packet.stream.view().and_then(|view| self.views.get_mut(view)) else { return };
        match (packet.stream, &packet.frame) {
            (Stream::Lane { lane, .. }, Frame::Lane(frame)) => log.lanes.received(node, lane.at(), frame),
            (Stream::Tally { .. }, Frame::Tally(TallyFrame::Skips { lanes })) => {
                lanes.iter().for_each(|skip| log.lanes.received(node, skip.lane.at(), &as_frame(skip)));
            }
            (Stream::Tally { .. }, Frame::Tally(TallyFrame::Confirm { frontier })) => {
                if let Some(lane) = log.rank_of(node) {
                    log.lanes.tallied(lane, packet.sender, frontier.0);
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
        // Entries before a view in the same step may come from its cut.
        let installs = |output: &Output| matches!(output, Output::Event(Event::ViewInstalled { .. }));
        let cut_ends = outputs.iter().rposition(installs).unwrap_or_default();
        for (at, output) in outputs.iter().enumerate() {
            if self.nodes[node].diverged {
                let what = format!("{output:?}");
                return Err(self.failure("a node whose result differs says nothing more", node, what));
            }
            let way = match (self.nodes[node].active, at < cut_ends) {
                // From the disk of a member of the view before.
                (false, true) if self.nodes[node].was_member => {
                    stats.met(Met::TakenFromDisk);
                    Way::Cut
                }
                (false, _) => Way::Fetch,
                (true, true) => Way::Cut,
                (true, false) => Way::Walk,
            };
            let checked = match output {
                Output::Send { to, stream, frame } => self.sent(node, *to, *stream, frame, stats),
                Output::Approved(approval) => self.approved_own(node, approval, way),
                Output::Deliver(ApprovedItem::Batch(entry)) => self.delivered(node, entry, way, stats),
                Output::Deliver(ApprovedItem::View(view)) => self.read_view(node, view),
                Output::Event(event) => self.event(node, event, stats),
                Output::Persist { records, .. } => self.persists(node, records),
                Output::Restore { index, view, .. } | Output::Resumed { after: index, view } => {
                    self.goes_on_after(node, index.0).and_then(|()| self.begins_with(node, index.0, view.as_ref()))
                }
                Output::CloseLink { .. } | Output::Redial { .. } | Output::ReadResult { .. } => Ok(()),
                Output::ReadSnapshot { .. } => Ok(()),
            };
            if !self.is_tainted(node) {
                checked?;
            }
        }
        if self.nodes[node].approval.take().is_some() && !self.is_tainted(node) {
            return Err(self.failure("an approval comes with its entry", node, "the entry is missing"));
        }
        Ok(())
    }

    fn sent(
        &mut self,
        node: usize,
        to: NodeId,
        stream: Stream,
        frame: &Frame,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let checked = match frame {
            Frame::Control(ControlFrame::Wedged(wedged)) => self.answered(node, wedged, stats),
            Frame::Control(ControlFrame::Wedging { view }) => {
                stats.met(Met::WedgingSaid);
                if let Some(log) = self.views.get_mut(*view) {
                    log.wedges.freeze(node);
                }
                Ok(())
            }
            Frame::Control(ControlFrame::Wedge { view, .. }) => {
                // The coordinator itself wedges without a word.
                if let Some(log) = self.views.get_mut(*view) {
                    log.wedges.freeze(node);
                }
                Ok(())
            }
            Frame::Control(ControlFrame::Coordinates { term }) => self.control.coordinates(node, *term),
            Frame::Control(ControlFrame::Consensus(message)) => {
                self.proposes(message);
                Ok(())
            }
            Frame::Control(_) | Frame::Tally(TallyFrame::Heartbeat(_) | TallyFrame::Resume { .. }) => Ok(()),
            Frame::Lane(_) | Frame::Tally(_) => self.sent_in_view(node, to, stream, frame, stats),
        };
        checked.map_err(|(rule, what)| self.failure(rule, node, what))
    }

    fn sent_in_view(
        &mut self,
        node: usize,
        to: NodeId,
        stream: Stream,
        frame: &Frame,
        stats: &mut Stats,
    ) -> Result<(), Broken> {
        let (home, on_disk) = (self.home_of[node], self.disks.is_some());
        let Some(log) = stream.view().and_then(|view| self.views.get_mut(view)) else {
            return Err(("data belongs to a view", format!("{stream:?}")));
        };
        if log.wedges.is_frozen(node) {
            return Err(("a wedged member sends nothing of its view", format!("{frame:?}")));
        }
        let (Some(own), Some(other)) = (log.rank_of(node), log.view.rank_of(to)) else {
            return Err(("only members speak in a view", format!("{frame:?}")));
        };
        match frame {
            Frame::Tally(TallyFrame::Confirm { frontier }) => {
                if on_disk {
                    log.lanes.is_synced("confirmed is what is synced", other.at(), home, frontier.0)?;
                }
                log.lanes.confirmed(node, other.at(), frontier.0)
            }
            Frame::Tally(TallyFrame::Approved { frontier }) => {
                if on_disk {
                    log.lanes.is_synced("approved is what is synced at its owner", own, home, frontier.0)?;
                }
                log.lanes.all_confirmed(own, &log.ring, frontier.0)
            }
            Frame::Tally(TallyFrame::Skips { lanes }) => {
                stats.met(Met::SkipPassedOn);
                lanes.iter().try_for_each(|skip| log.lanes.forwarded(node, skip.lane.at(), &as_frame(skip)))
            }
            Frame::Lane(frame) => {
                if !log.carries(own, other.at(), stream) {
                    return Err((
                        "lanes run where the ring model says",
                        format!("{stream:?} from {own} to {}", other.0),
                    ));
                }
                if let Some(lane) = forwarded(own, stream) {
                    stats.met(Met::SlotForwarded);
                    return log.lanes.forwarded(node, lane, frame);
                }
                if let LaneFrame::Slot(slot) = frame {
                    self.ghost.is_of_this_run(node, slot)?;
                }
                log.sent(own, frame)
            }
            Frame::Tally(_) | Frame::Control(_) => Ok(()),
        }
    }
}

/// The frame that the lane's owner would have sent.
fn as_frame(skip: &KnownSkip) -> LaneFrame {
    LaneFrame::Skip { prev: skip.prev, frontier: skip.frontier }
}

/// A rule, and the observation that violates it.
type Broken = (&'static str, String);
