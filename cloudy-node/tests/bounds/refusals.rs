//! Texts of other nodes in refusals, and the nodes that may refuse.

use bytes::BytesMut;
use cloudy_node::{CreationEvent, GroupConfig, GroupId, Incarnation, JoinError};
use cloudy_proto::Durability;
use cloudy_proto::wire::{ControlDecoder, ControlFrame, NodeDecoder, NodeFrame, Refusal, Stream};
use quinn::Connection;

use crate::common::{key, start, within};
use crate::hostile::{Hostile, control, header, hello, node, open, read_header};

/// Forges lines of a log on a terminal.
const FORGED: &str = "no\x1b[2J\x1b[1;1H\r\n2026-01-01T00:00:00Z ERROR cloudy: all is lost\u{202e}\u{200b}";
const HARMLESS: &str =
    "no\u{fffd}[2J\u{fffd}[1;1H\u{fffd}\u{fffd}2026-01-01T00:00:00Z ERROR cloudy: all is lost\u{fffd}\u{fffd}";

const GROUP: GroupId = GroupId([7; 16]);

/// Refuses every request with a forged text.
async fn refuse_all(connection: Connection) {
    let mut node_stream = hello(&connection).await;
    let refused = NodeFrame::Refused { name: "ours".to_owned(), reason: FORGED.to_owned(), refusal: Refusal::Final };
    while let Ok(mut stream) = connection.accept_uni().await {
        let (read, _rest) = read_header(&mut stream).await;
        if read.stream == Stream::Node {
            // A stream's content is a question for the group.
            let _ = stream.read_chunk(1 << 16, true).await;
            node_stream.write_all(&node(&refused)).await.unwrap();
        } else {
            let mut bytes = BytesMut::from(&header(read.group, Incarnation(0), Stream::Control)[..]);
            bytes.extend_from_slice(&control(&ControlFrame::Refuse {
                reason: FORGED.to_owned(),
                refusal: Refusal::Final,
            }));
            std::mem::forget(open(&connection, &bytes).await);
        }
        std::mem::forget(stream);
    }
}

#[tokio::test]
async fn words_of_a_refusal_are_harmless_wherever_they_go() {
    let key = key();
    let honest = start(&key).await;
    let hostile = Hostile::new(&key);
    let (at, id) = (hostile.endpoint.local_addr().unwrap(), hostile.id);
    let answering = tokio::spawn(async move {
        while let Some(incoming) = hostile.endpoint.accept().await {
            tokio::spawn(refuse_all(incoming.await.unwrap()));
        }
    });
    let error = within("the refusal", honest.join_group_at("ours", at)).await.unwrap_err();
    let JoinError::Refused { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, HARMLESS);
    let mut creation = honest.prepare_group("mine", GroupConfig::default()).await.unwrap();
    creation.invite(id);
    let event = within("the refusal", creation.next_event()).await.unwrap();
    assert_eq!(event, CreationEvent::Refused { node: id, reason: HARMLESS.to_owned() });
    answering.abort();
}

/// Waits until the peer has read everything on the node stream: it answers a separate question.
async fn heard(connection: &Connection, node_stream: &mut quinn::SendStream) {
    node_stream.write_all(&node(&NodeFrame::Observe { name: "unknown".to_owned() })).await.unwrap();
    loop {
        let mut stream = within("a stream", connection.accept_uni()).await.unwrap();
        let (read, mut rest) = read_header(&mut stream).await;
        let mut nodes = NodeDecoder::default();
        let mut controls = ControlDecoder::default();
        loop {
            let mut view: &[u8] = &rest;
            if read.stream == Stream::Node {
                while let Some(frame) = nodes.feed(&mut view).unwrap() {
                    if matches!(&frame, NodeFrame::Refused { name, .. } if name == "unknown") {
                        return;
                    }
                }
            } else if let Some(ControlFrame::Refuse { .. }) = controls.feed(&mut view).unwrap() {
                break;
            }
            let Some(chunk) = within("an answer", stream.read_chunk(1 << 16, true)).await.unwrap() else { break };
            rest = chunk.bytes;
        }
    }
}

#[tokio::test]
async fn a_peer_without_a_request_neither_ends_nor_redirects_a_join() {
    let key = key();
    let (creator, honest) = (start(&key).await, start(&key).await);
    let hostile = Hostile::new(&key);
    // Two wait: one has asked the creator, one waits for any node's invitation.
    let asking = honest.clone();
    let at = creator.local_addr();
    let asked = tokio::spawn(async move { asking.join_group_at("asked", at).await });
    let waiting = honest.join_group("waits").await.unwrap();
    within("the link", honest.connect(at)).await.unwrap();
    let (connection, mut node_stream) = hostile.link(honest.local_addr()).await;
    for _ in 0..3 {
        for name in ["asked", "waits"] {
            let (name, reason) = (name.to_owned(), "no".to_owned());
            let refused = NodeFrame::Refused { name, reason, refusal: Refusal::Final };
            node_stream.write_all(&node(&refused)).await.unwrap();
        }
    }
    // It also ignores the invitation to a group of the name that it asked another node for, and the claim that one
    // runs.
    let frames = [
        ControlFrame::Running { name: "asked".to_owned(), creator: hostile.id, durability: Durability::Memory },
        ControlFrame::Invite { name: "asked".to_owned(), durability: Durability::Memory },
    ];
    let mut bytes = BytesMut::from(&header(GROUP, Incarnation(0), Stream::Control)[..]);
    frames.iter().for_each(|frame| bytes.extend_from_slice(&control(frame)));
    let _control = open(&connection, &bytes).await;
    heard(&connection, &mut node_stream).await;
    let created = within("it is created", creator.create_group("asked", 2, GroupConfig::default())).await.unwrap();
    assert_eq!(within("it joins", asked).await.unwrap().unwrap().id(), created.id());
    let mut creation = creator.prepare_group("waits", GroupConfig::default()).await.unwrap();
    creation.invite(honest.id());
    let event = within("it accepts", creation.next_event()).await.unwrap();
    assert_eq!(event, CreationEvent::Accepted { node: honest.id() });
    let (created, joined) = within("both", async { tokio::join!(creation.create(None), waiting.joined()) }).await;
    assert_eq!(created.unwrap().id(), joined.unwrap().id());
}

#[tokio::test]
async fn a_node_that_fails_closes_its_links_with_words() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    let (connection, _node_stream) = hostile.link(target.local_addr()).await;
    cloudy_node::fault::panic_in(&target, "driver");
    assert_eq!(crate::hostile::closed(&connection).await, (11, "this node failed".to_owned()));
}
