//! The driver's counters of a group for the admin endpoint: per slot and per view, never per message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudy_proto::slot::Batch;
use cloudy_proto::{Approval, ApprovedItem, Event, Index, NodeId, Output, Seq, Time, View};

use crate::histogram::Histogram;

/// Maximum of views in the history.
const VIEWS_KEPT_MAX: usize = 32;
/// Maximum of own slots whose approval is timed; the oldest ones are not timed.
const TIMED_SLOTS_MAX: usize = 4_096;
/// Maximum of nodes that left the group between two views.
const DROPPED_MAX: usize = 64;
/// The weight of the latest confirmation in the smoothed delay: one part in this number.
const DELAY_WEIGHT: u32 = 8;

/// Why a node is not in the next view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It did not answer.
    Silent,
    /// It answered, but held up others.
    Blamed,
    /// It left.
    Left,
    /// It stops and will return.
    Suspended,
}

/// A view that came into force.
#[derive(Clone, Debug)]
pub(crate) struct ViewRecord {
    pub(crate) view: Arc<View>,
    pub(crate) first: Index,
    pub(crate) at: SystemTime,
    /// Nodes of the view before that are not in this one, with the reason if it is known here.
    pub(crate) dropped: Vec<(NodeId, Option<Dropped>)>,
    /// Nodes that were not in the view before.
    pub(crate) joined: Vec<NodeId>,
}

/// Counts since this node took part in the group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) broadcast_messages: u64,
    pub(crate) broadcast_bytes: u64,
    pub(crate) approved_messages: u64,
    pub(crate) approved_bytes: u64,
    pub(crate) silent: u64,
    pub(crate) blamed: u64,
    pub(crate) left: u64,
    pub(crate) suspended: u64,
    pub(crate) views: u64,
}

/// The driver's counters of a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) counts: Counts,
    /// From the time at which a message gets a slot to its approval; by message.
    pub(crate) latency: Histogram,
    /// The smoothed time from sending a slot to each member's confirmation.
    pub(crate) delays: BTreeMap<NodeId, Duration>,
    /// Oldest first.
    pub(crate) views: VecDeque<ViewRecord>,
    /// Own slots without approval: the last sequence number, and the time at which the machine took it.
    sent: VecDeque<(Seq, Time)>,
    /// Nodes that the next view drops.
    dropped: Vec<(NodeId, Dropped)>,
}

impl Stats {
    /// The machine took a slot of own messages.
    pub(crate) fn on_sent(&mut self, batch: &Batch, now: Time) {
        self.counts.broadcast_messages += u64::from(batch.count);
        self.counts.broadcast_bytes += batch.body.len() as u64;
        if self.sent.len() == TIMED_SLOTS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((Seq(batch.first_seq.0 + u64::from(batch.count) - 1), now));
    }

    /// An output of the machine for users.
    pub(crate) fn on_output(&mut self, output: &Output, now: Time) {
        match output {
            Output::Approved(approval) => self.on_approved(approval, now),
            Output::Deliver(item) => self.on_delivered(item),
            Output::Event(event) => self.on_event(event),
            _ => {}
        }
    }

    /// Own messages were approved.
    fn on_approved(&mut self, approval: &Approval, now: Time) {
        let last = approval.first_seq.0 + u64::from(approval.count) - 1;
        let mut sent_at = None;
        while self.sent.front().is_some_and(|(seq, _)| seq.0 <= last) {
            sent_at = self.sent.pop_front().map(|(_, at)| at);
        }
        if let Some(at) = sent_at {
            self.latency.observe(now.since(at), u64::from(approval.count));
        }
        for (node, delay) in &approval.confirmed {
            let known = self.delays.entry(*node).or_insert(*delay);
            *known = (*known * (DELAY_WEIGHT - 1) + *delay) / DELAY_WEIGHT;
        }
    }

    /// An item entered the result here.
    fn on_delivered(&mut self, item: &ApprovedItem) {
        if let ApprovedItem::Batch(entry) = item {
            self.counts.approved_messages += u64::from(entry.batch.count);
            self.counts.approved_bytes += entry.batch.body.len() as u64;
        }
    }

    /// An event of the group.
    fn on_event(&mut self, event: &Event) {
        let dropped = match event {
            Event::Silent { node } => (*node, Dropped::Silent),
            Event::Blamed { node } => (*node, Dropped::Blamed),
            Event::Left { node } => (*node, Dropped::Left),
            Event::Suspended { node } => (*node, Dropped::Suspended),
            Event::ViewInstalled { view, first, .. } => return self.on_view(view, *first),
            _ => return,
        };
        if self.dropped.len() < DROPPED_MAX && !self.dropped.contains(&dropped) {
            self.dropped.push(dropped);
            match dropped.1 {
                Dropped::Silent => self.counts.silent += 1,
                Dropped::Blamed => self.counts.blamed += 1,
                Dropped::Left => self.counts.left += 1,
                Dropped::Suspended => self.counts.suspended += 1,
            }
        }
    }

    fn on_view(&mut self, view: &Arc<View>, first: Index) {
        let before = self.views.back().map(|record| Arc::clone(&record.view));
        let nodes = |view: &View| view.ring.iter().map(|member| member.node).collect::<Vec<_>>();
        let (old, new) = (before.as_deref().map(nodes).unwrap_or_default(), nodes(view));
        let reasons = std::mem::take(&mut self.dropped);
        let reason = |node: &NodeId| reasons.iter().find(|(dropped, _)| dropped == node).map(|(_, reason)| *reason);
        let dropped = old.iter().filter(|node| !new.contains(node)).map(|node| (*node, reason(node))).collect();
        let joined = new.iter().filter(|node| !old.contains(node)).copied().collect();
        self.delays.retain(|node, _| new.contains(node));
        self.counts.views += 1;
        if self.views.len() == VIEWS_KEPT_MAX {
            self.views.pop_front();
        }
        self.views.push_back(ViewRecord { view: Arc::clone(view), first, at: SystemTime::now(), dropped, joined });
    }
}
