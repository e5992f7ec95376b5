//! All states of one node: the states it can reach by itself, and the effect of each input. A machine is a function of
//! its inputs, so every step is computed once, for all states of the group that contain it.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::wire::Stream;
use cloudy_proto::{
    Admission, Durability, Frame, GroupId, Incarnation, Input, Machine, MachineConfig, NodeId, Output, Parameters,
    Request, Role, Rule, Rules, Seq, ServeLimits, Time,
};

use crate::explore::facts::{Broken, Facts};

/// Nodes of the group. The first creates it, and is a member.
pub const NODES: usize = 3;

/// Machines that are kept at hand; any other is rebuilt from its history.
const MACHINES_MAX: usize = 4_096;

/// A state of one node.
pub type LocalId = u32;

/// A frame that some node sent in some run.
pub type PacketId = u32;

/// An input of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stimulus {
    /// The link to a peer is up.
    Up(usize),
    /// The link to a peer is gone.
    Down(usize),
    /// A frame.
    Packet(PacketId),
    /// Its application broadcasts its next payload.
    Broadcast,
    /// The creator asks a node to become a member.
    Invite(usize),
    /// The creator installs the first view.
    Create,
    /// The node wants to leave.
    Leave,
    /// The creator closes the group.
    End,
    /// Its clock goes to its next deadline.
    Timer,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The sender.
    pub from: usize,
    /// The sender's run.
    pub incarnation: Incarnation,
    /// The stream.
    pub stream: Stream,
    /// The frame.
    pub frame: Frame,
}

/// The effect of an input.
#[derive(Clone, Debug)]
pub enum Edge {
    /// The input is taken.
    Goes {
        /// To this state.
        to: LocalId,
        /// Sends these, in this order.
        sent: Rc<[(usize, PacketId)]>,
        /// Gives these links up.
        given_up: Rc<[usize]>,
    },
    /// Not at this time: its stream waits for a view, or the outbox is full.
    Waits,
    /// Its stream is stopped: nothing of it is read.
    Stops,
    /// A promise does not hold.
    Breaks(Broken),
}

/// A state of one node.
struct Local {
    /// The first way in which it was reached.
    from: Option<(LocalId, Stimulus)>,
    facts: Rc<Facts>,
    /// The next deadline, from now on.
    deadline: Option<Duration>,
    edges: HashMap<Stimulus, Edge>,
}

/// The outputs of a machine.
struct Drained {
    facts: Facts,
    sent: Vec<(usize, PacketId)>,
    given_up: Vec<usize>,
}

struct Live {
    machine: Machine,
    now: Time,
}

/// All states of all nodes that were met.
pub struct Locals {
    parameters: Parameters,
    rules: Rules,
    mutated: bool,
    states: Vec<Local>,
    known: HashMap<(usize, u128), LocalId>,
    machines: HashMap<LocalId, Live>,
    packets: Vec<Packet>,
    packet_ids: HashMap<(usize, u64, Stream, String), PacketId>,
}

