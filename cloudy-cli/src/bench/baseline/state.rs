//! The state of a baseline node: each node's messages.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frames::Run;
use crate::bench::meter::now_us;
use crate::bench::timeline::{PartCounts, Timeline};

/// State that the sender and the streams' tasks share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified when the state that the sender waits for changes.
    pub(super) moved: Notify,
    /// By node: notified when there is something to send to it.
    pub(super) news: Vec<Notify>,
}

struct State {
    me: usize,
    /// Whether the nodes send in turn.
    ring: bool,
    /// Ring: number of messages that arrived without a gap.
    frontier: u64,
    lanes: Vec<Lane>,
    timeline: Timeline,
    /// Whether the sender also waits for approvals by others.
    ending: bool,
}

/// The messages of one node.
#[derive(Clone, Default)]
struct Lane {
    /// Received messages of another node, or sent ones of this node.
    received: u64,
    /// Messages of this node that it has confirmed.
    confirmed: u64,
    approved: u64,
    /// Received messages that are not approved.
    waiting: VecDeque<Run>,
}

impl Shared {
    pub(super) fn new(me: usize, nodes: usize, ring: bool) -> Self {
        let lanes = vec![Lane::default(); nodes];
        let state = State { me, ring, frontier: 0, lanes, timeline: Timeline::of(0..0), ending: false };
        let news = (0..nodes).map(|_| Notify::new()).collect();
        Self { state: Mutex::new(state), moved: Notify::new(), news }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves every field valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the measured time.
    pub(super) fn measure(&self, measure_us: Range<u64>) {
        self.lock().timeline = Timeline::of(measure_us);
    }

    /// The measurements in it.
    pub(super) fn timeline(&self) -> Vec<PartCounts> {
        self.lock().timeline.counts()
    }

    /// Number of own messages that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.lock().own().received
    }

    /// Number of own messages that are approved.
    pub(super) fn approved_own(&self) -> u64 {
        self.lock().own().approved
    }

    /// Number of all messages that are approved here.
    pub(super) fn approved(&self) -> u64 {
        self.lock().lanes.iter().map(|lane| lane.approved).sum()
    }

    /// Whether no own message waits for an approval; the last ones of a ring never get one.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.ring || state.own().waiting.is_empty()
    }

    /// Ring: whether the next message is this node's.
    pub(super) fn is_own_turn(&self) -> bool {
        let state = self.lock();
        state.frontier % state.lanes.len() as u64 == state.me as u64
    }

    /// Notes that this node sends messages.
    pub(super) fn add_sent(&self, due_us: u64, messages: u64) {
        let mut state = self.lock();
        let me = state.me;
        state.lanes[me].add(due_us, messages);
        state.advance_ring();
    }

    /// Notes messages that arrived from another node.
    pub(super) fn arrived(&self, from: usize, runs: &mut Vec<Run>) {
        let mut state = self.lock();
        runs.drain(..).for_each(|(due_us, messages)| state.lanes[from].add(due_us, messages));
        state.advance_ring();
        if state.ring {
            self.moved.notify_one();
        } else {
            self.news[from].notify_one();
        }
    }

    /// The report to a node: how many of its messages are here, and how many of this node's all have.
    pub(super) fn report_to(&self, to: usize) -> (u64, u64) {
        let state = self.lock();
        (state.lanes[to].received, state.own().approved)
    }

    /// Handles such a report of a node.
    pub(super) fn reported(&self, from: usize, confirmed: u64, approved: u64) {
        let mut state = self.lock();
        let me = state.me;
        state.lanes[from].confirmed = confirmed;
        let here = approved.min(state.lanes[from].received);
        state.approve(from, here, now_us());
        let others = state.lanes.iter().enumerate().filter(|(number, _)| *number != me);
        let own = others.map(|(_, lane)| lane.confirmed).min().unwrap_or(0);
        if own > state.lanes[me].approved {
            state.approve(me, own, now_us());
            self.moved.notify_one();
            self.news.iter().for_each(Notify::notify_one);
        } else if state.ending {
            self.moved.notify_one();
        }
    }

    /// Waits until all sent messages are approved here (in a ring: have arrived), by node; returns their number.
    pub(super) async fn wait_for(&self, sent: &[u64]) -> u64 {
        loop {
            {
                let mut state = self.lock();
                state.ending = true;
                let ring = state.ring;
                let count = |lane: &Lane| if ring { lane.received } else { lane.approved };
                if state.lanes.iter().map(count).eq(sent.iter().copied()) {
                    return sent.iter().sum();
                }
            }
            self.moved.notified().await;
        }
    }
}

impl State {
    fn own(&self) -> &Lane {
        &self.lanes[self.me]
    }

    fn approve(&mut self, number: usize, up_to: u64, now_us: u64) {
        let lane = &mut self.lanes[number];
        while lane.approved < up_to {
            let Some((due_us, messages)) = lane.waiting.front_mut() else { return };
            let taken = (*messages).min(up_to - lane.approved);
            self.timeline.record(Some(*due_us), now_us, taken);
            lane.approved += taken;
            *messages -= taken;
            if *messages == 0 {
                lane.waiting.pop_front();
            }
        }
    }

    /// Approves messages of a ring: those after which each other node has sent a later one.
    fn advance_ring(&mut self) {
        let nodes = self.lanes.len() as u64;
        while self.ring && self.lanes[(self.frontier % nodes) as usize].received > self.frontier / nodes {
            self.frontier += 1;
            if let Some(approved) = self.frontier.checked_sub(nodes) {
                self.approve((approved % nodes) as usize, approved / nodes + 1, now_us());
            }
        }
    }
}

impl Lane {
    fn add(&mut self, due_us: u64, messages: u64) {
        self.received += messages;
        match self.waiting.back_mut() {
            Some((last_us, together)) if *last_us == due_us => *together += messages,
            _ => self.waiting.push_back((due_us, messages)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_receiver_decides_what_is_approved() {
        let shared = Shared::new(0, 3, false);
        shared.add_sent(7, 10);
        shared.reported(1, 8, 0);
        assert_eq!((shared.approved_own(), shared.is_drained()), (0, false));
        shared.reported(2, 5, 0);
        assert_eq!((shared.approved_own(), shared.report_to(1)), (5, (0, 5)));
        shared.reported(2, 10, 0);
        assert_eq!(shared.approved_own(), 8);
        shared.reported(1, 10, 0);
        assert!(shared.is_drained());
    }

    #[test]
    fn a_reported_approval_counts_once_its_entry_is_present() {
        let shared = Shared::new(0, 2, false);
        shared.arrived(1, &mut vec![(7, 3)]);
        shared.reported(1, 0, 5);
        assert_eq!((shared.approved(), shared.report_to(1)), (3, (3, 0)));
    }

    #[test]
    fn a_rings_message_is_approved_by_those_that_follow_it() {
        let shared = Shared::new(0, 3, true);
        assert!(shared.is_own_turn());
        shared.add_sent(1, 1);
        assert!(!shared.is_own_turn());
        // The third message overtakes the second.
        shared.arrived(2, &mut vec![(3, 1)]);
        assert_eq!((shared.approved(), shared.is_own_turn()), (0, false));
        shared.arrived(1, &mut vec![(2, 1)]);
        assert_eq!((shared.approved(), shared.is_own_turn()), (1, true));
    }
}
