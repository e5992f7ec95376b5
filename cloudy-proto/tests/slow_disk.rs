//! A node on disk whose disk is slower than the network: its fetches are bounded (`protocol.md` §7).

use std::collections::VecDeque;

use bytes::BytesMut;
use cloudy_proto::limits::{LOG_ENTRIES_MAX, UNSYNCED_FETCH_BYTES_MAX};
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::wire::Stream;
use cloudy_proto::{
    Admission, Durability, Frame, GroupId, Incarnation, Input, Machine, MachineConfig, NodeId, Output, Parameters,
    Record, Request, Role, Rules, Seq, ServeLimits, StoredBody, Time,
};

const CREATOR: usize = 0;
const JOINER: usize = 1;
const PAYLOAD_BYTES: usize = 16 << 10;
/// Far more than may wait for the disk.
const MESSAGES: u64 = 4 * UNSYNCED_FETCH_BYTES_MAX / PAYLOAD_BYTES as u64;
/// Against hanging.
const STEPS_MAX: usize = 100_000;

fn id(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

fn machine(me: usize, role: Role, durability: Durability) -> Machine {
    Machine::new(MachineConfig {
        me: id(me),
        addresses: Vec::new(),
        advertised: None,
        group: GroupId([7; 16]),
        name: "slow".to_owned(),
        run: me as u64 + 1,
        role,
        durability,
        retain_bytes: 256 << 20,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        level_max: cloudy_proto::wire::WIRE_VERSION,
        serves: ServeLimits::default(),
        rules: Rules::default(),
    })
}

struct Packet {
    to: usize,
    incarnation: Incarnation,
    stream: Stream,
    frame: Frame,
}

/// Two machines on a perfect network. The joiner's disk syncs on request.
struct World {
    machines: [Machine; 2],
    now: Time,
    packets: VecDeque<Packet>,
    /// At the joiner: tickets that are not synced, and the bytes of fetched entries with each.
    unsynced: VecDeque<(u64, u64)>,
    unsynced_most: u64,
}

impl World {
    fn drain(&mut self, from: usize) {
        while let Some(output) = self.machines[from].poll_output() {
            match output {
                Output::Send { stream, frame, .. } => {
                    let incarnation = self.machines[from].incarnation();
                    self.packets.push_back(Packet { to: 1 - from, incarnation, stream, frame });
                }
                Output::Persist { ticket, records } => {
                    let bytes = records.iter().map(entry_bytes).sum();
                    self.unsynced.push_back((ticket, bytes));
                    let all = self.unsynced.iter().map(|(_, bytes)| bytes).sum();
                    self.unsynced_most = self.unsynced_most.max(all);
                }
                _ => {}
            }
        }
    }

    fn hand(&mut self, who: usize, input: Input) {
        self.machines[who].handle(self.now, input);
        self.drain(who);
    }

    /// Delivers the pending frames, and moves on to the next timeout. False if no event is left.
    fn step(&mut self) -> bool {
        let mut waiting = VecDeque::new();
        while let Some(packet) = self.packets.pop_front() {
            let from = id(1 - packet.to);
            match self.machines[packet.to].admits(from, packet.incarnation, packet.stream) {
                Admission::Read => {
                    let Packet { to, incarnation, stream, frame } = packet;
                    self.hand(to, Input::Frame { from, incarnation, stream, frame });
                    self.packets.append(&mut waiting);
                }
                Admission::Wait => waiting.push_back(packet),
                Admission::Stop | Admission::Refuse => {}
            }
        }
        self.packets = waiting;
        let Some(next) = self.machines.iter().filter_map(Machine::poll_timeout).min() else { return false };
        self.now = self.now.max(next);
        for who in [CREATOR, JOINER] {
            if self.machines[who].poll_timeout().is_some_and(|at| at <= self.now) {
                self.hand(who, Input::Timeout);
            }
        }
        true
    }

    fn index(&self, who: usize) -> u64 {
        self.machines[who].status(self.now).index.0
    }

    /// The joiner's disk syncs its oldest records.
    fn sync_one(&mut self) {
        if let Some((ticket, _)) = self.unsynced.pop_front() {
            self.hand(JOINER, Input::Persisted { ticket });
        }
    }
}

fn entry_bytes(record: &Record) -> u64 {
    match record {
        Record::Entry(entry) => match &entry.body {
            StoredBody::Here(body) => body.len() as u64,
            StoredBody::Slot { .. } => 0,
        },
        _ => 0,
    }
}

/// A group of one with a long result, and a node that comes to it.
fn begun() -> World {
    let role = Role::Creator { member: true, parameters: Parameters::default() };
    let creator = machine(CREATOR, role, Durability::Memory);
    let joiner = machine(JOINER, Role::Joiner { contact: id(CREATOR) }, Durability::Disk);
    let machines = [creator, joiner];
    let (packets, unsynced) = (VecDeque::new(), VecDeque::new());
    let mut world = World { machines, now: Time(0), packets, unsynced, unsynced_most: 0 };
    world.hand(CREATOR, Input::Request(Request::Create { session: None }));
    let mut sent = 0;
    for _ in 0..STEPS_MAX {
        if world.index(CREATOR) == MESSAGES {
            break;
        }
        world.hand(CREATOR, Input::Timeout);
        if world.machines[CREATOR].wants_payload() && sent < MESSAGES {
            let mut body = BytesMut::new();
            push_payload(&mut body, &[7; PAYLOAD_BYTES]);
            sent += 1;
            let batch = Batch { first_seq: Seq(sent), count: 1, body: body.freeze() };
            world.hand(CREATOR, Input::Broadcast(batch));
        }
        world.now = Time(world.now.0 + 1_000);
    }
    assert_eq!(world.index(CREATOR), MESSAGES);
    world.packets.clear();
    for (who, peer) in [(JOINER, CREATOR), (CREATOR, JOINER)] {
        world.hand(who, Input::LinkUp { peer: id(peer), addresses: Vec::new(), advertised: None });
    }
    world
}

#[test]
fn a_joiner_fetches_no_more_than_may_wait_for_its_disk() {
    let mut world = begun();
    // One answer beyond the bound, which is more than one entry.
    let most = UNSYNCED_FETCH_BYTES_MAX + (512 << 10);
    for _ in 0..2_000 {
        world.step();
    }
    let fetched = world.index(JOINER);
    assert!(fetched > 0 && fetched < MESSAGES, "it fetched {fetched} of {MESSAGES} although nothing is synced");
    assert!(world.unsynced_most <= most, "{} bytes wait", world.unsynced_most);
    // A disk that is slow, but not stuck: everything comes, and no more waits at any time.
    for _ in 0..STEPS_MAX {
        world.sync_one();
        world.step();
        if world.index(JOINER) == MESSAGES {
            break;
        }
    }
    assert_eq!(world.index(JOINER), MESSAGES);
    assert!(world.unsynced_most <= most, "{} bytes wait", world.unsynced_most);
}
