//! The parameters that a group agrees on when it is created.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{self, DURATION_MAX};

/// When a member may use its next round, and which links carry its slots (`protocol.md` §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RingKind {
    /// In its turn only: the naive ring. One slot is in flight at a time, so its rate follows from the network's
    /// latency.
    Token,
    /// While its window is open: every member sends at once, to all others.
    #[default]
    Pipelined,
    /// Like `Pipelined`, but every member sends only to its successor on the ring, which forwards it: each node sends a
    /// payload once, for any number of members. For large payloads and little upload bandwidth; each hop adds latency,
    /// so the window has to be larger. A stall turns the group to `Pipelined` for good (`protocol.md` §6.3).
    Relay,
}

/// The place where a slot must be before it is confirmed (`protocol.md` P7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// In memory: approved messages survive while one complete member of the latest view lives.
    #[default]
    Memory,
    /// On disk, synced: approved messages survive the death of all processes at once (`protocol.md` P7). All members
    /// need a data directory.
    Disk,
}

/// The policy of a group for a member that has failed or stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// A view change continues without it; it returns as a joiner.
    #[default]
    Evict,
    /// Approvals wait until it returns, or the group is closed.
    Wait,
}

/// A group's policy for a node that fetches its result more slowly than the result grows, and so never joins the ring
/// (`protocol.md` §7.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CatchUpPolicy {
    /// The node remains a learner until the load is lower.
    #[default]
    Wait,
    /// Members send less until the node is on the ring or out of reach, down to
    /// [`slow_down_bytes_min`](Parameters::slow_down_bytes_min) and for at most
    /// [`slow_down_max`](Parameters::slow_down_max).
    SlowDown,
}

/// Methods that set public fields of structs that are `non_exhaustive`, because they may get more fields.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($($field:ident: $type:ty,)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

