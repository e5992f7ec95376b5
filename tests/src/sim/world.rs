//! The world: nodes, connections and virtual time, stepped one event at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use cloudy_proto::slot::Batch;
use cloudy_proto::{Admission, GroupId, Input, NodeId, Request, RingKind, wire};

use crate::invariants::{Failure, Judge};
use crate::sim::corruption::Corrupter;
use crate::sim::dice::Dice;
use crate::sim::disk::Disk;
use crate::sim::load::Load;
use crate::sim::narrow::Pipes;
use crate::sim::network::Network;
use crate::sim::node::{Item, Node};
use crate::sim::plan::{Plan, Step};
use crate::sim::queue::{Event, Packet, Queue};
use crate::sim::stale_disk::OlderDisks;
use crate::sim::stats::{Met, Stats};
use crate::sim::transcript::Transcript;

/// The group of every run.
pub const GROUP: GroupId = GroupId(*b"simulated group!");

/// The maximum time of a calm world until every broadcast is approved: below the longest heartbeat, so that no step may
/// rely on one.
pub const CALM_US: u64 = 40_000_000;

/// The round trip of a long path.
const LONG_PATH_US: u64 = 260_000;

/// Everything there is.
pub struct World {
    /// The plan of the run.
    pub plan: Plan,
    /// Every process that was ever started, by its place; the creator's is the first.
    pub nodes: Vec<Node>,
    /// By node: the place of its latest process.
    pub latest: Vec<Option<usize>>,
    /// Nodes that are started again, or for the first time.
    pub starting: BTreeSet<usize>,
    /// Nodes whose disk was lost, until they start again.
    pub(super) diskless: BTreeSet<usize>,
    /// By node: its name.
    pub(super) ids: Vec<NodeId>,
    /// By node.
    pub(super) disks: Vec<Disk>,
    /// By node: until when its disk syncs nothing.
    pub(super) disk_held_us: BTreeMap<usize, u64>,
    /// Disks that are reset to an older state.
    pub(super) older: OlderDisks,
    pub(super) corrupter: Corrupter,
    /// The checkers.
    pub judge: Judge,
    /// The counts of the run.
    pub stats: Stats,
    /// True time.
    pub now_us: u64,
    /// Faults and broadcasts are over.
    pub healed: bool,
    /// A node asked for the group's close.
    pub end_wanted: bool,
    /// The load since the faults ended, if the plan has one.
    pub(super) load: Option<Load>,
    /// The losses by faults that the group cannot survive: a majority of the voters (`Stuck`), or all nodes that have
    /// the result (`Lost`).
    pub taken: BTreeSet<Met>,
    pub(super) dice: Dice,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) pipes: Pipes,
    /// Members that the creator expects.
    pub(super) accepted: BTreeSet<usize>,
    /// The creator was asked for the first view.
    pub(super) created: bool,
    /// The steps that were taken, each with its view.
    pub(super) steps: BTreeSet<(Step, u64)>,
    pub(super) trace: DefaultHasher,
    /// The story as text, if the run is traced.
    pub story: Vec<String>,
    pub(super) traced: bool,
    /// All inputs and outputs, if they are recorded.
    pub transcript: Option<Transcript>,
}

/// Rounds of work at one moment, far above the need of a correct node.
const ROUNDS_MAX: u64 = 100_000;

impl World {
    /// A world at its first moment.
    #[must_use]
    pub fn new(plan: Plan, traced: bool) -> Self {
        let mut dice = Dice::of(plan.seed ^ 0x0005_eed0_f0a0_0c1d);
        let ids: Vec<NodeId> = (0..plan.homes()).map(|at| node_id(&mut dice, at)).collect();
        let mut world = Self {
            judge: Judge::new(&plan, ids.clone()),
            network: Network::new(plan.network.clone()),
            pipes: Pipes::default(),
            nodes: Vec::new(),
            latest: vec![None; plan.homes()],
            starting: BTreeSet::new(),
            diskless: BTreeSet::new(),
            disks: (0..plan.homes()).map(|_| Disk::of(&plan.disk)).collect(),
            disk_held_us: BTreeMap::new(),
            older: OlderDisks::default(),
            corrupter: Corrupter::new(plan.corruption),
            ids,
            stats: Stats::default(),
            now_us: 0,
            healed: false,
            end_wanted: false,
            load: None,
            taken: BTreeSet::new(),
            dice,
            queue: Queue::default(),
            accepted: BTreeSet::new(),
            created: false,
            steps: BTreeSet::new(),
            trace: DefaultHasher::new(),
            story: Vec::new(),
            traced,
            transcript: None,
            plan,
        };
        world.begin();
        world
    }

