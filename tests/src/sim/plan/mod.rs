//! The plan of a run: everything that a seed decides before the run begins.

mod draw;
mod failover;
mod leaves;
mod networks;
mod restarts;

use cloudy_node::fault::DiskFault;
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::{Durability, OnFailure, Parameters, Rules, ServeLimits, SessionPlan};

use crate::sim::corruption::Corruption;
use crate::sim::narrow::Narrow;
use crate::sim::slowness::Slowness;

/// The node of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This node.
    Node(usize),
    /// The coordinator at that moment; no node if there is none.
    Coordinator,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A link is cut and dialled again after a while.
    Cut {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// The duration.
        outage_us: u64,
    },
    /// A link is cut and repaired several times.
    Flap {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// The number of times.
        times: u64,
        /// The duration of each cut, and of each time between two.
        outage_us: u64,
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
        /// The node.
        who: Who,
        /// The duration.
        outage_us: u64,
    },
    /// All links between two sides are cut.
    Partition {
        /// The nodes of one side, a bit for each; the others are on the other.
        side: u32,
        /// A node that keeps its links to both sides.
        bridge: Option<usize>,
        /// The duration.
        outage_us: u64,
    },
    /// The coordinator is cut off, with some others or alone.
    PartCoordinator {
        /// The other nodes in it, a bit for each.
        companions: u32,
        /// The duration.
        outage_us: u64,
    },
    /// A link works in one direction only: frames in the other wait, and both ends believe that it is up.
    OneWay {
        /// The node whose frames wait.
        from: usize,
        /// The node that does not receive them.
        to: usize,
        /// The duration.
        for_us: u64,
    },
    /// A node receives everything, and its own frames reach no other.
    Mute {
        /// The node.
        who: Who,
        /// The duration.
        for_us: u64,
    },
    /// A link has a low rate.
    Narrow {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// The rate of the link.
        narrow: Narrow,
        /// The duration.
        for_us: u64,
    },
    /// A node does not run.
    Slow {
        /// The node.
        who: Who,
        /// The duration.
        for_us: u64,
    },
    /// A node's clock goes forward at once, as on a machine that was suspended.
    ClockJump {
        /// The node.
        who: Who,
        /// The size of the jump.
        by_us: u64,
    },
    /// A process is killed, and its node is not restarted. Unless the plan kills any node, this waits until the group
    /// can do without it.
    Kill {
        /// The node.
        who: Who,
    },
    /// A process crashes, and its node is restarted: from its disk, or, with `Memory`, as a new joiner.
    Restart {
        /// The node.
        who: Who,
        /// The time until its restart.
        after_us: u64,
    },
    /// A process dies and its node's disk with it; it is started again as one that joins.
    LoseDisk {
        /// The node.
        who: Who,
        /// The time until its restart.
        after_us: u64,
    },
    /// One operation of a disk fails, and the disk works again afterwards. The node's process ends, and is restarted
    /// from the disk.
    FailDisk {
        /// The node.
        who: Who,
        /// The kind of failure.
        how: DiskFault,
        /// The time until the restart of its process.
        after_us: u64,
    },
    /// A disk is copied, and the copy is restored once no other node has a fault; no other fault happens for a while.
    StaleDisk {
        /// The node.
        who: Who,
        /// The time until the copy is restored.
        age_us: u64,
        /// The time from then until the restart of its process.
        after_us: u64,
    },
    /// The copy is restored.
    PutBack {
        /// The node.
        home: usize,
        /// The delay, as above.
        after_us: u64,
    },
    /// All processes are killed at once, and each is restarted at its own time.
    PowerCut {
        /// The maximum time until a restart.
        within_us: u64,
    },
    /// A disk syncs nothing for a while.
    SlowDisk {
        /// The node.
        who: Who,
        /// The duration.
        for_us: u64,
    },
    /// A node requests to close the group.
    End {
        /// The node.
        node: usize,
    },
    /// A node announces that it stops, and stops once the others continue without it, or after a limit. It starts again.
    Suspend {
        /// The node.
        node: usize,
        /// The time between its end and its start.
        after_us: u64,
        /// Whether it was announced: now the limit has passed, or the others continue.
        announced: bool,
    },
    /// A node broadcasts nothing more, and leaves once all that it broadcast is approved.
    Leave {
        /// The node.
        node: usize,
    },
}

