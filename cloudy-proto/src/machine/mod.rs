//! One group at one node: the state machine that a driver calls (the contract is at the top of the crate).

mod admission;
mod arrival;
mod catch_up;
mod change;
mod checkpoints;
mod closing;
mod complete;
mod config;
mod consensus;
mod control_log;
mod coordinating;
mod coordinator;
mod creation;
mod data_plane;
mod departure;
mod dispatch;
mod divergence;
mod durable;
mod electorate;
mod evictions;
mod fetch;
mod fetched;
mod fetched_snapshot;
mod fetching;
mod identity;
mod incoming;
mod install;
mod join;
mod keep_up;
mod leave;
mod level;
mod links;
mod next_view;
mod offers;
mod pace;
mod peers;
mod phases;
mod rejoin;
mod restore;
mod retention;
mod serve;
mod slow_down;
mod slow_learners;
mod snapshot;
mod status;
mod storage;
mod syncs;
#[cfg(test)]
mod tests;
mod timeouts;
mod timers;
mod tracking;
mod wedge;

use crate::config::Durability;
use crate::control::Voter;
use crate::delivery::Delivery;
use crate::digest::Checkpoint;
use crate::due::{Cause, Due};
#[cfg(feature = "mutations")]
use crate::id::LogIndex;
use crate::id::{GroupId, Incarnation, Index, MessageId, NodeId, Seq, ViewId};
use crate::io::{Admission, Event, Frame, Input, Outcome, Output, Status};
use crate::limits::CONSENSUS_TICK;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::session::Session;
use crate::stored::Record;
use crate::time::Time;
use crate::view_change::ViewChange;
use crate::wire::{ControlFrame, Heartbeat, Stream};
use arrival::Arrival;
use catch_up::CatchUp;
use closing::Closing;
use control_log::ControlLog;
use coordinating::Coordinating;
use core::time::Duration;
use data_plane::DataPlane;
use identity::Identity;
use leave::Release;
use peers::Peers;
use storage::Storage;
use timeouts::Timeouts;
use timers::{Timer, Timers};
use tracking::CoordinatorTracking;

pub use config::{MachineConfig, Role};
pub use status::FinalOutcomes;

/// One group at one node. For tests, its `Debug` output has everything that decides its next actions.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    log: ControlLog,
    /// The coordinator's state, while this node coordinates the group.
    coordinating: Option<Coordinating>,
    tracking: CoordinatorTracking,
    arrival: Arrival,
    peers: Peers,
    plane: DataPlane,
    result: ResultLog,
    storage: Storage,
    outputs: Outputs,
    /// The session, if the group runs one.
    session: Option<Session>,
    catch_up: CatchUp,
    closing: Closing,
    timers: Timers,
    due: Due,
}

impl Machine {
    /// A group that does not have a view yet.
    #[must_use]
    pub fn new(config: MachineConfig) -> Self {
        let (arrival, coordinator, index) = config.role.arrival(config.me);
        let is_creator = arrival.creation().is_some();
        let mut machine = Self {
            log: ControlLog::new(
                config.rules,
                config.log_entries_max,
                is_creator.then(|| Voter::creator(config.durability)),
            ),
            coordinating: None,
            tracking: CoordinatorTracking::new(coordinator),
            arrival,
            peers: Peers::default(),
            plane: DataPlane::default(),
            result: ResultLog::new(index, config.retain_bytes),
            storage: Storage::new(config.durability, config.retain_disk_bytes, index),
            outputs: Outputs::default(),
            session: None,
            catch_up: CatchUp::new(config.run),
            closing: Closing::default(),
            timers: Timers::default(),
            due: Due::default(),
            identity: Identity {
                me: config.me,
                addresses: config.addresses,
                advertised: config.advertised,
                group: config.group,
                name: config.name,
                run: config.run,
                incarnation: Incarnation(0),
                is_restored: false,
                was_there_first: false,
                reads_all: index == Index(1),
                durability: config.durability,
                level_max: config.level_max,
                serves: config.serves,
                rules: config.rules,
            },
        };
        machine.start();
        machine
    }

    /// The first actions of a machine.
    fn start(&mut self) {
        if self.log.voter().is_some() {
            self.set_timer(Timer::Consensus, CONSENSUS_TICK);
            self.run_consensus();
        }
        if !self.arrival.is_joining() {
            // A node from before the first view has all of the result from its start.
            self.storage.records.keep(Record::Complete { view: ViewId(0), first: Index(1) });
        }
    }

