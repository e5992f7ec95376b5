//! Frames that no correct peer sends, with the exact error for each; and the largest accepted ones.

use core::net::SocketAddr;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::examples::{batch, fetched, largest_install, slot};
use super::*;
use crate::command::Command;
use crate::config::{Durability, Parameters, ParametersError};
use crate::digest::{Checkpoint, Digest};
use crate::id::{ConsensusId, GroupId, Incarnation, Index, LogIndex, NodeId, Rank, Round, ViewId};
use crate::limits::{
    ADVERTISED_BYTES_MAX, CERTIFICATE_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, FETCH_PART_BYTES, GROUP_NAME_BYTES_MAX,
    LOG_ENTRIES_PER_FRAME_MAX, MEMBERS_MAX, PAYLOAD_BYTES_MAX, REASON_BYTES_MAX, REPORT_BYTES_MAX,
    REVOKED_PER_FRAME_MAX, SLOT_BODY_BYTES_MAX, SLOT_PAYLOADS_MAX, STREAM_HEADER_BYTES_MAX, TALLY_FRAME_BYTES_MAX,
};
use crate::view::Place;
use crate::wire::{
    Fetch, Fetched, Findings, Heartbeat, HeldPart, KnownSkip, NameReport, NamedGroup, Opening, Refusal, ReportedSeed,
    Stall, Stream, WIRE_VERSION, Wedged, WireVersions,
};

fn refused<C: Codec>(bytes: &[u8]) -> C::Error {
    let (frames, error) = read::<C>(bytes, &[1]);
    assert_eq!(frames, vec![], "nothing is taken of what is refused");
    error.expect("an error")
}

pub(super) fn refused_frame<C: Codec>(frame: C::Frame) -> C::Error {
    refused::<C>(&encoded::<C>(&[frame]))
}

pub(super) fn taken<C: Codec>(frame: C::Frame) {
    let bytes = encoded::<C>(core::slice::from_ref(&frame));
    assert_eq!(read::<C>(&bytes, &[bytes.len()]), (vec![frame], None));
}

pub(super) fn over(what: &'static str, value: u64, max: u64) -> BoundError {
    BoundError { what, value, max }
}

fn message(encoded: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(encoded.len() as u32);
    bytes.put_slice(encoded);
    bytes
}

fn header(stream: Stream) -> StreamHeader {
    StreamHeader { versions: WireVersions::CURRENT, group: GroupId([1; 16]), incarnation: Incarnation(1), stream }
}

#[test]
fn another_version_is_reported_before_anything_else_is_decoded() {
    let theirs = WireVersions { min: WIRE_VERSION + 1, max: WIRE_VERSION + 2 };
    let mut bytes = encode_header(&StreamHeader { versions: theirs, ..header(Stream::Node) }).to_vec();
    bytes.truncate(10);
    let error = refused::<HeaderDecoder>(&bytes);
    assert_eq!(error, HeaderError::Version { theirs, ours: WireVersions::CURRENT });
    assert_eq!(
        error.to_string(),
        "one node speaks wire version 7, the other 8 to 9: run releases of cloudy that share a version"
    );
}

#[test]
fn a_header_with_a_version_in_common_is_read() {
    let sent = StreamHeader { versions: WireVersions { min: 1, max: WIRE_VERSION + 1 }, ..header(Stream::Node) };
    let read = HeaderDecoder::default().feed(&mut &encode_header(&sent)[..]);
    assert_eq!(read, Ok(Some(sent)));
}

/// The version of a link decides whether a heartbeat ends with the field of the next version.
#[cfg(feature = "next-version")]
#[test]
fn the_next_versions_field_is_on_links_of_that_version_only() {
    use crate::wire::NEXT_VERSION;
    let frame = TallyFrame::Heartbeat(Heartbeat::default());
    let encoded = |version| {
        let mut bytes = bytes::BytesMut::new();
        encode_tally_in(version, &frame, &mut bytes);
        bytes
    };
    let [now, next] = [WIRE_VERSION, NEXT_VERSION].map(encoded);
    assert_eq!(next.len(), now.len() + 1);
    for (version, bytes) in [(WIRE_VERSION, &now), (NEXT_VERSION, &next)] {
        assert_eq!(TallyDecoder::of_version(version).feed(&mut &bytes[..]), Ok(Some(frame.clone())));
    }
    let read = TallyDecoder::of_version(WIRE_VERSION).feed(&mut &next[..]);
    assert_eq!(read, Err(FrameError::Trailing { stream: "tally", bytes: 1 }));
}