/// A step of a group: the time at which a node first reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The first view is in force.
    Created,
    /// A session has begun to SEND.
    Kickstart,
    /// A member is asked to wedge a view.
    Wedge,
    /// The next view is proposed.
    Install,
    /// STOP has begun.
    Stop,
    /// A result is final.
    Final,
}

/// The behaviour of links.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The minimum delay of a frame.
    pub latency_us: u64,
    /// The maximum additional delay.
    pub jitter_us: u64,
    /// The additional delay of parts of the result: they are many where bandwidth is scarce.
    pub result_us: u64,
    /// The number of frames in a thousand that take much longer.
    pub late_per_mille: u64,
    /// Their maximum additional delay.
    pub late_us: u64,
    /// The maximum time after which an end notices that a link is up or gone.
    pub notice_us: u64,
    /// The number of lane frames in a thousand that are lost on their stream.
    pub lost_per_mille: u64,
    /// Every frame is encoded and decoded.
    pub encoded: bool,
}

/// The speed of disks.
#[derive(Clone, Debug, Default)]
pub struct DiskPlan {
    /// The maximum duration of a sync.
    pub sync_us: u64,
    /// The number of syncs in a thousand that take much longer.
    pub slow_per_mille: u64,
    /// Their maximum additional time.
    pub slow_us: u64,
    /// Disks are real stores, on a disk that keeps any part of the writes that were not synced.
    pub real: bool,
}

/// The kind of a node that joins the running group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// It takes a place on the ring.
    Member,
    /// It observes.
    Observer,
}

/// The broadcasts of applications.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Maximum number of payloads in a burst.
    pub burst_max: u64,
    /// Maximum time between two bursts of a member.
    pub gap_us: u64,
    /// Number of payloads of one member in the whole run.
    pub payloads_max: u64,
    /// Minimum size of usual payloads.
    pub payload_bytes_min: u64,
    /// Maximum size of usual payloads.
    pub payload_bytes_max: u64,
    /// The number of payloads in a thousand that are larger than the window.
    pub large_per_mille: u64,
    /// Members that broadcast nothing.
    pub quiet: Vec<usize>,
}

