//! One group at one node: the state machine that everything drives (the contract is at the top of the crate).

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
mod coordinate;
mod coordinating;
mod coordinator;
mod creation;
mod data_plane;
mod departure;
mod divergence;
mod durable;
mod electorate;
mod evictions;
mod fetch;
mod fetched;
mod fetching;
mod frames;
mod handlers;
mod identity;
mod incoming;
mod install;
mod join;
mod keep_up;
mod leave;
mod level;
mod links;
mod log;
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
mod snapshot;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod timeouts;
mod timers;
mod tracking;
mod wedge;

use crate::config::Durability;
use crate::control::Voter;
use crate::delivery::Delivery;
use crate::due::{Cause, Due};
use crate::id::{GroupId, Incarnation, Index, NodeId, Seq, ViewId};
use crate::io::{Admission, Event, Frame, Input, Output, Request};
use crate::limits::CONSENSUS_TICK;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::session::Session;
use crate::stored::Record;
use crate::time::Time;
use crate::view::InstalledView;
use crate::view_change::ViewChange;
use crate::wire::{ControlFrame, Fetched, Heartbeat, Stream};
use arrival::Arrival;
use catch_up::CatchUp;
use closing::Closing;
use control_log::ControlLog;
use coordinating::Coordinating;
use core::time::Duration;
use data_plane::DataPlane;
use fetched::Reached;
use identity::Identity;
use leave::Release;
use peers::Peers;
use slow_down::SlowDown;
use storage::Storage;
use timeouts::Timeouts;
use timers::{Timer, Timers};
use tracking::CoordinatorTracking;

pub use config::{MachineConfig, Role};
pub use status::FinalOutcomes;

