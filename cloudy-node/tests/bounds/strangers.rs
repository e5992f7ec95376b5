//! Peers of the cluster that are in no group.

use cloudy_node::internals::UNI_STREAMS_MAX;
use cloudy_node::{GroupConfig, GroupId, Incarnation, ViewId};
use cloudy_proto::Durability;
use cloudy_proto::limits::CONTROL_FRAME_BYTES_MAX;
use cloudy_proto::wire::{
    ControlFrame, Fetch, NodeFrame, Refusal, Stream, StreamHeader, WIRE_VERSION, WireVersions, encode_header,
};

use crate::common::{create, key, start, start_all, within};
use crate::goes_on;
use crate::hostile::{BREACH, Hostile, closed, control, header, hello, node, open};

const NOBODY: GroupId = GroupId([7; 16]);

#[tokio::test]
async fn an_undecodable_frame_closes_the_link_with_a_reason() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    let other_version = encode_header(&StreamHeader {
        versions: WireVersions { min: WIRE_VERSION + 1, max: WIRE_VERSION + 2 },
        group: NOBODY,
        incarnation: Incarnation(0),
        stream: Stream::Control,
    });
    let on_control = |frames: &[u8]| [&header(NOBODY, Incarnation(0), Stream::Control)[..], frames].concat();
    let mut truncated = control(&ControlFrame::Invite { name: "x".to_owned(), durability: Durability::Memory });
    truncated[0] += 1;
    truncated.extend_from_slice(&[0]);
    let versions = format!("one node speaks wire version {WIRE_VERSION}, the other {} to", WIRE_VERSION + 1);
    let version = WIRE_VERSION.to_le_bytes();
    let of_this_version = |rest: &[u8]| [&b"cloudy"[..], &version, &version, rest].concat();
    let too_long = format!("a control frame of 4294967295 bytes; at most {CONTROL_FRAME_BYTES_MAX} are allowed");
    let breaches: [(&[u8], &str); 8] = [
        (&other_version, &versions),
        (b"GET / HTTP/1.1\r\n", "does not begin with `cloudy`"),
        (&of_this_version(b"\xff\xff"), "a stream header of 65547 bytes; at most 256 are allowed"),
        (&of_this_version(b"\x02\x00\xff\xff"), "a stream header that does not decode"),
        (&on_control(&u32::MAX.to_le_bytes()), &too_long),
        (&on_control(&[1, 0, 0, 0, 99]), "a control frame that does not decode"),
        (&on_control(&truncated), "a control frame with 1 bytes after its end"),
        (&header(GroupId([0; 16]), Incarnation(0), Stream::Node), "a second node stream"),
    ];
    for (bytes, words) in breaches {
        let (connection, _node_stream) = hostile.link(target.local_addr()).await;
        let _stream = open(&connection, bytes).await;
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, BREACH, "{reason}");
        assert!(reason.contains(words), "{reason:?} says nothing of {words:?}");
    }
    // A stream that ends inside its header.
    let (connection, _node_stream) = hostile.link(target.local_addr()).await;
    open(&connection, b"cloudy").await.finish().unwrap();
    assert_eq!(closed(&connection).await, (BREACH, "a stream without a header".to_owned()));
    assert!(target.prepare_group("lives", GroupConfig::default()).await.is_ok());
}

#[tokio::test]
async fn a_link_begins_with_hello() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    let of_node = header(GroupId([0; 16]), Incarnation(0), Stream::Node);
    let join = node(&NodeFrame::Join { name: "x".to_owned() });
    let beginnings: [(&[u8], &str); 4] = [
        (&[&of_node[..], &join[..]].concat(), "does not begin with hello"),
        (&header(NOBODY, Incarnation(0), Stream::Control), "does not begin with hello"),
        (&[&of_node[..], &7_000_u32.to_le_bytes()].concat(), "a node frame of 7000 bytes; at most 6144 are allowed"),
        (&[0xff; 64], "does not begin with `cloudy`"),
    ];
    for (bytes, words) in beginnings {
        let connection = hostile.connect(target.local_addr()).await;
        let _stream = open(&connection, bytes).await;
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, BREACH, "{reason}");
        assert!(reason.contains(words), "{reason:?} says nothing of {words:?}");
    }
}

