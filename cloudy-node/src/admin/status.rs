//! What `/status` returns: plain data for programs, described in `docs/reference/status.md`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// The version of the format of [`NodeStatus`]. It rises when a field changes its meaning or is removed; new fields do
/// not raise it.
pub const STATUS_SCHEMA: u32 = 1;

/// The state of a node at one moment: the content of `/status`.
///
/// Ids of nodes and groups are texts of hexadecimal digits, times since 1970 are in milliseconds. Texts that come from
/// other nodes or users, such as the names of groups, can contain any character: escape them where they are shown.
///
/// ```no_run
/// # async fn example(json: &[u8]) -> Result<(), serde_json::Error> {
/// let status: cloudy_node::admin::NodeStatus = serde_json::from_slice(json)?;
/// for group in &status.groups {
///     println!("{} has {} messages", group.name, group.index);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// [`STATUS_SCHEMA`] of the node.
    pub schema: u32,
    /// The id of the node.
    pub node: String,
    /// The address that the node listens on.
    pub address: SocketAddr,
    /// The version of the library.
    pub version: String,
    /// The newest version of the wire format that the node speaks.
    pub wire_version: u16,
    /// The oldest one.
    pub wire_version_min: u16,
    /// The newest format of data directories that the node can use.
    pub disk_format: u64,
    /// The oldest one.
    pub disk_format_min: u64,
    /// The time of this status, by the node's clock.
    pub at_ms: u64,
    /// The time since the node started.
    pub uptime_ms: u64,
    /// Whether `/readyz` returns 200: no reasons, and at least one group.
    pub ready: bool,
    /// The reasons why the node is not ready: those of the node itself, and those of each group with its name.
    pub reasons: Vec<String>,
    /// The keys of the cluster.
    pub keys: KeysStatus,
    /// The data directory; none without one.
    pub disk: Option<DiskStatus>,
    /// The groups that run at this node, by id.
    pub groups: Vec<GroupStatus>,
    /// Groups that ended at this node, oldest first; at most 16.
    pub ended: Vec<EndedGroupStatus>,
    /// The nodes with a link to this one, by id.
    pub peers: Vec<PeerStatus>,
}

/// The keys that a node accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeysStatus {
    /// The fingerprint of the primary cluster key; none for an identity of another public key infrastructure.
    pub fingerprint: Option<String>,
    /// The fingerprint of the other accepted key while the cluster changes its key.
    pub accepted: Option<String>,
}

/// The disk of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskStatus {
    /// Why the disk cannot be used; none while it works.
    pub error: Option<String>,
    /// Bytes that wait for the disk.
    pub backlog_bytes: u64,
    /// The times of transactions with their syncs.
    pub syncs: Histogram,
}

/// A node with a link to this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The id of the node.
    pub node: String,
    /// Its address.
    pub address: SocketAddr,
    /// The round trip, as the transport measures it, in microseconds.
    pub round_trip_us: u64,
    /// Packets sent on this link.
    pub sent_packets: u64,
    /// Packets that the transport considered lost.
    pub lost_packets: u64,
    /// Bytes of datagrams sent on this link.
    pub sent_bytes: u64,
    /// Bytes of datagrams received on this link.
    pub received_bytes: u64,
    /// The largest datagram that the path is known to carry, in bytes.
    pub datagram_bytes: u16,
}

/// How a node takes part in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupRole {
    /// A member of the view in force.
    Member,
    /// It joins, waits for the first view, or was evicted and returns.
    Joining,
    /// It reads the result and has no place on the ring.
    Observer,
}

/// A group at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The id of the group.
    pub id: String,
    /// The name of the group.
    pub name: String,
    /// How this node takes part.
    pub role: GroupRole,
    /// Whether this node takes part as it should.
    pub ready: bool,
    /// The reason if not.
    pub reasons: Vec<String>,
    /// The phase: `start`, `send`, `grace`, `stop` or `done`.
    pub phase: String,
    /// Where messages are kept: `memory` or `disk`.
    pub durability: String,
    /// The incarnation of this process; zero until the group lists it.
    pub incarnation: u64,
    /// The feature level of the group: a node that supports no level as high cannot take part.
    pub feature_level: u16,
    /// The view in force; none before the first.
    pub view: Option<ViewStatus>,
    /// The views that this node saw, oldest first; at most 32.
    pub views: Vec<ViewChangeStatus>,
    /// The coordinator, if it is known and in reach.
    pub coordinator: Option<String>,
    /// For how long no coordinator has given a sign of life; none while one does.
    pub coordinator_silent_ms: Option<u64>,
    /// The nodes that vote on views.
    pub voters: Vec<String>,
    /// Number of voters in reach of this node, itself included.
    pub voters_in_reach: usize,
    /// The length of the result here.
    pub index: u64,
    /// Number of messages that this node lacks, as far as the members have reported.
    pub lag: u64,
    /// The index of the newest checkpoint.
    pub checkpoint_index: u64,
    /// The digest of the newest checkpoint.
    pub checkpoint_digest: String,
    /// The last index that the newest snapshot of the application covers; none without one.
    pub snapshot_index: Option<u64>,
    /// The members of the view in force, by rank.
    pub members: Vec<MemberEntry>,
    /// Own slots that wait for confirmations, oldest first; at most 16.
    pub pending: Vec<PendingEntry>,
    /// Number of own slots that wait for confirmations.
    pub pending_slots: u64,
    /// Own messages without a slot.
    pub outbox_messages: u64,
    /// Bytes of own messages that the protocol has not taken.
    pub outbox_bytes: u64,
    /// The maximum of bytes of own slots that are not in the result here; zero while this node is no active member.
    pub window_bytes: u64,
    /// The cause of a stalled result.
    pub waits_for: Option<WaitEntry>,
    /// The reason why this node cannot leave yet, if it wants to.
    pub leaving: Option<String>,
    /// The report that most voters lost their votes, so that the group has stopped.
    pub votes_lost: Option<String>,
    /// Counts since this node took part in the group.
    pub counters: GroupCounters,
    /// The times from the moment at which a message of this node gets a slot to its approval; by message.
    pub receipt_latency: Histogram,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ViewStatus {
    /// The id of the view.
    pub id: u64,
    /// This node's position on the ring; none if it is not a member.
    pub rank: Option<u16>,
    /// The least number of members that a view can have.
    pub ring_min: u16,
    /// The silence after which a member is considered failed, on a path with short round trips.
    pub failure_timeout_ms: u64,
    /// No view follows.
    pub last: bool,
}

