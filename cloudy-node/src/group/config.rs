//! What a node knows of a group before it begins.

use cloudy_proto::{Parameters, ParametersError};

/// What a group is founded with. The [`Parameters`] hold for all members; the rest is the node's own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupConfig {
    /// What all members share.
    pub parameters: Parameters,
    /// The founder takes a place on the ring. Default true; a session's master does not.
    pub founder_is_member: bool,
    /// Bytes of own payloads that may wait for a slot before [`Group::broadcast`](crate::Group::broadcast) waits. Default 1 MiB; one payload is
    /// always taken.
    pub outbox_bytes_max: usize,
    /// Bytes of memory for the newest part of the result that is kept for readers, and as many again for members that
    /// miss some, or twice as many in a `Memory` group while one of these fetches them: payloads, and some 300 bytes for
    /// each slot. Default 64 MiB; the payloads are shared between the two
    /// uses where they overlap. Snapshots ([`Group::replicate`](crate::Group::replicate)) in a `Memory` group need room for 65,536 messages: they
    /// begin at checkpoints, and what follows one must be there. When a node starts again, no more of a stored result than
    /// this is read into memory.
    pub retain_bytes: u64,
    /// `Disk`: bytes of the result that this node keeps on its disk: payloads, and 256 bytes for each slot. Default none:
    /// everything. What exceeds it is deleted from its beginning, from one checkpoint to another: so less may be kept by
    /// some part, and never less than what follows the newest checkpoint, which may be 65,536 messages. What a member of the
    /// ring has not in its own result is kept as well. Several times [`retain_bytes`](Self::retain_bytes) is a good choice:
    /// what memory retains is given without the disk. A node that misses deleted entries and joins or reads is told
    /// [`EndReason::Truncated`](crate::EndReason::Truncated); the group's own readers are told [`ApprovedError::Lagged`](crate::ApprovedError::Lagged). Once the application has taken a
    /// snapshot ([`Group::replicate`](crate::Group::replicate)), that says what is kept in place of this.
    pub retain_disk_bytes: Option<u64>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            parameters: Parameters::default(),
            founder_is_member: true,
            outbox_bytes_max: 1 << 20,
            retain_bytes: 64 << 20,
            retain_disk_bytes: None,
        }
    }
}

impl GroupConfig {
    cloudy_proto::setters! {
        parameters: Parameters,
        founder_is_member: bool,
        outbox_bytes_max: usize,
        retain_bytes: u64,
        retain_disk_bytes: Option<u64>,
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ParametersError> {
        self.parameters.validate()
    }
}