#[test]
fn a_header_is_refused() {
    assert_eq!(refused::<HeaderDecoder>(b"GET / HTTP"), HeaderError::Magic);

    let good = encode_header(&header(Stream::Node)).to_vec();
    let mut long = good.clone();
    long[10..12].copy_from_slice(&(STREAM_HEADER_BYTES_MAX as u16 - 11).to_le_bytes());
    let too_long = HeaderError::TooLong { bytes: STREAM_HEADER_BYTES_MAX + 1, max: STREAM_HEADER_BYTES_MAX };
    assert_eq!(refused::<HeaderDecoder>(&long[..12]), too_long);

    let mut trailing = good.clone();
    trailing[10] += 1;
    trailing.push(0);
    assert_eq!(refused::<HeaderDecoder>(&trailing), HeaderError::Trailing(1));

    let mut unknown = good.clone();
    *unknown.last_mut().expect("not empty") = 5;
    assert!(matches!(refused::<HeaderDecoder>(&unknown), HeaderError::Malformed(_)));

    let (view, lane) = (ViewId(COUNTER_MAX + 1), Rank(MEMBERS_MAX as u16));
    assert_eq!(
        refused_frame::<HeaderDecoder>(header(Stream::Tally { view })),
        over("view", COUNTER_MAX + 1, COUNTER_MAX).into()
    );
    assert_eq!(
        refused_frame::<HeaderDecoder>(header(Stream::Lane { view: ViewId(1), lane })),
        over("rank", 64, 63).into()
    );
    let old = StreamHeader { incarnation: Incarnation(u64::MAX), ..header(Stream::Control) };
    assert_eq!(refused_frame::<HeaderDecoder>(old), over("incarnation", u64::MAX, COUNTER_MAX).into());
}

/// A slot's header as any peer could write it.
fn slot_head(prev: u64, round: u64, first_seq: u64, count: u32, body_bytes: u32) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    [prev, round, first_seq].into_iter().for_each(|number| bytes.put_u64_le(number));
    bytes.put_u32_le(count);
    bytes.put_u32_le(body_bytes);
    bytes
}

#[test]
fn a_slot_s_header_is_refused_before_its_body_comes() {
    assert_eq!(refused::<LaneDecoder>(&[2]), FrameError::Kind(2));
    let round_max = over("round", ROUND_MAX + 1, ROUND_MAX);
    assert_eq!(refused::<LaneDecoder>(&slot_head(0, ROUND_MAX + 1, 1, 1, 1)), round_max.into());
    assert_eq!(refused::<LaneDecoder>(&slot_head(6, 5, 1, 1, 1)), FrameError::Order { prev: 6, round: 5 });
    assert_eq!(
        refused::<LaneDecoder>(&slot_head(0, 0, u64::MAX, 1, 1)),
        over("sequence number", u64::MAX, COUNTER_MAX).into()
    );
    assert_eq!(refused::<LaneDecoder>(&slot_head(0, 0, 1, 0, 1)), BodyError::Count(0).into());
    let many = SLOT_PAYLOADS_MAX + 1;
    assert_eq!(refused::<LaneDecoder>(&slot_head(0, 0, 1, many, many)), BodyError::Count(many).into());
    let long = SLOT_BODY_BYTES_MAX + 1;
    assert_eq!(refused::<LaneDecoder>(&slot_head(0, 0, 1, 1, long as u32)), BodyError::TooLong(long).into());

    let skip = |prev, frontier| LaneFrame::Skip { prev: Round(prev), frontier: Round(frontier) };
    assert_eq!(refused_frame::<LaneDecoder>(skip(9, 8)), FrameError::Order { prev: 9, round: 8 });
    assert_eq!(refused_frame::<LaneDecoder>(skip(0, ROUND_MAX + 1)), round_max.into());
}

