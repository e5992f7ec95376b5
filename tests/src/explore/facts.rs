//! The facts about one node from its outputs, and the promises that one node can break alone (`protocol.md` §1, §11).

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;

use crate::invariants::ONE_SEQUENCE;
use bytes::Bytes;
use cloudy_proto::slot::Payloads;
use cloudy_proto::wire::{ControlFrame, LaneFrame, Stream, TallyFrame};
use cloudy_proto::{ApprovedItem, Checkpoint, Entry, Event, Frame, InstalledView, NodeId, Output, Rank, View, ViewId};

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The promise, as a text.
    pub rule: &'static str,
    /// The observation.
    pub what: String,
}

impl Broken {
    /// A promise, and the observation that breaks it.
    #[must_use]
    pub fn new(rule: &'static str, what: impl Debug) -> Self {
        Self { rule, what: format!("{what:?}") }
    }

    /// A machine has stopped at one of its own assertions.
    #[must_use]
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&said| said.to_owned()));
        Self { rule: "the machine's own assertions hold", what: said.unwrap_or_default() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" fails: {}", self.rule, self.what)
    }
}

/// The way in which a payload came into a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the walk: all members have confirmed it.
    Walk,
    /// By a cut, or from another node's result.
    Taken,
}

/// A payload in a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The view that approved it.
    pub view: ViewId,
    /// The node that broadcast it.
    pub origin: usize,
    /// Its number there.
    pub seq: u64,
    /// It.
    pub payload: Bytes,
}

/// The facts about a node.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Which.
    pub node: usize,
    /// Its result.
    pub result: Vec<Placed>,
    /// The views of it.
    pub view_items: Vec<InstalledView>,
    /// The way of each payload into it.
    pub ways: Vec<Way>,
    /// Payloads that it has broadcast.
    pub broadcast: u64,
    /// Own payloads in its result.
    pub approved: u64,
    /// The views that it has installed.
    pub views: BTreeMap<ViewId, Arc<View>>,
    /// It is a member of the latest.
    pub active: bool,
    /// It does not know where the latest began.
    pub incomplete: bool,
    /// Views that it has wedged, and may say nothing more of.
    pub frozen: BTreeSet<ViewId>,
    /// Terms in which it said that it coordinates.
    pub terms: BTreeSet<u64>,
    /// By view and lane: the slots it has confirmed.
    pub confirmed: BTreeMap<(ViewId, usize), u64>,
    /// By view, lane and number: the round in which it sent a payload, its own or, relayed, another's.
    pub rounds: BTreeMap<(ViewId, Rank, u64), u64>,
    /// Its final result.
    pub final_result: Option<Checkpoint>,
    /// Nodes that vote, as far as it knows.
    pub voters: usize,
    /// A rule is off here: others may find that it breaks the protocol.
    pub mutated: bool,
    /// Its result has the newest message first: what no machine does.
    pub reversed: bool,
    /// It has asked to leave.
    pub left: bool,
    /// Nodes that it knows will be members.
    pub accepted: BTreeSet<usize>,
}

impl Facts {
    /// Nothing is known of a node.
    #[must_use]
    pub fn new(node: usize, mutated: bool) -> Self {
        Self { node, mutated, ..Self::default() }
    }

