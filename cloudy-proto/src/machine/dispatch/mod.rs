//! The order of duties: what follows from an input, an expired timer or another handler's step, owner after owner.
//!
//! Nothing here decides anything. A method calls handlers, one after the other.

mod frames;
mod handlers;
mod log;
mod restore;
mod term;

use core::time::Duration;

use bytes::Bytes;

use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::{ApprovedItem, Event, Request};
use crate::machine::Machine;
use crate::machine::fetched::Reached;
use crate::machine::peers::Contact;
use crate::machine::timers::Timer;
use crate::time::Time;
use crate::view::InstalledView;
use crate::wire::{Fetched, Heartbeat};

pub(in crate::machine) use frames::only_tallies;

/// The time for which the result must have waited before that is reported.
const WAIT_REPORTED_AFTER: Duration = Duration::from_millis(250);

/// Inputs.
impl Machine {
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_request(&mut self, request: Request) {
        match request {
            Request::Invite { node } => self.creation().into_iter().for_each(|mut creation| creation.invite(node)),
            Request::Uninvite { node } => self.arrival.creation_mut().into_iter().for_each(|it| it.uninvite(node)),
            Request::Create { session } => self.creation().into_iter().for_each(|mut it| it.create(session)),
            Request::End => self.on_close_request(),
            Request::Leave => {
                self.closing.departure_mut().want(self.timers.now());
                self.ask_to_leave();
            }
            Request::Suspend => {
                self.closing.departure_mut().suspend(self.timers.now());
                self.ask_to_leave();
            }
            Request::Snapshot { index, state } => self.on_snapshot(index, state),
            Request::Report(report) => self.close().on_own_report(report),
        }
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn run_timers(&mut self) {
        // A timer that sets itself again does so for a later time, so each runs at most once.
        while let Some(timer) = self.timers.take_due(self.timers.now()).filter(|_| !self.outputs.is_halted()) {
            match timer {
                Timer::Heartbeat => {
                    self.view_change().suspect();
                    self.report_wait();
                    self.slow_down().check();
                    self.serve().release();
                    self.links().beat();
                }
                Timer::Period => self.on_period_over(),
                Timer::Wedge => self.view_change().on_timeout(),
                Timer::Linger => self.close().close(),
                Timer::Fetch => self.fetch().on_timeout(),
                Timer::Rejoin => self.send_rejoin(),
                Timer::Join => self.join().into_iter().for_each(|mut join| join.ask_next()),
                Timer::Seek => self.coordinator().seek(),
                Timer::Consensus => self.on_consensus_tick(),
                Timer::Leave => self.ask_to_leave(),
            }
        }
        if let Some(member) = self.plane.member_mut().filter(|member| member.turn_ends_at() <= Some(self.timers.now()))
        {
            member.pass_turn();
        }
    }

    /// Handles an input that comes later than a heartbeat after the one before it.
    // Apart from the hot paths, which would pay for its stack frame.
    #[cold]
    #[inline(never)]
    pub(in crate::machine) fn on_late(&mut self, now: Time, passed: Duration, heartbeat: Duration) {
        self.links().on_late(now, passed, heartbeat);
    }

    /// Handles entries that the disk has read for a node.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_result_read(&mut self, to: NodeId, items: Option<Vec<ApprovedItem>>) {
        self.serve().on_read(to, items);
    }

