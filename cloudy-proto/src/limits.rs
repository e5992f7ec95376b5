//! Every bound of the protocol, in one place. Those that a group may choose differently are defaults of
//! [`Parameters`](crate::Parameters); the rest hold for all.

use core::time::Duration;

/// Members of one ring.
pub const MEMBERS_MAX: usize = 64;
/// Observers that one node of a group tells how far it is.
pub const OBSERVERS_MAX: usize = 64;
/// Nodes that a founder invites into one group.
pub const INVITED_MAX: usize = 256;
/// One payload. A payload of this size is a slot of its own.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The body of a slot: one payload of the greatest size with its length before it.
pub const SLOT_BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 8;
/// What a payload counts at least, towards windows and limits (`protocol.md` §5).
pub const PAYLOAD_COST_BYTES_MIN: u64 = 16;
/// Payloads in one slot.
pub const SLOT_PAYLOADS_MAX: u32 = 1 << 16;
/// A window, in bytes.
pub const WINDOW_BYTES_MAX: u64 = 1 << 30;
/// How far a lane may run ahead of a receiver's cursor, in rounds: no honest lane comes near.
pub const ROUND_MAX: u64 = 1 << 56;
/// A control frame, encoded: the largest is a consensus message with the state of the control log.
pub const CONTROL_FRAME_BYTES_MAX: usize = LOG_STATE_BYTES_MAX + CONSENSUS_MESSAGE_BYTES_MAX + (64 << 10);
/// A tally frame, encoded: a resume names every lane.
pub const TALLY_FRAME_BYTES_MAX: usize = 4 << 10;
/// A stream's header, encoded.
pub const STREAM_HEADER_BYTES_MAX: usize = 256;
/// A group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// The words of a refusal or a closing reason.
pub const REASON_BYTES_MAX: usize = 512;
/// Addresses that a node names for itself.
pub const ADDRESSES_MAX: usize = 16;
/// The name that a node advertises: a host of up to 255 bytes, a colon and a port.
pub const ADVERTISED_BYTES_MAX: usize = 261;
/// Identities that a key file holds as revoked, and as many again that its earlier lines or the application revoked.
pub const REVOKED_MAX: usize = 256;
/// Identities that a node takes as revoked from the operator of one peer, …
pub const REVOKED_OF_PEER_MAX: usize = 2 * REVOKED_MAX;
/// … from the operators of all peers, …
pub const REVOKED_TOLD_MAX: usize = 4 * REVOKED_MAX;
/// … and from peers that were told of them. Neither takes the capacity of the node's own operator.
pub const REVOKED_HEARSAY_MAX: usize = REVOKED_MAX;
/// Those that one frame names; further ones follow in further frames.
pub const REVOKED_PER_FRAME_MAX: usize = 28;
/// A node's certificate, encoded: one that a cluster key issued has about 400.
pub const CERTIFICATE_BYTES_MAX: usize = 768;
/// What an application attaches to its final report.
pub const REPORT_BYTES_MAX: usize = 4 << 10;
/// Entries in one control frame that carries the log's tail.
pub const LOG_ENTRIES_PER_FRAME_MAX: usize = 64;
/// Committed entries of the control log that a node keeps for those who follow it; what came before is replaced by what it
/// comes to.
pub const LOG_ENTRIES_MAX: usize = 1_024;
/// The state that replaces older entries of the log, encoded: about 150 bytes for each node that the log remembers, and
/// reports.
pub const LOG_STATE_BYTES_MAX: usize = 2 << 20;
/// Evicted members that the control log remembers, beside the members of the ring: they may rejoin in the same
/// incarnation.
pub const EVICTED_REMEMBERED_MAX: usize = 1_024;
/// Other nodes that the control log remembers, beside those: on their way onto the ring, or gone.
pub const OTHERS_REMEMBERED_MAX: usize = 256;
/// Entries of the control log after which what is above these bounds is forgotten.
pub const FORGET_EVERY: u64 = 64;
/// Final reports of which the control log keeps what the application said.
pub const REPORT_TEXTS_MAX: usize = 256;
/// Voters of one group: more make each entry of the control log slower and losses hardly less likely to matter.
pub const VOTERS_MAX: usize = 7;
/// A member or a link that moves so many bytes of a slot within the stall timeout does not stall.
pub const PROGRESS_BYTES_MIN: u64 = 16 << 10;
/// Between two measurements of the round trip to a peer.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The round trip to a peer until it is measured: the first timeout of RFC 6298.
pub const ROUND_TRIP_UNKNOWN: Duration = Duration::from_secs(1);
/// Between two ticks of the consensus library, at least: the leader sends a heartbeat at each. On longer paths ticks are
/// further apart (`protocol.md` §6.6).
pub const CONSENSUS_TICK: Duration = Duration::from_millis(50);
/// A voter that has not heard of a leader for this many ticks stands for election, at the earliest …
pub const ELECTION_TICKS_MIN: usize = 5;
/// … and before this many, at the latest.
pub const ELECTION_TICKS_MAX: usize = 10;
/// For how many ticks more a candidate waits at most for votes that others have yet to sync.
pub const VOTE_TICKS_MAX: usize = 1_000;
/// What one message of the consensus library carries of the log, one entry at least.
pub const CONSENSUS_ENTRIES_BYTES_MAX: u64 = 64 << 10;
/// A message of the consensus library, encoded: the entries of one message, the last of which may exceed their bound. One
/// that holds what stands for entries may be longer by that.
pub const CONSENSUS_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an entry of the result, or of a snapshot, in one frame.
pub const FETCH_PART_BYTES: usize = 64 << 10;
/// What a frame with a part of the result costs beside the part's bytes, towards the credit of a fetch.
pub const FETCH_PART_COST_BYTES: u64 = 128;
/// The least credit of a fetch: bytes that may be in flight to a node that fetches.
pub const FETCH_CREDIT_BYTES_MIN: u64 = 256 << 10;
/// The greatest credit of a fetch, and so what a node that fetches may have in flight for each group.
pub const FETCH_CREDIT_BYTES_MAX: u64 = 16 << 20;
/// What a source sends at once, whatever credit it has; the next request for credit continues from there.
pub const FETCH_BURST_BYTES: u64 = 1 << 20;
/// `Disk`: bytes of fetched result that are in flight or wait for the disk; one entry may exceed it.
pub const UNSYNCED_FETCH_BYTES_MAX: u64 = 8 << 20;
/// Bytes of stored result that are read at once for one who misses it, one entry at least.
pub const READ_BYTES_MAX: usize = 256 << 10;
/// Result indexes between two checkpoints of the digest (`protocol.md` §8).
pub const CHECKPOINT_EVERY: u64 = 65_536;
/// Bytes of messages after which there is a checkpoint of the digest as well: in a group with large messages, snapshots
/// and truncation need checkpoints that are close together in bytes.
pub const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Checkpoints kept (`protocol.md` §8).
pub const CHECKPOINTS_KEPT: usize = 1_024;
/// Checkpoints that a `Disk` node knows beside the first, from which on its stored result can be read: the further back,
/// the further apart.
pub const STORED_BASES_MAX: usize = 32;
/// A snapshot of an application's state: what is larger belongs into a store of its own, with its name in the snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 32 << 20;
/// What a snapshot is transferred as: its state, and the result's base before it, which names [`RUNS_MAX`] runs at most.
pub const SNAPSHOT_TRANSFER_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + 64 * RUNS_MAX;
/// Snapshots that a node keeps for transfers, beside its newest one.
pub const SNAPSHOTS_PINNED_MAX: usize = 2;
/// For how long after the last part that was sent of it …
pub const SNAPSHOT_PIN_IDLE: Duration = Duration::from_secs(10);
/// … and for how long at most.
pub const SNAPSHOT_PIN_MAX: Duration = Duration::from_secs(600);
/// Incarnations whose last sequence numbers a result knows: a snapshot carries them all.
pub const RUNS_MAX: usize = 1 << 16;
/// From so many on no newcomer is admitted: all that the control log remembers may add one each.
pub const RUNS_ADMITTED_MAX: usize = RUNS_MAX - 2_048;
const _: () = assert!(RUNS_ADMITTED_MAX + EVICTED_REMEMBERED_MAX + OTHERS_REMEMBERED_MAX + 2 * MEMBERS_MAX <= RUNS_MAX);
/// A duration in a command of the control log: what is computed from one cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(u32::MAX as u64);
/// How long a finished session serves those who have not reported (`protocol.md` §9).
pub const LINGER: Duration = Duration::from_secs(2);
