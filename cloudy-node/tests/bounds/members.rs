//! Members of a group that break its protocol.

use bytes::{Bytes, BytesMut};
use cloudy_node::{BroadcastError, Group, GroupConfig, Incarnation, Node, Rank, RingKind, Seq, ViewId};
use cloudy_proto::Round;
use cloudy_proto::slot::{Batch, Slot};
use cloudy_proto::wire::{KnownSkip, LaneFrame, Stream, TallyFrame, encode_lane, encode_tally};
use futures_util::future::join_all;

use crate::common::{key, read_final, start_all, within};
use crate::hostile::{BREACH, Hostile, Membership, closed, hello, join, open};

/// A group of two honest nodes and the hostile one.
async fn with_hostile(config: GroupConfig) -> (Vec<Node>, Vec<Group>, Hostile, quinn::Connection, Membership) {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let hostile = Hostile::new(&key);
    let address = nodes[0].local_addr();
    let (connection, mut node_stream) = hostile.link(address).await;
    let all = async {
        tokio::join!(
            nodes[0].create_group("ours", 3, config),
            nodes[1].join_group_at("ours", address),
            join(hostile.id, &connection, &mut node_stream, "ours")
        )
    };
    let (creator, member, membership) = within("the group is created", all).await;
    (nodes, vec![creator.unwrap(), member.unwrap()], hostile, connection, membership)
}

/// The stream, the incarnation that its header names, and the frames.
type Said = (Stream, Incarnation, Vec<u8>);

fn slot(prev: u64, round: u64, body: &'static [u8], count: u32) -> BytesMut {
    let batch = Batch { first_seq: Seq(1), count, body: Bytes::from_static(body) };
    let mut bytes = BytesMut::new();
    let frame = LaneFrame::Slot(Slot { round: Round(round), prev: Round(prev), batch });
    let body = encode_lane(&frame, &mut bytes).unwrap();
    bytes.extend_from_slice(&body);
    bytes
}

fn tally(frame: &TallyFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_tally(frame, &mut bytes);
    bytes
}

#[tokio::test]
async fn each_breach_closes_the_link_and_the_honest_end_with_one_result() {
    let (nodes, groups, hostile, connection, ours) = with_hostile(GroupConfig::default()).await;
    connection.close(0_u32.into(), b"");
    let other = ours.rank_of(nodes[1].id());
    let lane = |frames: &[u8]| (ours.lane(ours.rank), ours.incarnation, frames.to_vec());
    let tallies = |frames: &[u8]| (ours.tally(), ours.incarnation, frames.to_vec());
    let oversize = [&slot(0, 0, b"\x01x", 1)[..29], &u32::MAX.to_le_bytes()].concat();
    let newer = Incarnation(ours.incarnation.0 + 1);
    let not_its = "a stream that this peer may not open";
    let skip = |lane| KnownSkip { lane, prev: Round(0), frontier: Round(5) };
    let breaches: [(Said, &str); 17] = [
        ((ours.lane(other), ours.incarnation, slot(0, 0, b"\x01x", 1).to_vec()), not_its),
        ((ours.lane(other), ours.view.ring[other.at()].incarnation, Vec::new()), not_its),
        ((ours.lane(Rank(9)), ours.incarnation, Vec::new()), not_its),
        ((ours.lane(ours.rank), newer, Vec::new()), not_its),
        ((ours.tally(), newer, Vec::new()), not_its),
        (lane(&[7]), "a lane frame of kind 7"),
        (lane(&oversize), "a slot body of 4294967295 bytes; at most 16777224"),
        (lane(&slot(0, 0, b"\x02x", 1)), "do not fill the slot body"),
        (lane(&slot(0, 0, b"\x01x", 2)), "length is malformed"),
        (lane(&slot(0, 0, b"\x81\x00x", 1)), "length is malformed"),
        (lane(&slot(5, 3, b"\x01x", 1)), "prev 5 is above its round 3"),
        (lane(&slot(5, 5, b"\x01x", 1)), "are missing before its frame with prev 5"),
        (tallies(&5_000_u32.to_le_bytes()), "a tally frame of 5000 bytes; at most 4096"),
        (tallies(&[1, 0, 0, 0, 9]), "a tally frame that does not decode"),
        (
            tallies(&tally(&TallyFrame::Confirm { frontier: Round(1_000) })),
            "round 1000 is confirmed, but the lane ends at",
        ),
        (
            tallies(&tally(&TallyFrame::Skips { lanes: vec![skip(ours.rank_of(nodes[0].id()))] })),
            "which another member carries",
        ),
        (tallies(&tally(&TallyFrame::Skips { lanes: vec![skip(Rank(9))] })), "which another member carries"),
    ];
    for ((stream, incarnation, frames), words) in breaches {
        let (connection, _node_stream) = hostile.link(nodes[0].local_addr()).await;
        let bytes = [&crate::hostile::header(ours.group, incarnation, stream)[..], &frames[..]].concat();
        let _stream = open(&connection, &bytes).await;
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, BREACH, "{reason}");
        assert!(reason.contains(words), "{reason:?} says nothing of {words:?}");
        // The group is there, and the other member with it.
        let status = groups[0].status().await.unwrap();
        assert!(status.members.iter().any(|member| member.node == nodes[1].id() && member.linked));
    }
    // It cannot be approved without the member that does not confirm it; the close includes it, since all remaining
    // members have it.
    drop(groups[0].broadcast("mine").await.unwrap());
    drop(groups[1].broadcast("thine").await.unwrap());
    crate::common::until("both hold both", async || {
        let statuses = join_all(groups.iter().map(|group| group.status())).await;
        let held = statuses.iter().flatten().map(|status| {
            status.members.iter().filter(|member| member.node != hostile.id && member.frontier > 0).count()
        });
        held.sum::<usize>() == 4
    })
    .await;
    groups[0].end();
    let results = join_all(groups.iter().map(read_final)).await;
    assert_eq!(results[0].len(), 2);
    assert_eq!(results[0], results[1]);
}

