//! Frames that a correct peer sends, at random and the largest of each kind.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::command::{Command, Dropped, InstallView, SessionPlan, VoterRole};
use crate::config::{Durability, Parameters, RingKind};
use crate::digest::{Checkpoint, Digest};
use crate::id::{ConsensusId, GroupId, Incarnation, Index, LogIndex, NodeId, Rank, Round, Seq, ViewId};
use crate::limits::{
    ADDRESSES_MAX, ADVERTISED_BYTES_MAX, CERTIFICATE_BYTES_MAX, GROUP_NAME_BYTES_MAX, LOG_ENTRIES_PER_FRAME_MAX,
    MEMBERS_MAX, REASON_BYTES_MAX, REPORT_BYTES_MAX, REVOKED_PER_FRAME_MAX, ROUND_MAX,
};
use crate::slot::{Batch, Slot, push_payload};
use crate::view::{InstalledView, Origin, Place, RingMember, View};
use crate::wire::codec::{COUNTER_MAX, DURATION_MAX};
use crate::wire::{
    ConsensusEntry, ConsensusKind, ConsensusMessage, ControlFrame, Fetch, Fetched, Findings, Heartbeat, HeldPart,
    KnownSkip, LaneFrame, NameReport, NamedGroup, NodeFrame, Opening, Rates, Refusal, ReportedSeed, Stall, Stream,
    StreamHeader, TallyFrame, Wedged, WireVersions,
};
use crate::words::harmless;

pub(super) fn batch(first_seq: u64, payloads: &[Vec<u8>]) -> Batch {
    let mut body = BytesMut::new();
    payloads.iter().for_each(|payload| push_payload(&mut body, payload));
    Batch { first_seq: Seq(first_seq), count: payloads.len() as u32, body: body.freeze() }
}

pub(super) fn slot(prev: u64, round: u64, first_seq: u64, payloads: &[Vec<u8>]) -> Slot {
    Slot { round: Round(round), prev: Round(prev), batch: batch(first_seq, payloads) }
}

pub(super) fn fetched(payloads: &[Vec<u8>]) -> ControlFrame {
    let Batch { first_seq, count, body } = batch(1, payloads);
    ControlFrame::Fetched(Fetched::Entry {
        first_index: Index(1),
        view: ViewId(1),
        origin: NodeId([7; 32]),
        incarnation: Incarnation(1),
        first_seq,
        count,
        length: body.len() as u64,
        offset: 0,
        part: body,
    })
}

/// Small numbers and the greatest ones more often than others.
fn up_to(max: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![3 => 0..300u64, 1 => 0..=max, 1 => Just(max)]
}

fn counter() -> impl Strategy<Value = u64> + Clone {
    up_to(COUNTER_MAX)
}

fn rank() -> impl Strategy<Value = Rank> {
    (0..MEMBERS_MAX as u16).prop_map(Rank)
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    vec(up_to(ROUND_MAX).prop_map(Round), 0..=MEMBERS_MAX)
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..300), 1..20)
}

fn advertised() -> impl Strategy<Value = Option<String>> {
    option::of("[!-~]{1,261}")
}

fn words(bytes_max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=bytes_max / 4).prop_map(String::from_iter)
}

fn reason() -> impl Strategy<Value = String> {
    words(REASON_BYTES_MAX).prop_map(|words| harmless(words.as_bytes()))
}

fn refusal() -> impl Strategy<Value = Refusal> {
    select(vec![Refusal::NotYet, Refusal::Final, Refusal::Gone])
}

fn bytes(bytes_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=bytes_max).prop_map(Bytes::from)
}

fn addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
    vec((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from), 0..=ADDRESSES_MAX)
}

fn node_id() -> impl Strategy<Value = NodeId> + Clone {
    any::<[u8; 32]>().prop_map(NodeId)
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (counter(), any::<u128>()).prop_map(|(index, digest)| Checkpoint { index: Index(index), digest: Digest(digest) })
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..DURATION_MAX.as_secs(), 0..1_000_000_000u32).prop_map(|(s, ns)| Duration::new(s, ns)),
        Just(DURATION_MAX)
    ]
}

pub(super) fn header() -> impl Strategy<Value = StreamHeader> {
    let stream = prop_oneof![
        Just(Stream::Node),
        Just(Stream::Control),
        counter().prop_map(|view| Stream::Tally { view: ViewId(view) }),
        (counter(), rank()).prop_map(|(view, lane)| Stream::Lane { view: ViewId(view), lane }),
        Just(Stream::Result),
    ];
    (any::<[u8; 16]>(), counter(), stream).prop_map(|(group, incarnation, stream)| StreamHeader {
        versions: WireVersions::CURRENT,
        group: GroupId(group),
        incarnation: Incarnation(incarnation),
        stream,
    })
}

