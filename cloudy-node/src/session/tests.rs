//! Sessions in one process, on loopback UDP.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::{Digest, Event, OnFailure, Phase, RingKind, SessionPlan};
use tokio::sync::watch;

use super::*;
use crate::{ClusterKey, GroupConfig, Node, Parameters};

async fn nodes<const N: usize>() -> [Node; N] {
    let key = ClusterKey::generate().expect("a key");
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(Node::builder().cluster_key(&key).start().await.expect("starts"));
    }
    nodes.try_into().expect("as many as that")
}

fn config(slaves: &[SocketAddr]) -> MasterConfig {
    MasterConfig::new(
        SessionPlan::new(Duration::from_millis(100), Duration::from_millis(100), Duration::from_millis(100)).seed(1),
    )
    .session(SessionName::default())
    .durability(cloudy_proto::Durability::Memory)
    .on_failure(OnFailure::Wait)
    .ring(RingKind::Pipelined)
    .failure_timeout(Duration::from_millis(500))
    .timeout_max(Duration::from_secs(10))
    .slaves(slaves.iter().map(ToString::to_string).collect())
    .multicast(None)
    .expect(None)
    .discovery_timeout(Duration::from_secs(1))
    .ready_timeout(Duration::from_secs(10))
}

/// A member that is not a slave: its report differs from a slave's.
async fn odd_one_out(node: &Node, report: impl Fn(Summary) -> Bytes) {
    let group = node.join_group(GROUP_NAME).await.expect("waits").joined().await.expect("joins");
    let mut events = group.events();
    while let Some(Ok(event)) = events.next().await {
        match event {
            Event::Final { result } => {
                let count = result.index.0;
                let sum = if count == 0 { 0.0 } else { 1.0 };
                group.report(report(Summary {
                    count,
                    sum,
                    digest: result.digest,
                    own: 0,
                    confirmations: 0,
                    left: None,
                }));
            }
            Event::Closed => return,
            _ => {}
        }
    }
}

async fn start_at(key: &ClusterKey, address: &str) -> Node {
    let bind = address.parse().expect("an address");
    Node::builder().cluster_key(key).bind(bind).start().await.expect("starts")
}

#[tokio::test]
async fn master_and_slaves_agree_and_report_their_progress() {
    let [master, first, second] = nodes().await;
    let config = config(&[first.local_addr(), second.local_addr()]);
    let (seen, heard) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let (outcome, first, second) = tokio::join!(
        run_master(&master, &config, pending(), |event| heard.borrow_mut().push(event)),
        run_slave(&first, SlaveConfig::default(), pending(), |event| seen.borrow_mut().push(event)),
        run_slave(&second, SlaveConfig::default(), pending(), |_| {}),
    );
    let (outcome, first, second) = (outcome.expect("a session"), first.expect("a result"), second.expect("a result"));
    assert!(outcome.all_equal() && outcome.refusals.is_empty(), "{outcome:?}");
    assert!(first.summary.count > 0 && first.summary.same_result(&second.summary));
    assert_eq!(first.summary.count, first.summary.own + second.summary.own);
    let mut slaves = [first, second];
    slaves.sort_by_key(|slave| slave.rank);
    for (row, slave) in outcome.rows.iter().zip(&slaves) {
        assert_eq!((row.rank, &row.result), (slave.rank, &SlaveResult::Reported(slave.summary)));
        assert_eq!(slave.master, master.id());
        assert!(slave.timings.send > Duration::ZERO && slave.file_error.is_none());
    }
    let phases: Vec<Phase> = seen
        .borrow()
        .iter()
        .filter_map(|event| if let SlaveEvent::Phase(phase) = event { Some(*phase) } else { None })
        .collect();
    assert_eq!(phases, [Phase::Send, Phase::Grace, Phase::Stop, Phase::Done]);
    assert_eq!(seen.borrow()[0], SlaveEvent::Waiting);
    assert!(heard.borrow().iter().any(|event| matches!(event, MasterEvent::Created { members: 2, .. })));
}