#[tokio::test]
async fn on_a_relay_ring_lanes_come_from_the_parent_only() {
    let mut config = GroupConfig::default();
    config.parameters.ring = RingKind::Relay;
    let (nodes, _groups, hostile, connection, ours) = with_hostile(config).await;
    connection.close(0_u32.into(), b"");
    let lanes = [Rank(0), Rank(1), Rank(2)];
    let after = |rank: Rank| Rank((rank.0 + 1) % 3);
    for node in &nodes {
        let its = ours.rank_of(node.id());
        let follows = its == after(ours.rank);
        let opens = lanes.iter().filter(|&&lane| !follows || lane == its).map(|&lane| (ours.lane(lane), Vec::new()));
        // Its parent forwards exactly the slots it has, of each lane.
        let past = lanes.iter().filter(|&&lane| !follows && lane != ours.rank).map(|&lane| {
            let frontiers = vec![(lane, Round(1_000))];
            (ours.tally(), tally(&TallyFrame::Resume { frontiers }).to_vec())
        });
        for (stream, frames) in opens.chain(past).collect::<Vec<_>>() {
            let (connection, _node_stream) = hostile.link(node.local_addr()).await;
            let bytes = [&crate::hostile::header(ours.group, ours.incarnation, stream)[..], &frames[..]].concat();
            let _stream = open(&connection, &bytes).await;
            let (code, reason) = closed(&connection).await;
            let words = if frames.is_empty() { "a stream that this peer may not open" } else { "it resumes lane" };
            assert!(code == BREACH && reason.contains(words), "{stream:?} to {its:?}: {code} {reason}");
        }
    }
}

#[tokio::test]
async fn a_member_that_reads_nothing_costs_a_window_and_no_more() {
    let mut config = GroupConfig::default().outbox_bytes_max(100_000);
    config.parameters.window_bytes = 100_000;
    let (_nodes, groups, hostile, connection, ours) = with_hostile(config).await;
    // It wants to be sent everything, and confirms nothing.
    let resume = TallyFrame::Resume { frontiers: vec![(Rank(0), Round(0)), (Rank(1), Round(0)), (Rank(2), Round(0))] };
    let bytes = [&ours.header(ours.tally())[..], &tally(&resume)[..]].concat();
    let _stream = open(&connection, &bytes).await;
    let mut sent_bytes = 0;
    let full = loop {
        match groups[0].try_broadcast([9; 1_000]) {
            Ok(receipt) => drop(receipt),
            Err(full) => break full,
        }
        sent_bytes += 1_000;
        assert!(sent_bytes < 1_000_000, "nothing stops it");
        tokio::task::yield_now().await;
    };
    assert_eq!(full, BroadcastError::OutboxFull);
    // A window, an outbox, and a slot on its way between the two.
    assert!(sent_bytes <= 100_000 + 100_000 + 2 * 16_384, "{sent_bytes}");
    let status = groups[0].status().await.unwrap();
    assert!(status.pending.iter().all(|slot| slot.waits_for.contains(&hostile.id)));
    assert_eq!((status.index.0, connection.close_reason()), (0, None));
    groups[0].end();
    let results = join_all(groups.iter().map(read_final)).await;
    assert_eq!(results[0], results[1]);
    assert_eq!(
        results[0].iter().map(|message| message.id.seq.0).collect::<Vec<_>>(),
        (1..=results[0].len() as u64).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_a_members_older_one() {
    let (nodes, groups, hostile, first, _ours) = with_hostile(GroupConfig::default()).await;
    let second = hostile.connect(nodes[0].local_addr()).await;
    let _node_stream = hello(&second).await;
    let (code, words) = closed(&first).await;
    assert_eq!((code, words.as_str()), (1, "another connection of this pair stays"));
    let status = groups[0].status().await.unwrap();
    assert!(status.members.iter().all(|member| member.node != hostile.id || member.linked));
    assert_eq!(status.view.unwrap().id, ViewId(1));
    assert_eq!(second.close_reason(), None);
}