pub(super) fn lane() -> impl Strategy<Value = LaneFrame> {
    let rounds = (up_to(ROUND_MAX), up_to(ROUND_MAX)).prop_map(|(a, b)| (a.min(b), a.max(b)));
    (rounds, option::of((counter(), payloads()))).prop_map(|((prev, round), message)| match message {
        Some((first_seq, payloads)) => LaneFrame::Slot(slot(prev, round, first_seq, &payloads)),
        None => LaneFrame::Skip { prev: Round(prev), frontier: Round(round) },
    })
}

pub(super) fn tally() -> impl Strategy<Value = TallyFrame> {
    prop_oneof![
        vec((rank(), up_to(ROUND_MAX).prop_map(Round)), 0..=MEMBERS_MAX)
            .prop_map(|frontiers| TallyFrame::Resume { frontiers }),
        up_to(ROUND_MAX).prop_map(|round| TallyFrame::Confirm { frontier: Round(round) }),
        up_to(ROUND_MAX).prop_map(|round| TallyFrame::Approved { frontier: Round(round) }),
        (counter(), checkpoint(), checkpoint(), any::<[bool; 2]>()).prop_map(
            |(index, checkpoint, begins, [waiting, complete])| {
                TallyFrame::Heartbeat(Heartbeat {
                    index: Index(index),
                    checkpoint,
                    waiting,
                    complete,
                    begins,
                    sync_ms: 300,
                })
            }
        ),
        vec((rank(), up_to(ROUND_MAX), up_to(ROUND_MAX)), 0..=MEMBERS_MAX).prop_map(|skips| {
            let known =
                |(lane, a, b): (Rank, u64, u64)| KnownSkip { lane, prev: Round(a.min(b)), frontier: Round(a.max(b)) };
            TallyFrame::Skips { lanes: skips.into_iter().map(known).collect() }
        }),
        any::<[u64; 2]>().prop_map(|[taken, everywhere]| TallyFrame::Moved { taken, everywhere }),
    ]
}

fn named_group() -> impl Strategy<Value = NamedGroup> {
    let ids = || any::<[u8; 16]>().prop_map(GroupId);
    prop_oneof![
        Just(NamedGroup::Absent),
        (ids(), any::<[u8; 32]>()).prop_map(|(group, creator)| NamedGroup::Forming { group, creator: NodeId(creator) }),
        ids().prop_map(|group| NamedGroup::Runs { group }),
    ]
}

fn opening() -> impl Strategy<Value = Opening> {
    let node = || any::<[u8; 32]>().prop_map(NodeId);
    let seed = (any::<u64>(), option::of(node())).prop_map(|(name, node)| ReportedSeed { name, node });
    (any::<u16>(), vec(node(), 0..=MEMBERS_MAX), vec(seed, 0..=MEMBERS_MAX))
        .prop_map(|(expect, linked, seeds)| Opening { expect, parameters: Parameters::default(), linked, seeds })
}

pub(super) fn node() -> impl Strategy<Value = NodeFrame> {
    prop_oneof![
        (addresses(), any::<u64>(), advertised()).prop_map(|(addresses, process, advertised)| NodeFrame::Hello {
            addresses,
            process,
            advertised
        }),
        words(GROUP_NAME_BYTES_MAX).prop_map(|name| NodeFrame::Join { name }),
        (words(GROUP_NAME_BYTES_MAX), reason(), refusal()).prop_map(|(name, reason, refusal)| NodeFrame::Refused {
            name,
            reason,
            refusal
        }),
        words(GROUP_NAME_BYTES_MAX).prop_map(|name| NodeFrame::Observe { name }),
        (any::<bool>(), vec(any::<[u8; 32]>().prop_map(NodeId), 0..=REVOKED_PER_FRAME_MAX))
            .prop_map(|(own, nodes)| NodeFrame::Revoked { own, nodes }),
        vec(any::<u8>(), 0..=CERTIFICATE_BYTES_MAX).prop_map(|certificate| NodeFrame::Certificate(certificate.into())),
        (any::<u64>(), any::<IpAddr>(), any::<u16>())
            .prop_map(|(process, ip, port)| NodeFrame::SameIdentity { process, address: SocketAddr::from((ip, port)) }),
        Just(NodeFrame::Present),
        (any::<[u8; 32]>(), any::<IpAddr>(), any::<u16>()).prop_map(|(node, ip, port)| NodeFrame::Located {
            node: NodeId(node),
            address: SocketAddr::from((ip, port))
        }),
        (words(GROUP_NAME_BYTES_MAX), named_group(), option::of(opening()))
            .prop_map(|(name, group, opening)| NodeFrame::Named(Box::new(NameReport { name, group, opening }))),
    ]
}