    /// The latest view that it has installed.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.views.values().next_back()
    }

    /// The node has put these out, in this order.
    ///
    /// # Errors
    /// The first promise that they break.
    pub fn note(&mut self, outputs: &[Output], node_of: &dyn Fn(NodeId) -> usize) -> Result<(), Broken> {
        // Entries before a view in the same step may come from its cut.
        let installs = |output: &Output| matches!(output, Output::Event(Event::ViewInstalled { .. }));
        let cut_ends = outputs.iter().rposition(installs).unwrap_or_default();
        for (at, output) in outputs.iter().enumerate() {
            match output {
                Output::Send { to, stream, frame } => self.sent(node_of(*to), *stream, frame)?,
                Output::Deliver(ApprovedItem::View(view)) => self.read_view(view)?,
                Output::Deliver(ApprovedItem::Batch(entry)) => {
                    let walks = self.active && !self.incomplete && at >= cut_ends;
                    self.delivered(entry, if walks { Way::Walk } else { Way::Taken }, node_of)?;
                }
                Output::Approved(approval) => {
                    let members = self.views.get(&approval.view).map_or(0, |view| view.ring.len());
                    let walks = self.active && !self.incomplete && at >= cut_ends;
                    if walks && approval.confirmed.len() != members {
                        return Err(Broken::new("every member has confirmed an approval", approval));
                    }
                }
                Output::Event(event) => self.told(event, node_of)?,
                Output::CloseLink { .. } if !self.mutated => {
                    return Err(Broken::new("no honest node breaks the protocol", output));
                }
                Output::CloseLink { .. }
                | Output::Redial { .. }
                | Output::Persist { .. }
                | Output::ReadResult { .. }
                | Output::ReadSnapshot { .. }
                | Output::Resumed { .. }
                | Output::Restore { .. } => {}
            }
        }
        Ok(())
    }

    fn sent(&mut self, to: usize, stream: Stream, frame: &Frame) -> Result<(), Broken> {
        match frame {
            Frame::Control(ControlFrame::Wedged(wedged)) => {
                self.frozen.insert(wedged.view);
            }
            Frame::Control(ControlFrame::Wedge { view, .. }) => {
                // The coordinator itself wedges without a word.
                self.frozen.insert(*view);
            }
            Frame::Control(ControlFrame::Coordinates { term }) => {
                self.terms.insert(*term);
            }
            Frame::Control(_) | Frame::Tally(TallyFrame::Heartbeat(_) | TallyFrame::Resume { .. }) => {}
            Frame::Lane(_) | Frame::Tally(_) => return self.sent_in_view(to, stream, frame),
        }
        Ok(())
    }

    fn sent_in_view(&mut self, to: usize, stream: Stream, frame: &Frame) -> Result<(), Broken> {
        let Some(view) = stream.view() else { return Err(Broken::new("data belongs to a view", stream)) };
        if self.frozen.contains(&view) {
            return Err(Broken::new("a wedged member sends nothing of its view", frame));
        }
        match (stream, frame) {
            (_, Frame::Tally(TallyFrame::Confirm { frontier })) => {
                let confirmed = self.confirmed.entry((view, to)).or_default();
                *confirmed = frontier.0.max(*confirmed);
            }
            (Stream::Lane { lane, .. }, Frame::Lane(LaneFrame::Slot(slot))) => {
                for seq in slot.batch.first_seq.0..=slot.batch.last_seq().0 {
                    let round = *self.rounds.entry((view, lane, seq)).or_insert(slot.round.0);
                    if round != slot.round.0 {
                        return Err(Broken::new("a payload has one slot in a view", (view, lane, seq, round)));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A view is read where it begins.
    fn read_view(&mut self, view: &InstalledView) -> Result<(), Broken> {
        let (id, next) = (self.view_items.len() as u64 + 1, self.result.len() as u64 + 1);
        if (view.id().0, view.first.0) != (id, next) {
            return Err(Broken::new(ONE_SEQUENCE, (view, id, next)));
        }
        self.view_items.push(view.clone());
        Ok(())
    }

    fn delivered(&mut self, entry: &Entry, way: Way, node_of: &dyn Fn(NodeId) -> usize) -> Result<(), Broken> {
        let origin = node_of(entry.origin);
        if let Some(result) = self.final_result {
            return Err(Broken::new("a final result does not grow", (result, entry)));
        }
        if self.view_items.last().map(InstalledView::id) != Some(entry.view) {
            return Err(Broken::new(ONE_SEQUENCE, (&self.view_items, entry)));
        }
        for (at, payload) in Payloads::of(entry.batch.body.clone()).enumerate() {
            let seq = entry.batch.first_seq.0 + at as u64;
            let before = self.result.iter().filter(|placed| placed.origin == origin).count() as u64;
            if entry.first_index.0 + at as u64 != self.result.len() as u64 + 1 {
                return Err(Broken::new("a result has no gaps", entry));
            }
            if seq != before + 1 {
                return Err(Broken::new("an origin's payloads enter once and in its order", entry));
            }
            if payload[..] != super::local::payload(origin, seq) {
                return Err(Broken::new("what enters was broadcast", entry));
            }
            let at = if self.reversed { 0 } else { self.result.len() };
            self.result.insert(at, Placed { view: entry.view, origin, seq, payload });
            self.ways.insert(at, way);
        }
        Ok(())
    }

    fn told(&mut self, event: &Event, node_of: &dyn Fn(NodeId) -> usize) -> Result<(), Broken> {
        match event {
            Event::ViewInstalled { view, first, active } => {
                let before = self.view().map_or(ViewId(0), |view| view.id);
                if view.id != before.next() {
                    return Err(Broken::new("views come one after the other", (before, view.id)));
                }
                self.views.insert(view.id, Arc::clone(view));
                (self.active, self.incomplete) = (*active, first.0 == 0);
            }
            Event::Accepted { node } => {
                self.accepted.insert(node_of(*node));
            }
            Event::Final { result } => self.final_result = Some(*result),
            Event::Diverged { .. } => return Err(Broken::new("healthy results do not differ", event)),
            _ => {}
        }
        Ok(())
    }
}
