//! From nothing to a group at rest whose members may all broadcast.

use std::collections::VecDeque;

use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::wire::Stream;
use cloudy_proto::{
    Admission, Durability, Event, Frame, GroupId, Incarnation, Input, Machine, MachineConfig, Output, Parameters,
    Request, Role, Rules, ServeLimits, Time,
};

use super::{MEMBERS, id_of, position_of};

/// Enough for a few rounds of the largest load, and full after the warm-up with the smallest.
const RETAIN_BYTES: u64 = 256 << 10;
/// Members that vote: an odd number of them.
const VOTERS: usize = 3;
/// Maximum number of timers until the group is created: far above the usual number.
const TIMERS_MAX: usize = 1_000;

struct Packet {
    from: usize,
    to: usize,
    incarnation: Incarnation,
    stream: Stream,
    frame: Frame,
}

struct PendingGroup {
    machines: Vec<Machine>,
    now: Time,
    packets: VecDeque<Packet>,
    accepted: usize,
}

/// The members by rank, and the time.
pub(super) fn create() -> (Vec<Machine>, Time) {
    let machines = (0..MEMBERS).map(machine).collect();
    let mut creation = PendingGroup { machines, now: Time(0), packets: VecDeque::new(), accepted: 0 };
    (0..MEMBERS).for_each(|at| creation.drain(at));
    for at in 0..MEMBERS {
        for peer in (0..MEMBERS).filter(|&peer| peer != at) {
            creation.hand(at, Input::LinkUp { peer: id_of(peer), addresses: Vec::new(), advertised: None });
        }
    }
    (1..MEMBERS).for_each(|peer| creation.hand(0, Input::Request(Request::Invite { node: id_of(peer) })));
    creation.run_until(|creation| creation.accepted == MEMBERS - 1);
    creation.hand(0, Input::Request(Request::Create { session: None }));
    creation.run_until(|creation| {
        let settled = |machine: &Machine| {
            let status = machine.status(creation.now);
            status.rank.is_some() && status.voters.len() == VOTERS
        };
        creation.machines.iter().all(settled)
    });
    (creation.machines, creation.now)
}

fn machine(at: usize) -> Machine {
    let role = match at {
        0 => Role::Creator { member: true, parameters: Parameters::default() },
        _ => Role::Invited { by: id_of(0) },
    };
    Machine::new(MachineConfig {
        me: id_of(at),
        addresses: Vec::new(),
        advertised: None,
        group: GroupId(*b"measured group! "),
        name: "measured".to_owned(),
        run: at as u64,
        role,
        durability: Durability::Memory,
        retain_bytes: RETAIN_BYTES,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        level_max: cloudy_proto::wire::WIRE_VERSION,
        serves: ServeLimits::default(),
        rules: Rules::default(),
    })
}

impl PendingGroup {
    /// Carries frames, and lets time pass where there is none, until something is so and no frame is on its way.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..TIMERS_MAX {
            self.carry();
            if done(self) {
                return;
            }
            let deadline = |machine: &Machine| machine.poll_timeout().unwrap_or(Time(u64::MAX));
            let next = self.machines.iter().map(deadline).min().expect("members");
            self.now = self.now.max(next);
            for at in 0..MEMBERS {
                if deadline(&self.machines[at]) <= self.now {
                    self.hand(at, Input::Timeout);
                }
            }
        }
        panic!("the group was not created");
    }

    fn carry(&mut self) {
        while let Some(packet) = self.packets.pop_front() {
            let Packet { from, to, incarnation, stream, ref frame } = packet;
            match self.machines[to].admits(id_of(from), incarnation, stream) {
                Admission::Read => {
                    let frame = frame.clone();
                    self.hand(to, Input::Frame { from: id_of(from), incarnation, stream, frame });
                }
                // Its view comes with a frame behind it; alone it would wait for nothing.
                Admission::Wait => self.packets.push_back(packet),
                refused => panic!("{frame:?} on {stream:?}: {refused:?}"),
            }
        }
    }

    fn hand(&mut self, at: usize, input: Input) {
        self.machines[at].handle(self.now, input);
        self.drain(at);
    }

    fn drain(&mut self, from: usize) {
        while let Some(output) = self.machines[from].poll_output() {
            match output {
                Output::Send { to, stream, frame } => {
                    let incarnation = self.machines[from].incarnation();
                    self.packets.push_back(Packet { from, to: position_of(to), incarnation, stream, frame });
                }
                Output::Event(Event::Accepted { .. }) => self.accepted += 1,
                _ => {}
            }
        }
    }
}