fn a_fetch() -> impl Strategy<Value = Fetch> {
    let held = prop_oneof![
        Just(HeldPart::Nothing),
        (0..1_000u64, 0..1_000u64).prop_map(|(a, b)| HeldPart::Entry { length: a.max(b), offset: a.min(b) }),
        (counter(), any::<u128>(), 0..1_000u64).prop_map(|(index, digest, offset)| HeldPart::Snapshot {
            index: Index(index),
            digest: Digest(digest),
            offset
        }),
    ];
    (any::<u64>(), counter(), counter(), any::<u64>(), counter(), held).prop_map(
        |(number, from, view, credit, before, held)| Fetch {
            number,
            from: Index(from),
            view: ViewId(view),
            credit,
            before: ViewId(before),
            held,
        },
    )
}

fn a_fetched() -> impl Strategy<Value = Fetched> {
    let entry = (counter(), counter(), node_id(), counter(), counter(), payloads());
    prop_oneof![
        entry.prop_map(|(first_index, view, origin, incarnation, first_seq, payloads)| {
            let Batch { first_seq, count, body } = batch(first_seq, &payloads);
            let (first_index, view, incarnation) = (Index(first_index), ViewId(view), Incarnation(incarnation));
            let length = body.len() as u64;
            Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, length, offset: 0, part: body }
        }),
        (0..1_000u64, any::<u128>(), any::<Vec<u8>>()).prop_map(|(offset, digest, part)| Fetched::Snapshot {
            index: Index(offset),
            digest: Digest(digest),
            base_length: offset / 2,
            length: offset + part.len() as u64,
            offset,
            part: part.into(),
        }),
        (counter(), any::<u64>(), counter(), counter(), any::<u128>()).prop_map(
            |(index, ahead, view, first, digest)| Fetched::End {
                index: Index(index),
                ahead,
                view: ViewId(view),
                first: Index(first),
                digest: Digest(digest)
            }
        ),
        counter().prop_map(|first| Fetched::Truncated { first: Index(first) }),
        (counter(), counter(), install(), any::<bool>()).prop_map(|(first, id, install, last)| {
            let InstallView { ring, parameters, .. } = install;
            let view = View { id: ViewId(id), ring, parameters, last };
            Fetched::View(InstalledView { first: Index(first), view: Arc::new(view) })
        }),
    ]
}

fn wedged() -> impl Strategy<Value = Wedged> {
    (counter(), counter(), rounds(), any::<bool>(), counter(), any::<u128>(), place(), findings()).prop_map(
        |(view, incarnation, frontiers, complete, first, digest, cursor, findings)| Wedged {
            view: ViewId(view),
            incarnation: Incarnation(incarnation),
            frontiers,
            complete,
            first: Index(first),
            digest: Digest(digest),
            cursor,
            findings,
        },
    )
}

fn place() -> impl Strategy<Value = Place> {
    (0..=ROUND_MAX, any::<u16>()).prop_map(|(round, rank)| Place { round: Round(round), rank: Rank(rank) })
}

fn findings() -> impl Strategy<Value = Findings> {
    let stall =
        prop_oneof![Just(Stall::Unconfirmed), place().prop_map(Stall::Missing), place().prop_map(Stall::Unapproved),];
    let members = || vec(any::<u16>().prop_map(Rank), 0..=MEMBERS_MAX);
    let stalled = vec((any::<u16>().prop_map(Rank), stall), 0..=3 * MEMBERS_MAX);
    (members(), stalled, members()).prop_map(|(down, stalled, quiet)| Findings { down, stalled, quiet })
}

