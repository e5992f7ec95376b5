//! The bytes of one example of every frame and command. A test that fails here says that older nodes would no longer be
//! understood: raise `WIRE_VERSION`, or append the variant instead.

use core::fmt::{Debug, Write};
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;

use super::{Codec, encoded, examples};
use crate::command::{Command, Dropped, InstallView, SessionPlan, VoterRole};
use crate::config::{CatchUpPolicy, Durability, OnFailure, Parameters, RingKind};
use crate::digest::{Checkpoint, Digest};
use crate::id::{ConsensusId, GroupId, Incarnation, Index, LogIndex, NodeId, Rank, Round, ViewId};
use crate::view::{InstalledView, Origin, Place, RingMember, View};
use crate::wire::codec::{ControlDecoder, HeaderDecoder, LaneDecoder, NodeDecoder, TallyDecoder, encode_command};
use crate::wire::{
    ConsensusEntry, ConsensusKind, ConsensusMessage, ControlFrame, Fetch, Fetched, Findings, Heartbeat, HeldPart,
    KnownSkip, LaneFrame, NameReport, NamedGroup, NodeFrame, Opening, Rates, Refusal, ReportedSeed, Stall, Stream,
    StreamHeader, TallyFrame, WIRE_VERSION, Wedged, WireVersions,
};

const CHECKPOINT: Checkpoint = Checkpoint { index: Index(65_536), digest: Digest(0x0123_4567_89ab_cdef) };

fn line<T: Debug>(value: &T, bytes: &[u8]) -> String {
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{value:?}\n    {hex}\n")
}

fn lines<C: Codec>(frames: &[C::Frame]) -> String {
    frames.iter().map(|frame| line(frame, &encoded::<C>(core::slice::from_ref(frame)))).collect()
}

fn addresses() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 10_501)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 10_502))]
}

#[test]
fn headers() {
    let of = |stream| StreamHeader {
        versions: WireVersions::CURRENT,
        group: GroupId([0x11; 16]),
        incarnation: Incarnation(300),
        stream,
    };
    let (view, lane) = (ViewId(2), Rank(3));
    insta::assert_snapshot!(lines::<HeaderDecoder>(&[
        of(Stream::Node),
        of(Stream::Control),
        of(Stream::Tally { view }),
        of(Stream::Lane { view, lane }),
        of(Stream::Result),
    ]));
}

#[test]
fn lane_frames() {
    insta::assert_snapshot!(lines::<LaneDecoder>(&[
        LaneFrame::Slot(examples::slot(4, 9, 300, &[b"a".to_vec(), vec![], b"bc".to_vec()])),
        LaneFrame::Skip { prev: Round(4), frontier: Round(700) },
    ]));
}

#[test]
fn tally_frames() {
    insta::assert_snapshot!(lines::<TallyDecoder>(&[
        TallyFrame::Resume { frontiers: vec![(Rank(0), Round(5)), (Rank(2), Round(300))] },
        TallyFrame::Confirm { frontier: Round(300) },
        TallyFrame::Approved { frontier: Round(300) },
        TallyFrame::Heartbeat(Heartbeat {
            index: Index(70_000),
            checkpoint: CHECKPOINT,
            waiting: true,
            complete: true,
            begins: Checkpoint { index: Index(300), ..CHECKPOINT },
            sync_ms: 300,
        }),
        TallyFrame::Skips { lanes: vec![KnownSkip { lane: Rank(2), prev: Round(5), frontier: Round(300) }] },
        TallyFrame::Moved { taken: 70_000, everywhere: 300 },
    ]));
}

fn named(group: NamedGroup, opening: Option<Opening>) -> NodeFrame {
    NodeFrame::Named(Box::new(NameReport { name: "demo".into(), group, opening }))
}

fn opening() -> Opening {
    let seeds = [None, Some(NodeId([2; 32]))].map(|node| ReportedSeed { name: 300, node });
    let linked = vec![NodeId([1; 32]), NodeId([2; 32])];
    Opening { expect: 3, parameters: Parameters::default(), linked, seeds: seeds.to_vec() }
}

#[test]
fn node_frames() {
    insta::assert_snapshot!(lines::<NodeDecoder>(&[
        NodeFrame::Hello { addresses: addresses(), process: 300, advertised: None },
        NodeFrame::Hello { addresses: addresses(), process: 300, advertised: Some("one.example:10501".into()) },
        NodeFrame::Join { name: "demo".into() },
        NodeFrame::Refused { name: "demo".into(), reason: "full".into(), refusal: Refusal::NotYet },
        NodeFrame::Observe { name: "demo".into() },
        NodeFrame::Revoked { own: true, nodes: vec![NodeId([1; 32]), NodeId([2; 32])] },
        NodeFrame::Certificate(Bytes::from_static(b"der")),
        NodeFrame::SameIdentity { process: 301, address: addresses()[0] },
        NodeFrame::Present,
        NodeFrame::Located { node: NodeId([3; 32]), address: addresses()[0] },
        named(NamedGroup::Absent, None),
        named(NamedGroup::Forming { group: GroupId([4; 16]), creator: NodeId([3; 32]) }, Some(opening())),
        named(NamedGroup::Runs { group: GroupId([4; 16]) }, None),
    ]));
}

