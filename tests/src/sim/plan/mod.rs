//! What a run is made of: everything that a seed decides before the run begins.

mod draw;
mod failover;
mod leaves;
mod networks;
mod restarts;

use cloudy_node::fault::DiskFault;
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::{Durability, OnFailure, Parameters, Rules, SessionPlan};

use crate::sim::corruption::Corruption;
use crate::sim::narrow::Narrow;
use crate::sim::slowness::Slowness;

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This node.
    Node(usize),
    /// The coordinator at that moment; no node if there is none.
    Coordinator,
}

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
        /// For how long each time, and as long up in between.
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
        /// Whose.
        who: Who,
        /// For how long.
        outage_us: u64,
    },
    /// All links between two sides are cut.
    Partition {
        /// The nodes of one side, a bit for each; the others are on the other.
        side: u32,
        /// A node that keeps its links to both sides.
        bridge: Option<usize>,
        /// For how long.
        outage_us: u64,
    },
    /// The coordinator is cut off, with some others or alone.
    PartCoordinator {
        /// Who goes with it, a bit for each.
        companions: u32,
        /// For how long.
        outage_us: u64,
    },
    /// A link goes on in one direction only: what is sent in the other waits, and both ends believe that it is up.
    OneWay {
        /// Who is not heard.
        from: usize,
        /// By whom.
        to: usize,
        /// For how long.
        for_us: u64,
    },
    /// Nobody hears a node, which hears everybody.
    Mute {
        /// Which.
        who: Who,
        /// For how long.
        for_us: u64,
    },
    /// A link carries only so many bytes a second.
    Narrow {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// How narrow it is.
        narrow: Narrow,
        /// For how long.
        for_us: u64,
    },
    /// A node does not run.
    Slow {
        /// Which.
        who: Who,
        /// For how long.
        for_us: u64,
    },
    /// A node's clock goes forward at once, as on a machine that was suspended.
    ClockJump {
        /// Whose.
        who: Who,
        /// How far.
        by_us: u64,
    },
    /// A process dies for good. Unless the plan kills anybody, it waits until the group can do without.
    Kill {
        /// Whose.
        who: Who,
    },
    /// A process dies, and its node is started again: with what its disk holds, or, with `Memory`, as one that joins.
    Restart {
        /// Whose.
        who: Who,
        /// After which time.
        after_us: u64,
    },
    /// A process dies and its node's disk with it; it is started again as one that joins.
    LoseDisk {
        /// Whose.
        who: Who,
        /// After which time.
        after_us: u64,
    },
    /// One operation of a disk fails, and the disk works again afterwards. The node's process ends, and is started again
    /// with what the disk holds.
    FailDisk {
        /// Whose.
        who: Who,
        /// How the operation fails.
        how: DiskFault,
        /// When its process is started again.
        after_us: u64,
    },
    /// A disk is copied, and the copy put back once nobody else is in trouble; nothing else goes wrong for a while.
    OlderDisk {
        /// Whose.
        who: Who,
        /// When the copy is put back.
        age_us: u64,
        /// When its process is started again, after that.
        after_us: u64,
    },
    /// That happens.
    PutBack {
        /// Whose.
        home: usize,
        /// As above.
        after_us: u64,
    },
    /// All processes die at once, and all are started again, each at a time of its own.
    PowerCut {
        /// Until then.
        within_us: u64,
    },
    /// A disk syncs nothing for a while.
    SlowDisk {
        /// Whose.
        who: Who,
        /// For how long.
        for_us: u64,
    },
    /// A node asks for the end of the group.
    End {
        /// Which.
        node: usize,
    },
    /// A node broadcasts nothing more, and leaves once all that it broadcast is approved.
    Leave {
        /// Which.
        node: usize,
    },
}

/// A moment in the life of a group: when a node first says or learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The first view is in force.
    Founded,
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

