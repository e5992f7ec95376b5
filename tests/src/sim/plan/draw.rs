//! The plan of a seed.

use std::time::Duration;

use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::{OnFailure, Parameters, RingKind, Rules, ServeLimits, SessionPlan};

use super::{DiskPlan, Fault, NetworkPlan, Plan, RETAIN_BYTES, Step, Traffic, Who};
use crate::sim::dice::Dice;
use crate::sim::slowness::Slowness;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed);
        let session = dice.chance(500);
        let creator_is_member = !session || dice.chance(100);
        let members = dice.pick(&[1, 2, 2, 3, 3, 4, 4, 5, 6, 6]);
        let nodes = members + usize::from(!creator_is_member);
        let evicts = dice.chance(500);
        let long = evicts || dice.chance(100);
        let heal_at_us = if long { dice.between(200_000, 2_000_000) } else { dice.between(20_000, 300_000) };
        let mut plan = Self {
            seed,
            rules: Rules::default(),
            mutated: false,
            nodes,
            newcomers: Vec::new(),
            contact: None,
            creator_is_member,
            parameters: parameters(&mut dice, session, evicts),
            session: session.then(|| session_plan(&mut dice, seed, heal_at_us)),
            traffic: traffic(&mut dice, nodes),
            network: network(&mut dice),
            disk: DiskPlan::default(),
            slowness: Slowness::default(),
            corruption: None,
            // A session of some seconds has some dozens.
            log_entries_max: Dice::of(seed ^ 0x05ee_d0f1_0655).pick(&[2, 4, 8, 16, LOG_ENTRIES_MAX]),
            serves: serves(&mut Dice::of(seed ^ 0x005e_47e5)),
            snapshot_every: None,
            retain_bytes: RETAIN_BYTES,
            retain_disk_bytes: None,
            reports_bytes: true,
            expires: false,
            faults: Vec::new(),
            at_steps: Vec::new(),
            story_restarts: 0,
            kills_anybody: false,
            heal_at_us,
            load_for_us: 0,
            inputs_per_drain_max: dice.pick(&[1, 1, 2, 5, 20]),
            timer_late_us: dice.pick(&[0, 100, 3_000]),
            drift_ppm: (0..nodes).map(|_| dice.pick(&[0, 0, 200, 100_000])).collect(),
        };
        let long_path = plan.add_long_paths(&mut Dice::of(seed ^ 0x1046_9a74));
        plan.add_link_faults(&mut dice);
        plan.add_node_faults(&mut dice);
        if evicts {
            plan.add_evicting_faults(&mut dice);
        }
        if long && plan.nodes > 1 {
            plan.add_failover_faults(&mut dice);
        }
        plan.expires = Dice::of(seed ^ 0x00e8_9145).chance(200);
        plan.add_clock_jumps(&mut Dice::of(seed ^ 0x000c_10c4_0a17));
        plan.add_restarts(&mut Dice::of(seed ^ 0x0d15_ca5e_0dd5));
        let adapts = Dice::of(seed ^ 0x071_3e0a7).chance(400);
        plan.parameters.timeout_max = timeout_max(long_path, adapts);
        plan.parameters.window_bytes_min = Dice::of(seed ^ 0x00ad_a9f5).pick(&[1, 16, 64, 64 << 10]);
        let resume_ms = Dice::of(seed ^ 0x4e_50_3e).pick(&[0, 100, 1_000]);
        plan.parameters.resume_timeout = Duration::from_millis(resume_ms);
        plan.add_snapshots(&mut Dice::of(seed ^ 0x5a9_5407));
        plan.add_stale_disks(&mut Dice::of(seed ^ 0x001d_d15c));
        plan.add_leaves(&mut Dice::of(seed ^ 0x1ea_7e5));
        plan.add_planned_stops(&mut Dice::of(seed ^ 0x5_70b5));
        plan.add_real_disks(&mut Dice::of(seed ^ 0x4ea1_d15c));
        plan.add_failing_disks(&mut Dice::of(seed ^ 0x0fa1_1ed5));
        plan.add_networks_and_load(seed);
        plan
    }

    fn add_networks_and_load(&mut self, seed: u64) {
        self.add_narrow_links(&mut Dice::of(seed ^ 0x00ba_d71d));
        self.add_slow_learners(&mut Dice::of(seed ^ 0x51_0013_a2e2));
        self.add_early_faults(&mut Dice::of(seed ^ 0x0ea7_1f17));
        self.add_large_payloads(&mut Dice::of(seed ^ 0x001a_46e5));
        self.add_load(&mut Dice::of(seed ^ 0x10ad));
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
                4 => Fault::Flap { a, b, times: dice.between(2, 5), outage_us: dice.pick(&[150, 150, 30_000, 90_000]) },
                5 => Fault::Isolate { who: Who::Node(a), outage_us },
                _ => Fault::Replace { a, b },
            };
            self.faults.push((at, fault));
        }
    }

    fn add_clock_jumps(&mut self, dice: &mut Dice) {
        if !dice.chance(150) {
            return;
        }
        for _ in 0..dice.between(1, 3) {
            let who = Who::Node(dice.below(self.nodes));
            let by_us = dice.pick(&[1_000, 60_000, 700_000, 3_000_000, 3_600_000_000]);
            self.faults.push((dice.between(0, self.heal_at_us), Fault::ClockJump { who, by_us }));
        }
    }

    fn add_node_faults(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 0, 1, 3]) {
            let (who, for_us) = (Who::Node(dice.below(self.nodes)), dice.pick(&[1_000, 10_000, 40_000]));
            self.faults.push((dice.between(0, self.heal_at_us), Fault::Slow { who, for_us }));
        }
        if self.nodes > 1 && dice.chance(200) {
            let who = Who::Node(dice.below(self.nodes));
            let at = dice.between(self.heal_at_us / 4, self.heal_at_us);
            self.faults.push((at, Fault::Kill { who }));
        }
        if dice.chance(250) {
            let node = if dice.chance(500) { Self::CREATOR } else { dice.below(self.nodes) };
            self.faults.push((dice.between(self.heal_at_us / 4, self.heal_at_us), Fault::End { node }));
        }
        let node = dice.below(self.nodes);
        if node != Self::CREATOR && dice.chance(300) {
            let (who, for_us) = (Who::Node(node), dice.between(5_000, 120_000));
            let fault = match dice.below(3) {
                0 => Fault::Slow { who, for_us },
                1 => Fault::Isolate { who, outage_us: for_us },
                _ => Fault::Cut { a: node, b: Self::CREATOR, outage_us: for_us },
            };
            self.at_steps.push((Step::Stop, dice.between(0, 2_000), fault));
        }
    }
}