#[test]
fn a_bad_slot_body_is_refused() {
    let mut short = slot(0, 0, 1, &[vec![1; 10]]);
    short.batch.count = 2;
    assert_eq!(refused_frame::<LaneDecoder>(LaneFrame::Slot(short)), BodyError::PayloadLength.into());
    let mut full = slot(0, 0, 1, &[vec![1; 10], vec![2; 10]]);
    full.batch.count = 1;
    assert_eq!(refused_frame::<LaneDecoder>(LaneFrame::Slot(full)), BodyError::Extent.into());
    assert_eq!(refused::<LaneDecoder>(&slot_head(0, 0, 1, 1, 0)), BodyError::PayloadLength.into());
}

#[test]
fn a_lying_length_costs_its_sender_the_bytes() {
    let head = slot_head(0, 0, 1, 1, SLOT_BODY_BYTES_MAX as u32);
    let mut lane = LaneDecoder::default();
    assert_eq!(lane.feed(&mut &head[..]), Ok(None));
    assert_eq!(lane.reserved_bytes(), 0);
    assert_eq!(lane.feed(&mut &[1u8][..]), Ok(None));
    assert_eq!(lane.reserved_bytes(), RESERVE_BYTES_MAX);

    let mut control = ControlDecoder::default();
    assert_eq!(control.feed(&mut &(CONTROL_FRAME_BYTES_MAX as u32).to_le_bytes()[..]), Ok(None));
    assert_eq!(control.feed(&mut &[1u8][..]), Ok(None));
    assert_eq!(control.reserved_bytes(), RESERVE_BYTES_MAX);
}

#[test]
fn a_message_of_excessive_length_is_refused_at_its_length() {
    fn check<C: Codec<Error = FrameError>>(stream: &'static str, max: usize) {
        let bytes = (max as u32 + 1).to_le_bytes();
        let too_long = FrameError::TooLong { stream, bytes: max as u64 + 1, max: max as u64 };
        assert_eq!(refused::<C>(&bytes), too_long);
        let long = FrameError::TooLong { stream, bytes: u32::MAX.into(), max: max as u64 };
        assert_eq!(refused::<C>(&[0xff; 4]), long);
    }
    check::<TallyDecoder>("tally", TALLY_FRAME_BYTES_MAX);
    check::<ControlDecoder>("control", CONTROL_FRAME_BYTES_MAX);
    check::<NodeDecoder>("node", NODE_FRAME_BYTES_MAX);
}

#[test]
fn a_message_that_is_not_one_frame_is_refused() {
    fn check<C: Codec<Error = FrameError>>(expected: &'static str, frame: C::Frame) {
        let bytes = encoded::<C>(&[frame]);
        let longer = message(&[&bytes[4..], &[0, 0]].concat());
        assert_eq!(refused::<C>(&longer), FrameError::Trailing { stream: expected, bytes: 2 });
        for bad in [message(&[]), message(&[0x7f]), message(&bytes[4..bytes.len() - 1])] {
            let error = refused::<C>(&bad);
            assert!(matches!(error, FrameError::Malformed { stream, .. } if stream == expected), "{error:?}");
        }
    }
    check::<TallyDecoder>("tally", TallyFrame::Confirm { frontier: Round(300) });
    check::<ControlDecoder>("control", ControlFrame::Fetch(Fetch { from: Index(300), ..Fetch::default() }));
    check::<NodeDecoder>("node", NodeFrame::Join { name: "demo".into() });
}