#[tokio::test]
async fn a_master_on_all_addresses_of_both_families_runs_a_session_of_slaves_named_by_ipv4() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let key = ClusterKey::generate().expect("a key");
    let listen = async |address: &str| start_at(&key, address).await;
    let (master, first, second) = (listen("[::]:0").await, listen("0.0.0.0:0").await, listen("0.0.0.0:0").await);
    let named = [&first, &second].map(|slave| SocketAddr::from((Ipv4Addr::LOCALHOST, slave.local_addr().port())));
    let config = config(&named);
    let (outcome, first, second) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        run_slave(&first, SlaveConfig::default(), pending(), |_| {}),
        run_slave(&second, SlaveConfig::default(), pending(), |_| {}),
    );
    assert!(outcome.expect("a session").all_equal());
    assert!(first.expect("a result").summary.same_result(&second.expect("a result").summary));
}

#[tokio::test]
async fn slaves_of_different_families_are_named_as_a_pair() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let key = ClusterKey::generate().expect("a key");
    let listen = async |address: &str| start_at(&key, address).await;
    let (master, four, six) = (listen("[::]:0").await, listen("127.0.0.1:0").await, listen("[::1]:0").await);
    let config = config(&[four.local_addr(), six.local_addr()]).ready_timeout(Duration::from_secs(1));
    let error = tokio::select! {
        outcome = run_master(&master, &config, pending(), |_| {}) => outcome.expect_err("they do not reach each other"),
        outcome = run_slave(&four, SlaveConfig::default(), pending(), |_| {}) => panic!("{outcome:?}"),
        outcome = run_slave(&six, SlaveConfig::default(), pending(), |_| {}) => panic!("{outcome:?}"),
    };
    let MasterError::NotReady { apart, .. } = &error else { panic!("{error}") };
    let [(one, other)] = &apart[..] else { panic!("{error}") };
    let mut pair = [one.clone(), other.clone()];
    pair.sort();
    assert_eq!(pair, [four.local_addr().to_string(), six.local_addr().to_string()]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_left_out_and_named() {
    let [master, slave] = nodes().await;
    let mut config = config(&[slave.local_addr()]);
    // `.invalid` never exists (RFC 2606 §2).
    config.slaves.push("no-such-host.invalid:1".to_owned());
    let (outcome, slave) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        run_slave(&slave, SlaveConfig::default(), pending(), |_| {}),
    );
    let outcome = outcome.expect("a session");
    assert!(outcome.all_equal() && slave.is_ok());
    let [refusal] = &outcome.refusals[..] else { panic!("{:?}", outcome.refusals) };
    assert!(refusal.to_string().starts_with("no-such-host.invalid:1: it does not resolve"), "{refusal}");
}

