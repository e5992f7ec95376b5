//! Every bound of the protocol. Those that a group may choose differently are defaults of
//! [`Parameters`](crate::Parameters); the others hold for all groups.

use core::time::Duration;

/// Maximum of members of one ring.
pub const MEMBERS_MAX: usize = 64;
/// Maximum of observers that one node of a group serves.
pub const OBSERVERS_MAX: usize = 64;
/// Maximum of nodes that a creator invites into one group.
pub const INVITED_MAX: usize = 256;
/// Maximum size of a payload. A payload of this size is a slot of its own.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Maximum size of a slot's body: one payload of the maximum size with its length.
pub const SLOT_BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 8;
/// Minimum cost of a payload in windows and limits (`protocol.md` §5).
pub const PAYLOAD_COST_BYTES_MIN: u64 = 16;
/// Maximum of payloads in one slot.
pub const SLOT_PAYLOADS_MAX: u32 = 1 << 16;
/// Maximum of a window, in bytes.
pub const WINDOW_BYTES_MAX: u64 = 1 << 30;
/// Maximum of a round. A correct lane cannot reach it.
pub const ROUND_MAX: u64 = 1 << 56;
/// Maximum of an encoded control frame: the largest is a consensus message with the state of the control log.
pub const CONTROL_FRAME_BYTES_MAX: usize = LOG_STATE_BYTES_MAX + CONSENSUS_MESSAGE_BYTES_MAX + (64 << 10);
/// Maximum of an encoded tally frame: a resume has every lane.
pub const TALLY_FRAME_BYTES_MAX: usize = 4 << 10;
/// Maximum of an encoded stream header.
pub const STREAM_HEADER_BYTES_MAX: usize = 256;
/// Maximum length of a group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Maximum length of the text of a refusal or a closing reason.
pub const REASON_BYTES_MAX: usize = 512;
/// Maximum of addresses that a node names for itself.
pub const ADDRESSES_MAX: usize = 16;
/// Maximum of the name that a node advertises: a host of up to 255 bytes, a colon and a port.
pub const ADVERTISED_BYTES_MAX: usize = 261;
/// Maximum of revoked identities in a key file, and of those that its earlier lines or the application revoked.
pub const REVOKED_MAX: usize = 256;
/// Maximum of revoked identities that a node accepts from the operator of one peer.
pub const REVOKED_OF_PEER_MAX: usize = 2 * REVOKED_MAX;
/// Maximum of revoked identities that a node accepts from the operators of all peers.
pub const REVOKED_TOLD_MAX: usize = 4 * REVOKED_MAX;
/// Maximum of revoked identities that a node accepts from peers that received them from others. None of these takes the
/// capacity of the node's own operator.
pub const REVOKED_HEARSAY_MAX: usize = REVOKED_MAX;
/// Maximum of revoked identities in one frame; further ones follow in further frames.
pub const REVOKED_PER_FRAME_MAX: usize = 28;
/// Maximum of a node's encoded certificate: one that a cluster key issued has about 400 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 768;
/// Maximum of an application's part of its final report.
pub const REPORT_BYTES_MAX: usize = 4 << 10;
/// Maximum of entries in one control frame with the log's tail.
pub const LOG_ENTRIES_PER_FRAME_MAX: usize = 40;
/// Maximum of committed entries of the control log that a node keeps for followers; a state replaces earlier ones.
pub const LOG_ENTRIES_MAX: usize = 1_024;
/// Maximum of the encoded state that replaces older entries of the log: about 150 bytes for each node that the log
/// remembers, and reports.
pub const LOG_STATE_BYTES_MAX: usize = 2 << 20;
/// Maximum of evicted members that the control log remembers, beside the members of the ring: they may rejoin in the
/// same incarnation.
pub const EVICTED_REMEMBERED_MAX: usize = 1_024;
/// Maximum of other nodes that the control log remembers: on their way onto the ring, or gone.
pub const OTHERS_REMEMBERED_MAX: usize = 256;
/// Number of entries of the control log after which nodes beyond these bounds are forgotten.
pub const FORGET_EVERY: u64 = 64;
/// Maximum of final reports whose application's part the control log keeps.
pub const REPORT_TEXTS_MAX: usize = 256;
/// Maximum of voters of one group: more make each entry of the control log slower, and hardly reduce the effect of
/// losses.
pub const VOTERS_MAX: usize = 7;
/// Minimum of bytes of a slot that a member or a link must move within the stall timeout; with less it stalls.
pub const PROGRESS_BYTES_MIN: u64 = 16 << 10;
/// The time between two measurements of the round trip to a peer.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The assumed round trip to a peer until it is measured: the first timeout of RFC 6298.
pub const ROUND_TRIP_UNKNOWN: Duration = Duration::from_secs(1);
/// The minimum time between two ticks of the consensus library: the leader sends a heartbeat at each. On longer paths
/// ticks are further apart (`protocol.md` §6.6).
pub const CONSENSUS_TICK: Duration = Duration::from_millis(50);
/// The minimum number of ticks without a leader after which a voter starts an election.
pub const ELECTION_TICKS_MIN: usize = 5;
/// The number of ticks without a leader before which a voter starts an election.
pub const ELECTION_TICKS_MAX: usize = 10;
/// Maximum of additional ticks for which a candidate waits for votes that others have yet to sync.
pub const VOTE_TICKS_MAX: usize = 1_000;
/// Maximum of a log's part in one message of the consensus library, one entry at least.
pub const CONSENSUS_ENTRIES_BYTES_MAX: u64 = 64 << 10;
/// Maximum of an encoded message of the consensus library: the entries of one message, the last of which may exceed
/// their maximum. A message with a state may be longer by that state.
pub const CONSENSUS_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Maximum bytes of an entry of the result, or of a snapshot, in one frame.
pub const FETCH_PART_BYTES: usize = 64 << 10;
/// Cost of a frame with a part of the result beside the part's bytes, for the credit of a fetch.
pub const FETCH_PART_COST_BYTES: u64 = 128;
/// The minimum credit of a fetch: bytes in flight to a node that fetches.
pub const FETCH_CREDIT_BYTES_MIN: u64 = 256 << 10;
/// The maximum credit of a fetch, and so of the bytes in flight to a node that fetches, for each group.
pub const FETCH_CREDIT_BYTES_MAX: u64 = 16 << 20;
/// Maximum bytes that a source sends at once with any credit; the next request for credit continues from there.
pub const FETCH_BURST_BYTES: u64 = 1 << 20;
/// `Disk`: maximum bytes of the fetched result that are in flight or wait for the disk; one entry may exceed it.
pub const UNSYNCED_FETCH_BYTES_MAX: u64 = 8 << 20;
/// Maximum bytes of the stored result that are read at once for a node that lacks them, one entry at least.
pub const READ_BYTES_MAX: usize = 256 << 10;
/// Number of indexes between two checkpoints of the digest (`protocol.md` §8).
pub const CHECKPOINT_EVERY: u64 = 65_536;
/// Bytes of messages after which there is a checkpoint of the digest as well: in a group with large messages, snapshots
/// and truncation need checkpoints that are close together in bytes.
pub const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Maximum of kept checkpoints (`protocol.md` §8).
pub const CHECKPOINTS_KEPT: usize = 1_024;
/// Maximum of checkpoints that a `Disk` node keeps beside the first, from which its stored result can be read: the
/// further back, the further apart.
pub const STORED_BASES_MAX: usize = 32;
/// `Memory`: maximum of a snapshot of an application's state.
pub const MEMORY_SNAPSHOT_BYTES_MAX: usize = 32 << 20;
/// Maximum of a snapshot of an application's state: more than any disk holds.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 44;
/// Maximum of the result's base before a snapshot, which has at most [`RUNS_MAX`] incarnations.
pub const SNAPSHOT_BASE_BYTES_MAX: usize = 64 * RUNS_MAX;
/// Maximum of a transferred snapshot: its state, and the result's base before it.
pub const SNAPSHOT_TRANSFER_BYTES_MAX: u64 = SNAPSHOT_BYTES_MAX + SNAPSHOT_BASE_BYTES_MAX as u64;
/// Maximum of snapshots that a node keeps for transfers, beside its newest one.
pub const SNAPSHOTS_PINNED_MAX: usize = 2;
/// The time for which a snapshot is kept after the last part of it was sent.
pub const SNAPSHOT_PIN_IDLE: Duration = Duration::from_secs(10);
/// Maximum time for which a snapshot is kept for a transfer, beside the time for its bytes at
/// [`SNAPSHOT_PIN_BYTES_PER_SECOND`].
pub const SNAPSHOT_PIN_MAX: Duration = Duration::from_secs(600);
/// The rate below which a transfer of a large snapshot may have to begin again with a newer one.
pub const SNAPSHOT_PIN_BYTES_PER_SECOND: u64 = 1 << 20;
/// Maximum of incarnations whose last sequence numbers a result knows: a snapshot carries them all.
pub const RUNS_MAX: usize = 1 << 16;
/// Number of incarnations from which on no newcomer is admitted: every node that the control log remembers may add one.
pub const RUNS_ADMITTED_MAX: usize = RUNS_MAX - 2_048;
const _: () = assert!(RUNS_ADMITTED_MAX + EVICTED_REMEMBERED_MAX + OTHERS_REMEMBERED_MAX + 2 * MEMBERS_MAX <= RUNS_MAX);
/// Maximum of a duration in a command of the control log: computations with one cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(u32::MAX as u64);
/// The time for which a finished session serves members that have not reported (`protocol.md` §9): at least, since it
/// is longer on long paths and for slow disks.
pub const LINGER: Duration = Duration::from_secs(2);

/// The amounts in which a node sends the result to a node that fetches it. They do not change the result: nodes may
/// differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Maximum bytes of an entry or a snapshot in one frame: 1 to [`FETCH_PART_BYTES`], the default.
    pub part_bytes: usize,
    /// Maximum bytes of the stored result that are read at once, one entry at least. Default: [`READ_BYTES_MAX`].
    pub read_bytes: usize,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self { part_bytes: FETCH_PART_BYTES, read_bytes: READ_BYTES_MAX }
    }
}