fn a_view() -> View {
    let (node, incarnation, origin) = (NodeId([0xaa; 32]), Incarnation(3), Origin::Survivor);
    let ring = vec![RingMember { node, incarnation, origin, addresses: addresses(), advertised: None }];
    View { id: ViewId(2), ring, parameters: parameters(), last: true }
}

fn fetch_of(held: HeldPart) -> ControlFrame {
    ControlFrame::Fetch(Fetch { number: 7, from: Index(300), view: ViewId(1), credit: 70_000, before: ViewId(2), held })
}

#[test]
fn control_frames() {
    let (view, index) = (ViewId(2), Index(300));
    insta::assert_snapshot!(lines::<ControlDecoder>(&[
        ControlFrame::Invite { name: "demo".into(), durability: Durability::Disk },
        ControlFrame::Accept { run: 300 },
        ControlFrame::Refuse { reason: "busy".into(), refusal: Refusal::Final },
        ControlFrame::Follow { next: LogIndex(300), voter: ConsensusId(3), level: WIRE_VERSION },
        ControlFrame::Log { first: LogIndex(300), entries: vec![Bytes::from_static(b"one"), Bytes::new()], term: 4 },
        ControlFrame::Ready { view },
        ControlFrame::Wedge { view, last: true, again: false },
        ControlFrame::Wedged(Wedged {
            view,
            incarnation: Incarnation(3),
            frontiers: vec![Round(5), Round(300)],
            complete: true,
            first: index,
            digest: CHECKPOINT.digest,
            cursor: Place { round: Round(7), rank: Rank(3) },
            findings: findings(),
        }),
        fetch_of(HeldPart::Entry { length: 300, offset: 200 }),
        fetch_of(HeldPart::Snapshot { index, digest: CHECKPOINT.digest, offset: 200 }),
        examples::fetched(&[b"a".to_vec(), b"bc".to_vec()]),
        ControlFrame::Fetched(Fetched::Snapshot {
            index,
            digest: CHECKPOINT.digest,
            base_length: 60,
            length: 300,
            offset: 200,
            part: Bytes::from_static(b"part"),
        }),
        ControlFrame::Fetched(Fetched::End { index, ahead: 300, view, first: Index(299), digest: CHECKPOINT.digest }),
        ControlFrame::Fetched(Fetched::Truncated { first: index }),
        ControlFrame::Fetched(Fetched::View(InstalledView { first: index, view: Arc::new(a_view()) })),
        ControlFrame::Final { result: CHECKPOINT, report: Bytes::from_static(b"report") },
        ControlFrame::End,
        ControlFrame::Suspect { view, findings: findings(), wedged: true },
        ControlFrame::Rejoin { view, ready: true, slower: Some(Rates { fetched: 300, grown: 400 }) },
        ControlFrame::Coordinates { term: 300 },
        ControlFrame::Resigned,
        ControlFrame::Consensus(consensus()),
        ControlFrame::Leave { returns: false },
        ControlFrame::Leave { returns: true },
        ControlFrame::Running { name: "demo".into(), creator: NodeId([0xaa; 32]), durability: Durability::Memory },
        ControlFrame::Join { run: 300, observer: true, result: CHECKPOINT, level: WIRE_VERSION },
        ControlFrame::Refer {
            coordinator: NodeId([0xaa; 32]),
            addresses: addresses(),
            left: Duration::from_millis(1_500),
        },
        ControlFrame::LogState { index: LogIndex(300), term: 4, state: Bytes::from_static(b"state") },
        ControlFrame::NoCompleteMember { view, missing: vec![NodeId([0xaa; 32])], lost: vec![NodeId([0xbb; 32])] },
        ControlFrame::Ended,
        ControlFrame::Absent,
        ControlFrame::Probe { sent_us: 300 },
        ControlFrame::Echo { sent_us: 300 },
        ControlFrame::SlowDown { node: NodeId([0xaa; 32]), bytes_per_second: 300 },
        ControlFrame::Diverged {
            view,
            node: NodeId([0xaa; 32]),
            theirs: CHECKPOINT,
            ours: Checkpoint { index, ..CHECKPOINT },
        },
    ]));
}