#[test]
fn a_tally_frame_out_of_bounds_is_refused() {
    let resume = |frontiers| refused_frame::<TallyDecoder>(TallyFrame::Resume { frontiers });
    assert_eq!(resume(vec![(Rank(0), Round(0)); MEMBERS_MAX + 1]), over("lanes", 65, 64).into());
    assert_eq!(resume(vec![(Rank(64), Round(0))]), over("rank", 64, 63).into());
    let (frontier, round_max) = (Round(ROUND_MAX + 1), over("round", ROUND_MAX + 1, ROUND_MAX));
    assert_eq!(resume(vec![(Rank(0), frontier)]), round_max.into());
    assert_eq!(refused_frame::<TallyDecoder>(TallyFrame::Confirm { frontier }), round_max.into());
    assert_eq!(refused_frame::<TallyDecoder>(TallyFrame::Approved { frontier }), round_max.into());
    let skips = |lane, prev, frontier| {
        let lanes = vec![KnownSkip { lane: Rank(lane), prev: Round(prev), frontier: Round(frontier) }];
        refused_frame::<TallyDecoder>(TallyFrame::Skips { lanes })
    };
    assert_eq!(skips(64, 0, 0), over("rank", 64, 63).into());
    assert_eq!(skips(0, 0, ROUND_MAX + 1), over("round", ROUND_MAX + 1, ROUND_MAX).into());
    assert_eq!(skips(0, 2, 1), FrameError::Order { prev: 2, round: 1 });
    let heartbeat = |index, checkpoint, begins| {
        let at = |index| Checkpoint { index: Index(index), ..Checkpoint::default() };
        let (checkpoint, begins) = (at(checkpoint), at(begins));
        let heartbeat =
            Heartbeat { index: Index(index), checkpoint, waiting: false, complete: true, begins, sync_ms: 7 };
        refused_frame::<TallyDecoder>(TallyFrame::Heartbeat(heartbeat))
    };
    assert_eq!(heartbeat(u64::MAX, 0, 0), over("index", u64::MAX, COUNTER_MAX).into());
    assert_eq!(heartbeat(0, u64::MAX, 0), over("checkpoint", u64::MAX, COUNTER_MAX).into());
    assert_eq!(heartbeat(0, 0, u64::MAX), over("checkpoint", u64::MAX, COUNTER_MAX).into());
}

#[test]
fn a_node_frame_out_of_bounds_is_refused() {
    let addresses = vec![SocketAddr::from(([1, 2, 3, 4], 5)); ADDRESSES_MAX + 1];
    assert_eq!(
        refused_frame::<NodeDecoder>(NodeFrame::Hello { addresses, process: u64::MAX, advertised: None }),
        over("addresses", 17, 16).into()
    );
    let advertised = Some("n".repeat(ADVERTISED_BYTES_MAX + 1));
    assert_eq!(
        refused_frame::<NodeDecoder>(NodeFrame::Hello { addresses: Vec::new(), process: 1, advertised }),
        over("an advertised name's bytes", 262, 261).into()
    );
    for name in ["", "two words:7400", "one\u{202e}:7400"] {
        let hello = NodeFrame::Hello { addresses: Vec::new(), process: 1, advertised: Some(name.to_owned()) };
        assert_eq!(refused_frame::<NodeDecoder>(hello), AdvertisedError.into(), "{name:?}");
    }
    let (name, reason) = ("n".repeat(GROUP_NAME_BYTES_MAX + 1), "r".repeat(REASON_BYTES_MAX + 1));
    let name_max = over("a group name's bytes", 129, 128);
    assert_eq!(refused_frame::<NodeDecoder>(NodeFrame::Join { name: name.clone() }), name_max.into());
    assert_eq!(refused_frame::<NodeDecoder>(NodeFrame::Observe { name: name.clone() }), name_max.into());
    let refuse =
        |name, reason| refused_frame::<NodeDecoder>(NodeFrame::Refused { name, reason, refusal: Refusal::Final });
    assert_eq!(refuse(name, String::new()), name_max.into());
    assert_eq!(refuse(String::new(), reason), over("a reason's bytes", 513, 512).into());
    let nodes = vec![NodeId([1; 32]); REVOKED_PER_FRAME_MAX + 1];
    assert_eq!(
        refused_frame::<NodeDecoder>(NodeFrame::Revoked { own: true, nodes }),
        over("revoked nodes", 29, 28).into()
    );
    let certificate = Bytes::from(vec![1; CERTIFICATE_BYTES_MAX + 1]);
    let error = over("a certificate's bytes", 769, 768);
    assert_eq!(refused_frame::<NodeDecoder>(NodeFrame::Certificate(certificate)), error.into());
    let named = |name: &str, parameters, [linked, seeds]: [usize; 2]| {
        let (linked, seeds) = (vec![NodeId([1; 32]); linked], vec![ReportedSeed { name: 1, node: None }; seeds]);
        let opening = Some(Opening { expect: 3, parameters, linked, seeds });
        let report = NameReport { name: name.to_owned(), group: NamedGroup::Absent, opening };
        refused_frame::<NodeDecoder>(NodeFrame::Named(Box::new(report)))
    };
    let works = Parameters::default();
    let long = "n".repeat(GROUP_NAME_BYTES_MAX + 1);
    assert_eq!(named(&long, works.clone(), [0, 0]), over("a group name's bytes", 129, 128).into());
    assert_eq!(named("", works.clone(), [65, 0]), over("nodes that open a group", 65, 64).into());
    assert_eq!(named("", works.clone(), [0, 65]), over("seeds", 65, 64).into());
    assert_eq!(named("", works.ring_min(0), [0, 0]), FrameError::Parameters(ParametersError::Zero("ring_min")));
}

