//! Every file of the fuzzers' corpus, through the code of the fuzz targets.
#![expect(clippy::disallowed_methods, reason = "this test's input is files; the crate itself reads none")]

#[path = "../../tests/fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod fuzz;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use cloudy_proto::slot::{Batch, Slot, push_payload};
use cloudy_proto::wire::{
    ConsensusEntry, ConsensusKind, ConsensusMessage, ControlDecoder, ControlFrame, Fetch, Fetched, Findings,
    HeaderDecoder, Heartbeat, HeldPart, KnownSkip, LaneDecoder, LaneFrame, NameReport, NamedGroup, NodeDecoder,
    NodeFrame, Opening, Rates, Refusal, ReportedSeed, Stall, Stream, StreamHeader, TallyDecoder, TallyFrame,
    WIRE_VERSION, Wedged, WireVersions, decode_command, encode_command, encode_control, encode_header, encode_lane,
    encode_node, encode_tally,
};
use cloudy_proto::{
    Checkpoint, Command, ConsensusId, Digest, Dropped, Durability, GroupId, Incarnation, Index, InstallView,
    InstalledView, LogIndex, NodeId, Origin, Parameters, Place, Rank, RingMember, Round, Seq, SessionPlan, View,
    ViewId, VoterRole,
};

/// A decoder's name, which is its target's and its folder's; its requirements; and examples of accepted input.
type Target = (&'static str, fn(&[u8]) -> Result<usize, String>, fn() -> Vec<Bytes>);

const TARGETS: [Target; 6] = [
    ("header", fuzz::header, headers),
    ("lane", fuzz::lane, lanes),
    ("tally", fuzz::tally, tallies),
    ("control", fuzz::control, controls),
    ("node", fuzz::node, nodes),
    ("command", fuzz::command, commands),
];
const FILES_MIN: usize = 12;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

/// A file whose name begins with `good` is taken to its end and holds a frame, with `bad` is refused; any other, as a
/// fuzzer leaves them, must only not break the decoder.
#[test]
fn every_file_of_the_corpus_is_accepted_or_rejected_as_its_name_says() {
    for (target, run, _) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(folder(target)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= FILES_MIN, "{target}: {} files", files.len());
        for file in files {
            let outcome = run(&std::fs::read(&file).unwrap());
            let name = file.file_name().and_then(|name| name.to_str()).unwrap();
            match name.split('-').next() {
                Some("good") => assert!(matches!(outcome, Ok(1..)), "{target}/{name}: {outcome:?}"),
                Some("bad") => assert!(outcome.is_err(), "{target}/{name}: {outcome:?}"),
                _ => {}
            }
        }
    }
}

/// The kinds of an enumeration: one that is missing here does not compile.
trait Kinds {
    const ALL: &'static [&'static str];
    fn kind(&self) -> &'static str;
}

macro_rules! kinds {
    ($($type:ident { $($kind:ident)* })*) => {
        $(
            impl Kinds for $type {
                const ALL: &'static [&'static str] = &[$(stringify!($kind)),*];

                fn kind(&self) -> &'static str {
                    match self {
                        $($type::$kind { .. } => stringify!($kind),)*
                        #[cfg(feature = "next-version")]
                        #[allow(unreachable_patterns, reason = "only commands have a kind that is not listed")]
                        _ => "of the next version",
                    }
                }
            }
        )*
    };
}