/// Each field with a different value.
fn consensus() -> ConsensusMessage {
    let entry = |index, change, command| ConsensusEntry { term: 4, index: LogIndex(index), change, command };
    ConsensusMessage {
        kind: ConsensusKind::Append,
        to: ConsensusId(2),
        from: ConsensusId(3),
        term: 300,
        log_term: 4,
        index: LogIndex(5),
        entries: vec![
            entry(6, None, Bytes::from_static(b"one")),
            entry(7, Some((ConsensusId(8), VoterRole::Voter)), Bytes::new()),
        ],
        commit: LogIndex(9),
        commit_term: 10,
        reject: true,
        reject_hint: LogIndex(11),
        context: Bytes::from_static(b"context"),
        snapshot: Bytes::from_static(b"state"),
    }
}

/// The numbers of the kinds of consensus messages.
#[test]
fn consensus_kinds() {
    use ConsensusKind as Kind;
    let kinds = [
        Kind::Append,
        Kind::AppendResponse,
        Kind::RequestVote,
        Kind::RequestVoteResponse,
        Kind::Heartbeat,
        Kind::HeartbeatResponse,
        Kind::TimeoutNow,
        Kind::RequestPreVote,
        Kind::RequestPreVoteResponse,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_eq!(postcard::to_stdvec(&kind), Ok(vec![number as u8]), "{kind:?}");
    }
}

fn findings() -> Findings {
    let cursor = Place { round: Round(300), rank: Rank(1) };
    Findings {
        down: vec![Rank(1)],
        stalled: vec![
            (Rank(2), Stall::Unconfirmed),
            (Rank(3), Stall::Missing(cursor)),
            (Rank(3), Stall::Unapproved(cursor)),
        ],
        quiet: vec![Rank(4)],
    }
}

#[test]
fn commands() {
    let member = |node, incarnation, origin, addresses| RingMember {
        node: NodeId([node; 32]),
        incarnation: Incarnation(incarnation),
        origin,
        addresses,
        advertised: (node == 0xaa).then(|| "one.example:10501".into()),
    };
    let install = InstallView {
        from: ViewId(2),
        ring: vec![member(0xaa, 3, Origin::Survivor, addresses()), member(0xbb, 300, Origin::Joiner, vec![])],
        parameters: parameters(),
        cut: vec![Round(5), Round(300)],
        last: true,
        dropped: vec![(NodeId([0xcc; 32]), Dropped::Silent), (NodeId([0xdd; 32]), Dropped::Blamed)],
    };
    let with_ring = |ring| InstallView {
        ring: vec![],
        parameters: Parameters { ring, ..parameters() },
        dropped: vec![],
        ..install.clone()
    };
    let (pipelined, relay) = (with_ring(RingKind::Pipelined), with_ring(RingKind::Relay));
    let plan = SessionPlan {
        send: Duration::from_secs(2),
        grace: Duration::from_millis(800),
        stop: Duration::from_micros(200_000),
        seed: 300,
    };
    let node = NodeId([0xaa; 32]);
    let voter = |role| Command::Voter { id: ConsensusId(300), node, role };
    let commands = [
        Command::Created { creator: node },
        Command::Incarnate { node, run: 300 },
        Command::Session(plan),
        Command::InstallView(install),
        Command::InstallView(pipelined),
        Command::InstallView(relay),
        Command::Kickstart(plan),
        Command::Grace,
        Command::Report { node, result: CHECKPOINT, report: Bytes::from_static(b"report") },
        Command::Close,
        voter(VoterRole::Learner),
        voter(VoterRole::Voter),
        voter(VoterRole::Gone),
        Command::Left { node, incarnation: Incarnation(300) },
        Command::Level { level: 300 },
    ];
    let lines: String = commands.iter().map(|command| line(command, &encode_command(command))).collect();
    insta::assert_snapshot!(lines);
}

/// Each field with a different value, independent of the defaults.
fn parameters() -> Parameters {
    Parameters {
        ring: RingKind::Token,
        durability: Durability::Memory,
        session: true,
        open: true,
        window_slots: 64,
        window_bytes: 300,
        window_bytes_min: 200,
        slot_bytes_max: 400,
        slot_payloads_max: 5,
        payload_bytes_max: 600,
        skip_ahead: 7,
        token_tick: Duration::from_millis(1),
        heartbeat: Duration::from_millis(50),
        failure_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(4),
        on_failure: OnFailure::Wait,
        ring_min: 2,
        wedge_timeout: Duration::from_nanos(250_000_001),
        sync_timeout: Duration::from_secs(9),
        resume_timeout: Duration::from_secs(10),
        coordinator_timeout: Duration::from_secs(8),
        timeout_max: Duration::from_secs(11),
        catch_up: CatchUpPolicy::SlowDown,
        slow_down_bytes_min: 500,
        slow_down_max: Duration::from_secs(12),
    }
}