#[test]
fn a_control_frame_out_of_bounds_is_refused() {
    let check = |frame, error: BoundError| {
        assert_eq!(refused_frame::<ControlDecoder>(frame), error.into());
    };
    let (view, index, first) = (ViewId(u64::MAX), Index(u64::MAX), LogIndex(u64::MAX));
    let counter = |what| over(what, u64::MAX, COUNTER_MAX);
    check(
        ControlFrame::Invite { name: "n".repeat(129), durability: Durability::Disk },
        over("a group name's bytes", 129, 128),
    );
    check(
        ControlFrame::Refuse { reason: "r".repeat(513), refusal: Refusal::Final },
        over("a reason's bytes", 513, 512),
    );
    check(ControlFrame::Follow { next: first, voter: ConsensusId(0), level: WIRE_VERSION }, counter("log position"));
    check(
        ControlFrame::Follow { next: LogIndex(1), voter: ConsensusId(u64::MAX), level: WIRE_VERSION },
        counter("consensus id"),
    );
    check(ControlFrame::Log { first, entries: vec![], term: 0 }, counter("log position"));
    let (first, entries) = (LogIndex(1), vec![Bytes::new(); LOG_ENTRIES_PER_FRAME_MAX + 1]);
    check(ControlFrame::Log { first, entries, term: 0 }, over("log entries", 41, 40));
    let entries = vec![Bytes::from(vec![0; COMMAND_BYTES_MAX + 1])];
    check(ControlFrame::Log { first, entries, term: 0 }, over("a log entry's bytes", 49_153, 49_152));
    check(ControlFrame::Log { first, entries: vec![], term: u64::MAX }, counter("term"));
    check(ControlFrame::Ready { view }, counter("view"));
    check(ControlFrame::Wedge { view, last: true, again: false }, counter("view"));
    let fetch = Fetch::default();
    check(ControlFrame::Fetch(Fetch { from: index, ..fetch.clone() }), counter("index"));
    check(ControlFrame::Fetch(Fetch { before: view, ..fetch.clone() }), counter("view"));
    let held = HeldPart::Entry { length: 3, offset: 4 };
    check(ControlFrame::Fetch(Fetch { held, ..fetch.clone() }), over("a slot body's bytes", 4, 3));
    let held = HeldPart::Snapshot { index, digest: Digest(0), offset: 0 };
    check(ControlFrame::Fetch(Fetch { held, ..fetch }), counter("index"));
    check(
        ControlFrame::Fetched(Fetched::End { index, ahead: 0, view: ViewId(1), first: Index(1), digest: Digest(0) }),
        counter("index"),
    );
    check(
        ControlFrame::Fetched(Fetched::End { index: Index(1), ahead: 0, view, first: Index(1), digest: Digest(0) }),
        counter("view"),
    );
    check(ControlFrame::Fetched(Fetched::Truncated { first: index }), counter("index"));
    let result = Checkpoint { index, ..Checkpoint::default() };
    check(ControlFrame::Final { result, report: Bytes::new() }, counter("index"));
    check(ControlFrame::Join { run: 1, observer: false, result, level: WIRE_VERSION }, counter("index"));
    let (node, healthy) = (NodeId([1; 32]), Checkpoint::default());
    let diverged = |view, theirs, ours| ControlFrame::Diverged { view: ViewId(view), node, theirs, ours };
    check(diverged(u64::MAX, healthy, healthy), counter("view"));
    check(diverged(1, result, healthy), counter("index"));
    check(diverged(1, healthy, result), counter("index"));
    let (coordinator, address) = (NodeId([1; 32]), SocketAddr::from(([1, 2, 3, 4], 5)));
    let name = "n".repeat(129);
    check(
        ControlFrame::Running { name, creator: coordinator, durability: Durability::Memory },
        over("a group name's bytes", 129, 128),
    );
    let refer = |count, left| ControlFrame::Refer { coordinator, addresses: vec![address; count], left };
    check(refer(17, Duration::ZERO), over("addresses", 17, 16));
    check(refer(1_000, Duration::ZERO), over("a referral, bytes", 6_037, 1_024));
    check(refer(16, Duration::MAX), over("what is left of the phase, seconds", u64::MAX, u32::MAX.into()));
    let (result, report) = (Checkpoint::default(), Bytes::from(vec![0; REPORT_BYTES_MAX + 1]));
    check(ControlFrame::Final { result, report }, over("a report's bytes", 4_097, 4_096));
}

