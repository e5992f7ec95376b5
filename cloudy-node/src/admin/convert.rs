//! From the driver's snapshot to the status for programs.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloudy_proto::{Durability, MemberStatus, NodeId, Origin, Phase, RingMember, Status, WaitCause};

use super::ready;
use super::status::{
    DiskStatus, EndedGroupStatus, GroupCounters, GroupRole, GroupStatus, KeysStatus, MemberEntry, NodeStatus,
    PeerStatus, PendingEntry, RemovedEntry, STATUS_SCHEMA, ViewChangeStatus, ViewStatus, WaitEntry,
};
use crate::driver::disk::DiskSnapshot;
use crate::driver::snapshot::{Ended, Snapshot};
use crate::endpoint::canonical;
use crate::group::EndReason;
use crate::group::shared::Shared;
use crate::group::stats::{Dropped, Stats, ViewRecord};
use crate::versions::{data_formats, wire_versions};

/// The part of a status that is constant while a node runs.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    pub(super) started: Instant,
}

pub(super) fn node_status(about: &About, snapshot: Snapshot) -> NodeStatus {
    let peers: Vec<PeerStatus> = snapshot.links.iter().map(|(node, link)| peer_status(*node, link)).collect();
    let groups = snapshot.groups.iter().map(|(shared, status)| group_status(shared, status, &peers)).collect();
    let mut status = NodeStatus {
        schema: STATUS_SCHEMA,
        node: about.node.to_string(),
        address: about.address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: wire_versions().max,
        wire_version_min: wire_versions().min,
        disk_format: *data_formats().end(),
        disk_format_min: *data_formats().start(),
        at_ms: since_1970_ms(SystemTime::now()),
        uptime_ms: ms(about.started.elapsed()),
        ready: false,
        reasons: Vec::new(),
        keys: KeysStatus {
            fingerprint: snapshot.fingerprints.first().cloned(),
            accepted: snapshot.fingerprints.get(1).cloned(),
        },
        disk: snapshot.disk.map(disk_status),
        groups,
        ended: snapshot.ended.iter().map(ended_status).collect(),
        peers,
    };
    ready::judge(&mut status);
    status
}

fn disk_status(disk: DiskSnapshot) -> DiskStatus {
    DiskStatus { error: disk.error, backlog_bytes: disk.backlog_bytes, syncs: disk.syncs }
}

fn peer_status(node: NodeId, link: &quinn::Connection) -> PeerStatus {
    let stats = link.stats();
    PeerStatus {
        node: node.to_string(),
        address: canonical(link.remote_address()),
        round_trip_us: us(stats.path.rtt),
        sent_packets: stats.path.sent_packets,
        lost_packets: stats.path.lost_packets,
        sent_bytes: stats.udp_tx.bytes,
        received_bytes: stats.udp_rx.bytes,
        datagram_bytes: stats.path.current_mtu,
    }
}

fn ended_status(ended: &Ended) -> EndedGroupStatus {
    EndedGroupStatus {
        id: ended.id.to_string(),
        name: ended.name.clone(),
        reason: ended.reason.to_string(),
        failed: !is_regular(&ended.reason),
        at_ms: since_1970_ms(ended.at),
    }
}

/// Whether the group, or this node's part in it, ended as its users wanted.
fn is_regular(reason: &EndReason) -> bool {
    use EndReason::{Closed, Deleted, Final, Left, ShutDown, Suspended};
    matches!(reason, Final | Closed | Left | Deleted | ShutDown | Suspended)
}

/// The part of the shared state that a status needs, copied under its lock.
struct Copied {
    stats: Stats,
    incarnation: u64,
    outbox_messages: u64,
    outbox_bytes: u64,
    only_watches: bool,
}

fn group_status(shared: &Shared, status: &Status, peers: &[PeerStatus]) -> GroupStatus {
    let copied = {
        let state = shared.lock();
        Copied {
            stats: state.stats.clone(),
            incarnation: state.incarnation.0,
            outbox_messages: state.outbox.waiting(),
            outbox_bytes: state.outbox.bytes() as u64,
            only_watches: state.only_watches,
        }
    };
    let longest = status.members.iter().map(|member| member.index).max().unwrap_or_default().max(status.index);
    let members = members(shared, status, &copied.stats, peers, longest.0);
    let in_reach = status.voters.iter().filter(|node| in_reach(**node, shared.me, status, peers)).count();
    let role = match (status.rank, shared.observes || copied.only_watches) {
        (Some(_), _) => GroupRole::Member,
        (None, true) => GroupRole::Observer,
        (None, false) => GroupRole::Joining,
    };
    let mut group = GroupStatus {
        id: shared.id.to_string(),
        name: shared.name.clone(),
        role,
        ready: false,
        reasons: Vec::new(),
        phase: phase(status.phase).to_owned(),
        durability: durability(status.durability).to_owned(),
        incarnation: copied.incarnation,
        feature_level: status.level,
        view: view_status(status),
        views: copied.stats.views.iter().map(view_change).collect(),
        coordinator: status.coordinator.map(|node| node.to_string()),
        coordinator_silent_ms: status.coordinator_silent_for.map(ms),
        voters: status.voters.iter().map(NodeId::to_string).collect(),
        voters_in_reach: in_reach,
        index: status.index.0,
        lag: longest.0 - status.index.0,
        checkpoint_index: status.checkpoint.index.0,
        checkpoint_digest: status.checkpoint.digest.to_string(),
        snapshot_index: status.snapshot.map(|index| index.0),
        members,
        pending: status.pending.iter().map(pending_entry).collect(),
        pending_slots: status.pending_slots as u64,
        outbox_messages: copied.outbox_messages,
        outbox_bytes: copied.outbox_bytes,
        window_bytes: status.window_bytes,
        waits_for: status.waits_for.as_ref().map(wait_entry),
        leaving: status.leaving.as_ref().map(ToString::to_string),
        votes_lost: status.votes_lost.as_ref().map(ToString::to_string),
        counters: counters(&copied.stats, status),
        receipt_latency: copied.stats.latency,
    };
    group.reasons = ready::of_group(&group);
    group.ready = group.reasons.is_empty();
    group
}