    /// Handles bytes of a state that the disk has read for a node.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_snapshot_read(&mut self, to: NodeId, place: (u64, u64), part: Option<Bytes>) {
        self.serve().on_snapshot_read(to, place, part);
    }

    /// Handles the sync of all records up to a ticket.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_persisted(&mut self, ticket: u64) {
        self.storage.syncs.on_synced(self.timers.now());
        while let Some(completes) = self.durable().next_synced(ticket) {
            if completes {
                self.let_go();
            }
        }
        self.view_change().on_synced();
        if self.catch_up.fetches.is_fetching() {
            self.fetch().on_synced();
        }
    }

    /// Handles a frame of a transfer to this node.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_fetched(&mut self, from: NodeId, fetched: Fetched) {
        match self.fetch().on_fetched(from, fetched) {
            Reached::Nothing => {}
            Reached::View { view, first } => {
                let id = view.id;
                self.delivery().begin_view(InstalledView { first, view });
                if self.durable().on_fetched_all(id, first) {
                    self.let_go();
                }
            }
            Reached::Final { from, theirs, view } => {
                if self.divergence().agrees_with_source(from, theirs) {
                    self.fetch().on_final(theirs, view);
                    self.on_final(Some(theirs));
                }
            }
        }
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_link_up(&mut self, peer: NodeId, contact: Contact) {
        self.links().on_up(peer, contact);
        if self.is_coordinator() {
            if let Some(mut creation) = self.creation() {
                creation.send_invite(peer);
            }
            self.announce(peer);
        } else if peer == self.tracking.node() {
            self.greet_coordinator();
            // The creator may be another process without the group: only an answer shows that.
            if self.arrival.has_accepted() && self.log.state().view().is_none() {
                self.accept_invitation(peer);
            }
        }
        if let Some(mut join) = self.join() {
            join.on_link_up(peer);
        }
        self.links().send_state(peer);
        self.links().probe();
        self.fetch().on_link_up(peer);
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_link_down(&mut self, peer: NodeId) {
        self.links().on_down(peer);
        if let Some(joining) = self.arrival.joining_mut() {
            joining.on_link_down(peer);
        }
        if !self.is_coordinator() && peer == self.tracking.node() {
            self.coordinator().on_lost();
        }
        self.catch_up.transfers.on_link_down(peer);
        self.fetch().on_link_down(peer);
        self.view_change().on_link_down(peer);
        self.close().try_close();
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn on_heartbeat(&mut self, node: NodeId, heartbeat: Heartbeat) {
        let Some(completes) = self.links().on_heartbeat(node, heartbeat) else { return };
        if completes {
            self.let_go();
        }
        self.links().report_progress(node, heartbeat.index);
        self.divergence().compare(node, heartbeat);
    }
}

/// Reports of this node.
impl Machine {
    /// Outputs all records that were added after the last output.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn give_out_records(&mut self) {
        self.durable().give_out();
    }

    /// Makes this node only answer, once the log is closed.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn retire(&mut self) {
        self.close().retire();
    }

    /// Reports once in each view that the links to all other members are up.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(in crate::machine) fn report_ready(&mut self) {
        if let Some(view) = self.links().report_ready() {
            self.on_ready(self.identity.me, view);
        }
    }

    /// Reports that this evicted node lives, and whether it is ready to return.
    pub(in crate::machine) fn send_rejoin(&mut self) {
        if let Some(own) = self.rejoin().report() {
            let me = self.identity.me;
            self.view_change().on_rejoin(me, own.view, own.ready);
            self.slow_down().on_rates(me, own.slower);
        }
    }

    /// Reports the slot that the result waits for: first after a quarter of a second, and whenever that has doubled.
    fn report_wait(&mut self) {
        let waiting = self.status_view(self.timers.now()).reported_wait();
        let age = waiting.as_ref().map(|waiting| waiting.age);
        let is_due = self.plane.report_wait(age, WAIT_REPORTED_AFTER);
        if let Some(waiting) = waiting.filter(|_| is_due) {
            self.event(Event::Waits(waiting));
        }
    }
}

/// The close of the group.
impl Machine {
    /// Handles the application's request to close the group.
    pub(in crate::machine) fn on_close_request(&mut self) {
        if self.close().on_request() {
            self.begin_close();
        }
    }

    /// Handles another node's request to close the group.
    pub(in crate::machine) fn on_peer_close_request(&mut self, from: NodeId) {
        if self.close().on_peer_request(from) {
            self.begin_close();
        }
    }

    /// Coordinator: closes the group by a last view change, after one in progress.
    pub(in crate::machine) fn begin_close(&mut self) {
        if self.close().begin() {
            self.view_change().start(true);
        }
    }

    fn on_period_over(&mut self) {
        if self.phases().on_period_over() {
            self.begin_close();
        }
    }

    /// Handles a result that is final here, by this node's own log or by another node's report.
    pub(in crate::machine) fn on_final(&mut self, theirs: Option<Checkpoint>) {
        self.close().on_final(theirs);
        self.divergence().compare_final();
        if !self.outputs.is_halted() {
            self.close().report_final();
        }
    }

    /// Handles the end of the log.
    pub(in crate::machine) fn on_closed(&mut self) {
        self.close().on_closed();
        self.leaving().try_finish();
        let is_fetching = self.catch_up.fetches.is_fetching();
        self.close().report_closed(is_fetching);
    }

    /// Handles a peer's report that the group is closed: requests the rest of the log, or the final result.
    pub(in crate::machine) fn on_peer_closed(&mut self, from: NodeId) {
        self.closing.on_told(from);
        if self.log.state().is_closed() {
            self.fetch().on_source(from);
        } else {
            self.coordinator().send_follow(from);
        }
    }
}