fn wedged() -> Wedged {
    let frontiers = vec![Round(ROUND_MAX); MEMBERS_MAX];
    let digest = crate::digest::Digest(u128::MAX);
    let (view, incarnation, first) = (ViewId(COUNTER_MAX), Incarnation(COUNTER_MAX), Index(COUNTER_MAX));
    let (cursor, findings) = (Place::default(), Findings::default());
    Wedged { view, incarnation, frontiers, complete: true, first, digest, cursor, findings }
}

#[test]
fn a_last_word_out_of_bounds_is_refused() {
    let check = |wedged, error: BoundError| {
        assert_eq!(refused_frame::<ControlDecoder>(ControlFrame::Wedged(wedged)), error.into());
    };
    check(Wedged { frontiers: vec![Round(0); 65], ..wedged() }, over("lanes", 65, 64));
    check(Wedged { frontiers: vec![Round(u64::MAX)], ..wedged() }, over("round", u64::MAX, ROUND_MAX));
    check(Wedged { view: ViewId(u64::MAX), ..wedged() }, over("view", u64::MAX, COUNTER_MAX));
    check(Wedged { first: Index(u64::MAX), ..wedged() }, over("index", u64::MAX, COUNTER_MAX));
    let incarnation = Incarnation(u64::MAX);
    check(Wedged { incarnation, ..wedged() }, over("incarnation", u64::MAX, COUNTER_MAX));
    let down = Findings { down: vec![Rank(0); 65], stalled: vec![], quiet: vec![] };
    check(Wedged { findings: down, ..wedged() }, over("members found down", 65, 64));
    let quiet = Findings { quiet: vec![Rank(0); 65], ..Findings::default() };
    check(Wedged { findings: quiet, ..wedged() }, over("quiet members", 65, 64));
    let stalled = Findings { down: vec![], stalled: vec![(Rank(0), Stall::Unconfirmed); 10_000], quiet: vec![] };
    let refused =
        refused_frame::<ControlDecoder>(ControlFrame::Suspect { view: ViewId(1), findings: stalled, wedged: false });
    assert!(refused.to_string().contains("findings"), "{refused}");
}

/// Decoding a list of a million takes far more memory than its encoding, so its length is checked by itself: also where
/// the list does not follow, and where the variant's number is written in more bytes than it needs.
#[test]
fn a_long_list_is_refused_before_it_is_decoded() {
    let million = [0xc0, 0x84, 0x3d];
    for log in [&[4u8][..], &[0x84, 0x00]] {
        let bytes = message(&[log, &[1], &million].concat());
        assert_eq!(refused::<ControlDecoder>(&bytes), over("log entries", 1_000_000, 40).into());
    }
    for wedged in [&[7u8][..], &[0x87, 0x00]] {
        let bytes = message(&[wedged, &[1, 1], &million].concat());
        assert_eq!(refused::<ControlDecoder>(&bytes), over("lanes", 1_000_000, 64).into());
    }
}

