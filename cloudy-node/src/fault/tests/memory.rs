use std::{sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, udp::EcnCodepoint};
use tokio::time::Instant;

use super::{
    super::{
        FaultCounters, Faults, LINE_DATAGRAMS_MAX, MEMORY_DATAGRAM_BYTES_MAX, MEMORY_LATENCY, MemoryBindError,
        MemoryNetwork, MemorySocket, REORDER_HOLD,
        line::{Datagram, Line},
    },
    addr, recv, recv_all, send, transmit,
};

fn network_of_two(faults: Faults) -> (MemoryNetwork, Arc<MemorySocket>, Arc<MemorySocket>) {
    let network = MemoryNetwork::new(faults.seed);
    network.set(faults).expect("valid faults");
    let a = network.bind(addr(1)).expect("free");
    let b = network.bind(addr(2)).expect("free");
    (network, a, b)
}

#[tokio::test(start_paused = true)]
async fn a_datagram_arrives_whole_after_the_default_latency() {
    let network = MemoryNetwork::new(0);
    let (a, b) = (network.bind(addr(1)), network.bind(addr(2)));
    let (a, b) = (a.expect("free"), b.expect("free"));
    let start = Instant::now();
    let mut sent = transmit(addr(2), b"hello", None);
    sent.ecn = Some(EcnCodepoint::Ect0);
    a.try_send(&sent).expect("always writable");

    let (meta, contents) = recv(&*b).await;
    assert_eq!(contents, b"hello");
    assert_eq!((meta.addr, meta.len, meta.stride), (addr(1), 5, 5));
    assert_eq!(meta.ecn, Some(EcnCodepoint::Ect0));
    assert_eq!(meta.dst_ip, Some(addr(2).ip()));
    assert_eq!(start.elapsed(), MEMORY_LATENCY);
    let counters = FaultCounters { sent: 1, delayed: 1, ..FaultCounters::default() };
    assert_eq!(network.counters(), counters);
}

#[tokio::test(start_paused = true)]
async fn full_loss_delivers_nothing_and_counts() {
    let (network, a, b) = network_of_two(Faults { loss: 1.0, ..Faults::none() });
    for _ in 0..100 {
        send(&*a, addr(2), b"x");
    }
    assert_eq!(recv_all(&*b).await, Vec::<Vec<u8>>::new());
    let counters = FaultCounters { dropped: 100, ..FaultCounters::default() };
    assert_eq!(network.counters(), counters);
}

/// Which of 10,000 numbered datagrams arrive.
async fn survivors_of_loss(seed: u64) -> Vec<Vec<u8>> {
    let (network, a, b) = network_of_two(Faults { loss: 0.2, seed, ..Faults::none() });
    for nth in 0_u16..10_000 {
        send(&*a, addr(2), &nth.to_be_bytes());
    }
    let arrived = recv_all(&*b).await;
    let counters = network.counters();
    assert_eq!(counters.sent, arrived.len() as u64);
    assert_eq!(counters.sent + counters.dropped, 10_000);
    assert!(arrived.is_sorted(), "only loss was asked for");
    arrived
}

#[tokio::test(start_paused = true)]
async fn loss_matches_the_configured_rate_and_repeats_with_its_seed() {
    let first = survivors_of_loss(1).await;
    // 8,000 ± 40 is one standard deviation.
    assert!((7_700..=8_300).contains(&first.len()), "{}", first.len());
    assert_eq!(first, survivors_of_loss(1).await);
    assert_ne!(first, survivors_of_loss(2).await);
}

