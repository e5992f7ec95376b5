//! One group at one node: the state machine that everything drives (the contract is at the top of the crate).

mod change;
mod closing;
mod compact;
mod complete;
mod config;
mod control_log;
mod coordinate;
mod coordinating;
mod divergence;
mod durable;
mod fetch;
mod founding;
mod frames;
mod incoming;
mod install;
mod join;
mod keep_up;
mod leave;
mod links;
mod log;
mod offers;
mod outcome;
mod pace;
mod peers;
mod phases;
mod rejoin;
mod restore;
mod retention;
mod role;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod timeouts;
mod timers;
mod tracking;
mod votes;

use crate::config::Durability;
use crate::control::Voter;
use crate::delivery::Delivery;
use crate::due::{Cause, Due};
use crate::id::{GroupId, Incarnation, Index, NodeId, Seq, ViewId};
use crate::io::{Admission, Event, Frame, Input, Output, Request};
use crate::member::Member;
use crate::outbox::Outbox;
use crate::outputs::Outputs;
use crate::records::Records;
use crate::result_log::ResultLog;
use crate::session::Session;
use crate::stored::StoredSnapshot;
use crate::time::Time;
use crate::view_change::ViewChange;
use crate::wire::{ControlFrame, Heartbeat, Stream};
use closing::Closing;
use complete::Completeness;
use config::Identity;
use control_log::ControlLog;
use coordinating::Coordinating;
use core::time::Duration;
use divergence::Checkpoints;
use durable::Syncs;
use fetch::Fetching;
use founding::Founding;
use join::Joining;
use leave::Departure;
use peers::Peers;
use rejoin::Evictions;
use retention::Retention;
use role::Beginning;
use serve::Transfers;
use timers::{Timer, Timers};
use tracking::CoordinatorTracking;

pub use config::MachineConfig;
pub use outcome::FinalOutcomes;
pub use role::Role;

/// One group at one node. Its `Debug` shows all that decides what it does next, for tests.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    log: ControlLog,
    /// The coordinator's state, while this node coordinates the group.
    coordinating: Option<Coordinating>,
    tracking: CoordinatorTracking,
    /// At the founder: who comes.
    founding: Option<Founding>,
    /// This node accepted the founder's invitation.
    has_accepted: bool,
    peers: Peers,
    member: Option<Member>,
    /// This node's part in the view in force as an earlier run left it on its disk.
    former: Option<Member>,
    /// The latest view that this node has frozen, in whatever run its disk remembers.
    wedged: ViewId,
    outbox: Outbox,
    result: ResultLog,
    records: Records,
    outputs: Outputs,
    syncs: Syncs,
    retention: Retention,
    /// What the application said of its state last, or was told.
    snapshot: Option<StoredSnapshot>,
    /// The session, if the group runs one.
    session: Option<Session>,
    /// This member has reported its links up, for this view.
    ready_said: ViewId,
    /// Whether anybody is left who can end the view in force.
    completeness: Completeness,
    departure: Departure,
    /// Nodes that were evicted, and those of them that are ready to come back.
    evictions: Evictions,
    /// It began with what an earlier run stored.
    restored: bool,
    /// That run was there before the first view.
    founded_with: bool,
    /// This node comes into a running group, or observes it.
    joining: Option<Joining>,
    /// The result here begins at index 1.
    reads_all: bool,
    fetching: Option<Fetching>,
    /// What is transferred of the result, to this node and from it.
    transfers: Transfers,
    /// The wait for a member that is said next.
    waits_said: Duration,
    /// Of the views before.
    confirmations_given: u64,
    checkpoints: Checkpoints,
    closing: Closing,
    timers: Timers,
    now: Time,
    due: Due,
    /// Its result differs from the others', or it cannot read the control log: nothing leaves.
    halted: bool,
}