kinds! {
    Stream { Node Control Tally Lane Result }
    LaneFrame { Slot Skip }
    TallyFrame { Confirm Approved Resume Skips Heartbeat Moved }
    NodeFrame { Hello Join Refused Observe Revoked Certificate SameIdentity Present Located Named }
    NamedGroup { Absent Forming Runs }
    Refusal { NotYet Final Gone }
    ControlFrame {
        Invite Accept Refuse Follow Log Ready Wedge Wedged Fetch Fetched Final End Suspect Rejoin Coordinates Consensus
        Leave Resigned Running Join Refer Wedging LogState NoCompleteMember Ended Absent Diverged
        Probe Echo SlowDown
    }
    Fetched { Entry End Truncated Snapshot View }
    Stall { Unconfirmed Missing Unapproved Unsynced }
    ConsensusKind {
        Append AppendResponse RequestVote RequestVoteResponse Heartbeat HeartbeatResponse TimeoutNow RequestPreVote
        RequestPreVoteResponse Snapshot
    }
    Command { Created Incarnate Session InstallView Kickstart Grace Report Close Voter Left Level }
    Dropped { Silent Blamed Left }
    Origin { Survivor Joiner Restarted }
    VoterRole { Learner Voter Gone }
}

/// Every kind is among these.
fn all_are_in<K: Kinds>(kinds: impl IntoIterator<Item = K>) {
    let present: BTreeSet<&str> = kinds.into_iter().map(|kind| kind.kind()).collect();
    let missing: Vec<&&str> = K::ALL.iter().filter(|kind| !present.contains(**kind)).collect();
    assert_eq!(missing, [&""; 0], "{}: run `write_the_corpus`", core::any::type_name::<K>());
}

/// The frames in the good files of a folder.
fn frames<D: Default, F, E: core::fmt::Debug>(
    target: &str,
    feed: fn(&mut D, &mut &[u8]) -> Result<Option<F>, E>,
) -> Vec<F> {
    let mut frames = Vec::new();
    for bytes in good_files(target) {
        let (mut decoder, mut rest) = (D::default(), &bytes[..]);
        while !rest.is_empty() {
            frames.extend(feed(&mut decoder, &mut rest).unwrap());
        }
    }
    frames
}

fn good_files(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let files = std::fs::read_dir(folder(target)).unwrap().map(|file| file.unwrap());
    let good = files.filter(|file| file.file_name().to_str().is_some_and(|name| name.starts_with("good")));
    good.map(|file| std::fs::read(file.path()).unwrap())
}

#[test]
fn every_kind_of_frame_and_command_is_in_the_corpus() {
    all_are_in(frames("header", HeaderDecoder::feed).into_iter().map(|header| header.stream));
    all_are_in(frames("lane", LaneDecoder::feed));
    all_are_in(frames("tally", TallyDecoder::feed));
    let nodes = frames("node", NodeDecoder::feed);
    all_are_in(nodes.iter().filter_map(|frame| match frame {
        NodeFrame::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    }));
    all_are_in(nodes.iter().filter_map(|frame| match frame {
        NodeFrame::Named(report) => Some(report.group),
        _ => None,
    }));
    all_are_in(nodes);
    let controls = frames("control", ControlDecoder::feed);
    all_are_in(controls.iter().filter_map(|frame| match frame {
        ControlFrame::Fetched(fetched) => Some(fetched.clone()),
        _ => None,
    }));
    all_are_in(controls.iter().filter_map(|frame| match frame {
        ControlFrame::Consensus(message) => Some(message.kind),
        _ => None,
    }));
    let suspects = controls.iter().filter_map(|frame| match frame {
        ControlFrame::Suspect { findings, .. } => Some(&findings.stalled),
        _ => None,
    });
    all_are_in(suspects.flatten().map(|(_, stall)| *stall));
    all_are_in(controls);
    let commands: Vec<Command> = good_files("command").map(|bytes| decode_command(&bytes).unwrap()).collect();
    let installs = || {
        commands.iter().filter_map(|command| match command {
            Command::InstallView(install) => Some(install),
            _ => None,
        })
    };
    all_are_in(installs().flat_map(|install| install.dropped.iter().map(|(_, why)| *why)));
    all_are_in(installs().flat_map(|install| install.ring.iter().map(|member| member.origin)));
    all_are_in(commands.iter().filter_map(|command| match command {
        Command::Voter { role, .. } => Some(*role),
        _ => None,
    }));
    all_are_in(commands);
}

