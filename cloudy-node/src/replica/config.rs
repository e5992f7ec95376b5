//! The configuration of a replica.

use super::snapshot;

/// Bytes of applied payloads between two snapshots, unless the configuration sets another value.
pub const SNAPSHOT_EVERY_BYTES: u64 = 16 << 20;

/// The configuration of a replica at this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaConfig {
    /// A snapshot is taken after this many bytes of payload. Default [`SNAPSHOT_EVERY_BYTES`]. Choose it well below
    /// [`retain_bytes`](crate::GroupConfig::retain_bytes), and the same at all members: they compare digests of snapshots
    /// that they take at the same index. Commands wait while a snapshot is written, so choose it in proportion to the
    /// size of the state.
    pub snapshot_every_bytes: u64,
    /// `submit` at this node waits while the state here is this many messages behind the result here. Default 16,384.
    pub behind_max: u64,
    /// `Memory`: the bound of a snapshot's bytes at this node, which may only be lowered. Above it no snapshot is kept,
    /// [`ReplicaStatus::snapshot_error`](crate::ReplicaStatus::snapshot_error) says so, and everything else continues.
    /// With `Disk` there is no such bound. Default 32 MiB.
    pub memory_snapshot_bytes_max: usize,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            snapshot_every_bytes: SNAPSHOT_EVERY_BYTES,
            behind_max: 16_384,
            memory_snapshot_bytes_max: snapshot::MEMORY_BYTES_MAX,
        }
    }
}

impl ReplicaConfig {
    cloudy_proto::setters! {
        snapshot_every_bytes: u64,
        behind_max: u64,
        memory_snapshot_bytes_max: usize,
    }
}