#[tokio::test(start_paused = true)]
async fn latency_is_kept_in_virtual_time() {
    let latency = Duration::from_secs(30);
    let (_network, a, b) = network_of_two(Faults { latency, ..Faults::none() });
    let start = Instant::now();
    send(&*a, addr(2), b"first");
    tokio::time::advance(Duration::from_secs(10)).await;
    send(&*a, addr(2), b"second");

    assert_eq!(recv(&*b).await.1, b"first");
    assert_eq!(start.elapsed(), latency);
    assert_eq!(recv(&*b).await.1, b"second");
    assert_eq!(start.elapsed(), latency + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receiver_is_woken_for_an_earlier_datagram() {
    let (network, a, b) = network_of_two(Faults { latency: Duration::from_secs(30), ..Faults::none() });
    let start = Instant::now();
    send(&*a, addr(2), b"slow");
    let waiting = tokio::spawn(async move { recv(&*b).await.1 });
    tokio::task::yield_now().await;
    network.set(Faults::none()).expect("valid");
    send(&*a, addr(2), b"fast");
    assert_eq!(waiting.await.expect("received"), b"fast");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn duplicates_arrive_twice() {
    let (network, a, b) = network_of_two(Faults { duplicate: 1.0, ..Faults::none() });
    send(&*a, addr(2), b"one");
    send(&*a, addr(2), b"two");
    let mut arrived = recv_all(&*b).await;
    arrived.sort();
    assert_eq!(arrived, [b"one", b"one", b"two", b"two"]);
    let counters = network.counters();
    assert_eq!((counters.duplicated, counters.sent), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn held_back_datagrams_are_overtaken() {
    let (network, a, b) = network_of_two(Faults { reorder: 0.3, seed: 3, ..Faults::none() });
    let sent: Vec<_> = (0_u8..100).map(|nth| vec![nth]).collect();
    for contents in &sent {
        send(&*a, addr(2), contents);
    }
    let start = Instant::now();
    let mut arrived = recv_all(&*b).await;
    let held = usize::try_from(network.counters().reordered).expect("small");
    assert!((10..=50).contains(&held), "{held}");
    let (in_time, late) = arrived.split_at(100 - held);
    assert!(in_time.is_sorted() && late.is_sorted());
    assert!(late[0] < in_time[in_time.len() - 1], "nothing was overtaken");
    assert_eq!(start.elapsed(), REORDER_HOLD + super::QUIET);
    arrived.sort();
    assert_eq!(arrived, sent, "nothing is lost by it");
}

#[tokio::test(start_paused = true)]
async fn a_cut_parts_a_pair_in_both_directions_until_healed() {
    let faults = Faults { latency: MEMORY_LATENCY, ..Faults::none() };
    let (network, a, b) = network_of_two(faults);
    let c = network.bind(addr(3)).expect("free");
    send(&*a, addr(2), b"on its way when the cut comes");
    network.cut(addr(2), addr(1));
    send(&*a, addr(2), b"lost");
    send(&*b, addr(1), b"lost");
    send(&*c, addr(2), b"c to b");
    send(&*a, addr(3), b"a to c");
    assert_eq!(recv_all(&*b).await, [b"c to b"]);
    assert_eq!(recv_all(&*c).await, [b"a to c"]);
    assert_eq!(recv_all(&*a).await, Vec::<Vec<u8>>::new());
    assert_eq!(network.counters().blocked, 3);

    network.heal(addr(1), addr(2));
    send(&*a, addr(2), b"after");
    assert_eq!(recv_all(&*b).await, [b"after"]);
}

#[tokio::test(start_paused = true)]
async fn oversized_and_undeliverable_datagrams_are_lost_and_counted() {
    let (network, a, b) = network_of_two(Faults::none());
    let large = [7; MEMORY_DATAGRAM_BYTES_MAX + 1];
    send(&*a, addr(2), &large);
    send(&*a, addr(9), b"nobody");
    assert_eq!(network.counters().undeliverable, 2);
    send(&*a, addr(2), &large[1..]);
    network.set_datagram_bytes_max(large.len());
    send(&*a, addr(2), &large);
    let lengths: Vec<_> = recv_all(&*b).await.iter().map(Vec::len).collect();
    assert_eq!(lengths, [large.len() - 1, large.len()]);
}

#[tokio::test(start_paused = true)]
async fn segments_are_datagrams_of_their_own() {
    let (network, a, b) = network_of_two(Faults::none());
    a.try_send(&transmit(addr(2), b"aabbc", Some(2))).expect("always writable");
    assert_eq!(recv_all(&*b).await, [&b"aa"[..], b"bb", b"c"]);
    assert_eq!(network.counters().sent, 3);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_read_loses_past_its_bound() {
    let (network, a, b) = network_of_two(Faults::none());
    for _ in 0..LINE_DATAGRAMS_MAX + 5 {
        send(&*a, addr(2), b"x");
    }
    assert_eq!(network.counters().overflowed, 5);
    assert_eq!(recv_all(&*b).await.len(), LINE_DATAGRAMS_MAX);
    send(&*a, addr(2), b"y");
    assert_eq!(recv_all(&*b).await, [b"y"], "there is room again");
}

#[test]
fn a_line_is_bounded_in_bytes_and_gives_them_back() {
    let now = Instant::now();
    let datagram = |bytes| Datagram {
        source: addr(1),
        destination: addr(2),
        ecn: None,
        src_ip: None,
        contents: vec![0; bytes].into(),
    };
    let mut line = Line::new(10, 100);
    assert!(line.push(now, datagram(60)));
    assert!(!line.push(now, datagram(41)));
    assert!(line.push(now, datagram(40)));
    assert_eq!(line.pop_due(now).map(|it| it.contents.len()), Some(60));
    assert!(line.push(now, datagram(60)));
}

#[test]
fn an_address_is_one_place_with_one_socket() {
    let network = MemoryNetwork::new(0);
    let socket = network.bind(addr(1)).expect("free");
    assert_eq!(network.bind(addr(1)).expect_err("taken"), MemoryBindError::Taken(addr(1)));
    drop(socket);
    network.bind(addr(1)).expect("free again");
    for vague in ["10.0.0.1:0", "0.0.0.0:4433", "[::]:4433"] {
        let vague = vague.parse().expect("an address");
        let error = network.bind(vague).expect_err("vague");
        assert_eq!(error, MemoryBindError::NotOnePlace(vague));
    }
}

#[test]
fn refused_faults_leave_the_network_as_it_was() {
    let network = MemoryNetwork::new(5);
    let before = network.faults();
    network.set(Faults { loss: 7.0, ..before }).expect_err("out of range");
    assert_eq!(network.faults(), before);
}