/// The change to a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ViewChangeStatus {
    /// The id of the view.
    pub id: u64,
    /// The index of its first message.
    pub first_index: u64,
    /// The time at which it came into force here.
    pub at_ms: u64,
    /// Its members, by rank.
    pub members: Vec<String>,
    /// The nodes that were not in the view before.
    pub joined: Vec<String>,
    /// The nodes that were in the view before and are not in this one.
    pub removed: Vec<RemovedEntry>,
}

/// A node that a view change removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemovedEntry {
    /// The id of the node.
    pub node: String,
    /// Why: `silent` (it did not answer), `blamed` (others found it down or were held up by it), `left`, or `unknown`
    /// at a node that did not take part in the decision.
    pub reason: String,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberEntry {
    /// The id of the node.
    pub node: String,
    /// Its position on the ring.
    pub rank: u16,
    /// Its incarnation.
    pub incarnation: u64,
    /// How it entered the view: `survivor`, `joiner` or `restarted`.
    pub origin: String,
    /// The addresses at which it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// The name that it advertises, `HOST:PORT`.
    pub advertised: Option<String>,
    /// Whether it is this node.
    pub this_node: bool,
    /// Whether it votes on views.
    pub votes: bool,
    /// Whether it coordinates the group.
    pub coordinates: bool,
    /// Whether there is a link to it; true for this node.
    pub linked: bool,
    /// Whether it was heard from within the time that a living member may be silent; true for this node.
    pub alive: bool,
    /// The length of its result when it last reported it.
    pub index: u64,
    /// Number of messages that it lacks of the longest result that this node knows of.
    pub lag: u64,
    /// The first round of its lane that this node does not hold.
    pub frontier: u64,
    /// The first round of its lane that is not approved as far as this node knows.
    pub approved: u64,
    /// The first round of this node's lane that it has not confirmed.
    pub confirmed: u64,
    /// The round trip to it in microseconds; none without a link, and for this node.
    pub round_trip_us: Option<u64>,
    /// The smoothed time in microseconds from sending a slot to its confirmation; none before the first, and for
    /// this node.
    pub confirmation_us: Option<u64>,
}

/// An own slot that waits for confirmations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PendingEntry {
    /// The sequence number of its first message.
    pub first_seq: u64,
    /// Number of messages.
    pub count: u32,
    /// The members that have not confirmed it.
    pub waits_for: Vec<String>,
    /// The time since it was sent.
    pub age_ms: u64,
}

/// The cause of a stalled result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitEntry {
    /// The next index.
    pub index: u64,
    /// The node that holds the result up.
    pub node: String,
    /// The missing item: `slot`, `approval`, `confirmation` or `own_disk`.
    pub cause: String,
    /// For how long.
    pub age_ms: u64,
    /// The whole description as text.
    pub text: String,
}

/// Counts of a group since this node took part in it. They start at zero with each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupCounters {
    /// Own messages that got a slot.
    pub broadcast_messages: u64,
    /// Their bytes, with the lengths between them.
    pub broadcast_bytes: u64,
    /// Messages of all nodes that entered the result here.
    pub approved_messages: u64,
    /// Their bytes, with the lengths between them.
    pub approved_bytes: u64,
    /// Messages of others that this node confirmed.
    pub confirmations: u64,
    /// Views that came into force here.
    pub views: u64,
    /// Members that a view change removed because they did not answer, as far as this node took part in the decision.
    pub removed_silent: u64,
    /// Members that a view change removed although they answered, as far as this node took part in the decision.
    pub removed_blamed: u64,
    /// Members that left.
    pub removed_left: u64,
    /// Members that announced that they stop and will return.
    pub removed_suspended: u64,
}

/// A group that ended at this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndedGroupStatus {
    /// The id of the group.
    pub id: String,
    /// The name of the group.
    pub name: String,
    /// The reason why it is closed here.
    pub reason: String,
    /// Whether that is a failure of this node, and not the regular end of the group or of this node's part in it.
    pub failed: bool,
    /// When it ended here.
    pub at_ms: u64,
}