    /// Handles an input, the only way in.
    pub fn handle(&mut self, now: Time, input: Input) {
        debug_assert!(now >= self.timers.now(), "time never runs backwards");
        if let Some(view) = self.log.state().view() {
            let (passed, heartbeat) = (now.since(self.timers.now()), view.parameters.heartbeat);
            if passed > heartbeat {
                self.on_late(now, passed, heartbeat);
            }
        }
        self.timers.advance(now);
        if self.outputs.is_halted() {
            return;
        }
        self.due.set_if(Cause::Outputs, !dispatch::only_tallies(&input));
        match input {
            Input::LinkUp { peer, addresses, advertised } => self.on_link_up(peer, (addresses, advertised)),
            Input::LinkDown { peer } => self.on_link_down(peer),
            Input::Frame { from, incarnation, stream, frame } => self.take_frame(from, incarnation, stream, frame),
            Input::Arriving { from, stream, bytes } => self.take_arriving(from, stream, bytes),
            Input::Alive { peer, since } => self.take_alive(peer, since),
            Input::Broadcast(batch) => self.plane.outbox_mut().push(batch),
            Input::Waits { cost_bytes } => self.plane.outbox_mut().set_outside(cost_bytes),
            Input::Request(request) => self.on_request(request),
            Input::Persisted { ticket } => self.on_persisted(ticket),
            Input::ResultRead { to, items } => self.on_result_read(to, items),
            Input::SnapshotRead { to, id, offset, part } => self.on_snapshot_read(to, (id, offset), part),
            Input::Timeout => self.run_timers(),
        }
        self.run_consensus();
    }