#[tokio::test]
async fn reports_that_are_none_are_no_results() {
    let [master, garbled, lying] = nodes().await;
    let config = config(&[garbled.local_addr(), lying.local_addr()]);
    let (outcome, (), ()) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        odd_one_out(&garbled, |_| Bytes::from_static(b"\xff")),
        odd_one_out(&lying, |summary| Summary { digest: Digest(!summary.digest.0), ..summary }.to_report()),
    );
    let outcome = outcome.expect("a session");
    assert!(!outcome.all_equal());
    let result_of = |node: &Node| {
        let row = outcome.rows.iter().find(|row| row.slave.node == node.id());
        row.expect("a row").result.clone()
    };
    assert!(matches!(result_of(&garbled), SlaveResult::Unreadable(_)), "{outcome:?}");
    assert!(matches!(result_of(&lying), SlaveResult::Contradictory(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_payload_that_is_no_number_is_an_error_that_names_its_origin() {
    let [creator, slave] = nodes().await;
    let found = async {
        let parameters = Parameters::default().session(true);
        let config = GroupConfig::default().parameters(parameters);
        let mut creation = creator.prepare_group(GROUP_NAME, config).await.expect("begins");
        let node = creator.connect(slave.local_addr()).await.expect("connects");
        creation.invite(node);
        creation.next_event().await.expect("accepts");
        let plan = config_plan();
        let group = creation.create(Some(plan)).await.expect("creates");
        let mut events = group.events();
        while !matches!(events.next().await.expect("an event"), Ok(Event::Send { .. })) {}
        drop(group.broadcast([0xff; 8]).await.expect("broadcasts"));
        pending::<()>().await;
    };
    let error = tokio::select! {
        outcome = run_slave(&slave, SlaveConfig::default(), pending(), |_| {}) => outcome.expect_err("no number"),
        () = found => unreachable!("it waits for ever"),
    };
    let SlaveError::Number(wrong) = &error else { panic!("{error}") };
    assert_eq!(wrong.origin, creator.id());
    assert!(matches!(wrong.cause, numbers::NumberError::Range(number) if number.is_nan()), "{error}");
}

/// Long, because no test waits for its end.
fn config_plan() -> SessionPlan {
    let hour = Duration::from_secs(3_600);
    SessionPlan::new(hour, hour, hour).seed(0)
}

#[tokio::test]
async fn a_slave_without_an_answer_is_excluded_and_named() {
    let [master, slave] = nodes().await;
    let nobody = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let silent = nobody.local_addr().expect("an address");
    let config = config(&[slave.local_addr(), silent, master.local_addr()]);
    let (outcome, slave) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        run_slave(&slave, SlaveConfig::default(), pending(), |_| {}),
    );
    let outcome = outcome.expect("a session");
    assert!(outcome.all_equal() && slave.is_ok());
    let mut refused: Vec<&str> = outcome.refusals.iter().map(|refusal| refusal.name.as_str()).collect();
    refused.sort_unstable();
    let mut expected = [silent.to_string(), master.local_addr().to_string()];
    expected.sort_unstable();
    assert_eq!(refused, expected, "{:?}", outcome.refusals);
}

#[tokio::test]
async fn stopped_before_a_session_there_is_none() {
    let [master, slave] = nodes().await;
    let stopped = run_slave(&slave, SlaveConfig::default(), async { SlaveStop::Leave }, |_| {}).await;
    assert!(matches!(stopped, Err(SlaveError::StoppedWaiting)));
    let stopped = run_master(&master, &config(&[slave.local_addr()]), async {}, |_| {}).await;
    assert!(matches!(stopped, Err(MasterError::Stopped)));
    // Both nodes are unchanged.
    let config = config(&[slave.local_addr()]);
    let (outcome, slave) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        run_slave(&slave, SlaveConfig::default(), pending(), |_| {}),
    );
    assert!(outcome.expect("a session").all_equal() && slave.is_ok());
}

/// An observer, and a future that is ready once a slave is in SEND.
fn in_send() -> (impl Fn(SlaveEvent), impl Future<Output = ()>) {
    let (begun, mut begins) = watch::channel(false);
    let observe = move |event| {
        if event == SlaveEvent::Phase(Phase::Send) {
            begun.send_replace(true);
        }
    };
    // A slave without SEND returns an error, which the test shows.
    (observe, async move { drop(begins.wait_for(|begun| *begun).await) })
}

#[tokio::test]
async fn a_slave_that_leaves_has_no_result_and_the_others_have_one() {
    let [master, first, second, third] = nodes().await;
    let mut config = config(&[first.local_addr(), second.local_addr(), third.local_addr()]);
    config.plan.send = Duration::from_secs(1);
    let heard = RefCell::new(Vec::new());
    let (observe, begun) = in_send();
    let leave = async {
        begun.await;
        SlaveStop::Leave
    };
    let (outcome, first, second, third) = tokio::join!(
        run_master(&master, &config, pending(), |event| heard.borrow_mut().push(event)),
        run_slave(&first, SlaveConfig::default(), leave, observe),
        run_slave(&second, SlaveConfig::default(), pending(), |_| {}),
        run_slave(&third, SlaveConfig::default(), pending(), |_| {}),
    );
    let outcome = outcome.expect("a session");
    assert!(matches!(first, Err(SlaveError::Left { .. })), "{first:?}");
    let (second, third) = (second.expect("a result"), third.expect("a result"));
    assert!(second.summary.same_result(&third.summary));
    // SEND was not shorter for the others, which are notified of its start a little after the coordinator starts its
    // timer.
    assert!(second.timings.send >= config.plan.send / 2, "{:?}", second.timings);
    assert!(!outcome.all_equal(), "a result is missing");
    let left: Vec<_> = outcome.rows.iter().filter(|row| row.result == SlaveResult::Left).collect();
    assert_eq!(left.iter().map(|row| row.slave.address).collect::<Vec<_>>(), [config_address(&config, 0)]);
    assert!(heard.borrow().contains(&MasterEvent::Left(left[0].slave.node)));
}

fn config_address(config: &MasterConfig, number: usize) -> SocketAddr {
    config.slaves[number].parse().expect("an address")
}

#[tokio::test]
async fn a_slave_with_a_request_to_end_the_session_ends_it_for_all() {
    let [master, first, second] = nodes().await;
    let mut config = config(&[first.local_addr(), second.local_addr()]);
    config.plan.send = Duration::from_secs(600);
    let (observe, begun) = in_send();
    let end = async {
        begun.await;
        SlaveStop::End
    };
    let (outcome, first, second) = tokio::join!(
        run_master(&master, &config, pending(), |_| {}),
        run_slave(&first, SlaveConfig::default(), end, observe),
        run_slave(&second, SlaveConfig::default(), pending(), |_| {}),
    );
    assert!(outcome.expect("a session").all_equal());
    assert!(first.expect("a result").summary.same_result(&second.expect("a result").summary));
}

#[tokio::test]
async fn a_blocked_result_file_delays_neither_the_session_nor_its_end() {
    let [master, slave] = nodes().await;
    let config = config(&[slave.local_addr()]);
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = ResultFile::create(&directory.path().join("result")).await.expect("opens");
    file.get_stuck();
    let (ended, mut ends) = watch::channel(false);
    let stop = async {
        // The session is over, and the file has not begun.
        drop(ends.wait_for(|ended| *ended).await);
        SlaveStop::Leave
    };
    let session = async {
        let outcome = run_master(&master, &config, pending(), |_| {}).await;
        ended.send_replace(true);
        outcome
    };
    let slave_config = SlaveConfig::default().result(Some(&mut file));
    let (outcome, slave) = tokio::join!(session, run_slave(&slave, slave_config, stop, |_| {}));
    let (outcome, slave) = (outcome.expect("a session"), slave.expect("a result"));
    assert!(outcome.all_equal() && outcome.rows[0].result == SlaveResult::Reported(slave.summary));
    assert!(matches!(slave.file_error, Some(ResultFileError::Interrupted { .. })), "{:?}", slave.file_error);
}

#[test]
fn an_error_without_slaves_to_name_gives_the_reason() {
    let not_ready = |waited_for, apart| MasterError::NotReady { timeout: Duration::from_secs(1), waited_for, apart };
    let error = |waited_for| not_ready(waited_for, Vec::new()).to_string();
    assert!(error(vec!["a".to_owned()]).contains("waited for a; check that"), "{}", error(Vec::new()));
    assert!(error(Vec::new()).contains("by now all report it"), "{}", error(Vec::new()));
    let apart = vec![("a".to_owned(), "b".to_owned())];
    assert!(not_ready(vec!["a".to_owned()], apart).to_string().contains("in common: a and b; let all listen"));
}