#[test]
fn a_bad_fetched_entry_is_refused() {
    let change = |change: fn(&mut Fetched)| {
        let mut frame = fetched(&[vec![1; 10]]);
        if let ControlFrame::Fetched(entry) = &mut frame {
            change(entry);
        }
        refused_frame::<ControlDecoder>(frame)
    };
    let index = change(|entry| {
        if let Fetched::Entry { first_index, .. } = entry {
            *first_index = Index(u64::MAX);
        }
    });
    assert_eq!(index, over("index", u64::MAX, COUNTER_MAX).into());
    let seq = change(|entry| {
        if let Fetched::Entry { first_seq, .. } = entry {
            first_seq.0 = u64::MAX;
        }
    });
    assert_eq!(seq, over("sequence number", u64::MAX, COUNTER_MAX).into());
    let body = change(|entry| {
        if let Fetched::Entry { part, length, .. } = entry {
            *part = batch(1, &[vec![1], vec![2]]).body;
            *length = part.len() as u64;
        }
    });
    assert_eq!(body, BodyError::Extent.into());
    let beyond = change(|entry| {
        if let Fetched::Entry { offset, .. } = entry {
            *offset = 3;
        }
    });
    assert_eq!(beyond, over("a slot body's bytes", 14, 11).into());
    let large = change(|entry| {
        if let Fetched::Entry { part, length, .. } = entry {
            *part = vec![1; FETCH_PART_BYTES + 1].into();
            *length = 1 << 20;
        }
    });
    assert_eq!(large, over("a part's bytes", FETCH_PART_BYTES as u64 + 1, FETCH_PART_BYTES as u64).into());
}

/// The bounds on encodings are large enough for everything that the bounds on values allow.
#[test]
fn the_largest_value_of_each_field_is_accepted() {
    let (view, lane) = (ViewId(COUNTER_MAX), Rank(MEMBERS_MAX as u16 - 1));
    taken::<HeaderDecoder>(StreamHeader {
        incarnation: Incarnation(COUNTER_MAX),
        ..header(Stream::Lane { view, lane })
    });
    taken::<LaneDecoder>(LaneFrame::Slot(slot(0, 0, 1, &[vec![1; PAYLOAD_BYTES_MAX]])));
    taken::<LaneDecoder>(LaneFrame::Slot(slot(0, 0, 1, &vec![vec![]; SLOT_PAYLOADS_MAX as usize])));
    taken::<TallyDecoder>(TallyFrame::Resume { frontiers: vec![(lane, Round(ROUND_MAX)); MEMBERS_MAX] });
    let skip = KnownSkip { lane, prev: Round(ROUND_MAX), frontier: Round(ROUND_MAX) };
    taken::<TallyDecoder>(TallyFrame::Skips { lanes: vec![skip; MEMBERS_MAX] });
    let addresses = vec![SocketAddr::from(([0xffff; 8], u16::MAX)); ADDRESSES_MAX];
    let advertised = Some("n".repeat(ADVERTISED_BYTES_MAX));
    taken::<NodeDecoder>(NodeFrame::Hello { addresses, process: u64::MAX, advertised });
    let (name, reason) = ("n".repeat(GROUP_NAME_BYTES_MAX), "r".repeat(REASON_BYTES_MAX));
    taken::<NodeDecoder>(NodeFrame::Refused { name, reason, refusal: Refusal::Final });
    taken::<NodeDecoder>(NodeFrame::Revoked { own: true, nodes: vec![NodeId([0xff; 32]); REVOKED_PER_FRAME_MAX] });
    taken::<NodeDecoder>(NodeFrame::Certificate(vec![0xff; CERTIFICATE_BYTES_MAX].into()));
    let linked = vec![NodeId([0xff; 32]); MEMBERS_MAX];
    let seeds = vec![ReportedSeed { name: u64::MAX, node: Some(NodeId([0xff; 32])) }; MEMBERS_MAX];
    let parameters = largest_install().parameters;
    let opening = Some(Opening { expect: u16::MAX, parameters, linked, seeds });
    let group = NamedGroup::Forming { group: GroupId([0xff; 16]), creator: NodeId([0xff; 32]) };
    let name = "n".repeat(GROUP_NAME_BYTES_MAX);
    taken::<NodeDecoder>(NodeFrame::Named(Box::new(NameReport { name, group, opening })));
    taken::<ControlDecoder>(fetched(&[vec![1; FETCH_PART_BYTES - 3]]));
    taken::<ControlDecoder>(ControlFrame::Wedged(wedged()));
    let entries = vec![Bytes::from(vec![0; COMMAND_BYTES_MAX]); LOG_ENTRIES_PER_FRAME_MAX];
    taken::<ControlDecoder>(ControlFrame::Log { first: LogIndex(COUNTER_MAX), entries, term: COUNTER_MAX });
    let install = Command::InstallView(largest_install());
    assert_eq!(decode_command(&encode_command(&install)), Ok(install));
}