impl Machine {
    /// A group that does not have a view yet.
    #[must_use]
    pub fn new(config: MachineConfig) -> Self {
        let Beginning { coordinator, founding, joining, index } = config.role.beginning(config.me);
        Self {
            log: ControlLog::new(
                config.rules,
                config.log_entries_max,
                founding.is_some().then(|| Voter::founder(config.durability)),
            ),
            coordinating: None,
            tracking: CoordinatorTracking::new(coordinator),
            founding,
            has_accepted: false,
            peers: Peers::default(),
            member: None,
            former: None,
            wedged: ViewId(0),
            outbox: Outbox::default(),
            result: ResultLog::new(index, config.retain_bytes),
            records: Records::new(config.durability),
            outputs: Outputs::default(),
            syncs: Syncs::default(),
            retention: Retention::new(config.retain_disk_bytes, index),
            snapshot: None,
            session: None,
            ready_said: ViewId(0),
            completeness: Completeness::default(),
            departure: Departure::default(),
            evictions: Evictions::default(),
            restored: false,
            founded_with: false,
            joining,
            reads_all: index == Index(1),
            fetching: None,
            transfers: Transfers::new(config.run),
            waits_said: Duration::ZERO,
            confirmations_given: 0,
            checkpoints: Checkpoints::default(),
            closing: Closing::default(),
            timers: Timers::default(),
            now: Time(0),
            due: Due::default(),
            halted: false,
            identity: Identity {
                me: config.me,
                addresses: config.addresses,
                group: config.group,
                name: config.name,
                run: config.run,
                incarnation: Incarnation(0),
                durability: config.durability,
                rules: config.rules,
            },
        }
        .begun()
    }

    /// The only way in.
    pub fn handle(&mut self, now: Time, input: Input) {
        debug_assert!(now >= self.now, "time never runs backwards");
        self.notice_sleep(now);
        self.now = self.now.max(now);
        if self.halted {
            return;
        }
        self.due.set_if(Cause::Outputs, !frames::only_tallies(&input));
        match input {
            Input::LinkUp { peer, addresses } => self.link_up(peer, addresses),
            Input::LinkDown { peer } => self.link_down(peer),
            Input::Frame { from, incarnation, stream, frame } => self.take_frame(from, incarnation, stream, frame),
            Input::Arriving { from, stream, bytes } => self.take_arriving(from, stream, bytes),
            Input::Alive { peer, since } => self.take_alive(peer, since),
            Input::Broadcast(batch) => self.outbox.push(batch),
            Input::Request(request) => self.take_request(request),
            Input::Persisted { ticket } => self.persisted(ticket),
            Input::ResultRead { to, entries } => self.result_read(to, entries),
            Input::Timeout => self.run_timers(),
        }
        self.run_consensus();
    }