pub(super) fn control() -> impl Strategy<Value = ControlFrame> {
    prop_oneof![
        words(GROUP_NAME_BYTES_MAX).prop_map(|name| ControlFrame::Invite { name, durability: Durability::Disk }),
        any::<u64>().prop_map(|run| ControlFrame::Accept { run }),
        (reason(), refusal()).prop_map(|(reason, refusal)| ControlFrame::Refuse { reason, refusal }),
        (counter(), consensus_id(), any::<u16>()).prop_map(|(next, voter, level)| ControlFrame::Follow {
            next: LogIndex(next),
            voter,
            level
        }),
        (counter(), vec(bytes(60), 0..=LOG_ENTRIES_PER_FRAME_MAX), counter())
            .prop_map(|(first, entries, term)| ControlFrame::Log { first: LogIndex(first), entries, term }),
        counter().prop_map(|view| ControlFrame::Ready { view: ViewId(view) }),
        (counter(), any::<bool>(), any::<bool>()).prop_map(|(view, last, again)| ControlFrame::Wedge {
            view: ViewId(view),
            last,
            again
        }),
        (counter(), findings(), any::<bool>()).prop_map(|(view, findings, wedged)| ControlFrame::Suspect {
            view: ViewId(view),
            findings,
            wedged
        }),
        (counter(), any::<bool>(), any::<Option<(u64, u64)>>()).prop_map(|(view, ready, slower)| {
            let slower = slower.map(|(fetched, grown)| Rates { fetched, grown });
            ControlFrame::Rejoin { view: ViewId(view), ready, slower }
        }),
        wedged().prop_map(ControlFrame::Wedged),
        (counter(), node_id(), checkpoint(), checkpoint()).prop_map(|(view, node, theirs, ours)| {
            ControlFrame::Diverged { view: ViewId(view), node, theirs, ours }
        }),
        a_fetch().prop_map(ControlFrame::Fetch),
        a_fetched().prop_map(ControlFrame::Fetched),
        (checkpoint(), bytes(REPORT_BYTES_MAX)).prop_map(|(result, report)| ControlFrame::Final { result, report }),
        (counter(), vec(node_id(), 0..=MEMBERS_MAX), vec(node_id(), 0..=MEMBERS_MAX))
            .prop_map(|(view, missing, lost)| ControlFrame::NoCompleteMember { view: ViewId(view), missing, lost }),
        Just(ControlFrame::End),
        Just(ControlFrame::Resigned),
        Just(ControlFrame::Ended),
        Just(ControlFrame::Absent),
        any::<u64>().prop_map(|sent_us| ControlFrame::Probe { sent_us }),
        any::<u64>().prop_map(|sent_us| ControlFrame::Echo { sent_us }),
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(node, bytes_per_second)| ControlFrame::SlowDown { node: NodeId(node), bytes_per_second }),
        counter().prop_map(|term| ControlFrame::Coordinates { term }),
        consensus().prop_map(ControlFrame::Consensus),
        (words(GROUP_NAME_BYTES_MAX), node_id()).prop_map(|(name, creator)| ControlFrame::Running {
            name,
            creator,
            durability: Durability::Memory,
        }),
        (any::<u64>(), any::<bool>(), checkpoint(), any::<u16>())
            .prop_map(|(run, observer, result, level)| { ControlFrame::Join { run, observer, result, level } }),
        (counter(), counter(), bytes(60)).prop_map(|(index, term, state)| ControlFrame::LogState {
            index: LogIndex(index),
            term,
            state
        }),
        (node_id(), addresses(), duration()).prop_map(|(coordinator, addresses, left)| ControlFrame::Refer {
            coordinator,
            addresses,
            left
        }),
    ]
}

fn consensus_id() -> impl Strategy<Value = ConsensusId> + Clone {
    counter().prop_map(ConsensusId)
}

fn role() -> impl Strategy<Value = VoterRole> {
    prop_oneof![Just(VoterRole::Learner), Just(VoterRole::Voter), Just(VoterRole::Gone)]
}

fn consensus() -> impl Strategy<Value = ConsensusMessage> {
    use ConsensusKind as Kind;
    let kind = prop_oneof![
        Just(Kind::Append),
        Just(Kind::AppendResponse),
        Just(Kind::RequestVote),
        Just(Kind::RequestVoteResponse),
        Just(Kind::Heartbeat),
        Just(Kind::HeartbeatResponse),
        Just(Kind::TimeoutNow),
        Just(Kind::RequestPreVote),
        Just(Kind::RequestPreVoteResponse),
        Just(Kind::Snapshot),
    ];
    let entry = (counter(), counter(), option::of((consensus_id(), role())), bytes(60));
    let entry = entry.prop_map(|(term, index, change, command)| ConsensusEntry {
        term,
        index: LogIndex(index),
        change,
        command,
    });
    let voters = (kind, consensus_id(), consensus_id());
    let positions = (counter(), counter(), counter());
    (voters, (counter(), counter(), counter()), positions, vec(entry, 0..20), any::<bool>(), (bytes(20), bytes(60)))
        .prop_map(|((kind, to, from), terms, (index, commit, hint), entries, reject, (context, snapshot))| {
            ConsensusMessage {
                kind,
                to,
                from,
                term: terms.0,
                log_term: terms.1,
                index: LogIndex(index),
                entries,
                commit: LogIndex(commit),
                commit_term: terms.2,
                reject,
                reject_hint: LogIndex(hint),
                context,
                snapshot,
            }
        })
}