    /// The next output; none once all outputs of the inputs so far were taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.due.take(Cause::Outputs) && !self.outputs.is_halted() {
            self.derive();
        }
        self.outputs.pop()
    }

    /// Whether [`poll_output`](Self::poll_output) has to be called: cheap, so that a driver of many groups can check
    /// each of them.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.due.has(Cause::Outputs) || !self.outputs.is_empty()
    }

    /// The time by which `handle` has to be called with [`Input::Timeout`]. Call it after the outputs were taken.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.outputs.is_halted() {
            return None;
        }
        let turn_ends = self.plane.member().and_then(Member::turn_ends_at);
        // Payloads that the limit held back are sent with the first input after that.
        let due_at = self.plane.outbox().due_at().filter(|at| *at > self.timers.now());
        [self.timers.next(), turn_ends, due_at].into_iter().flatten().min()
    }

    /// The treatment of a stream that a peer has opened (`protocol.md` §4). Frames may be passed in only from streams
    /// with [`Admission::Read`].
    #[must_use]
    pub fn admits(&self, from: NodeId, incarnation: Incarnation, stream: Stream) -> Admission {
        let Some(of) = stream.view() else { return Admission::Read };
        let Some(view) = self.log.state().view() else { return Admission::Wait };
        if of != view.id {
            return if of > view.id { Admission::Wait } else { Admission::Stop };
        }
        let Some(rank) = view.rank_of_run(from, incarnation) else { return Admission::Refuse };
        match stream {
            Stream::Lane { lane, .. } => match self.plane.member() {
                None => Admission::Stop,
                Some(member) if member.carries(rank, member.rank, lane) => Admission::Read,
                Some(_) => Admission::Refuse,
            },
            _ => Admission::Read,
        }
    }

    /// Whether the outbox has capacity, so that payloads enter the next slot. The driver leaves the others with the
    /// application, so that slots grow while the window is closed. False until the log lists this process: a payload
    /// has no message id before that.
    #[must_use]
    pub fn wants_payload(&self) -> bool {
        let has_ids = self.identity.incarnation > Incarnation(0);
        has_ids && self.plane.outbox().is_empty() && !self.outputs.is_halted() && self.closing.final_result().is_none()
    }

    /// Whether a batch of this cost that is handed in at this moment gets its slot at once, and does not wait in the
    /// outbox. Ask after the outputs were taken.
    #[must_use]
    pub fn takes_at_once(&self, now: Time, cost_bytes: u64) -> bool {
        let is_allowed = self.wants_payload() && self.plane.outbox().allows(now);
        is_allowed && self.plane.member().is_some_and(|member| member.takes_at_once(cost_bytes))
    }

    /// The present window of this node: the maximum bytes of own slots outside its own result (`protocol.md` §5); zero
    /// while it is no member.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.plane.member().map_or(0, Member::window_bytes)
    }

    /// The incarnation of this node in the group; zero while none is assigned.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// This node has no place on the ring and does not ask for one: it observes, or it only created the group. It never
    /// broadcasts.
    #[must_use]
    pub fn only_watches(&self) -> bool {
        self.arrival.observes() || self.only_creates()
    }

    /// Whether this node created the group and takes no place on its ring, by its role or by the log.
    fn only_creates(&self) -> bool {
        let without_place = self.arrival.creation().is_some_and(|creation| !creation.takes_place());
        let is_unlisted = self.log.state().view().is_some() && self.log.state().incarnation(self.identity.me).is_none();
        without_place || (self.log.state().creator() == Some(self.identity.me) && is_unlisted)
    }

    /// Whether a node is a contact of this one, or is or was of the group: frames of other nodes are ignored.
    #[must_use]
    pub fn is_of_group(&self, node: NodeId) -> bool {
        let is_asked = self.arrival.joining().is_some_and(|joining| joining.relies_on(node));
        is_asked || self.log.state().was_member(node) || self.log.state().creator() == Some(node)
    }

    /// The durability of the group's result.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.identity.durability
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.identity.group
    }

    /// The sequence number of the last own message in the result.
    #[must_use]
    pub fn last_approved(&self) -> Seq {
        self.result.state().last_seq(self.identity.me, self.identity.incarnation)
    }

    /// The sequence number of the last own message with a slot.
    #[must_use]
    pub fn last_sent(&self) -> Seq {
        Seq(self.plane.outbox().last_seq().0 - self.plane.outbox().payloads())
    }

    /// The present state of the group; it has no effects.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        self.status_view(now.max(self.timers.now())).status()
    }

    /// The outcomes for good once the result is final. None before that, and if the result here cannot decide it: it
    /// diverged, or it begins after index 1 without the sequence numbers before that.
    #[must_use]
    pub fn final_outcomes(&self) -> Option<FinalOutcomes> {
        self.status_view(self.timers.now()).final_outcomes()
    }

    /// The outcome of a broadcast of any node, as far as the log and the result are known here. [`Outcome::Approved`]
    /// and [`Outcome::Rejected`] are final.
    #[must_use]
    pub fn outcome(&self, id: MessageId) -> Outcome {
        self.status_view(self.timers.now()).outcome(id)
    }

    /// Whether the group is closed in the control log here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.log.state().is_closed()
    }

    /// The final result, once it is complete here.
    #[must_use]
    pub fn final_result(&self) -> Option<Checkpoint> {
        self.closing.final_result()
    }

    /// Whether the control log lists a node as part of this group, at present or earlier.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.log.knows(node)
    }

    /// The answer to a node that requests the group by its name; none before the group's log begins.
    #[must_use]
    pub fn running(&self) -> Option<ControlFrame> {
        self.log.running_frame(&self.identity)
    }

    /// Releases the memory of the result for other nodes. They receive it from the disk, if the group is on disk.
    pub fn forget_retained(&mut self) {
        self.result.forget_retained();
    }

    /// Bytes of the result in memory for other nodes.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.result.retained().bytes()
    }

    /// Checks the order of all watermarks: for tests, after every step.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    pub fn validate(&self) {
        if let Some(member) = self.plane.member() {
            member.validate();
            assert!(self.plane.outbox().last_seq() >= self.last_approved(), "approved what was never broadcast");
        }
    }

    /// The last entry of the control log that this node knows, and those that it has applied after the last call: for
    /// tests.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn newly_applied(&mut self) -> (LogIndex, Vec<(LogIndex, bytes::Bytes)>) {
        (LogIndex(self.log.state().next().0 - 1), self.log.take_history())
    }

    /// The commands in this voter's log beyond the applied ones: for tests.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn proposed(&self) -> Vec<crate::command::Command> {
        let entries = self.log.voter().map(crate::control::Voter::unapplied).unwrap_or_default();
        entries.iter().filter_map(|command| crate::wire::decode_command(command).ok()).collect()
    }

    /// The state of the control log, as far as this node has applied it: for tests.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn log_state(&self) -> Option<bytes::Bytes> {
        Some(crate::wire::encode_log_state(&self.log.state().log_state()))
    }

    /// Derives the effects of the inputs so far.
    fn derive(&mut self) {
        if let (Some(member), outbox) = self.plane.parts_mut() {
            let mut delivery = delivery(&self.identity, &mut self.result, &mut self.storage, &mut self.outputs);
            member.settle(self.timers.now(), outbox, &mut delivery, &mut self.due);
        }
        if self.plane.unreported_ready().is_some() {
            self.report_ready();
        }
        self.run_consensus();
        self.flush_log();
        let waiting = self.plane.outbox().reports_due(self.timers.now());
        let reports = self.plane.member().is_some_and(|member| member.reports_waiting(waiting));
        let heartbeat = reports.then(|| self.heartbeat());
        if let Some(member) = self.plane.member_mut() {
            member.flush(heartbeat, &mut self.outputs, &mut self.due);
        }
        if self.storage.records.are_stored() {
            self.give_out_records();
        }
        if self.log.state().is_closed() {
            self.retire();
        }
    }

    /// This node's heartbeat for the others.
    fn heartbeat(&self) -> Heartbeat {
        let now = self.timers.now();
        self.plane.heartbeat(&self.result, self.storage.syncs.slowest_ms(now), now)
    }

    fn timeouts(&self) -> Timeouts<'_> {
        self.timeouts_at(self.timers.now())
    }

    /// The timeouts of this node at a time.
    fn timeouts_at(&self, now: Time) -> Timeouts<'_> {
        Timeouts::new(&self.identity, &self.log, &self.peers, &self.storage, now)
    }

    fn is_coordinator(&self) -> bool {
        self.coordinating.is_some()
    }

    /// The view change in progress, at the coordinator.
    fn change(&self) -> Option<&ViewChange> {
        self.coordinating.as_ref().and_then(Coordinating::change)
    }

    /// Whether a node leaves. Only the coordinator knows.
    #[cfg(test)]
    fn is_leaving(&self, node: NodeId) -> bool {
        self.coordinating.as_ref().is_some_and(|coordinating| coordinating.is_leaving(node))
    }

    /// The way of entries into the result.
    fn delivery(&mut self) -> Delivery<'_> {
        delivery(&self.identity, &mut self.result, &mut self.storage, &mut self.outputs)
    }

    /// Coordinator: proposes a command. It appears in the log, or this node stops coordinating.
    #[cfg(test)]
    fn propose(&mut self, command: &crate::command::Command) {
        if self.is_coordinator() {
            self.log.propose(command);
        }
    }

    /// Whether a coordinator is known, and linked unless it is this node.
    fn has_coordinator(&self) -> bool {
        self.is_coordinator() || self.tracking.linked(self.identity.me, &self.peers).is_some()
    }

    /// Asks to leave, if this node wants to.
    fn ask_to_leave(&mut self) {
        let release = self.leaving().ask();
        self.release(release);
    }

    /// Coordinator: lets the members go that leave, if they may.
    fn let_go(&mut self) {
        let release = self.leaving().release();
        self.release(release);
    }

    fn release(&mut self, release: Release) {
        match release {
            Release::Nothing => {}
            Release::ViewChange => self.view_change().start(false),
            Release::Stop => self.begin_close(),
        }
    }

    fn send_control(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(&self.peers, &mut self.outputs, to, frame);
    }

    fn event(&mut self, event: Event) {
        self.outputs.event(event);
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.timers.now() + after);
    }
}

/// The way of entries into the result.
fn delivery<'a>(
    identity: &Identity,
    result: &'a mut ResultLog,
    storage: &'a mut Storage,
    outputs: &'a mut Outputs,
) -> Delivery<'a> {
    let own = (identity.me, identity.incarnation);
    Delivery { own, rules: identity.rules, result, records: &mut storage.records, outputs }
}

/// Sends a frame of the control plane to a node that is linked.
fn send_control(peers: &Peers, outputs: &mut Outputs, to: NodeId, frame: ControlFrame) {
    if peers.is_linked(to) {
        outputs.send(to, Stream::Control, Frame::Control(frame));
    }
}