/// Whether a voter is in reach of this node: a member by its signs of life, another one by its link.
fn in_reach(voter: NodeId, me: NodeId, status: &Status, peers: &[PeerStatus]) -> bool {
    let member = status.members.iter().find(|member| member.node == voter);
    voter == me || member.map_or_else(|| peer_of(voter, peers).is_some(), |member| member.alive)
}

fn peer_of(node: NodeId, peers: &[PeerStatus]) -> Option<&PeerStatus> {
    let node = node.to_string();
    peers.iter().find(|peer| peer.node == node)
}

fn members(shared: &Shared, status: &Status, stats: &Stats, peers: &[PeerStatus], longest: u64) -> Vec<MemberEntry> {
    let ring = status.view.iter().flat_map(|view| &view.ring);
    let entry = |(rank, (place, member)): (u16, (&RingMember, &MemberStatus))| MemberEntry {
        node: member.node.to_string(),
        rank,
        incarnation: place.incarnation.0,
        origin: origin(place.origin).to_owned(),
        addresses: place.addresses.clone(),
        advertised: place.advertised.clone(),
        this_node: member.node == shared.me,
        votes: status.voters.contains(&member.node),
        coordinates: status.coordinator == Some(member.node),
        linked: member.linked,
        alive: member.alive,
        index: member.index.0,
        lag: longest - member.index.0,
        frontier: member.frontier,
        approved: member.approved,
        confirmed: member.confirmed,
        round_trip_us: peer_of(member.node, peers).map(|peer| peer.round_trip_us),
        confirmation_us: stats.delays.get(&member.node).filter(|_| member.node != shared.me).map(|delay| us(*delay)),
    };
    (0..).zip(ring.zip(&status.members)).map(entry).collect()
}

fn view_status(status: &Status) -> Option<ViewStatus> {
    status.view.as_ref().map(|view| ViewStatus {
        id: view.id.0,
        rank: status.rank.map(|rank| rank.0),
        ring_min: view.parameters.ring_min,
        failure_timeout_ms: ms(view.parameters.failure_timeout),
        last: view.last,
    })
}

fn view_change(record: &ViewRecord) -> ViewChangeStatus {
    ViewChangeStatus {
        id: record.view.id.0,
        first_index: record.first.0,
        at_ms: since_1970_ms(record.at),
        members: record.view.ring.iter().map(|member| member.node.to_string()).collect(),
        joined: record.joined.iter().map(NodeId::to_string).collect(),
        removed: record.dropped.iter().map(|(node, reason)| removed(*node, *reason)).collect(),
    }
}

fn removed(node: NodeId, reason: Option<Dropped>) -> RemovedEntry {
    let reason = match reason {
        Some(Dropped::Silent) => "silent",
        Some(Dropped::Blamed) => "blamed",
        Some(Dropped::Left) => "left",
        Some(Dropped::Suspended) => "suspended",
        None => "unknown",
    };
    RemovedEntry { node: node.to_string(), reason: reason.to_owned() }
}

fn pending_entry(slot: &cloudy_proto::PendingSlot) -> PendingEntry {
    PendingEntry {
        first_seq: slot.first_seq.0,
        count: slot.count,
        waits_for: slot.waits_for.iter().map(NodeId::to_string).collect(),
        age_ms: ms(slot.age),
    }
}

fn wait_entry(waiting: &cloudy_proto::Waiting) -> WaitEntry {
    let cause = match waiting.cause {
        WaitCause::Slot => "slot",
        WaitCause::Approval => "approval",
        WaitCause::Confirmation => "confirmation",
        WaitCause::OwnDisk => "own_disk",
        _ => "other",
    };
    WaitEntry {
        index: waiting.index.0,
        node: waiting.node.to_string(),
        cause: cause.to_owned(),
        age_ms: ms(waiting.age),
        text: waiting.to_string(),
    }
}

fn counters(stats: &Stats, status: &Status) -> GroupCounters {
    let counts = &stats.counts;
    GroupCounters {
        broadcast_messages: counts.broadcast_messages,
        broadcast_bytes: counts.broadcast_bytes,
        approved_messages: counts.approved_messages,
        approved_bytes: counts.approved_bytes,
        confirmations: status.confirmations_given,
        views: counts.views,
        removed_silent: counts.silent,
        removed_blamed: counts.blamed,
        removed_left: counts.left,
        removed_suspended: counts.suspended,
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "start",
        Phase::Send => "send",
        Phase::Grace => "grace",
        Phase::Stop => "stop",
        Phase::Done => "done",
    }
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Disk => "disk",
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Survivor => "survivor",
        Origin::Joiner => "joiner",
        Origin::Restarted => "restarted",
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn us(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn since_1970_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, ms)
}