/// How links behave.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The least that a frame takes.
    pub latency_us: u64,
    /// What is added at most.
    pub jitter_us: u64,
    /// What is added for parts of the result: they are many where bandwidth is scarce.
    pub result_us: u64,
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
}

/// How long disks take.
#[derive(Clone, Debug, Default)]
pub struct DiskPlan {
    /// A sync, at most.
    pub sync_us: u64,
    /// How many syncs in a thousand take longer by far.
    pub slow_per_mille: u64,
    /// How much longer at most.
    pub slow_us: u64,
    /// They are stores that nodes use, on a disk that keeps any part of what was not synced.
    pub real: bool,
}

/// What a node is that comes into the running group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// It takes a place on the ring.
    Member,
    /// It reads along.
    Observer,
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
    /// How many nodes the group begins with, the founder included.
    pub nodes: usize,
    /// Who comes later, and when.
    pub newcomers: Vec<(u64, Newcomer)>,
    /// Whom those ask who come later, while it runs; one drawn for each if none.
    pub contact: Option<usize>,
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
    /// How disks behave.
    pub disk: DiskPlan,
    /// What is slow beyond that, to the end of the run.
    pub slowness: Slowness,
    /// What is altered.
    pub corruption: Option<Corruption>,
    /// How many entries of the control log are kept.
    pub log_entries_max: usize,
    /// Applications take a snapshot of their state after so many messages, if they do.
    pub snapshot_every: Option<u64>,
    /// How much of the result each node keeps for those who miss some of it.
    pub retain_bytes: u64,
    /// How much of it each disk keeps, if not all.
    pub retain_disk_bytes: Option<u64>,
    /// What goes wrong, and when.
    pub faults: Vec<(u64, Fault)>,
    /// What goes wrong how long after a step; one at each time that it comes.
    pub at_steps: Vec<(Step, u64, Fault)>,
    /// How many starts a story needs beyond those of the faults above.
    pub story_restarts: usize,
    /// Also a majority of the voters is killed, or the last who has the result.
    pub kills_anybody: bool,
    /// When faults and broadcasts end.
    pub heal_at_us: u64,
    /// Inputs that a node is handed before its outputs are taken, at most.
    pub inputs_per_drain_max: u64,
    /// How late a timer may be.
    pub timer_late_us: u64,
    /// How much faster each node's clock runs than true time, in parts per million.
    pub drift_ppm: Vec<u64>,
}

const RETAIN_BYTES: u64 = 16 << 20;

impl Plan {
    /// The founder's place among the nodes.
    pub const FOUNDER: usize = 0;

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
            newcomers: Vec::new(),
            contact: Some(Self::FOUNDER),
            founder_is_member,
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
            snapshot_every: None,
            retain_bytes: RETAIN_BYTES,
            retain_disk_bytes: None,
            faults: Vec::new(),
            at_steps: Vec::new(),
            story_restarts: 16,
            kills_anybody: true,
            heal_at_us: 60_000_000,
            inputs_per_drain_max: 1,
            timer_late_us: 0,
            drift_ppm: vec![0; nodes],
        }
    }

    /// A calm one whose members have disks, and evict who fails.
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

    /// What is approved is on disks.
    #[must_use]
    pub fn on_disk(&self) -> bool {
        self.parameters.durability == Durability::Disk
    }

    /// How many nodes there are in all, those that come later included.
    #[must_use]
    pub fn homes(&self) -> usize {
        self.nodes + self.newcomers.len()
    }

    /// How many processes there may be: each start of a node is one of its own.
    #[must_use]
    pub fn places(&self) -> usize {
        // In the end those join again that asked somebody who died.
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
            return home != Self::FOUNDER || self.founder_is_member;
        };
        self.newcomers.get(newcomer).is_some_and(|(_, what)| *what == Newcomer::Member)
    }

    /// The nodes of the first view.
    pub fn members(&self) -> impl Iterator<Item = usize> + use<> {
        usize::from(!self.founder_is_member)..self.nodes
    }

    /// How many nodes take a place on the ring.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members().count()
    }
}
