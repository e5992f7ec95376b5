//! The hot paths of one member of a group of four, operation by operation: benches time and count them, and a test
//! counts their allocations.
//!
//! In every round each member broadcasts one slot. The slots go out, their confirmations come back, and the approvals
//! go out, so that the last of them lets the whole round into the result.

mod creation;

use bytes::{Bytes, BytesMut};
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::wire::{LaneDecoder, Stream, TallyDecoder, encode_lane, encode_tally};
use cloudy_proto::{Frame, Incarnation, Input, Machine, NodeId, Output, Seq, Time};

/// Members of the group.
const MEMBERS: usize = 4;
/// The member that is measured. Its own slot is not the first of a round, so no approval but the last moves its cursor.
const MEASURED: usize = 1;
/// Rounds until all queues are as large as they get, and memory is reused: the retained result is full after them.
const WARM_UP_ROUNDS: u64 = 200;

/// A measured operation, at one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// From a batch of payloads to the slots that go to the others.
    OwnSlot,
    /// From the bytes of another's slot to the confirmation.
    ReceivedSlot,
    /// From the bytes of a confirmation to the tally; of three, the last approves the slot.
    Confirmation,
    /// From the bytes of an approval to the lane's frontier.
    Approval,
    /// A slot enters the result: order, digest, delivery.
    Walk,
}

impl Operation {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::OwnSlot, Self::ReceivedSlot, Self::Confirmation, Self::Approval, Self::Walk];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OwnSlot => "own slot",
            Self::ReceivedSlot => "received slot",
            Self::Confirmation => "confirmation",
            Self::Approval => "approval",
            Self::Walk => "walk",
        }
    }

    /// The number of times that it happens in a round.
    pub(crate) fn per_round(self) -> u64 {
        let members = MEMBERS as u64;
        match self {
            Self::OwnSlot => 1,
            Self::ReceivedSlot | Self::Confirmation => members - 1,
            // The last one is the walk's.
            Self::Approval => members - 2,
            Self::Walk => members,
        }
    }
}

/// The content of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Its name in reports.
    pub(crate) name: &'static str,
    payload_bytes: usize,
    payloads: u32,
}

/// Slots under load, and one that shows the cost of a slot by itself.
pub(crate) const LOADS: [Load; 3] = [
    Load { name: "1,000 of 8 B", payload_bytes: 8, payloads: 1_000 },
    Load { name: "100 of 100 B", payload_bytes: 100, payloads: 100 },
    Load { name: "1 of 100 B", payload_bytes: 100, payloads: 1 },
];

impl Load {
    /// Messages that each member broadcasts in a round.
    pub(crate) fn messages(self) -> u64 {
        u64::from(self.payloads)
    }

    fn body(self) -> Bytes {
        let mut body = BytesMut::new();
        (0..self.payloads).for_each(|at| push_payload(&mut body, &vec![at as u8; self.payload_bytes]));
        body.freeze()
    }
}

/// Watches the work of the measured member.
pub(crate) trait Meter {
    /// Does the work of one operation; of a walk, that of all slots of a round.
    fn measure(&mut self, operation: Operation, work: impl FnOnce());
}

/// A group whose members all broadcast.
pub(crate) struct Group {
    members: Vec<Member>,
    now: Time,
    load: Load,
    body: Bytes,
    next_seq: Seq,
    /// Outputs that are not collected yet; kept for their capacity.
    outputs: Vec<Output>,
    sent: Vec<Packet>,
    /// Slots that entered the result at the measured member.
    delivered: u64,
}

struct Member {
    machine: Machine,
    /// By sender.
    inbound: [Inbound; MEMBERS],
}

/// The bytes that one member reads from another.
#[derive(Default)]
struct Inbound {
    lane: LaneDecoder,
    tally: TallyDecoder,
}

/// A frame on its way, encoded.
struct Packet {
    from: usize,
    to: usize,
    incarnation: Incarnation,
    stream: Stream,
    bytes: Bytes,
}

/// An input of a member.
enum Arrival {
    Broadcast(Batch),
    Packet(Packet),
}