#[test]
#[ignore = "writes the corpus anew: run it when the wire format has changed"]
fn write_the_corpus() {
    for (target, _, good) in TARGETS {
        let good = good();
        let write = |kind: &str, at: usize, bytes: &[u8]| {
            std::fs::write(folder(target).join(format!("{kind}-{at:02}")), bytes).unwrap();
        };
        std::fs::create_dir_all(folder(target)).unwrap();
        good.iter().enumerate().for_each(|(at, bytes)| write("good", at, bytes));
        bad(target, &good).iter().enumerate().for_each(|(at, bytes)| write("bad", at, bytes));
        let together = good.concat();
        write("cut", 0, &together[..together.len() / 2]);
    }
}

/// Inputs that a decoder must refuse, made from accepted ones.
fn bad(target: &str, good: &[Bytes]) -> Vec<Vec<u8>> {
    let first = &good[0];
    match target {
        "header" => vec![
            [b"CLOUDY", &first[6..]].concat(),
            [b"cloudy", &[9, 9, 9, 9][..]].concat(),
            [&first[..10], &[0xff, 0xff]].concat(),
            [&first[..10], &[0, 0]].concat(),
            [&first[..10], &[first[10] + 1, 0], &first[12..], &[0]].concat(),
        ],
        "lane" => vec![
            [&[2], &first[1..]].concat(),
            [&first[..25], &[0; 8]].concat(),
            [&first[..29], &[0xff; 4]].concat(),
            [&first[..9], &[0xff; 24]].concat(),
            [&[1], &[9; 8][..], &[8; 8]].concat(),
        ],
        "command" => good.iter().map(|entry| [&entry[..], &[0]].concat()).chain([vec![], vec![0x7f]]).collect(),
        _ => vec![
            vec![0xff; 4],
            vec![0; 4],
            vec![1, 0, 0, 0, 0x7f],
            [&[first[0] - 1, 0, 0, 0], &first[4..]].concat(),
            [&[first[0] + 1, 0, 0, 0], &first[4..], &[0]].concat(),
        ],
    }
}

fn each<F>(frames: impl IntoIterator<Item = F>, encode: impl Fn(&F, &mut BytesMut)) -> Vec<Bytes> {
    let encoded = |frame| {
        let mut out = BytesMut::new();
        encode(&frame, &mut out);
        out.freeze()
    };
    frames.into_iter().map(encoded).collect()
}

fn headers() -> Vec<Bytes> {
    let (view, lane) = (ViewId(2), Rank(3));
    let streams = [
        Stream::Node,
        Stream::Control,
        Stream::Result,
        Stream::Tally { view },
        Stream::Tally { view: ViewId(1 << 40) },
        Stream::Lane { view, lane },
        Stream::Lane { view: ViewId(1 << 40), lane: Rank(63) },
    ];
    let headers = streams.into_iter().zip([0, 1, 2, 300, 1 << 20, 1 << 56]).map(|(stream, run)| StreamHeader {
        versions: WireVersions::CURRENT,
        group: GroupId([run as u8; 16]),
        incarnation: Incarnation(run),
        stream,
    });
    each(headers, |header, out| out.put_slice(&encode_header(header)))
}

fn batch(payload_bytes: &[usize]) -> Batch {
    let mut body = BytesMut::new();
    payload_bytes.iter().for_each(|bytes| push_payload(&mut body, &vec![7; *bytes]));
    Batch { first_seq: Seq(300), count: payload_bytes.len() as u32, body: body.freeze() }
}

fn lanes() -> Vec<Bytes> {
    let slot = |prev, round, bytes: &[usize]| {
        LaneFrame::Slot(Slot { prev: Round(prev), round: Round(round), batch: batch(bytes) })
    };
    let skip = |prev, frontier| LaneFrame::Skip { prev: Round(prev), frontier: Round(frontier) };
    let frames = [
        slot(0, 0, &[8]),
        slot(1, 9, &[0]),
        slot(10, 10, &[0, 1, 2, 3]),
        slot(11, 1 << 56, &[127, 128, 200]),
        slot(0, 1, &[8; 40]),
        skip(0, 0),
        skip(4, 700),
    ];
    each(frames, |frame, out| {
        if let Some(body) = encode_lane(frame, out) {
            out.put_slice(&body);
        }
    })
}

