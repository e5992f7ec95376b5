//! Catching up over paths as they are, in virtual time. `cargo bench -p cloudy-node --bench catch_up` measures more of them.

use std::time::Duration;

use cloudy_node::{
    CannotKeepUp, CatchUpPolicy, ClusterKey, Event, Group, GroupConfig, NodeId, Parameters, SlowDownEnd, ViewId,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::large::{Newcomer, StateTransfer, payloads_fetched_in};
use crate::path::{Absence, Path, address, fetched_in, index, load, returns, streamed_in};

const PAYLOAD_BYTES: usize = 16 << 10;

/// A newcomer gets its history nearly as fast as one stream carries it, however long the round trip. What it says before it
/// may fetch takes some round trips.
#[tokio::test(start_paused = true)]
async fn a_newcomer_fetches_nearly_as_fast_as_one_stream() {
    for (round_trip_ms, megabits, megabytes) in [(1, 100, 4), (50, 100, 6), (100, 10, 2), (300, 10, 2)] {
        let path = Path::of(round_trip_ms, Some(megabits));
        let count = megabytes * 64;
        let streamed = streamed_in(path, count as usize * PAYLOAD_BYTES).await;
        let fetched = fetched_in(path, PAYLOAD_BYTES, count).await;
        let most = streamed.mul_f64(1.25) + 8 * path.round_trip + Duration::from_millis(200);
        assert!(fetched <= most, "{path:?}: {fetched:?}, a stream takes {streamed:?}");
    }
}

/// A member that was away while the others broadcast comes back within seconds, and the others do not wait for it.
#[tokio::test(start_paused = true)]
async fn a_partitioned_member_rejoins_under_load() {
    for (round_trip_ms, payload_bytes) in [(10, PAYLOAD_BYTES), (50, 1_000), (100, PAYLOAD_BYTES)] {
        let came = returns(Absence {
            path: Path::of(round_trip_ms, None),
            payload_bytes,
            bytes_per_second: 2_000_000,
            away: Duration::from_secs(2),
            patience: Duration::from_secs(30),
        })
        .await;
        let is_back = came.back_after.is_some_and(|after| after < Duration::from_secs(6));
        let is_short = came.longest_gap < Duration::from_secs(1);
        assert!(is_back && is_short, "{round_trip_ms} ms: {came:?}");
    }
}

async fn view(group: &Group) -> ViewId {
    group.status().await.unwrap().view.unwrap().id
}

/// The events so far by which a node reports that it cannot keep up.
async fn reported(group: &Group) -> Vec<CannotKeepUp> {
    let (mut events, mut reported) = (group.events(), Vec::new());
    while let Ok(Some(Ok(event))) = timeout(Duration::ZERO, events.next()).await {
        if let Event::CannotKeepUp(rates) = event {
            reported.push(rates);
        }
    }
    reported
}

/// The limits that a member reports while the group slows down for nodes, and how the last of them ends.
async fn slow_down_of(group: Group) -> (Vec<(NodeId, u64)>, (NodeId, SlowDownEnd)) {
    let (mut events, mut limits) = (group.events(), Vec::new());
    loop {
        match events.next().await.unwrap().unwrap() {
            Event::SlowDown { node, bytes_per_second } => limits.push((node, bytes_per_second)),
            Event::SlowDownEnded { node, end } => return (limits, (node, end)),
            _ => {}
        }
    }
}

/// A newcomer whose link carries less than the group's load learns that, and holds up no member. Once it fetches faster than the
/// result grows, it joins.
#[tokio::test(start_paused = true)]
async fn a_newcomer_that_cannot_keep_up_learns_both_rates_stops_nobody_and_joins_once_it_can() {
    let (path, key) = (Path::of(20, None), ClusterKey::generate().unwrap());
    let network = path.network();
    let (_nodes, groups) = path.group_of(2, &network, &key).await;
    let loads = groups.iter().map(|group| load(group, vec![7; PAYLOAD_BYTES], 1_000_000)).collect::<Vec<_>>();
    sleep(Duration::from_secs(1)).await;
    let before = view(&groups[0]).await;
    let newcomer = Path::of(20, Some(8)).node(&network, &key, 3).await;
    let joins = newcomer.join_group_at("load", address(1)).timeout(Duration::from_secs(8));
    let error = joins.await.unwrap_err().to_string();
    assert!(error.contains("this node cannot keep up: it fetches 0."), "{error}");
    let again = newcomer.clone();
    let joins = tokio::spawn(async move { again.join_group_at("load", address(1)).without_timeout().await });
    sleep(Duration::from_secs(8)).await;
    assert_eq!(view(&groups[0]).await, before, "the group has gone on");
    loads.iter().for_each(JoinHandle::abort);
    let joined = joins.await.unwrap().unwrap();
    let reported = reported(&joined).await;
    let is_slower = |rates: &CannotKeepUp| rates.fetched < 1_000_000 && rates.grown >= rates.fetched;
    assert!((1..=2).contains(&reported.len()) && reported.iter().all(is_slower), "{reported:?}");
}

/// Where the group slows down, the same newcomer joins under the load, and stays on the ring.
#[tokio::test(start_paused = true)]
async fn a_newcomer_that_cannot_keep_up_joins_under_load_where_the_group_slows_down() {
    let (path, key) = (Path::of(20, None), ClusterKey::generate().unwrap());
    let network = path.network();
    let config = GroupConfig::default().parameters(Parameters::default().catch_up(CatchUpPolicy::SlowDown));
    let (_nodes, groups) = path.group_with(config, 2, &network, &key).await;
    let slows_down = tokio::spawn(slow_down_of(groups[0].clone()));
    let _loads = groups.iter().map(|group| load(group, vec![7; PAYLOAD_BYTES], 1_000_000)).collect::<Vec<_>>();
    sleep(Duration::from_secs(1)).await;
    let newcomer = Path::of(20, Some(8)).node(&network, &key, 3).await;
    let joined = newcomer.join_group_at("load", address(1)).timeout(Duration::from_secs(60)).await.unwrap();
    let joined_in = view(&groups[0]).await;
    let (limits, end) = timeout(Duration::from_secs(5), slows_down).await.expect("the limit ends").unwrap();
    assert_eq!(end, (newcomer.id(), SlowDownEnd::Joined));
    let is_half = |(node, limit): &(_, u64)| *node == newcomer.id() && (200_000..600_000).contains(limit);
    assert!(limits.len() == 1 && limits.iter().all(is_half), "half of what the newcomer fetches: {limits:?}");
    sleep(Duration::from_secs(8)).await;
    assert_eq!(view(&groups[0]).await, joined_in, "it stays on the ring under the load");
    assert!(index(&joined).await > 0);
}

/// A newcomer whose link takes 8 s for the history alone fetches it while three members go on broadcasting, and costs them
/// one short view change.
#[tokio::test(start_paused = true)]
async fn a_newcomer_joins_under_load_after_a_long_history_with_one_view_change() {
    let newcomer = Newcomer {
        members: 3,
        paths: (Path::of(50, None), Path::of(50, Some(20))),
        payload_bytes: 6 << 10,
        history: 3_000,
        bytes_per_second: 384_000,
        patience: Duration::from_secs(60),
    };
    let came = newcomer.comes().await;
    assert!(came.joined_after.is_some() && came.longest_gap < Duration::from_secs(1), "{came:?}");
    assert_eq!(came.views, 1, "{came:?}");
}

/// A newcomer begins with a snapshot of a large state although the members take newer ones while it comes, and the result
/// outgrows what they retain: the source gives the one that it began to give, and keeps what follows it.
#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_a_large_state_while_the_members_take_newer_snapshots() {
    let transfer = StateTransfer {
        members: 2,
        paths: (Path::of(20, None), Path::of(20, Some(20))),
        state_bytes: 12 << 20,
        snapshot_every_bytes: 2 << 20,
        retain_bytes: 10 << 20,
        payload_bytes: 100,
        bytes_per_second: 2_000_000,
        patience: Duration::from_secs(60),
    };
    let came = transfer.run().await;
    assert!(came.joined_after.is_ok(), "{came:?}");
    assert!(came.taken > 3 && came.restored && came.grown_per_second > 1_600_000.0, "{came:?}");
}

/// Payloads that take seconds each arrive one after the other, from whatever number of sources.
#[tokio::test(start_paused = true)]
async fn a_newcomer_fetches_large_payloads_over_a_slow_link() {
    let (path, bytes, count) = (Path::of(20, Some(10)), 4 << 20, 3);
    let ideal = Duration::from_secs_f64((bytes as u64 * count * 8) as f64 / 1e7);
    let took = payloads_fetched_in(path, 3, (bytes, count), Duration::from_secs(60)).await;
    assert!(
        took.is_some_and(|took| took < ideal.mul_f64(1.25) + Duration::from_secs(1)),
        "{took:?}, at best {ideal:?}"
    );
}