fn parameters(dice: &mut Dice, session: bool, evicts: bool) -> Parameters {
    let tiny = dice.chance(600);
    let heartbeats: &[u64] = if evicts { &[5_000, 10_000, 20_000] } else { &[5_000, 20_000, 60_000_000, 60_000_000] };
    let heartbeat = Duration::from_micros(dice.pick(heartbeats));
    Parameters::default()
        .ring(match dice.below(10) {
            0..3 => RingKind::Token,
            3..6 => RingKind::Relay,
            _ => RingKind::Pipelined,
        })
        .session(session)
        .window_slots(dice.between(1, 8) as u32)
        .window_bytes(if tiny { dice.between(16, 200) } else { 4_096 })
        .slot_bytes_max(if tiny { dice.between(1, 60) as u32 } else { 512 })
        .slot_payloads_max(dice.pick(&[1, 1, 2, 4, 16]))
        .skip_ahead(dice.pick(&[0, 0, 1, 2, 8]))
        .token_tick(Duration::from_micros(dice.pick(&[200, 1_000])))
        .heartbeat(heartbeat)
        .failure_timeout(heartbeat * if evicts { dice.pick(&[4, 6, 10]) } else { 10 })
        .stall_timeout(Duration::from_millis(dice.pick(&[100, 200, 400])))
        .coordinator_timeout(Duration::from_millis(dice.pick(&[10, 2_000, 2_000])))
        .wedge_timeout(Duration::from_millis(dice.pick(&[20, 60, 250])))
        .on_failure(if evicts { OnFailure::Evict } else { OnFailure::Wait })
}

/// Long paths need timeouts that grow; others have them in a part of the runs.
fn timeout_max(long_path: bool, adapts: bool) -> Duration {
    match (long_path, adapts) {
        (true, _) => Parameters::default().timeout_max,
        (false, true) => Duration::from_secs(1),
        (false, false) => Duration::ZERO,
    }
}

/// Half of the runs send the result in small parts, so that every transfer has many.
fn serves(dice: &mut Dice) -> ServeLimits {
    if dice.chance(500) {
        return ServeLimits::default();
    }
    ServeLimits { part_bytes: dice.pick(&[16, 60, 200]), read_bytes: dice.pick(&[1, 50, 500]) }
}

fn session_plan(dice: &mut Dice, seed: u64, heal_at_us: u64) -> SessionPlan {
    SessionPlan::new(
        Duration::from_micros(dice.between(5_000, heal_at_us)),
        Duration::from_micros(dice.between(0, 30_000)),
        Duration::from_millis(200),
    )
    .seed(seed)
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
        result_us: 0,
        latency_us: dice.pick(&[20, 200, 2_000]),
        jitter_us: dice.pick(&[0, 100, 1_000, 5_000]),
        late_per_mille: dice.pick(&[0, 0, 10, 60]),
        late_us: 40_000,
        notice_us: dice.pick(&[10, 1_000, 10_000]),
        lost_per_mille: dice.pick(&[0, 0, 0, 0, 0, 20]),
        encoded: dice.chance(150),
    }
}