fn parameters() -> impl Strategy<Value = Parameters> {
    (0..3usize, any::<(bool, bool)>(), 1..1u32 << 16, 1..1u64 << 30, 1..1_000_000_000u32).prop_map(
        |(ring, (session, open), window_slots, window_bytes, heartbeat_ns)| Parameters {
            ring: [RingKind::Token, RingKind::Pipelined, RingKind::Relay][ring],
            durability: Durability::Memory,
            session,
            open,
            window_slots,
            window_bytes,
            window_bytes_min: window_bytes,
            heartbeat: Duration::from_micros(1) + Duration::from_nanos(heartbeat_ns.into()),
            failure_timeout: DURATION_MAX,
            ..Parameters::default()
        },
    )
}

fn ring() -> impl Strategy<Value = Vec<RingMember>> {
    let origin = select(vec![Origin::Survivor, Origin::Joiner, Origin::Restarted]);
    let member = (counter(), origin, addresses(), advertised());
    btree_map(node_id(), member, 0..=MEMBERS_MAX).prop_map(|members| {
        let member = |(node, (incarnation, origin, addresses, advertised))| RingMember {
            node,
            incarnation: Incarnation(incarnation),
            origin,
            addresses,
            advertised,
        };
        members.into_iter().map(member).collect()
    })
}

fn plan() -> impl Strategy<Value = SessionPlan> {
    (duration(), duration(), duration(), any::<u64>()).prop_map(|(send, grace, stop, seed)| SessionPlan {
        send,
        grace,
        stop,
        seed,
    })
}

fn dropped() -> impl Strategy<Value = Vec<(NodeId, Dropped)>> {
    vec((node_id(), prop_oneof![Just(Dropped::Silent), Just(Dropped::Blamed)]), 0..=MEMBERS_MAX)
}

fn install() -> impl Strategy<Value = InstallView> {
    (counter(), ring(), parameters(), rounds(), any::<bool>(), dropped()).prop_map(
        |(from, ring, parameters, cut, last, dropped)| InstallView {
            from: ViewId(from),
            ring,
            parameters,
            cut,
            last,
            dropped,
        },
    )
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        node_id().prop_map(|creator| Command::Created { creator }),
        (node_id(), any::<u64>()).prop_map(|(node, run)| Command::Incarnate { node, run }),
        plan().prop_map(Command::Session),
        install().prop_map(Command::InstallView),
        plan().prop_map(Command::Kickstart),
        Just(Command::Grace),
        (node_id(), checkpoint(), bytes(REPORT_BYTES_MAX)).prop_map(|(node, result, report)| Command::Report {
            node,
            result,
            report
        }),
        Just(Command::Close),
        (consensus_id(), node_id(), role()).prop_map(|(id, node, role)| Command::Voter { id, node, role }),
        (node_id(), counter()).prop_map(|(node, run)| Command::Left { node, incarnation: Incarnation(run) }),
        any::<u16>().prop_map(|level| Command::Level { level }),
    ]
}

/// The command that installs a full ring, every number at its bound.
pub(super) fn largest_install() -> InstallView {
    let member = |at: u8| RingMember {
        node: NodeId([at; 32]),
        incarnation: Incarnation(COUNTER_MAX),
        origin: Origin::Joiner,
        addresses: vec![SocketAddr::from(([0xffff; 8], u16::MAX)); ADDRESSES_MAX],
        advertised: Some("n".repeat(ADVERTISED_BYTES_MAX)),
    };
    InstallView {
        from: ViewId(COUNTER_MAX),
        ring: (0..MEMBERS_MAX as u8).map(member).collect(),
        parameters: Parameters { failure_timeout: DURATION_MAX, wedge_timeout: DURATION_MAX, ..Parameters::default() },
        cut: vec![Round(ROUND_MAX); MEMBERS_MAX],
        last: true,
        dropped: (0..MEMBERS_MAX as u8).map(|at| (NodeId([at; 32]), Dropped::Blamed)).collect(),
    }
}
