//! The configuration of a master.

use std::time::Duration;

use cloudy_proto::{CatchUpPolicy, Durability, OnFailure, Parameters, RingKind, SessionPlan};

use crate::discovery::Multicast;
use crate::group::GroupConfig;
use crate::session::name::SessionName;

/// The default discovery timeout of a master.
pub(in crate::session) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// The default time for slaves to reach each other.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of a master's session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MasterConfig {
    /// The session: slaves of other sessions are left out, and reported with the reason.
    pub session: SessionName,
    /// The periods and the seed.
    pub plan: SessionPlan,
    /// The ring model.
    pub ring: RingKind,
    /// The policy for a slave that fails or stalls. An evicted slave returns only while others retain the entries that
    /// it lacks.
    pub on_failure: OnFailure,
    /// The policy for a slave that fetches its result more slowly than the result grows: [`Parameters::catch_up`].
    pub catch_up: CatchUpPolicy,
    /// The durability of the session's result. With [`Durability::Disk`] the master and every slave need a data
    /// directory.
    pub durability: Durability,
    /// The silence after which a slave counts as failed: [`Parameters::failure_timeout`].
    pub failure_timeout: Duration,
    /// Maximum of the session's timeouts: [`Parameters::timeout_max`].
    pub timeout_max: Duration,
    /// Slaves by name, each `HOST:PORT`; all addresses of a name are dialled. If there are any, no others are sought.
    pub slaves: Vec<String>,
    /// The multicast group in which slaves without a name are sought.
    pub multicast: Option<Multicast>,
    /// The number of slaves: the search ends with them, and fewer are an error. Without it the search ends after a
    /// pause without answers.
    pub expect: Option<usize>,
    /// The discovery timeout. Slaves that are found by then have a few more seconds to answer.
    pub discovery_timeout: Duration,
    /// The time for slaves to reach each other.
    pub ready_timeout: Duration,
}

impl MasterConfig {
    /// A session with these periods, of slaves by name ([`slaves`](Self::slaves)) or found by
    /// [`multicast`](Self::multicast); other fields have a group's defaults.
    #[must_use]
    pub fn new(plan: SessionPlan) -> Self {
        let parameters = Parameters::default();
        Self {
            session: SessionName::default(),
            plan,
            ring: parameters.ring,
            on_failure: parameters.on_failure,
            catch_up: parameters.catch_up,
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
        catch_up: CatchUpPolicy,
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

/// Maximum window of a slave: smaller than a group's default, because all of it has to be approved in GRACE.
const WINDOW_BYTES_MAX: u64 = 256 << 10;
const WINDOW_SLOTS_MAX: u32 = 64;

/// The master is not a member: messages that it delayed or lost would be in no result.
pub(super) fn group_config(config: &MasterConfig) -> GroupConfig {
    let defaults = Parameters::default();
    let slot_payloads_max = match config.ring {
        // Each turn of the token sends one message (`protocol.md` §9).
        RingKind::Token => 1,
        RingKind::Pipelined | RingKind::Relay => defaults.slot_payloads_max,
    };
    let parameters = defaults
        .session(true)
        .open(false)
        .ring(config.ring)
        .on_failure(config.on_failure)
        .catch_up(config.catch_up)
        .durability(config.durability)
        .failure_timeout(config.failure_timeout)
        .timeout_max(config.timeout_max)
        .slot_payloads_max(slot_payloads_max)
        .window_bytes(WINDOW_BYTES_MAX)
        .window_slots(WINDOW_SLOTS_MAX);
    GroupConfig { parameters, creator_is_member: false, ..GroupConfig::default() }
}