/// The parameters that all members of a view share. They are part of the command that installs it, so no two members
/// can differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parameters {
    /// The ring model: when a member may send, and to which others.
    pub ring: RingKind,
    /// The place where a slot must be before it is confirmed.
    pub durability: Durability,
    /// Whether the lanes stay closed until the session's kickstart (`protocol.md` §9).
    pub session: bool,
    /// Whether any node with the cluster's key may join (`protocol.md` §7). Otherwise only nodes that were on the ring
    /// may return. Observers are no members, and always admitted.
    pub open: bool,
    /// Maximum of own slots outside the own result. At least 1. More of them cover longer round trips and cost memory
    /// at every member.
    pub window_slots: u32,
    /// Maximum bytes of own slots outside the own result; one slot is always allowed. Each member may have to hold this
    /// much for each other. A member uses less if its path does not need as much.
    pub window_bytes: u64,
    /// Minimum of a member's adaptive window, however short its path is; or eight slots of the recent size, up to 512
    /// KiB, if these are larger. With more than eight members it is reduced in proportion. Less reduces latency under
    /// load and costs throughput; at `window_bytes` or above the window is fixed at `window_bytes`.
    pub window_bytes_min: u64,
    /// The size of its body at which a slot is closed. Larger slots cost less for each message and add latency.
    pub slot_bytes_max: u32,
    /// The number of payloads at which a slot is closed. At least 1.
    pub slot_payloads_max: u32,
    /// The largest payload that a member may broadcast; at most [`limits::PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
    /// Rounds that an idle member skips in advance (`protocol.md` §3.3); `Token` ignores it.
    pub skip_ahead: u32,
    /// The time for which a `Token` member without messages holds its turn while others wait.
    pub token_tick: Duration,
    /// The time between two heartbeats on a link.
    pub heartbeat: Duration,
    /// The silence after which a peer is reported as failed. Several heartbeats. It grows with the path to the peer and
    /// the gaps between its heartbeats (`protocol.md` §6.1).
    pub failure_timeout: Duration,
    /// The time after which a peer that delays the group is reported as stalled, although it sends (`protocol.md`
    /// §6.1). It grows with the path and the disk.
    pub stall_timeout: Duration,
    /// The consequence of a report.
    pub on_failure: OnFailure,
    /// Minimum of members: view changes wait, and nothing is approved, while fewer would be left. At least 1.
    pub ring_min: u16,
    /// The time without a link to the coordinator after which a member reports that. It grows with the time of
    /// elections.
    pub coordinator_timeout: Duration,
    /// The silence after `Wedge` at which the cut excludes a member (`protocol.md` §6.2). It grows with the path.
    pub wedge_timeout: Duration,
    /// `Disk`: the time of a sync after which a member is excluded, although it sends.
    pub sync_timeout: Duration,
    /// `Disk`: the time for which a group that resumes after every member was restarted waits for members that are not
    /// back yet, before a view change continues without them. Zero: as for other members without a link.
    pub resume_timeout: Duration,
    /// Maximum to which the timeouts above, and those of elections, grow for slow paths, processes and disks. At
    /// `failure_timeout` or below nothing is measured, and timeouts are fixed.
    pub timeout_max: Duration,
    /// The policy if a node cannot keep up.
    pub catch_up: CatchUpPolicy,
    /// With [`CatchUpPolicy::SlowDown`]: bytes per second that all members together may send in any case. At least 1.
    pub slow_down_bytes_min: u64,
    /// With [`CatchUpPolicy::SlowDown`]: how long the group slows down for one node, at most, before that node has to
    /// be on the ring.
    pub slow_down_max: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ring: RingKind::default(),
            durability: Durability::default(),
            session: false,
            open: true,
            window_slots: 1_024,
            window_bytes: 2 << 20,
            window_bytes_min: 128 << 10,
            slot_bytes_max: 16 << 10,
            slot_payloads_max: 4_096,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
            skip_ahead: 16,
            token_tick: Duration::from_millis(1),
            heartbeat: Duration::from_millis(50),
            failure_timeout: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(2),
            on_failure: OnFailure::default(),
            ring_min: 1,
            coordinator_timeout: Duration::from_secs(2),
            wedge_timeout: Duration::from_millis(250),
            sync_timeout: Duration::from_secs(10),
            resume_timeout: Duration::from_secs(5),
            timeout_max: Duration::from_secs(10),
            catch_up: CatchUpPolicy::default(),
            slow_down_bytes_min: 64 << 10,
            slow_down_max: Duration::from_secs(60),
        }
    }
}

/// The reason for which parameters are not valid; nothing was created or installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// A field is zero, and must not be.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A field is above the protocol's maximum.
    #[error("{field} is {value}; the protocol allows at most {max}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The maximum.
        max: u64,
    },
    /// A time is above the protocol's maximum.
    #[error("{field} is {value:?}; the protocol allows at most {max:?}", max = DURATION_MAX)]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its value.
        value: Duration,
    },
    /// Two timings contradict each other.
    #[error("failure_timeout must be at least three heartbeats, or healthy members look failed")]
    FailureTooShort,
}

impl Parameters {
    setters! {
        ring: RingKind,
        durability: Durability,
        session: bool,
        open: bool,
        window_slots: u32,
        window_bytes: u64,
        window_bytes_min: u64,
        slot_bytes_max: u32,
        slot_payloads_max: u32,
        payload_bytes_max: u32,
        skip_ahead: u32,
        token_tick: Duration,
        heartbeat: Duration,
        failure_timeout: Duration,
        stall_timeout: Duration,
        on_failure: OnFailure,
        ring_min: u16,
        coordinator_timeout: Duration,
        wedge_timeout: Duration,
        sync_timeout: Duration,
        resume_timeout: Duration,
        timeout_max: Duration,
        catch_up: CatchUpPolicy,
        slow_down_bytes_min: u64,
        slow_down_max: Duration,
    }

