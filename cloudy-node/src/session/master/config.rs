//! What a master is to do.

use std::time::Duration;

use cloudy_proto::{Durability, OnFailure, Parameters, RingKind, SessionPlan};

use crate::discovery::Multicast;
use crate::group::GroupConfig;
use crate::session::name::SessionName;

/// How long a master looks for slaves, unless it is told otherwise.
pub(in crate::session) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long slaves may take to reach each other, unless the master is told otherwise.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a master is to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MasterConfig {
    /// The session: slaves of others are left alone, and named with the reason.
    pub session: SessionName,
    /// The periods and the seed.
    pub plan: SessionPlan,
    /// When a slave may send.
    pub ring: RingKind,
    /// What the session does about a slave that fails or stalls. An evicted slave returns only while others retain
    /// what it missed.
    pub on_failure: OnFailure,
    /// Where the session keeps its result. With [`Durability::Disk`] the master and every slave need a data directory.
    pub durability: Durability,
    /// A slave that is silent for longer counts as failed: [`Parameters::failure_timeout`].
    pub failure_timeout: Duration,
    /// To what the session's timeouts grow at most: [`Parameters::timeout_max`].
    pub timeout_max: Duration,
    /// Slaves by name, each `HOST:PORT`; all addresses of a name are tried. If there are any, nobody else is looked
    /// for.
    pub slaves: Vec<String>,
    /// Where to ask for slaves that are not named.
    pub multicast: Option<Multicast>,
    /// How many slaves there must be: the search ends with them, and fewer are an error. Without it the search ends
    /// once nobody else comes.
    pub expect: Option<usize>,
    /// How long to look for slaves. Those found by then get a few seconds more to answer.
    pub discovery_timeout: Duration,
    /// How long the slaves may take to reach each other.
    pub ready_timeout: Duration,
}

impl MasterConfig {
    /// A session with these periods, of the slaves that are named by [`slaves`](Self::slaves) or found by
    /// [`multicast`](Self::multicast); the rest as by default in a group.
    #[must_use]
    pub fn new(plan: SessionPlan) -> Self {
        let parameters = Parameters::default();
        Self {
            session: SessionName::default(),
            plan,
            ring: parameters.ring,
            on_failure: parameters.on_failure,
            durability: parameters.durability,
            failure_timeout: parameters.failure_timeout,
            timeout_max: parameters.timeout_max,
            slaves: Vec::new(),
            multicast: None,
            expect: None,
            discovery_timeout: DISCOVERY_TIMEOUT,
            ready_timeout: READY_TIMEOUT,
        }
    }

    cloudy_proto::setters! {
        session: SessionName,
        plan: SessionPlan,
        ring: RingKind,
        on_failure: OnFailure,
        durability: Durability,
        failure_timeout: Duration,
        timeout_max: Duration,
        slaves: Vec<String>,
        multicast: Option<Multicast>,
        expect: Option<usize>,
        discovery_timeout: Duration,
        ready_timeout: Duration,
    }
}

/// What a slave has outside its own result at most: less than a group's, for all of it has to be approved in GRACE.
const WINDOW_BYTES_MAX: u64 = 256 << 10;
const WINDOW_SLOTS_MAX: u32 = 64;

/// The master is no member: what it held up or lost would be in nobody's result.
pub(super) fn group_config(config: &MasterConfig) -> GroupConfig {
    let defaults = Parameters::default();
    let slot_payloads_max = match config.ring {
        // Each turn of the token takes one message (`protocol.md` §9).
        RingKind::Token => 1,
        RingKind::Pipelined | RingKind::Relay => defaults.slot_payloads_max,
    };
    let parameters = defaults
        .session(true)
        .open(false)
        .ring(config.ring)
        .on_failure(config.on_failure)
        .durability(config.durability)
        .failure_timeout(config.failure_timeout)
        .timeout_max(config.timeout_max)
        .slot_payloads_max(slot_payloads_max)
        .window_bytes(WINDOW_BYTES_MAX)
        .window_slots(WINDOW_SLOTS_MAX);
    GroupConfig { parameters, founder_is_member: false, ..GroupConfig::default() }
}