impl Traffic {
    /// Every member broadcasts some small payloads, again and again, until the run ends.
    #[must_use]
    pub fn steady(gap_us: u64) -> Self {
        Self {
            burst_max: 3,
            gap_us,
            payloads_max: u64::MAX,
            payload_bytes_min: 1,
            payload_bytes_max: 100,
            large_per_mille: 0,
            quiet: Vec::new(),
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that the plan was drawn from.
    pub seed: u64,
    /// The rules in force.
    pub rules: Rules,
    /// A rule is off, so a node may break the protocol.
    pub mutated: bool,
    /// The number of nodes in the group at first, the creator included.
    pub nodes: usize,
    /// The later nodes, and their times.
    pub newcomers: Vec<(u64, Newcomer)>,
    /// The contact of later nodes; if none, one is drawn for each.
    pub contact: Option<usize>,
    /// Whether the creator takes a place on the ring.
    pub creator_is_member: bool,
    /// The parameters that all members share.
    pub parameters: Parameters,
    /// The session, if the group is one.
    pub session: Option<SessionPlan>,
    /// The broadcasts of applications.
    pub traffic: Traffic,
    /// The behaviour of links.
    pub network: NetworkPlan,
    /// The behaviour of disks.
    pub disk: DiskPlan,
    /// Further slowness, to the end of the run.
    pub slowness: Slowness,
    /// The corruption, if any.
    pub corruption: Option<Corruption>,
    /// The number of entries of the control log that are kept.
    pub log_entries_max: usize,
    /// The amounts in which nodes send the result to others.
    pub serves: ServeLimits,
    /// Applications take a snapshot of their state after so many messages, if they do.
    pub snapshot_every: Option<u64>,
    /// The part of the result that each node keeps for others.
    pub retain_bytes: u64,
    /// The part of it that each disk keeps, if not all.
    pub retain_disk_bytes: Option<u64>,
    /// Drivers report bytes of unfinished slots, and datagrams of silent peers.
    pub reports_bytes: bool,
    /// Payloads get numbers only once the machine puts them into a slot at once, as those that expire.
    pub expires: bool,
    /// The faults, and their times.
    pub faults: Vec<(u64, Fault)>,
    /// The faults after steps, with their delays; each happens once, when its step comes.
    pub at_steps: Vec<(Step, u64, Fault)>,
    /// The number of restarts of a scenario beyond those of the faults above.
    pub story_restarts: usize,
    /// Also a majority of the voters is killed, or the last node that has the result.
    pub kills_anybody: bool,
    /// When faults end, and broadcasts unless the load continues.
    pub heal_at_us: u64,
    /// The time after that for which applications broadcast.
    pub load_for_us: u64,
    /// Inputs that a node is handed before its outputs are taken, at most.
    pub inputs_per_drain_max: u64,
    /// The maximum delay of a timer.
    pub timer_late_us: u64,
    /// The drift of each node's clock against true time, in parts per million.
    pub drift_ppm: Vec<u64>,
}

const RETAIN_BYTES: u64 = 16 << 20;

impl Plan {
    /// The creator's place among the nodes.
    pub const CREATOR: usize = 0;

    /// A plan without faults and without broadcasts of its own.
    #[must_use]
    pub fn calm(members: usize, session: Option<SessionPlan>) -> Self {
        let creator_is_member = session.is_none();
        let nodes = members + usize::from(!creator_is_member);
        Self {
            seed: 0,
            rules: Rules::default(),
            mutated: false,
            nodes,
            newcomers: Vec::new(),
            contact: Some(Self::CREATOR),
            creator_is_member,
            parameters: Parameters::default().session(session.is_some()).on_failure(OnFailure::Wait),
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
                result_us: 0,
                latency_us: 1_000,
                jitter_us: 0,
                late_per_mille: 0,
                late_us: 0,
                notice_us: 1_000,
                lost_per_mille: 0,
                encoded: true,
            },
            disk: DiskPlan::default(),
            slowness: Slowness::default(),
            corruption: None,
            log_entries_max: LOG_ENTRIES_MAX,
            serves: ServeLimits::default(),
            snapshot_every: None,
            retain_bytes: RETAIN_BYTES,
            retain_disk_bytes: None,
            reports_bytes: true,
            expires: false,
            faults: Vec::new(),
            at_steps: Vec::new(),
            story_restarts: 16,
            kills_anybody: true,
            heal_at_us: 60_000_000,
            load_for_us: 0,
            inputs_per_drain_max: 1,
            timer_late_us: 0,
            drift_ppm: vec![0; nodes],
        }
    }

    /// A plan without faults whose members have disks, and evict failed members.
    #[must_use]
    pub fn calm_on_disk(nodes: usize) -> Self {
        let mut plan = Self::calm(nodes, None);
        (plan.parameters.durability, plan.parameters.on_failure) = (Durability::Disk, OnFailure::Evict);
        plan.disk.sync_us = 3_000;
        plan
    }

    /// Members that fail are evicted.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.parameters.on_failure == OnFailure::Evict
    }

    /// Approved messages are on disks.
    #[must_use]
    pub fn on_disk(&self) -> bool {
        self.parameters.durability == Durability::Disk
    }

    /// The number of all nodes, later ones included.
    #[must_use]
    pub fn homes(&self) -> usize {
        self.nodes + self.newcomers.len()
    }

    /// The maximum number of processes: each start of a node is a new one.
    #[must_use]
    pub fn places(&self) -> usize {
        // At the end, nodes that asked a crashed node join again.
        2 * self.homes() + self.restarts()
    }

    /// One view may follow another before STOP.
    #[must_use]
    pub fn changes_views(&self) -> bool {
        let faults = self.faults.iter().map(|(_, fault)| fault).chain(self.at_steps.iter().map(|(.., fault)| fault));
        let leaves = faults.into_iter().any(|fault| matches!(fault, Fault::Leave { .. }));
        self.evicts() || self.restarts() > 0 || !self.newcomers.is_empty() || leaves
    }

    /// A node's place on the ring is wanted.
    #[must_use]
    pub fn is_member(&self, home: usize) -> bool {
        let Some(newcomer) = home.checked_sub(self.nodes) else {
            return home != Self::CREATOR || self.creator_is_member;
        };
        self.newcomers.get(newcomer).is_some_and(|(_, what)| *what == Newcomer::Member)
    }

    /// The nodes of the first view.
    pub fn members(&self) -> impl Iterator<Item = usize> + use<> {
        usize::from(!self.creator_is_member)..self.nodes
    }

    /// The number of nodes that take a place on the ring.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members().count()
    }
}