/// A node's name.
#[must_use]
pub fn id_of(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn node_of(id: NodeId) -> usize {
    usize::from(id.0[0]) - 1
}

/// A node's payload of a number.
#[must_use]
pub fn payload(node: usize, seq: u64) -> [u8; 2] {
    [node as u8, seq as u8]
}

impl Locals {
    /// Every node as it begins.
    #[must_use]
    pub fn new(parameters: Parameters, off: Option<Rule>, reversed: bool) -> Self {
        let mut locals = Self {
            parameters,
            rules: off.map_or_else(Rules::default, Rules::all_but),
            mutated: off.is_some(),
            states: Vec::new(),
            known: HashMap::new(),
            machines: HashMap::new(),
            packets: Vec::new(),
            packet_ids: HashMap::new(),
        };
        for node in 0..NODES {
            let live = locals.begin(node);
            let facts = Facts { reversed, ..Facts::new(node, locals.mutated) };
            locals.intern(node, None, facts, live);
        }
        locals
    }

    /// The number of states of single nodes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// The facts about a node in a state.
    #[must_use]
    pub fn facts(&self, local: LocalId) -> &Rc<Facts> {
        &self.states[local as usize].facts
    }

    /// The time until the node's next deadline.
    #[must_use]
    pub fn deadline(&self, local: LocalId) -> Option<Duration> {
        self.states[local as usize].deadline
    }

    /// A frame.
    #[must_use]
    pub fn packet(&self, packet: PacketId) -> &Packet {
        &self.packets[packet as usize]
    }

    fn begin(&self, node: usize) -> Live {
        let role = match node {
            0 => Role::Creator { member: true, parameters: self.parameters.clone() },
            _ => Role::Invited { by: id_of(0) },
        };
        let machine = Machine::new(MachineConfig {
            me: id_of(node),
            addresses: Vec::new(),
            advertised: None,
            group: GroupId(*b"explored group! "),
            name: "explored".to_owned(),
            run: node as u64,
            role,
            durability: Durability::Memory,
            retain_bytes: 1 << 20,
            retain_disk_bytes: None,
            log_entries_max: LOG_ENTRIES_MAX,
            level_max: cloudy_proto::wire::WIRE_VERSION,
            serves: ServeLimits::default(),
            rules: self.rules,
        });
        let mut live = Live { machine, now: Time(0) };
        while live.machine.poll_output().is_some() {}
        live
    }

    /// The effect of an input.
    pub fn step(&mut self, local: LocalId, stimulus: Stimulus) -> Edge {
        if let Some(edge) = self.states[local as usize].edges.get(&stimulus) {
            return edge.clone();
        }
        let mut live = self.machines.remove(&local).unwrap_or_else(|| self.rebuild(local));
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let taken = self.hand(&mut live, local, stimulus);
            (taken, live)
        }));
        let edge = match worked {
            Err(panic) => Edge::Breaks(Broken::panicked(panic.as_ref())),
            Ok((Admission::Wait, live)) => self.keep(local, live, Edge::Waits),
            Ok((Admission::Stop, live)) => self.keep(local, live, Edge::Stops),
            Ok((Admission::Refuse, _)) => Edge::Breaks(Broken::new("no honest stream is refused", stimulus)),
            Ok((Admission::Read, mut live)) => {
                match catch_unwind(AssertUnwindSafe(|| self.drain(local, &mut live, stimulus == Stimulus::Leave))) {
                    Err(panic) => Edge::Breaks(Broken::panicked(panic.as_ref())),
                    Ok(Err(broken)) => Edge::Breaks(broken),
                    Ok(Ok(Drained { facts, sent, given_up })) => {
                        let node = facts.node;
                        let to = self.intern(node, Some((local, stimulus)), facts, live);
                        Edge::Goes { to, sent: sent.into(), given_up: given_up.into() }
                    }
                }
            }
        };
        self.states[local as usize].edges.insert(stimulus, edge.clone());
        edge
    }

    fn keep(&mut self, local: LocalId, live: Live, edge: Edge) -> Edge {
        self.machines.insert(local, live);
        edge
    }

    /// Hands an input to a machine; its outputs are still to be taken.
    fn hand(&self, live: &mut Live, local: LocalId, stimulus: Stimulus) -> Admission {
        let node = self.states[local as usize].facts.node;
        let input = match stimulus {
            Stimulus::Up(peer) => Input::LinkUp { peer: id_of(peer), addresses: Vec::new(), advertised: None },
            Stimulus::Down(peer) => Input::LinkDown { peer: id_of(peer) },
            Stimulus::Invite(peer) => Input::Request(Request::Invite { node: id_of(peer) }),
            Stimulus::Create => Input::Request(Request::Create { session: None }),
            Stimulus::End => Input::Request(Request::End),
            Stimulus::Leave => Input::Request(Request::Leave),
            Stimulus::Packet(packet) => {
                let Packet { from, incarnation, stream, frame } = self.packets[packet as usize].clone();
                let from = id_of(from);
                match live.machine.admits(from, incarnation, stream) {
                    Admission::Read => Input::Frame { from, incarnation, stream, frame },
                    refused => return refused,
                }
            }
            Stimulus::Broadcast if !live.machine.wants_payload() => return Admission::Wait,
            Stimulus::Broadcast => {
                let seq = self.states[local as usize].facts.broadcast + 1;
                let mut body = BytesMut::new();
                push_payload(&mut body, &payload(node, seq));
                Input::Broadcast(Batch { first_seq: Seq(seq), count: 1, body: body.freeze() })
            }
            Stimulus::Timer => {
                let Some(deadline) = live.machine.poll_timeout() else { return Admission::Wait };
                live.now = live.now.max(deadline);
                Input::Timeout
            }
        };
        live.machine.handle(live.now, input);
        Admission::Read
    }

    /// A machine in a state, from its history.
    fn rebuild(&self, local: LocalId) -> Live {
        let mut history = Vec::new();
        let mut at = local;
        while let Some((before, stimulus)) = self.states[at as usize].from {
            history.push((before, stimulus));
            at = before;
        }
        let mut live = self.begin(self.states[local as usize].facts.node);
        for (before, stimulus) in history.into_iter().rev() {
            self.hand(&mut live, before, stimulus);
            while live.machine.poll_output().is_some() {}
        }
        live
    }

    /// Takes a machine's outputs, and records them.
    fn drain(&mut self, local: LocalId, live: &mut Live, leaves: bool) -> Result<Drained, Broken> {
        let mut outputs = Vec::new();
        while let Some(output) = live.machine.poll_output() {
            outputs.push(output);
        }
        live.machine.validate();
        let mut facts = Facts::clone(&self.states[local as usize].facts);
        facts.left |= leaves;
        facts.note(&outputs, &node_of)?;
        let status = live.machine.status(Time(0));
        facts.voters = status.voters.len();
        facts.broadcast = live.machine.last_sent().0 + status.outbox_payloads;
        facts.approved = live.machine.last_approved().0;
        let (mut sent, mut given_up) = (Vec::new(), BTreeSet::new());
        for output in outputs {
            match output {
                Output::Send { to, stream, frame } => {
                    let incarnation = live.machine.incarnation();
                    let packet = Packet { from: facts.node, incarnation, stream, frame };
                    sent.push((node_of(to), self.packet_id(packet)));
                }
                Output::Redial { peer } | Output::CloseLink { peer, .. } => {
                    given_up.insert(node_of(peer));
                }
                _ => {}
            }
        }
        Ok(Drained { facts, sent, given_up: given_up.into_iter().collect() })
    }

    fn packet_id(&mut self, packet: Packet) -> PacketId {
        let key = (packet.from, packet.incarnation.0, packet.stream, format!("{:?}", packet.frame));
        *self.packet_ids.entry(key).or_insert_with(|| {
            self.packets.push(packet);
            self.packets.len() as PacketId - 1
        })
    }

    /// Two histories after which the machine shows the same, and the same is known of it, are one state.
    fn intern(&mut self, node: usize, from: Option<(LocalId, Stimulus)>, facts: Facts, live: Live) -> LocalId {
        let deadline = live.machine.poll_timeout().map(|at| at.since(live.now));
        let print = super::hash::of(&format!("{:?} {:?} {facts:?}", live.now, live.machine));
        let next = self.states.len() as LocalId;
        let local = *self.known.entry((node, print)).or_insert(next);
        if local == next {
            self.states.push(Local { from, facts: Rc::new(facts), deadline, edges: HashMap::new() });
        }
        if self.machines.len() >= MACHINES_MAX {
            self.machines.clear();
        }
        self.machines.insert(local, live);
        local
    }
}
