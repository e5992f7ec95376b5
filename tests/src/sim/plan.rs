//! What a run is made of: everything that a seed decides before the run begins.

use std::time::Duration;

use cloudy_proto::{OnFailure, Parameters, RingKind, Rules, SessionPlan};

use crate::sim::dice::Dice;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A link is cut and dialled again after a while.
    Cut {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// For how long.
        outage_us: u64,
    },
    /// A link is cut and repaired several times.
    Flap {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// How often.
        times: u64,
    },
    /// A newer connection takes the place of a live one.
    Replace {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
    },
    /// All links of a node are cut.
    Isolate {
        /// Whose.
        node: usize,
        /// For how long.
        outage_us: u64,
    },
    /// A node does not run.
    Slow {
        /// Which.
        node: usize,
        /// For how long.
        for_us: u64,
    },
    /// A member's process dies for good.
    Kill {
        /// Whose.
        node: usize,
    },
    /// A node asks for the end of the group.
    End {
        /// Which.
        node: usize,
    },
}

/// How links behave.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The least that a frame takes.
    pub latency_us: u64,
    /// What is added at most.
    pub jitter_us: u64,
    /// How many frames in a thousand take longer by far.
    pub late_per_mille: u64,
    /// How much longer at most.
    pub late_us: u64,
    /// How long an end takes at most to see that a link is up or gone.
    pub notice_us: u64,
    /// How many lane frames in a thousand vanish from their stream.
    pub lost_per_mille: u64,
    /// Every frame is encoded and decoded.
    pub encoded: bool,
    /// One payload byte of the first slot on its way to this node changes.
    pub corrupt_towards: Option<usize>,
}

/// What applications broadcast.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Payloads at once, at most.
    pub burst_max: u64,
    /// Between two bursts of a member, at most.
    pub gap_us: u64,
    /// Payloads of one member in the whole run.
    pub payloads_max: u64,
    /// The usual payload's size, at least.
    pub payload_bytes_min: u64,
    /// The usual payload's size, at most.
    pub payload_bytes_max: u64,
    /// How many payloads in a thousand are larger than the window.
    pub large_per_mille: u64,
    /// Members that broadcast nothing.
    pub quiet: Vec<usize>,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made of.
    pub seed: u64,
    /// Which rules hold.
    pub rules: Rules,
    /// A rule is off, so a node may break the protocol.
    pub mutated: bool,
    /// How many nodes, the founder included.
    pub nodes: usize,
    /// The founder takes a place on the ring.
    pub founder_is_member: bool,
    /// What all members share.
    pub parameters: Parameters,
    /// The session, if the group is one.
    pub session: Option<SessionPlan>,
    /// What applications broadcast.
    pub traffic: Traffic,
    /// How links behave.
    pub network: NetworkPlan,
    /// What goes wrong, and when.
    pub faults: Vec<(u64, Fault)>,
    /// What goes wrong once STOP has begun, and how long after that.
    pub at_stop: Option<(u64, Fault)>,
    /// When faults and broadcasts end.
    pub heal_at_us: u64,
    /// Inputs that a node is handed before its outputs are taken, at most.
    pub inputs_per_drain_max: u64,
    /// How late a timer may be.
    pub timer_late_us: u64,
    /// How much faster each node's clock runs than true time, in parts per million.
    pub drift_ppm: Vec<u64>,
}

impl Plan {
    /// The founder's place among the nodes.
    pub const FOUNDER: usize = 0;