const CHECKPOINT: Checkpoint = Checkpoint { index: Index(65_536), digest: Digest(0x0123_4567_89ab_cdef) };

fn tallies() -> Vec<Bytes> {
    let heartbeat = |index, waiting| {
        TallyFrame::Heartbeat(Heartbeat {
            index: Index(index),
            checkpoint: CHECKPOINT,
            waiting,
            complete: waiting,
            begins: CHECKPOINT,
            sync_ms: 300,
        })
    };
    let frames = [
        TallyFrame::Confirm { frontier: Round(3) },
        TallyFrame::Confirm { frontier: Round(1 << 56) },
        TallyFrame::Approved { frontier: Round(300) },
        TallyFrame::Resume { frontiers: vec![] },
        TallyFrame::Resume { frontiers: (0..64).map(|rank| (Rank(rank), Round(u64::from(rank) * 50))).collect() },
        TallyFrame::Skips { lanes: vec![KnownSkip { lane: Rank(2), prev: Round(5), frontier: Round(300) }] },
        heartbeat(0, false),
        heartbeat(70_000, true),
        TallyFrame::Moved { taken: 70_000, everywhere: u64::MAX },
    ];
    each(frames, encode_tally)
}

fn addresses() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 10_501)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 10_502))]
}

fn named(group: NamedGroup, opening: Option<Opening>) -> NodeFrame {
    NodeFrame::Named(Box::new(NameReport { name: "démo".to_owned(), group, opening }))
}

fn nodes() -> Vec<Bytes> {
    let seeds =
        vec![ReportedSeed { name: 1 << 60, node: Some(NodeId([0xbb; 32])) }, ReportedSeed { name: 7, node: None }];
    let linked = vec![NodeId([0xaa; 32]); 64];
    let opening = Opening { expect: 3, parameters: Parameters::default(), linked, seeds };
    let (name, reason) = ("démo".to_owned(), "this group is full".to_owned());
    let frames = [
        NodeFrame::Hello { addresses: addresses(), process: 1 << 62, advertised: Some("one.example:10501".into()) },
        NodeFrame::Hello { addresses: vec![], process: 0, advertised: None },
        NodeFrame::Join { name: String::new() },
        NodeFrame::Join { name: name.clone() },
        NodeFrame::Observe { name: name.clone() },
        NodeFrame::Refused { name, reason, refusal: Refusal::NotYet },
        NodeFrame::Refused { name: "n".repeat(128), reason: "r".repeat(512), refusal: Refusal::Final },
        NodeFrame::Refused { name: "n".into(), reason: String::new(), refusal: Refusal::Gone },
        NodeFrame::Revoked { own: false, nodes: vec![] },
        NodeFrame::Revoked { own: true, nodes: vec![NodeId([0xaa; 32]); 28] },
        NodeFrame::Certificate(Bytes::from_static(&[0x30, 0x82, 1, 0])),
        NodeFrame::SameIdentity { process: 1 << 62, address: addresses()[0] },
        NodeFrame::Present,
        NodeFrame::Located { node: NodeId([0xbb; 32]), address: addresses()[0] },
        named(NamedGroup::Absent, Some(opening)),
        named(NamedGroup::Forming { group: GroupId([0xcc; 16]), creator: NodeId([0xbb; 32]) }, None),
        named(NamedGroup::Runs { group: GroupId([0xcc; 16]) }, None),
    ];
    each(frames, encode_node)
}

