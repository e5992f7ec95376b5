//! The configuration of a group at a node, fixed before the group begins.

use cloudy_proto::{Parameters, ParametersError};

/// The configuration with which a group is created. The [`Parameters`] hold for all members, the other fields for this
/// node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupConfig {
    /// The parameters that all members share.
    pub parameters: Parameters,
    /// Whether the creator takes a place on the ring. Default true; a session's master does not.
    pub creator_is_member: bool,
    /// Maximum bytes of own payloads that wait for a slot; at this size [`Group::broadcast`](crate::Group::broadcast)
    /// waits. Default 1 MiB. A single payload of any size is accepted.
    pub outbox_bytes_max: usize,
    /// Bytes of memory for the newest part of the result: payloads, and about 300 bytes for each slot. Default 64 MiB.
    ///
    /// Readers have this capacity, and lagging members have the same again; in a `Memory` group they have twice as much
    /// while one of them fetches. Payloads that both retain exist once.
    ///
    /// Snapshots ([`Replica`](crate::Replica)) in a `Memory` group need a capacity of 4 MiB
    /// and one message: a snapshot begins at a checkpoint, and the entries after it must be retained. After a restart the node
    /// reads at most this much of a stored result into memory.
    pub retain_bytes: u64,
    /// `Disk`: bytes of the result that this node keeps on its disk: payloads, and 256 bytes for each slot. Default
    /// none: the whole result.
    ///
    /// Older entries are deleted in whole checkpoint intervals, down to the newest checkpoint at most: up to 4 MiB
    /// and one message more or less than the limit may be kept. Entries that a member of the ring lacks are kept as well. A
    /// good limit is several times [`retain_bytes`](Self::retain_bytes), because entries in memory are sent without the
    /// disk.
    ///
    /// A node that joins, and lacks deleted entries, fails with [`EndReason::Truncated`](crate::EndReason::Truncated);
    /// a reader at a member fails with [`ApprovedError::Lagged`](crate::ApprovedError::Lagged). In a group with
    /// snapshots ([`Replica`](crate::Replica)) the newest snapshot bounds what is kept, in place of
    /// this limit.
    pub retain_disk_bytes: Option<u64>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            parameters: Parameters::default(),
            creator_is_member: true,
            outbox_bytes_max: 1 << 20,
            retain_bytes: 64 << 20,
            retain_disk_bytes: None,
        }
    }
}

impl GroupConfig {
    cloudy_proto::setters! {
        parameters: Parameters,
        creator_is_member: bool,
        outbox_bytes_max: usize,
        retain_bytes: u64,
        retain_disk_bytes: Option<u64>,
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// The first field with an invalid value.
    pub fn validate(&self) -> Result<(), ParametersError> {
        self.parameters.validate()
    }
}