    /// The next thing to do; none once all that follows from the inputs so far was given out.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.due.take(Cause::Outputs) && !self.halted {
            self.derive();
        }
        let output = self.outputs.pop();
        if self.halted && matches!(output, Some(Output::Event(Event::Diverged { .. } | Event::UnreadableLog { .. }))) {
            // What followed in the same turn was said by one that has stopped.
            self.outputs.clear();
        }
        output
    }

    /// Whether [`poll_output`](Self::poll_output) has to be called: cheap, so that a driver of many groups asks each of them.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.due.has(Cause::Outputs) || !self.outputs.is_empty()
    }

    /// When to call `handle` with [`Input::Timeout`] at the latest. Ask after the outputs were taken.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.halted {
            return None;
        }
        let turn_ends = self.member.as_ref().and_then(Member::turn_ends_at);
        [self.timers.next(), turn_ends].into_iter().flatten().min()
    }

    /// What to do with a stream that a peer has opened (`protocol.md` §4). Frames may be handed in from
    /// [`Admission::Read`] streams only.
    #[must_use]
    pub fn admits(&self, from: NodeId, incarnation: Incarnation, stream: Stream) -> Admission {
        let Some(of) = stream.view() else { return Admission::Read };
        let Some(view) = self.log.state().view() else { return Admission::Wait };
        if of != view.id {
            return if of > view.id { Admission::Wait } else { Admission::Stop };
        }
        let Some(rank) = view.rank_of_run(from, incarnation) else { return Admission::Refuse };
        match stream {
            Stream::Lane { lane, .. } => match &self.member {
                None => Admission::Stop,
                Some(member) if member.carries(rank, member.rank, lane) => Admission::Read,
                Some(_) => Admission::Refuse,
            },
            _ => Admission::Read,
        }
    }

    /// The outbox has room: payloads handed in now go into the next slot. The driver leaves the rest where the
    /// application puts it, so that slots grow while the window is closed. False until the log lists this process: a
    /// payload has no message id before that.
    #[must_use]
    pub fn wants_payload(&self) -> bool {
        let has_ids = self.identity.incarnation > Incarnation(0);
        has_ids && self.outbox.is_empty() && !self.halted && self.closing.final_result().is_none()
    }

    /// Bytes of own slots that this node allows itself outside its own result at this moment (`protocol.md` §5); zero
    /// while it is no member.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.member.as_ref().map_or(0, Member::window_bytes)
    }

    /// The run of this node's process in the group; zero while none is assigned.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// This node has no place on the ring and does not ask for one: it observes, or it only founded the group. It never
    /// broadcasts.
    #[must_use]
    pub fn only_watches(&self) -> bool {
        self.observes() || self.only_founds()
    }

    /// Where the group keeps its result.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.identity.durability
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.identity.group
    }

    /// The number of the last own payload in the result.
    #[must_use]
    pub fn last_approved(&self) -> Seq {
        self.result.state().last_seq(self.identity.me, self.identity.incarnation)
    }

    /// The number of the last own payload that has a slot.
    #[must_use]
    pub fn last_sent(&self) -> Seq {
        Seq(self.outbox.last_seq().0 - self.outbox.payloads())
    }

    /// Checks the order of all watermarks: for tests, after every step.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    pub fn validate(&self) {
        if let Some(member) = &self.member {
            member.validate();
            assert!(self.outbox.last_seq() >= self.last_approved(), "approved what was never broadcast");
        }
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Invite { node } => self.invite(node),
            Request::Uninvite { node } => self.uninvite(node),
            Request::Found { session } => self.found(session),
            Request::End => self.end(),
            Request::Leave => self.leave(),
            Request::Snapshot { index, state } => self.snapshot_taken(index, state),
            Request::Report(report) => self.take_report(report),
        }
    }

    /// Derives what follows from the inputs so far.
    fn derive(&mut self) {
        if let Some(member) = &mut self.member {
            let own = (self.identity.me, self.identity.incarnation);
            let (result, records, outputs) = (&mut self.result, &mut self.records, &mut self.outputs);
            let mut delivery = Delivery { own, rules: self.identity.rules, result, records, outputs };
            member.settle(self.now, &mut self.outbox, &mut delivery, &mut self.due);
        }
        self.say_ready();
        self.run_consensus();
        self.flush_log();
        let heartbeat = self.heartbeat();
        if let Some(member) = &mut self.member {
            member.flush(heartbeat, &mut self.outputs, &mut self.due);
        }
        self.give_out_records();
        self.retire();
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            index: self.result.state().index(),
            checkpoint: self.result.state().latest_checkpoint(),
            waiting: !self.outbox.is_empty(),
            complete: self.member.as_ref().is_some_and(|member| member.complete),
            begins: self.member.as_ref().map(|member| member.begins).unwrap_or_default(),
            sync_ms: self.syncs.slowest_ms(self.now),
        }
    }

    fn is_coordinator(&self) -> bool {
        self.coordinating.is_some()
    }

    /// The view change in progress, at the coordinator.
    fn change(&self) -> Option<&ViewChange> {
        self.coordinating.as_ref().and_then(Coordinating::change)
    }

    fn change_mut(&mut self) -> Option<&mut ViewChange> {
        self.coordinating.as_mut().and_then(Coordinating::change_mut)
    }

    /// Only the coordinator knows the followers of the log.
    fn has_follower(&self, node: NodeId) -> bool {
        self.coordinating.as_ref().is_some_and(|coordinating| coordinating.has_follower(node))
    }

    /// Only the coordinator knows the nodes that leave.
    fn is_leaving(&self, node: NodeId) -> bool {
        self.coordinating.as_ref().is_some_and(|coordinating| coordinating.is_leaving(node))
    }

    /// The way of entries into the result.
    fn delivery(&mut self) -> Delivery<'_> {
        Delivery {
            own: (self.identity.me, self.identity.incarnation),
            rules: self.identity.rules,
            result: &mut self.result,
            records: &mut self.records,
            outputs: &mut self.outputs,
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.event(event);
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.now + after);
    }
}

/// Sends a frame of the control plane to a node that is linked.
fn send_control(peers: &Peers, outputs: &mut Outputs, to: NodeId, frame: ControlFrame) {
    if peers.is_linked(to) {
        outputs.send(to, Stream::Control, Frame::Control(frame));
    }
}