    /// What a seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed);
        let session = dice.chance(500);
        let founder_is_member = !session || dice.chance(100);
        let members = dice.pick(&[1, 2, 2, 3, 3, 4, 4, 5, 6, 6]);
        let nodes = members + usize::from(!founder_is_member);
        let evicts = dice.chance(400);
        let heal_at_us = if evicts { dice.between(200_000, 2_000_000) } else { dice.between(20_000, 300_000) };
        let mut plan = Self {
            seed,
            rules: Rules::default(),
            mutated: false,
            nodes,
            founder_is_member,
            parameters: parameters(&mut dice, session, evicts),
            session: session.then(|| session_plan(&mut dice, seed, heal_at_us)),
            traffic: traffic(&mut dice, nodes),
            network: network(&mut dice),
            faults: Vec::new(),
            at_stop: None,
            heal_at_us,
            inputs_per_drain_max: dice.pick(&[1, 1, 2, 5, 20]),
            timer_late_us: dice.pick(&[0, 100, 3_000]),
            drift_ppm: (0..nodes).map(|_| dice.pick(&[0, 0, 200, 100_000])).collect(),
        };
        plan.add_link_faults(&mut dice);
        plan.add_node_faults(&mut dice);
        if evicts {
            plan.add_evicting_faults(&mut dice);
        }
        plan
    }

    /// A plan in which nothing goes wrong and nobody broadcasts by itself.
    #[must_use]
    pub fn calm(members: usize, session: Option<SessionPlan>) -> Self {
        let founder_is_member = session.is_none();
        let nodes = members + usize::from(!founder_is_member);
        Self {
            seed: 0,
            rules: Rules::default(),
            mutated: false,
            nodes,
            founder_is_member,
            parameters: Parameters { session: session.is_some(), on_failure: OnFailure::Wait, ..Parameters::default() },
            session,
            traffic: Traffic {
                burst_max: 1,
                gap_us: 1,
                payloads_max: 0,
                payload_bytes_min: 0,
                payload_bytes_max: 0,
                large_per_mille: 0,
                quiet: (0..nodes).collect(),
            },
            network: NetworkPlan {
                latency_us: 1_000,
                jitter_us: 0,
                late_per_mille: 0,
                late_us: 0,
                notice_us: 1_000,
                lost_per_mille: 0,
                encoded: true,
                corrupt_towards: None,
            },
            faults: Vec::new(),
            at_stop: None,
            heal_at_us: 60_000_000,
            inputs_per_drain_max: 1,
            timer_late_us: 0,
            drift_ppm: vec![0; nodes],
        }
    }

    /// Members that fail are evicted.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.parameters.on_failure == OnFailure::Evict
    }

    /// The nodes that take a place on the ring.
    pub fn members(&self) -> impl Iterator<Item = usize> + use<> {
        usize::from(!self.founder_is_member)..self.nodes
    }

    /// How many nodes take a place on the ring.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members().count()
    }

    fn add_link_faults(&mut self, dice: &mut Dice) {
        if self.nodes < 2 || dice.chance(150) {
            return;
        }
        for _ in 0..dice.between(0, 8) {
            let at = dice.between(0, self.heal_at_us);
            let a = dice.below(self.nodes);
            let b = (a + 1 + dice.below(self.nodes - 1)) % self.nodes;
            let outage_us = dice.pick(&[100, 2_000, 20_000, 60_000]);
            let fault = match dice.below(8) {
                0..=3 => Fault::Cut { a, b, outage_us },
                4 => Fault::Flap { a, b, times: dice.between(2, 5) },
                5 => Fault::Isolate { node: a, outage_us },
                _ => Fault::Replace { a, b },
            };
            self.faults.push((at, fault));
        }
    }

    /// What lasts long enough to be found out, and who dies.
    fn add_evicting_faults(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 1, 2, 4]) {
            let at = dice.between(0, self.heal_at_us);
            let node = dice.below(self.nodes);
            let outage_us = dice.pick(LONG_US);
            let fault = match dice.below(4) {
                0 => Fault::Slow { node, for_us: outage_us },
                1 => Fault::Isolate { node, outage_us },
                _ if self.nodes < 2 => continue,
                _ => Fault::Cut { a: node, b: (node + 1 + dice.below(self.nodes - 1)) % self.nodes, outage_us },
            };
            self.faults.push((at, fault));
        }
        let victim = dice.below(self.nodes);
        if victim != Self::FOUNDER && self.member_count() > 1 && dice.chance(300) {
            self.faults.push((dice.between(0, self.heal_at_us), Fault::Kill { node: victim }));
        }
    }

    fn add_node_faults(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 0, 1, 3]) {
            let (node, for_us) = (dice.below(self.nodes), dice.pick(&[1_000, 10_000, 40_000]));
            self.faults.push((dice.between(0, self.heal_at_us), Fault::Slow { node, for_us }));
        }
        let victim = dice.below(self.nodes);
        if victim != Self::FOUNDER && self.member_count() > 1 && dice.chance(200) {
            let at = dice.between(self.heal_at_us / 4, self.heal_at_us);
            self.faults.push((at, Fault::Kill { node: victim }));
        }
        if dice.chance(250) {
            let node = if dice.chance(500) { Self::FOUNDER } else { dice.below(self.nodes) };
            self.faults.push((dice.between(self.heal_at_us / 4, self.heal_at_us), Fault::End { node }));
        }
        let node = dice.below(self.nodes);
        if node != Self::FOUNDER && dice.chance(300) {
            let for_us = dice.between(5_000, 120_000);
            let fault = match dice.below(3) {
                0 => Fault::Slow { node, for_us },
                1 => Fault::Isolate { node, outage_us: for_us },
                _ => Fault::Cut { a: node, b: Self::FOUNDER, outage_us: for_us },
            };
            self.at_stop = Some((dice.between(0, 2_000), fault));
        }
    }
}

