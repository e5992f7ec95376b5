//! What a group agrees on when it is founded.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{self, DURATION_MAX};

/// When a member may use its next round, and which links carry its slots (`protocol.md` §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RingKind {
    /// In its turn only: the naive ring. One slot travels at a time, so its rate is the wire's latency.
    Token,
    /// While its window is open: every member sends at once, to all others.
    #[default]
    Pipelined,
    /// As `Pipelined`, but every member sends to its successor on the ring only, which passes it on: a payload leaves
    /// each node once, however many members there are. For large payloads where upload is what is short; each hop costs
    /// latency, so the window has to be larger. A stall turns the group to `Pipelined` for good (`protocol.md` §6.3).
    Relay,
}

/// Where a slot must be before it is confirmed (`protocol.md` P7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// In memory: what was approved survives while one complete member of the latest view lives.
    #[default]
    Memory,
    /// On disk, synced: what was approved survives the death of every process at once (`protocol.md` P7). All members
    /// need a data directory.
    Disk,
}

/// What a group does about a member that has failed or stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// A view change goes on without it; it comes back as a joiner.
    #[default]
    Evict,
    /// Approvals wait until it is back, or the group is ended.
    Wait,
}

/// Methods that set public fields, for structs that only their own crate may write out, since they may get more fields.
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

/// What all members of a view share; part of the command that installs it, so no two members can differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parameters {
    /// When a member may send, and to whom.
    pub ring: RingKind,
    /// Where a slot must be before it is confirmed.
    pub durability: Durability,
    /// The lanes stay closed until the session's kickstart (`protocol.md` §9).
    pub session: bool,
    /// Nodes may come that were never on the ring (`protocol.md` §7): any node that holds the cluster's key. Otherwise only
    /// those may come back that were. Observers are no members, and always welcome.
    pub open: bool,
    /// Own slots that may be outside the own result. At least 1. More hides longer round trips and costs memory at
    /// every member.
    pub window_slots: u32,
    /// Bytes of own slots that may be outside the own result, at most; one slot is always allowed. Each member may have
    /// to hold this much for each other. A member keeps itself to less where its path does not need as much.
    pub window_bytes: u64,
    /// What a member allows itself however short its path is, or eight slots of the recent size, up to 512 KiB, where these
    /// are more; with more than eight members as much less as these are more. Smaller cuts latency under load and costs
    /// throughput; at `window_bytes` or above the window is fixed at `window_bytes`.
    pub window_bytes_min: u64,
    /// A slot is closed once its body has reached this size. Larger slots cost less per message and more latency.
    pub slot_bytes_max: u32,
    /// A slot is closed once it has this many payloads. At least 1.
    pub slot_payloads_max: u32,
    /// The largest payload that a member may broadcast; at most [`limits::PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
    /// Rounds that an idle member skips ahead (`protocol.md` §3.3); `Token` ignores it.
    pub skip_ahead: u32,
    /// How long a `Token` member holds an empty-handed turn while others wait.
    pub token_tick: Duration,
    /// Between two heartbeats on a link.
    pub heartbeat: Duration,
    /// A peer silent for longer is reported as failed. Several heartbeats. More where the path to the peer, or gaps
    /// between its heartbeats, need it (`protocol.md` §6.1).
    pub failure_timeout: Duration,
    /// A peer that holds the group up for longer, though it is heard of, is reported as stalled (`protocol.md` §6.1). More
    /// where a path or a disk needs it.
    pub stall_timeout: Duration,
    /// What follows from a report.
    pub on_failure: OnFailure,
    /// View changes wait while fewer members than this would be left; until then nothing is approved. At least 1.
    pub ring_min: u16,
    /// A member that has had no link to the coordinator for longer reports that. More where elections take longer.
    pub coordinator_timeout: Duration,
    /// A member silent for longer after `Wedge` is dropped by the cut (`protocol.md` §6.2). More where its path needs it.
    pub wedge_timeout: Duration,
    /// `Disk`: a member whose disk syncs for longer is dropped, though it is heard of.
    pub sync_timeout: Duration,
    /// To what the timeouts above, and those of elections, grow at most for slow paths, processes and disks. At
    /// `failure_timeout` or below nothing is measured and nothing grows.
    pub timeout_max: Duration,
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
            timeout_max: Duration::from_secs(10),
        }
    }
}

/// Parameters that cannot work; nothing was founded or installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// A field is zero that must not be.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A field is above what the protocol allows.
    #[error("{field} is {value}; the protocol allows at most {max}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A time is above what the protocol allows.
    #[error("{field} is {value:?}; the protocol allows at most {max:?}", max = DURATION_MAX)]
    TooLong {
        /// Which field.
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
        timeout_max: Duration,
    }

    /// Checks the fields against the protocol's limits and each other.
    ///
    /// # Errors
    /// The first field that cannot work.
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
        // Before anything is computed from them, which could overflow.
        check_times(&[
            ("token_tick", self.token_tick),
            ("heartbeat", self.heartbeat),
            ("failure_timeout", self.failure_timeout),
            ("stall_timeout", self.stall_timeout),
            ("coordinator_timeout", self.coordinator_timeout),
            ("wedge_timeout", self.wedge_timeout),
            ("sync_timeout", self.sync_timeout),
            ("timeout_max", self.timeout_max),
        ])?;
        if self.failure_timeout < self.heartbeat.saturating_mul(3) {
            return Err(ParametersError::FailureTooShort);
        }
        Ok(())
    }

    /// The timeouts grow with what is measured.
    pub(crate) fn adapts(&self) -> bool {
        self.timeout_max > self.failure_timeout
    }

    /// A timeout that is at least the configured one, and otherwise what is measured to be needed, within `timeout_max`.
    pub(crate) fn limit(&self, configured: Duration, measured: Duration) -> Duration {
        if self.adapts() { configured.max(measured.min(self.timeout_max)) } else { configured }
    }

    /// The bytes that a single slot may cost towards a window.
    #[must_use]
    pub fn slot_cost_max(&self) -> u64 {
        u64::from(self.slot_bytes_max).max(u64::from(self.payload_bytes_max) + 8)
            + limits::PAYLOAD_COST_BYTES_MIN * u64::from(self.slot_payloads_max)
    }

    /// What a member confirms ahead of its cursor at most (`protocol.md` §3.2, *hold*).
    #[must_use]
    pub fn hold_bytes(&self) -> u64 {
        2 * self.window_bytes + u64::from(self.slot_bytes_max)
    }
}

/// Checks times against the bound of the control log's entries.
pub(crate) fn check_times(named: &[(&'static str, Duration)]) -> Result<(), ParametersError> {
    let too_long = named.iter().find(|(_, value)| value.as_secs() > DURATION_MAX.as_secs());
    too_long.map_or(Ok(()), |&(field, value)| Err(ParametersError::TooLong { field, value }))
}