    /// Checks the fields against the protocol's limits and each other.
    ///
    /// # Errors
    /// The first field with an invalid value.
    pub fn validate(&self) -> Result<(), ParametersError> {
        let at_least_one = [
            ("window_slots", u64::from(self.window_slots)),
            ("window_bytes", self.window_bytes),
            ("window_bytes_min", self.window_bytes_min),
            ("slot_bytes_max", u64::from(self.slot_bytes_max)),
            ("slot_payloads_max", u64::from(self.slot_payloads_max)),
            ("token_tick", self.token_tick.as_micros() as u64),
            ("ring_min", u64::from(self.ring_min)),
            ("heartbeat", self.heartbeat.as_micros() as u64),
            ("wedge_timeout", self.wedge_timeout.as_micros() as u64),
            ("sync_timeout", self.sync_timeout.as_micros() as u64),
            ("slow_down_bytes_min", self.slow_down_bytes_min),
        ];
        if let Some((field, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(ParametersError::Zero(field));
        }
        let bounded = [
            ("window_slots", u64::from(self.window_slots), 1 << 16),
            ("window_bytes", self.window_bytes, limits::WINDOW_BYTES_MAX),
            ("window_bytes_min", self.window_bytes_min, limits::WINDOW_BYTES_MAX),
            ("slot_bytes_max", u64::from(self.slot_bytes_max), limits::SLOT_BODY_BYTES_MAX as u64),
            ("slot_payloads_max", u64::from(self.slot_payloads_max), u64::from(limits::SLOT_PAYLOADS_MAX)),
            ("payload_bytes_max", u64::from(self.payload_bytes_max), limits::PAYLOAD_BYTES_MAX as u64),
            ("ring_min", u64::from(self.ring_min), limits::MEMBERS_MAX as u64),
            ("skip_ahead", u64::from(self.skip_ahead), 1 << 16),
        ];
        if let Some(&(field, value, max)) = bounded.iter().find(|(_, value, max)| value > max) {
            return Err(ParametersError::TooLarge { field, value, max });
        }
        // Before any computation with them, which could overflow.
        check_times(&[
            ("token_tick", self.token_tick),
            ("heartbeat", self.heartbeat),
            ("failure_timeout", self.failure_timeout),
            ("stall_timeout", self.stall_timeout),
            ("coordinator_timeout", self.coordinator_timeout),
            ("wedge_timeout", self.wedge_timeout),
            ("sync_timeout", self.sync_timeout),
            ("resume_timeout", self.resume_timeout),
            ("timeout_max", self.timeout_max),
            ("slow_down_max", self.slow_down_max),
        ])?;
        if self.failure_timeout < self.heartbeat.saturating_mul(3) {
            return Err(ParametersError::FailureTooShort);
        }
        Ok(())
    }

    /// Whether the timeouts adapt to measurements.
    pub(crate) fn adapts(&self) -> bool {
        self.timeout_max > self.failure_timeout
    }

    /// A timeout: at least the configured one, else the measured need, up to `timeout_max`.
    pub(crate) fn limit(&self, configured: Duration, measured: Duration) -> Duration {
        if self.adapts() { configured.max(measured.min(self.timeout_max)) } else { configured }
    }

    /// Maximum cost of a single slot in a window.
    #[must_use]
    pub fn slot_cost_max(&self) -> u64 {
        u64::from(self.slot_bytes_max).max(u64::from(self.payload_bytes_max) + 8)
            + limits::PAYLOAD_COST_BYTES_MIN * u64::from(self.slot_payloads_max)
    }

    /// Maximum bytes that a member confirms ahead of its cursor (`protocol.md` §3.2, *hold*).
    #[must_use]
    pub fn hold_bytes(&self) -> u64 {
        2 * self.window_bytes + u64::from(self.slot_bytes_max)
    }
}

/// Checks times against the maximum of the control log's entries.
pub(crate) fn check_times(named: &[(&'static str, Duration)]) -> Result<(), ParametersError> {
    let too_long = named.iter().find(|(_, value)| value.as_secs() > DURATION_MAX.as_secs());
    too_long.map_or(Ok(()), |&(field, value)| Err(ParametersError::TooLong { field, value }))
}