fn id_of(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

fn position_of(id: NodeId) -> usize {
    usize::from(id.0[0]) - 1
}

impl Group {
    /// A created, warm group.
    pub(crate) fn warm(load: Load) -> Self {
        let (machines, now) = creation::create();
        let members = machines.into_iter().map(|machine| Member { machine, inbound: Default::default() });
        let mut group = Self {
            members: members.collect(),
            now,
            load,
            body: load.body(),
            next_seq: Seq(1),
            outputs: Vec::new(),
            sent: Vec::new(),
            delivered: 0,
        };
        (0..WARM_UP_ROUNDS).for_each(|_| group.round(&mut Unmeasured));
        group
    }

    /// Every member broadcasts a slot, and all enter the result.
    ///
    /// # Panics
    /// If the machines do something else: then it is not the hot path that is measured.
    pub(crate) fn round(&mut self, meter: &mut impl Meter) {
        self.now = Time(self.now.0 + 1);
        for at in 0..MEMBERS {
            let batch = Batch { first_seq: self.next_seq, count: self.load.payloads, body: self.body.clone() };
            self.hand(at, Operation::OwnSlot, Arrival::Broadcast(batch), meter);
        }
        self.next_seq.0 += self.load.messages();
        let delivered_before = self.delivered;
        self.deliver(meter, |_| Operation::ReceivedSlot);
        self.deliver(meter, |_| Operation::Confirmation);
        self.sent.sort_by_key(|packet| core::cmp::Reverse(packet.from));
        let approvals = |packet: &Packet| if packet.from == 0 { Operation::Walk } else { Operation::Approval };
        assert_eq!(self.delivered, delivered_before, "nothing is in the result before its approval");
        self.deliver(meter, approvals);
        assert_eq!((self.sent.len(), self.delivered - delivered_before), (0, MEMBERS as u64), "the round is over");
    }

    /// Delivers the sent frames: one from each member to each other.
    fn deliver(&mut self, meter: &mut impl Meter, operation: impl Fn(&Packet) -> Operation) {
        let packets = core::mem::take(&mut self.sent);
        assert_eq!(packets.len(), MEMBERS * (MEMBERS - 1), "frames on their way");
        for packet in packets {
            self.hand(packet.to, operation(&packet), Arrival::Packet(packet), meter);
        }
    }

    fn hand(&mut self, at: usize, operation: Operation, arrival: Arrival, meter: &mut impl Meter) {
        let (member, outputs, now) = (&mut self.members[at], &mut self.outputs, self.now);
        let work = || {
            let input = member.input(arrival);
            member.machine.handle(now, input);
            while let Some(output) = member.machine.poll_output() {
                outputs.push(output);
            }
        };
        if at == MEASURED {
            meter.measure(operation, work)
        } else {
            work()
        }
        let incarnation = member.machine.incarnation();
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, stream, frame } => {
                    let (to, bytes) = (position_of(to), encoded(&frame));
                    self.sent.push(Packet { from: at, to, incarnation, stream, bytes });
                }
                Output::Deliver(_) if at == MEASURED => self.delivered += 1,
                Output::Deliver(_) | Output::Approved(_) => {}
                other => panic!("{other:?} is not of the hot path"),
            }
        }
    }
}

impl Member {
    fn input(&mut self, arrival: Arrival) -> Input {
        let Packet { from, incarnation, stream, bytes, .. } = match arrival {
            Arrival::Broadcast(batch) => return Input::Broadcast(batch),
            Arrival::Packet(packet) => packet,
        };
        let inbound = &mut self.inbound[from];
        let mut chunk: &[u8] = &bytes;
        let frame = match stream {
            Stream::Lane { .. } => inbound.lane.feed(&mut chunk).map(|frame| frame.map(Frame::Lane)),
            _ => inbound.tally.feed(&mut chunk).map(|frame| frame.map(Frame::Tally)),
        };
        let frame = frame.ok().flatten().expect("a whole frame");
        Input::Frame { from: id_of(from), incarnation, stream, frame }
    }
}

fn encoded(frame: &Frame) -> Bytes {
    let mut bytes = BytesMut::new();
    match frame {
        Frame::Lane(frame) => {
            if let Some(body) = encode_lane(frame, &mut bytes) {
                bytes.extend_from_slice(&body);
            }
        }
        Frame::Tally(frame) => encode_tally(frame, &mut bytes),
        Frame::Control(frame) => panic!("{frame:?} is not of the hot path"),
    }
    bytes.freeze()
}

struct Unmeasured;

impl Meter for Unmeasured {
    fn measure(&mut self, _: Operation, work: impl FnOnce()) {
        work();
    }
}