    /// The hash of all that every machine put out.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn tell(&mut self, node: usize, what: &dyn std::fmt::Debug) {
        if self.traced {
            self.story.push(format!("{:>9} us  node {node}  {what:?}", self.now_us));
        }
    }

    fn begin(&mut self) {
        self.stats.met(match self.plan.parameters.ring {
            RingKind::Token => Met::Token,
            RingKind::Pipelined => Met::Pipelined,
            RingKind::Relay => Met::Relay,
        });
        self.stats.met(if self.plan.session.is_some() { Met::Session } else { Met::Group });
        if self.plan.evicts() {
            self.stats.met(Met::Evicts);
        }
        if 2 * self.network.longest_us() >= LONG_PATH_US {
            self.stats.met(Met::LongPath);
        }
        (0..self.plan.nodes).for_each(|home| self.found_with(home));
        let invited: Vec<usize> = self.plan.members().filter(|&node| node != Plan::CREATOR).collect();
        for &node in &invited {
            let invite = Request::Invite { node: self.ids[node] };
            self.nodes[Plan::CREATOR].inbox.push_back(Item::Ask(invite));
        }
        self.found_if_all_came();
        for a in 0..self.plan.nodes {
            for b in 0..a {
                self.connect(a, b);
            }
        }
        self.queue.at(0, Event::Wake { node: Plan::CREATOR });
        for node in self.plan.members() {
            if !self.plan.traffic.quiet.contains(&node) {
                self.queue.at(self.plan.traffic.gap_us, Event::Broadcast { node });
            }
        }
        for (at, &(at_us, _)) in self.plan.newcomers.iter().enumerate() {
            self.starting.insert(self.plan.nodes + at);
            self.queue.at(at_us, Event::Start { home: self.plan.nodes + at });
        }
        for &(at, fault) in &self.plan.faults {
            self.queue.at(at, Event::Fault(fault));
        }
        self.queue.at(self.plan.heal_at_us, Event::Heal);
    }

    /// Asks the creator for the first view, once every live node has accepted.
    pub(super) fn found_if_all_came(&mut self) {
        let mut invited = self.plan.members().filter(|&node| node != Plan::CREATOR);
        let awaited = invited.any(|node| self.nodes[node].alive && !self.accepted.contains(&node));
        if awaited || core::mem::replace(&mut self.created, true) {
            return;
        }
        let nobody = self.accepted.is_empty() && !self.plan.creator_is_member;
        let session = self.plan.session;
        let request = if nobody { Request::End } else { Request::Create { session } };
        self.end_wanted |= nobody;
        self.nodes[Plan::CREATOR].inbox.push_back(Item::Ask(request));
    }

    /// Lets the next event happen; false if there is none.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Some((time_us, event)) = self.queue.pop() else { return Ok(false) };
        self.now_us = self.now_us.max(time_us);
        self.judge.now_us = self.now_us;
        match event {
            Event::Arrive(packet) => self.comes_through(packet)?,
            Event::PartArrives(part) => self.part_arrives(part)?,
            Event::Through { from, to } => self.through(from, to)?,
            Event::Release { from, to } => {
                let waited = self.network.release(from, to, self.now_us);
                waited.into_iter().try_for_each(|packet| self.arrive(packet))?;
            }
            Event::Up { node, peer, epoch } => self.give(node, Item::Up { peer, epoch })?,
            Event::Down { node, peer, epoch } => self.give(node, Item::Down { peer, epoch })?,
            Event::Redial { a, b } => self.redial(a, b),
            // A later wake-up was planned instead; to follow this one too would leave two chains of them.
            Event::Wake { node } if self.nodes[node].wake_at_us.is_some_and(|planned| planned > self.now_us) => {}
            Event::Wake { node } => {
                self.nodes[node].wake_at_us = None;
                self.run(node)?;
            }
            Event::Start { home } => self.start(home)?,
            Event::Synced { node, ticket } => self.synced(node, ticket)?,
            Event::Read { node, to, from, bytes_max } => self.read(node, to, from, bytes_max)?,
            Event::ReadSnapshot { node, to, place, bytes_max } => self.read_state(node, to, place, bytes_max)?,
            Event::Broadcast { node } => self.broadcast(node)?,
            Event::Fault(fault) => self.fault(fault)?,
            Event::Heal => self.heal()?,
        }
        self.watch_load()?;
        Ok(true)
    }

    /// Runs the events until a time, which is reached also without events.
    pub(crate) fn pass_until(&mut self, time_us: u64) -> Result<(), Failure> {
        while self.queue.next_at().is_some_and(|at| at <= time_us) {
            self.step()?;
        }
        self.now_us = self.now_us.max(time_us);
        Ok(())
    }

    pub(super) fn arrive(&mut self, packet: Packet) -> Result<(), Failure> {
        if self.network.live(packet.from, packet.to) == Some(packet.epoch) {
            let to = self.latest[packet.to];
            return to.map_or(Ok(()), |to| self.give(to, Item::Frame(packet)));
        }
        self.stats.met(Met::FrameLostWithLink);
        Ok(())
    }

    /// Puts something in a node's mailbox, and lets it run.
    pub(crate) fn give(&mut self, node: usize, item: Item) -> Result<(), Failure> {
        if self.nodes[node].alive {
            self.nodes[node].inbox.push_back(item);
            self.run(node)?;
        }
        Ok(())
    }

    /// Lets a node work until it has nothing more to do.
    pub(super) fn run(&mut self, node: usize) -> Result<(), Failure> {
        if !self.nodes[node].alive {
            return Ok(());
        }
        if self.nodes[node].asleep_until_us > self.now_us {
            return Ok(());
        }
        let mut rounds = 0;
        loop {
            rounds += 1;
            if rounds > ROUNDS_MAX {
                let state = &self.nodes[node];
                let due = (state.machine.poll_timeout(), state.clock.at(self.now_us));
                let what = format!("its next timer and its clock: {due:?}, {} inputs wait", state.inbox.len());
                return Err(self.judge.failure("a node comes to rest at each moment", node, what));
            }
            let mut worked = self.dice.chance(500) && self.feed(node)?;
            let inputs = self.dice.between(1, self.plan.inputs_per_drain_max);
            for at in 0..inputs {
                let Some(item) = self.nodes[node].inbox.pop_front() else { break };
                // The promise is for a machine without other inputs.
                self.nodes[node].app.at_once = None;
                if at > 0 {
                    self.stats.met(Met::InputsBatched);
                }
                self.take(node, item)?;
                worked = true;
            }
            worked = worked || self.unpark(node)? || self.feed(node)? || self.leave(node) || self.time_out(node);
            if !worked {
                break;
            }
            self.drain(node)?;
            self.check_at_once(node)?;
            if !self.nodes[node].alive {
                // It was told that no node can help it.
                return Ok(());
            }
        }
        self.arrange_wake(node);
        let rest_us = self.plan.slowness.rest_us(self.nodes[node].home, self.now_us);
        if rest_us > 0 {
            self.nodes[node].asleep_until_us = self.now_us + rest_us;
            self.nodes[node].wake_at_us = Some(self.now_us + rest_us);
            self.queue.at(self.now_us + rest_us, Event::Wake { node });
        }
        Ok(())
    }

    fn arrange_wake(&mut self, node: usize) {
        let Some(deadline) = self.nodes[node].machine.poll_timeout() else { return };
        let late_us = self.dice.between(0, self.plan.timer_late_us);
        let at = self.nodes[node].clock.when(deadline).max(self.now_us) + late_us;
        if self.nodes[node].wake_at_us.is_none_or(|planned| planned > at) {
            self.nodes[node].wake_at_us = Some(at);
            self.queue.at(at, Event::Wake { node });
        }
    }

    /// Lets a due timer run, and sometimes one that is not: drivers may call too early.
    fn time_out(&mut self, node: usize) -> bool {
        let early = self.dice.chance(5);
        let now = self.nodes[node].clock.at(self.now_us);
        let due = early || self.nodes[node].machine.poll_timeout().is_some_and(|deadline| deadline <= now);
        if due {
            self.report_datagrams(node);
            self.handle(node, Input::Timeout);
        }
        due
    }

    /// Hands one input to a machine.
    pub(super) fn handle(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].clock.at(self.now_us);
        if let Some(transcript) = &mut self.transcript {
            transcript.input(node, now, &input);
        }
        self.nodes[node].machine.handle(now, input);
    }

    fn take(&mut self, node: usize, item: Item) -> Result<(), Failure> {
        match item {
            Item::Up { peer, epoch } => self.link_up(node, peer, epoch),
            Item::Down { peer, epoch } => self.link_down(node, peer, epoch),
            Item::Frame(packet) => self.take_packet(node, packet),
            Item::Part(part) => {
                self.take_part(node, part);
                Ok(())
            }
            Item::Synced(ticket) => {
                self.handle(node, Input::Persisted { ticket });
                Ok(())
            }
            Item::Read { to, items } => {
                self.handle(node, Input::ResultRead { to, items });
                Ok(())
            }
            Item::SnapshotRead { to, id, offset, part } => {
                self.handle(node, Input::SnapshotRead { to, id, offset, part });
                Ok(())
            }
            Item::Ask(request) => {
                self.handle(node, Input::Request(request));
                Ok(())
            }
        }
    }

    pub(super) fn take_packet(&mut self, node: usize, packet: Packet) -> Result<(), Failure> {
        let end = &mut self.nodes[node].links[packet.from];
        if end.told != Some(packet.epoch) {
            if packet.epoch > end.seen {
                self.stats.met(Met::FrameBeforeLinkUp);
                end.early.push_back(packet);
            }
            return Ok(());
        }
        match end.parked.get_mut(&packet.stream) {
            Some(parked) => parked.push_back(packet),
            None if end.stopped.contains(&packet.stream) => {}
            None => {
                self.admit(node, packet)?;
            }
        }
        Ok(())
    }

    /// Reads a frame if the machine lets its stream be read; true if it did.
    fn admit(&mut self, node: usize, packet: Packet) -> Result<bool, Failure> {
        let from = self.ids[packet.from];
        match self.nodes[node].machine.admits(from, packet.incarnation, packet.stream) {
            Admission::Read => {
                self.judge.frame_in(node, &packet);
                let Packet { stream, incarnation, frame, .. } = packet;
                self.handle(node, Input::Frame { from, incarnation, stream, frame });
                return Ok(true);
            }
            Admission::Wait => {
                self.stats.met(Met::StreamWaited);
                let parked = self.nodes[node].links[packet.from].parked.entry(packet.stream).or_default();
                parked.push_front(packet);
            }
            Admission::Stop => {
                self.stats.met(Met::StreamStopped);
                self.nodes[node].links[packet.from].stopped.insert(packet.stream);
            }
            Admission::Refuse => {
                let what = format!("refuses {:?} of node {}", packet.stream, packet.from);
                return Err(self.judge.failure("no honest stream is refused", node, what));
            }
        }
        Ok(false)
    }

    /// Reads streams that had to wait; true if one did.
    fn unpark(&mut self, node: usize) -> Result<bool, Failure> {
        let mut read = false;
        for peer in 0..self.latest.len() {
            let streams: Vec<wire::Stream> = self.nodes[node].links[peer].parked.keys().copied().collect();
            for stream in streams {
                let mut parked = self.nodes[node].links[peer].parked.remove(&stream).unwrap_or_default();
                while let Some(packet) = parked.pop_front() {
                    if self.admit(node, packet)? {
                        read = true;
                        continue;
                    }
                    // It waits again, before those behind it; or its stream was stopped, and they with it.
                    if let Some(waiting) = self.nodes[node].links[peer].parked.get_mut(&stream) {
                        waiting.append(&mut parked);
                    }
                    break;
                }
            }
        }
        Ok(read)
    }

    /// A node that wants to leave does so once all that it broadcast is approved; true if it asked for that.
    fn leave(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        let all_approved = node.app.queue.is_empty() && node.machine.last_approved().0 >= node.app.broadcast;
        if node.app.leaves != Some(false) || !all_approved {
            return false;
        }
        node.app.leaves = Some(true);
        node.inbox.push_back(Item::Ask(Request::Leave));
        true
    }

    /// Hands the application's next payloads over, if the machine wants some; true if it did.
    fn feed(&mut self, node: usize) -> Result<bool, Failure> {
        if !self.nodes[node].machine.wants_payload() {
            return Ok(false);
        }
        let now = self.nodes[node].clock.at(self.now_us);
        let Node { machine, app, .. } = &mut self.nodes[node];
        let batch = app.next_batch(&self.plan.parameters);
        let cost_bytes = batch.as_ref().map(Batch::cost_bytes);
        let at_once = cost_bytes.is_some_and(|cost_bytes| machine.takes_at_once(now, cost_bytes));
        if self.plan.expires && !at_once {
            // It has no number yet, so it could be withdrawn.
            let is_news = app.waits != cost_bytes;
            app.waits = cost_bytes;
            if is_news {
                self.stats.met(Met::WaitedOutside);
                self.handle(node, Input::Waits { cost_bytes });
            }
            return Ok(is_news);
        }
        let Some(batch) = batch else { return Ok(false) };
        app.hand_over(&batch);
        app.at_once = at_once.then(|| batch.last_seq());
        self.handle(node, Input::Broadcast(batch));
        Ok(true)
    }

    /// What the machine promised to send at once has a slot.
    fn check_at_once(&mut self, node: usize) -> Result<(), Failure> {
        let Node { machine, app, .. } = &mut self.nodes[node];
        let (promised, sent) = (app.at_once.take(), machine.last_sent());
        if promised.is_some_and(|promised| promised > sent) {
            let what = format!("{promised:?} waits, and {sent:?} is the last one in a slot");
            return Err(self.judge.failure("a payload that is accepted at once has a slot", node, what));
        }
        Ok(())
    }
}

fn node_id(dice: &mut Dice, at: usize) -> NodeId {
    let mut id = [at as u8; 32];
    id[..8].copy_from_slice(&dice.bytes(8));
    NodeId(id)
}

pub(super) fn address(at: usize) -> std::net::SocketAddr {
    ([127, 0, 0, 1], 10_000 + at as u16).into()
}