/// One group at one node. Its `Debug` shows all that decides what it does next, for tests.
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
    slow_down: SlowDown,
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
            slow_down: SlowDown::default(),
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

    /// What a machine does before anything else.
    fn start(&mut self) {
        if self.log.voter().is_some() {
            self.set_timer(Timer::Consensus, CONSENSUS_TICK);
            self.run_consensus();
        }
        if !self.arrival.is_joining() {
            // A node that is there before the first view has all of the result from its start.
            self.storage.records.keep(Record::Complete { view: ViewId(0), first: Index(1) });
        }
    }

    /// The only way in.
    pub fn handle(&mut self, now: Time, input: Input) {
        debug_assert!(now >= self.timers.now(), "time never runs backwards");
        self.notice_sleep(now);
        self.timers.advance(now);
        if self.outputs.is_halted() {
            return;
        }
        self.due.set_if(Cause::Outputs, !frames::only_tallies(&input));
        match input {
            Input::LinkUp { peer, addresses, advertised } => self.link_up(peer, (addresses, advertised)),
            Input::LinkDown { peer } => self.link_down(peer),
            Input::Frame { from, incarnation, stream, frame } => self.take_frame(from, incarnation, stream, frame),
            Input::Arriving { from, stream, bytes } => self.take_arriving(from, stream, bytes),
            Input::Alive { peer, since } => self.take_alive(peer, since),
            Input::Broadcast(batch) => self.plane.outbox_mut().push(batch),
            Input::Waits { cost_bytes } => self.plane.outbox_mut().set_outside(cost_bytes),
            Input::Request(request) => self.take_request(request),
            Input::Persisted { ticket } => self.on_persisted(ticket),
            Input::ResultRead { to, items } => self.serve().on_read(to, items),
            Input::Timeout => self.run_timers(),
        }
        self.run_consensus();
    }

    /// The next thing to do; none once all that follows from the inputs so far was given out.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.due.take(Cause::Outputs) && !self.outputs.is_halted() {
            self.derive();
        }
        self.outputs.pop()
    }

    /// Whether [`poll_output`](Self::poll_output) has to be called: cheap, so that a driver of many groups asks each of them.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.due.has(Cause::Outputs) || !self.outputs.is_empty()
    }

    /// When to call `handle` with [`Input::Timeout`] at the latest. Ask after the outputs were taken.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.outputs.is_halted() {
            return None;
        }
        let turn_ends = self.plane.member().and_then(Member::turn_ends_at);
        // What the limit held back goes with the first input after that.
        let due_at = self.plane.outbox().due_at().filter(|at| *at > self.timers.now());
        [self.timers.next(), turn_ends, due_at].into_iter().flatten().min()
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
            Stream::Lane { lane, .. } => match self.plane.member() {
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
        has_ids && self.plane.outbox().is_empty() && !self.outputs.is_halted() && self.closing.final_result().is_none()
    }

    /// Whether a batch of this cost that is handed in at this moment gets its slot at once, and does not wait in the outbox.
    /// Ask after the outputs were taken.
    #[must_use]
    pub fn takes_at_once(&self, now: Time, cost_bytes: u64) -> bool {
        let is_allowed = self.wants_payload() && self.plane.outbox().allows(now);
        is_allowed && self.plane.member().is_some_and(|member| member.takes_at_once(cost_bytes))
    }

    /// Bytes of own slots that this node allows itself outside its own result at this moment (`protocol.md` §5); zero
    /// while it is no member.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.plane.member().map_or(0, Member::window_bytes)
    }

    /// The run of this node's process in the group; zero while none is assigned.
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

    /// This node created the group and takes no place on its ring, as its role says, or as the log does.
    fn only_creates(&self) -> bool {
        let without_place = self.arrival.creation().is_some_and(|creation| !creation.takes_place());
        let is_unlisted = self.log.state().view().is_some() && self.log.state().incarnation(self.identity.me).is_none();
        without_place || (self.log.state().creator() == Some(self.identity.me) && is_unlisted)
    }

    /// A node that this one asked to join, or that is or was of the group: others have no say in it.
    #[must_use]
    pub fn is_of_group(&self, node: NodeId) -> bool {
        let is_asked = self.arrival.joining().is_some_and(|joining| joining.relies_on(node));
        is_asked || self.log.state().was_member(node) || self.log.state().creator() == Some(node)
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
        Seq(self.plane.outbox().last_seq().0 - self.plane.outbox().payloads())
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

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn take_request(&mut self, request: Request) {
        match request {
            Request::Invite { node } => self.creation().into_iter().for_each(|mut creation| creation.invite(node)),
            Request::Uninvite { node } => self.arrival.creation_mut().into_iter().for_each(|it| it.uninvite(node)),
            Request::Create { session } => self.creation().into_iter().for_each(|mut it| it.create(session)),
            Request::End => self.end(),
            Request::Leave => {
                self.closing.departure_mut().want();
                self.ask_to_leave();
            }
            Request::Snapshot { index, state } => self.on_snapshot(index, state),
            Request::Report(report) => self.take_report(report),
        }
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    fn run_timers(&mut self) {
        // A timer that sets itself again does so for a later time, so each runs at most once.
        while let Some(timer) = self.timers.take_due(self.timers.now()).filter(|_| !self.outputs.is_halted()) {
            match timer {
                Timer::Heartbeat => {
                    self.view_change().suspect();
                    self.say_waits();
                    self.check_slow_down();
                    self.serve().release();
                    self.beat();
                }
                Timer::Period => self.period_over(),
                Timer::Wedge => self.view_change().on_timeout(),
                Timer::Linger => self.linger_over(),
                Timer::Fetch => self.fetch().on_timeout(),
                Timer::Rejoin => self.send_rejoin(),
                Timer::Join => self.join().into_iter().for_each(|mut join| join.ask_next()),
                Timer::Seek => self.coordinator().seek(),
                Timer::Consensus => self.consensus_tick(),
                Timer::Leave => self.ask_to_leave(),
            }
        }
        if let Some(member) = self.plane.member_mut().filter(|member| member.turn_ends_at() <= Some(self.timers.now()))
        {
            member.pass_turn();
        }
    }

    /// Handles the sync of all records up to a ticket.
    fn on_persisted(&mut self, ticket: u64) {
        self.storage.syncs.on_synced(self.timers.now());
        while let Some(completes) = self.durable().next_synced(ticket) {
            if completes {
                self.let_go();
            }
        }
        self.view_change().on_synced();
        self.fetch().on_synced();
    }

    /// Handles a frame of a transfer to this node.
    fn on_fetched(&mut self, from: NodeId, fetched: Fetched) {
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
                    self.finish_with(theirs);
                }
            }
        }
    }

    /// Derives what follows from the inputs so far.
    fn derive(&mut self) {
        if let (Some(member), outbox) = self.plane.parts_mut() {
            let own = (self.identity.me, self.identity.incarnation);
            let (result, records, outputs) = (&mut self.result, &mut self.storage.records, &mut self.outputs);
            let mut delivery = Delivery { own, rules: self.identity.rules, result, records, outputs };
            member.settle(self.timers.now(), outbox, &mut delivery, &mut self.due);
        }
        self.say_ready();
        self.run_consensus();
        self.flush_log();
        let waiting = self.plane.outbox().reports_due(self.timers.now());
        let reports = self.plane.member().is_some_and(|member| member.reports_waiting(waiting));
        let heartbeat = reports.then(|| self.heartbeat());
        if let Some(member) = self.plane.member_mut() {
            member.flush(heartbeat, &mut self.outputs, &mut self.due);
        }
        if self.storage.records.are_stored() {
            self.durable().give_out();
        }
        self.retire();
    }

    /// What this node reports of itself to the others.
    fn heartbeat(&self) -> Heartbeat {
        let now = self.timers.now();
        self.plane.heartbeat(&self.result, self.storage.syncs.slowest_ms(now), now)
    }

    fn timeouts(&self) -> Timeouts<'_> {
        self.timeouts_at(self.timers.now())
    }

    /// How long this node waits for others, at a time.
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
            records: &mut self.storage.records,
            outputs: &mut self.outputs,
        }
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
            Release::Stop => self.begin_stop(),
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

/// Sends a frame of the control plane to a node that is linked.
fn send_control(peers: &Peers, outputs: &mut Outputs, to: NodeId, frame: ControlFrame) {
    if peers.is_linked(to) {
        outputs.send(to, Stream::Control, Frame::Control(frame));
    }
}