fn controls() -> Vec<Bytes> {
    let (view, index, incarnation) = (ViewId(2), Index(300), Incarnation(3));
    let (frontiers, digest) = (vec![Round(5), Round(300)], CHECKPOINT.digest);
    let origin = NodeId([0xaa; 32]);
    let cursor = Place { round: Round(7), rank: Rank(3) };
    let findings = Findings {
        down: vec![Rank(1)],
        stalled: vec![
            (Rank(2), Stall::Unconfirmed),
            (Rank(3), Stall::Missing(cursor)),
            (Rank(3), Stall::Unapproved(cursor)),
            (Rank(0), Stall::Unsynced),
        ],
        quiet: vec![Rank(4)],
    };
    let frames = [
        ControlFrame::Invite { name: "demo".into(), durability: Durability::Memory },
        ControlFrame::Accept { run: u64::MAX },
        ControlFrame::Refuse { reason: "busy".into(), refusal: Refusal::Final },
        ControlFrame::Follow { next: LogIndex(300), voter: ConsensusId(3), level: WIRE_VERSION },
        ControlFrame::Log { first: LogIndex(1), entries: commands(), term: 4 },
        ControlFrame::Ready { view },
        ControlFrame::Wedge { view, last: true, again: false },
        ControlFrame::Wedged(Wedged {
            view,
            incarnation,
            frontiers,
            complete: true,
            first: index,
            digest,
            cursor,
            findings: findings.clone(),
        }),
        ControlFrame::Suspect { view, findings, wedged: true },
        ControlFrame::Rejoin { view, ready: true, slower: Some(Rates { fetched: 300, grown: u64::MAX }) },
        ControlFrame::Final { result: CHECKPOINT, report: Bytes::from_static(b"report") },
        ControlFrame::End,
        ControlFrame::Coordinates { term: 300 },
        ControlFrame::Resigned,
        ControlFrame::Consensus(consensus()),
        ControlFrame::LogState { index: LogIndex(300), term: 4, state: Bytes::from_static(b"state") },
        ControlFrame::Running { name: "demo".into(), creator: origin, durability: Durability::Memory },
        ControlFrame::Join { run: u64::MAX, observer: true, result: CHECKPOINT, level: WIRE_VERSION },
        ControlFrame::Refer { coordinator: origin, addresses: addresses(), left: Duration::from_millis(1_500) },
        ControlFrame::NoCompleteMember { view, missing: vec![origin], lost: vec![NodeId([0xbb; 32])] },
        ControlFrame::Ended,
        ControlFrame::Absent,
        ControlFrame::Diverged { view, node: origin, theirs: CHECKPOINT, ours: CHECKPOINT },
        ControlFrame::Leave { returns: true },
        ControlFrame::Wedging { view },
        ControlFrame::Probe { sent_us: u64::MAX },
        ControlFrame::Echo { sent_us: 300 },
        ControlFrame::SlowDown { node: origin, bytes_per_second: 300 },
    ];
    let others =
        CONSENSUS_KINDS.map(|kind| ControlFrame::Consensus(ConsensusMessage { kind, entries: vec![], ..consensus() }));
    each(frames.into_iter().chain(transfers()).chain(others), encode_control)
}

fn a_view() -> View {
    let (node, incarnation, origin) = (NodeId([0xaa; 32]), Incarnation(3), Origin::Survivor);
    let ring = vec![RingMember { node, incarnation, origin, addresses: Vec::new(), advertised: None }];
    View { id: ViewId(2), ring, parameters: Parameters::default(), last: false }
}