#[tokio::test]
async fn an_identity_cannot_be_borrowed() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "ours", GroupConfig::default()).await;
    let hostile = Hostile::new(&key);
    let ring = groups[0].status().await.unwrap().view.unwrap().ring.clone();
    // It knows the group and its members' incarnations, and has its own connection.
    for (lane, member) in ring.iter().enumerate() {
        let lane = cloudy_node::Rank(lane as u16);
        for stream in [Stream::Lane { view: ViewId(1), lane }, Stream::Tally { view: ViewId(1) }] {
            let (connection, _node_stream) = hostile.link(nodes[0].local_addr()).await;
            let _stream = open(&connection, &header(groups[0].id(), member.incarnation, stream)).await;
            let expected = (BREACH, "a stream that this peer may not open".to_owned());
            assert_eq!(closed(&connection).await, expected);
        }
    }
    // Frames that only a node of the group may send, or ask.
    let not_its = [
        ControlFrame::Coordinates { term: 1 << 40 },
        ControlFrame::Invite { name: "ours".to_owned(), durability: Durability::Memory },
        ControlFrame::Wedge { view: ViewId(1), last: true, again: false },
        ControlFrame::Log { first: cloudy_proto::LogIndex(4), entries: vec![bytes::Bytes::new(); 8], term: 0 },
        ControlFrame::End,
    ];
    let said: Vec<u8> = not_its.iter().flat_map(|frame| control(frame).to_vec()).collect();
    for node in &nodes {
        let (connection, _node_stream) = hostile.link(node.local_addr()).await;
        let bytes = [&header(groups[0].id(), Incarnation(0), Stream::Control)[..], &said[..]].concat();
        let _stream = open(&connection, &bytes).await;
        goes_on(&groups, 200).await;
        assert_eq!(groups[1].status().await.unwrap().coordinator, Some(nodes[0].id()));
    }
    // Entries that were taken from it would stand where the group's own come next.
    groups[0].end();
    let final_results = futures_util::future::join_all(groups.iter().map(crate::common::read_final)).await;
    assert_eq!(final_results[0], final_results[1]);
}

#[tokio::test]
async fn streams_of_groups_that_are_not_here_are_stopped_and_harmless() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "ours", GroupConfig::default()).await;
    let hostile = Hostile::new(&key);
    let (connection, _node_stream) = hostile.link(nodes[0].local_addr()).await;
    // More one after another than may be open at a time.
    for round in 0..2 * u64::from(UNI_STREAMS_MAX) {
        let view = ViewId(round);
        let streams = [Stream::Tally { view }, Stream::Lane { view, lane: cloudy_node::Rank(0) }];
        let bytes = header(NOBODY, Incarnation(1), streams[round as usize % 2]);
        let stream = open(&connection, &bytes).await;
        let stopped = within("the stop", stream.stopped()).await.unwrap();
        assert!(stopped.is_some(), "it is read");
    }
    // Control frames that belong to nothing.
    let adrift = [
        ControlFrame::Accept { run: 1 },
        ControlFrame::Refuse { reason: "no".to_owned(), refusal: Refusal::Final },
        ControlFrame::Follow {
            next: cloudy_proto::LogIndex(1),
            voter: cloudy_proto::ConsensusId(0),
            level: WIRE_VERSION,
        },
        ControlFrame::Fetch(Fetch { from: cloudy_node::Index(1), credit: u64::MAX, ..Fetch::default() }),
        ControlFrame::End,
    ];
    for group in [NOBODY, groups[0].id()] {
        let mut bytes = header(group, Incarnation(0), Stream::Control).to_vec();
        adrift.iter().for_each(|frame| bytes.extend_from_slice(&control(frame)));
        open(&connection, &bytes).await.finish().unwrap();
    }
    goes_on(&groups, 200).await;
    assert_eq!(connection.close_reason(), None);
    let again = hello(&connection).await;
    assert_eq!(closed(&connection).await.0, BREACH, "hello is said once");
    drop(again);
}