/// How long members are cut off, slow, or apart, if that is to be found out.
const LONG_US: &[u64] = &[60_000, 150_000, 400_000, 800_000];

fn parameters(dice: &mut Dice, session: bool, evicts: bool) -> Parameters {
    let tiny = dice.chance(600);
    let heartbeats: &[u64] = if evicts { &[5_000, 10_000, 20_000] } else { &[5_000, 20_000, 60_000_000, 60_000_000] };
    let heartbeat = Duration::from_micros(dice.pick(heartbeats));
    Parameters {
        ring: if dice.chance(300) { RingKind::Token } else { RingKind::Pipelined },
        session,
        window_slots: dice.between(1, 8) as u32,
        window_bytes: if tiny { dice.between(16, 200) } else { 4_096 },
        slot_bytes_max: if tiny { dice.between(1, 60) as u32 } else { 512 },
        slot_payloads_max: dice.pick(&[1, 1, 2, 4, 16]),
        skip_ahead: dice.pick(&[0, 0, 1, 2, 8]),
        token_tick: Duration::from_micros(dice.pick(&[200, 1_000])),
        heartbeat,
        failure_timeout: heartbeat * if evicts { dice.pick(&[4, 6, 10]) } else { 10 },
        stall_timeout: Duration::from_millis(dice.pick(&[100, 200, 400])),
        coordinator_timeout: Duration::from_millis(dice.pick(&[10, 2_000, 2_000])),
        wedge_timeout: Duration::from_millis(dice.pick(&[20, 60, 250])),
        on_failure: if evicts { OnFailure::Evict } else { OnFailure::Wait },
        ..Parameters::default()
    }
}

fn session_plan(dice: &mut Dice, seed: u64, heal_at_us: u64) -> SessionPlan {
    SessionPlan {
        send: Duration::from_micros(dice.between(5_000, heal_at_us)),
        grace: Duration::from_micros(dice.between(0, 30_000)),
        stop: Duration::from_millis(200),
        seed,
    }
}

fn traffic(dice: &mut Dice, nodes: usize) -> Traffic {
    let lone = dice.chance(250);
    let busy = dice.below(nodes);
    Traffic {
        burst_max: dice.pick(&[1, 3, 20]),
        gap_us: dice.pick(&[300, 2_000, 10_000]),
        payloads_max: dice.pick(&[5, 40, 120, 300]),
        payload_bytes_min: 0,
        payload_bytes_max: dice.pick(&[0, 8, 60]),
        large_per_mille: dice.pick(&[0, 0, 30]),
        quiet: (0..nodes).filter(|&node| if lone { node != busy } else { dice.chance(150) }).collect(),
    }
}

fn network(dice: &mut Dice) -> NetworkPlan {
    NetworkPlan {
        latency_us: dice.pick(&[20, 200, 2_000]),
        jitter_us: dice.pick(&[0, 100, 1_000, 5_000]),
        late_per_mille: dice.pick(&[0, 0, 10, 60]),
        late_us: 40_000,
        notice_us: dice.pick(&[10, 1_000, 10_000]),
        lost_per_mille: dice.pick(&[0, 0, 0, 0, 0, 20]),
        encoded: dice.chance(150),
        corrupt_towards: None,
    }
}