fn transfers() -> [ControlFrame; 7] {
    let (view, index, part) = (ViewId(2), Index(300), Bytes::from_static(b"part"));
    let (origin, incarnation) = (NodeId([0xaa; 32]), Incarnation(3));
    let Batch { first_seq, count, body } = batch(&[0, 8, 200]);
    let held = HeldPart::Snapshot { index, digest: CHECKPOINT.digest, offset: 200 };
    [
        ControlFrame::Fetch(Fetch { number: 8, held, ..Fetch::default() }),
        ControlFrame::Fetch(Fetch {
            number: 7,
            from: index,
            view: ViewId(1),
            credit: 70_000,
            before: view,
            held: HeldPart::Entry { length: 300, offset: 200 },
        }),
        ControlFrame::Fetched(Fetched::Entry {
            first_index: index,
            view,
            origin,
            incarnation,
            first_seq,
            count,
            length: body.len() as u64,
            offset: 0,
            part: body,
        }),
        ControlFrame::Fetched(Fetched::Snapshot {
            index,
            digest: CHECKPOINT.digest,
            base_length: 60,
            length: 300,
            offset: 200,
            part,
        }),
        ControlFrame::Fetched(Fetched::End { index, ahead: 300, view, first: index, digest: CHECKPOINT.digest }),
        ControlFrame::Fetched(Fetched::Truncated { first: index }),
        ControlFrame::Fetched(Fetched::View(InstalledView { first: index, view: Arc::new(a_view()) })),
    ]
}

const CONSENSUS_KINDS: [ConsensusKind; 9] = [
    ConsensusKind::AppendResponse,
    ConsensusKind::RequestVote,
    ConsensusKind::RequestVoteResponse,
    ConsensusKind::Heartbeat,
    ConsensusKind::HeartbeatResponse,
    ConsensusKind::TimeoutNow,
    ConsensusKind::RequestPreVote,
    ConsensusKind::RequestPreVoteResponse,
    ConsensusKind::Snapshot,
];

fn consensus() -> ConsensusMessage {
    let entry = |at: usize, command| ConsensusEntry {
        term: 4,
        index: LogIndex(6 + at as u64),
        change: (at == 1).then_some((ConsensusId(7), VoterRole::Learner)),
        command,
    };
    ConsensusMessage {
        kind: ConsensusKind::Append,
        to: ConsensusId(2),
        from: ConsensusId(1),
        term: 4,
        log_term: 3,
        index: LogIndex(5),
        entries: commands().into_iter().enumerate().map(|(at, command)| entry(at, command)).collect(),
        commit: LogIndex(4),
        commit_term: 0,
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        snapshot: Bytes::new(),
    }
}

fn commands() -> Vec<Bytes> {
    let member = |node, origin| RingMember {
        node: NodeId([node; 32]),
        incarnation: Incarnation(node.into()),
        origin,
        addresses: addresses(),
        advertised: Some("one.example:10501".into()),
    };
    let install = |ring, cut, last| {
        let parameters = Parameters::default();
        let dropped = [Dropped::Blamed, Dropped::Silent, Dropped::Left, Dropped::Suspended];
        let dropped = (7..).map(|node| NodeId([node; 32])).zip(dropped).collect();
        Command::InstallView(InstallView { from: ViewId(1), ring, parameters, cut, last, dropped })
    };
    let (send, grace, stop) = (Duration::from_secs(2), Duration::from_millis(800), Duration::from_micros(200_001));
    let (node, plan) = (NodeId([0xaa; 32]), SessionPlan::new(send, grace, stop).seed(u64::MAX));
    let voter = |role| Command::Voter { id: ConsensusId(3), node, role };
    let commands = [
        Command::Incarnate { node, run: u64::MAX },
        install(vec![], vec![], true),
        install(vec![member(1, Origin::Survivor), member(2, Origin::Joiner)], vec![Round(5), Round(300)], false),
        Command::Kickstart(plan),
        Command::Grace,
        Command::Close,
        Command::Created { creator: node },
        Command::Session(plan),
        Command::Report { node, result: CHECKPOINT, report: Bytes::from_static(b"report") },
        voter(VoterRole::Learner),
        voter(VoterRole::Voter),
        voter(VoterRole::Gone),
        Command::Left { node, incarnation: Incarnation(3) },
        Command::Level { level: 8 },
        install(vec![member(3, Origin::Restarted)], vec![Round(0)], false),
    ];
    each(commands, |command, out| out.put_slice(&encode_command(command)))
}
