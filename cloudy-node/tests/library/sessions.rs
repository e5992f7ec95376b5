//! Sessions outlive their processes: a slave comes back, another master attaches.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::NodeKey;
use cloudy_node::fault::panic_in;
use cloudy_node::session::{
    AttachConfig, GROUP_NAME, MasterConfig, MasterError, MasterEvent, MasterOutcome, SessionName, SlaveConfig,
    SlaveError, SlaveEvent, SlaveOutcome, SlaveResult, attach_master, run_master, run_slave,
};
use cloudy_node::{
    ClusterKey, Durability, EndReason, Identity, JoinError, Node, OnFailure, Phase, RingKind, SessionPlan,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::common::{key, start, start_all, within};

fn plan(send_ms: u64, grace_ms: u64) -> SessionPlan {
    let ms = Duration::from_millis;
    SessionPlan::new(ms(send_ms), ms(grace_ms), ms(200)).seed(1)
}

fn master_config(slaves: &[&Node], plan: SessionPlan) -> MasterConfig {
    MasterConfig::new(plan)
        .session(SessionName::default())
        .durability(Durability::Memory)
        .ring(RingKind::Pipelined)
        .on_failure(OnFailure::Evict)
        .failure_timeout(Duration::from_millis(500))
        .timeout_max(Duration::from_secs(10))
        .slaves(slaves.iter().map(|node| node.local_addr().to_string()).collect())
        .multicast(None)
        .expect(Some(slaves.len()))
        .discovery_timeout(Duration::from_secs(5))
        .ready_timeout(Duration::from_secs(10))
}

fn attach_config(slaves: &[&Node]) -> AttachConfig {
    AttachConfig::default()
        .session(SessionName::default())
        .slaves(slaves.iter().map(|node| node.local_addr().to_string()).collect())
        .discovery_timeout(Duration::from_secs(1))
}

type Slave = (JoinHandle<Result<SlaveOutcome, SlaveError>>, mpsc::UnboundedReceiver<SlaveEvent>);

/// Slow enough to be caught up with.
fn slave(node: &Node) -> Slave {
    let (node, (say, said)) = (node.clone(), mpsc::unbounded_channel());
    let config = || SlaveConfig::default().numbers_per_second_max(std::num::NonZeroU32::new(2_000));
    let observe = move |event| drop(say.send(event));
    (tokio::spawn(async move { run_slave(&node, config(), pending(), observe).await }), said)
}

async fn until_event(slave: &mut Slave, what: &str, wanted: impl Fn(&SlaveEvent) -> bool) {
    while !wanted(&within(what, slave.1.recv()).await.unwrap_or_else(|| panic!("it ended before: {what}"))) {}
}

async fn until_phase(slave: &mut Slave, phase: Phase) {
    until_event(slave, "the phase", |event| *event == SlaveEvent::Phase(phase)).await;
}

async fn until_approved(slave: &mut Slave, count: u64) {
    until_event(slave, "approvals", |event| matches!(event, SlaveEvent::Approved(found) if *found >= count)).await;
}

async fn outcome(slave: Slave) -> SlaveOutcome {
    within("the slave's result", slave.0).await.unwrap().unwrap()
}

async fn listen(key: &ClusterKey, node_key: &NodeKey, address: SocketAddr) -> Node {
    Node::builder().identity(Identity::with_node_key(key, node_key).unwrap()).bind(address).start().await.unwrap()
}

/// Every slave's result is there, and they are the same.
fn all_equal(outcome: &MasterOutcome, slaves: &[SlaveOutcome]) {
    assert!(outcome.all_equal(), "{outcome:?}");
    assert_eq!(outcome.rows.len(), slaves.len());
    for slave in slaves {
        assert!(slave.summary.same_result(&slaves[0].summary), "{:?}", slave.summary);
        assert!(outcome.rows.iter().any(|row| row.result == SlaveResult::Reported(slave.summary)), "{outcome:?}");
    }
}

/// A slave is killed in a phase, and started again where it was.
async fn a_slave_rejoins(phase: Phase, plan: SessionPlan, ring: RingKind) {
    let key = key();
    let nodes = start_all(&key, 3).await;
    let node_key = NodeKey::generate().unwrap();
    let node = listen(&key, &node_key, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let config = master_config(&[&nodes[0], &nodes[1], &node], plan).ring(ring);
    let (mut first, second, mut killed) = (slave(&nodes[0]), slave(&nodes[1]), slave(&node));
    let master = nodes[2].clone();
    let master = tokio::spawn(async move { run_master(&master, &config, pending(), |_| {}).await });
    until_phase(&mut first, phase).await;
    until_approved(&mut killed, 100).await;
    let address = node.local_addr();
    node.shutdown().await;
    assert!(within("it ends", killed.0).await.unwrap().is_err());
    let again = listen(&key, &node_key, address).await;
    // It knows no other node: those that were on the ring with it find it.
    let back = slave(&again);
    let slaves = [outcome(first).await, outcome(second).await, outcome(back).await];
    let ended = within("the master", master).await.unwrap().unwrap();
    all_equal(&ended, &slaves);
    assert_eq!(slaves[2].master, nodes[2].id());
    assert!(slaves[2].summary.own >= 1, "what its first run broadcast is its own too");
}

#[tokio::test]
async fn a_slave_killed_in_send_rejoins_and_has_the_same_result() {
    a_slave_rejoins(Phase::Send, plan(2_500, 1_500), RingKind::Pipelined).await;
}

#[tokio::test]
async fn a_slave_of_a_token_ring_rejoins_and_gets_its_turns() {
    a_slave_rejoins(Phase::Send, plan(2_500, 1_500), RingKind::Token).await;
}

#[tokio::test]
async fn a_slave_of_a_relay_ring_rejoins_and_forwards_slots() {
    a_slave_rejoins(Phase::Send, plan(2_500, 1_500), RingKind::Relay).await;
}

#[tokio::test]
async fn a_slave_killed_in_grace_rejoins_and_has_the_same_result() {
    a_slave_rejoins(Phase::Grace, plan(400, 2_500), RingKind::Pipelined).await;
}

/// Runs a master in a task until it is stopped.
fn doomed(node: &Node, config: MasterConfig) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (kill, killed) = watch::channel(false);
    let node = node.clone();
    let ended = tokio::spawn(async move {
        let mut killed = killed;
        tokio::select! {
            outcome = run_master(&node, &config, pending(), |_| {}) => panic!("it lives: {outcome:?}"),
            _ = killed.wait_for(|killed| *killed) => {}
        }
        node.shutdown().await;
    });
    (kill, ended)
}

fn attach(node: &Node, config: AttachConfig, stop: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Attached> {
    let node = node.clone();
    tokio::spawn(async move {
        let (say, mut said) = mpsc::unbounded_channel();
        let outcome = attach_master(&node, &config, stop, |event| drop(say.send(event))).await;
        let mut events = Vec::new();
        while let Ok(event) = said.try_recv() {
            events.push(event);
        }
        (outcome, events)
    })
}

type Attached = (Result<cloudy_node::session::AttachOutcome, MasterError>, Vec<MasterEvent>);

#[tokio::test]
async fn another_master_attaches_and_has_the_outcome() {
    let nodes = start_all(&key(), 5).await;
    let plan = plan(1_500, 700);
    let config = master_config(&[&nodes[0], &nodes[1], &nodes[2]], plan);
    let (mut first, second, third) = (slave(&nodes[0]), slave(&nodes[1]), slave(&nodes[2]));
    let (kill, killed) = doomed(&nodes[3], config);
    until_approved(&mut first, 100).await;
    kill.send_replace(true);
    killed.await.unwrap();
    let attached = attach(&nodes[4], attach_config(&[&nodes[1]]), pending());
    let slaves = [outcome(first).await, outcome(second).await, outcome(third).await];
    let (attached, events) = within("the outcome", attached).await.unwrap();
    let attached = attached.unwrap();
    all_equal(&attached.outcome, &slaves);
    assert_eq!((attached.plan, attached.ring), (Some(plan), RingKind::Pipelined));
    let phases: Vec<Phase> = events
        .iter()
        .filter_map(|event| if let MasterEvent::Phase(phase) = event { Some(*phase) } else { None })
        .collect();
    assert_eq!(phases, [Phase::Send, Phase::Grace, Phase::Stop]);
    assert_eq!(events.iter().filter(|event| matches!(event, MasterEvent::Found(_))).count(), 3);
}

#[tokio::test]
async fn a_master_that_attached_may_end_the_session() {
    let nodes = start_all(&key(), 4).await;
    let hour = plan(0, 100).send(Duration::from_secs(3_600));
    let config = master_config(&[&nodes[0], &nodes[1]], hour);
    let (mut first, second) = (slave(&nodes[0]), slave(&nodes[1]));
    let master = nodes[2].clone();
    let master = tokio::spawn(async move { run_master(&master, &config, pending(), |_| {}).await });
    until_approved(&mut first, 100).await;
    let (stop, mut stopped) = watch::channel(false);
    let stop_asked = async move { drop(stopped.wait_for(|stop| *stop).await) };
    let attached = attach(&nodes[3], attach_config(&[&nodes[0]]), stop_asked);
    until_approved(&mut first, 2_000).await;
    stop.send_replace(true);
    let slaves = [outcome(first).await, outcome(second).await];
    all_equal(&within("the outcome", attached).await.unwrap().0.unwrap().outcome, &slaves);
    all_equal(&within("the master", master).await.unwrap().unwrap(), &slaves);
}

#[tokio::test]
async fn a_node_that_fails_ends_its_part_of_a_session_with_the_reason() {
    let nodes = start_all(&key(), 4).await;
    // Before a session, and in one.
    let idle = slave(&nodes[3]);
    panic_in(&nodes[3], "driver");
    let error = within("the idle slave ends", idle.0).await.unwrap().unwrap_err();
    assert!(matches!(error, SlaveError::Join(JoinError::NodeFailed(_))), "{error}");
    let (mut first, second) = (slave(&nodes[0]), slave(&nodes[1]));
    let config = master_config(&[&nodes[0], &nodes[1]], plan(60_000, 300));
    let master = nodes[2].clone();
    let master = tokio::spawn(async move { run_master(&master, &config, pending(), |_| {}).await });
    until_approved(&mut first, 1).await;
    panic_in(&nodes[0], "driver");
    let error = within("the slave ends", first.0).await.unwrap().unwrap_err();
    assert!(matches!(&error, SlaveError::Ended { reason: EndReason::NodeFailed(_) }), "{error}");
    assert!(error.to_string().contains("injected into the driver"), "{error}");
    panic_in(&nodes[2], "driver");
    let error = within("the master ends", master).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("injected into the driver"), "{error}");
    second.0.abort();
}

#[tokio::test]
async fn where_no_session_runs_there_is_none_to_attach_to_and_strangers_stay_out_of_one() {
    let key = key();
    let nodes = start_all(&key, 4).await;
    let (mut first, second) = (slave(&nodes[0]), slave(&nodes[1]));
    let error = within("the answer", attach(&nodes[3], attach_config(&[&nodes[0]]), pending())).await.unwrap().0;
    let Err(error @ MasterError::NoSession { .. }) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("is in no group \"session\""), "{error}");
    let config = master_config(&[&nodes[0], &nodes[1]], plan(800, 300));
    let master = nodes[2].clone();
    let master = tokio::spawn(async move { run_master(&master, &config, pending(), |_| {}).await });
    until_approved(&mut first, 1).await;
    let stranger = start(&key).await;
    let refused = within("the answer", stranger.join_group_at(GROUP_NAME, nodes[1].local_addr())).await.unwrap_err();
    let JoinError::Refused { reason, .. } = &refused else { panic!("{refused}") };
    assert!(reason.contains("takes no newcomers"), "{refused}");
    // A second master does not run a session over this one either.
    let second_config = master_config(&[&nodes[0], &nodes[1]], plan(100, 100));
    let over = second_config.discovery_timeout(Duration::from_millis(200));
    let error = within("the refusal", run_master(&stranger, &over, pending(), |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("is in group \"session\" of node"), "{error}");
    let slaves = [outcome(first).await, outcome(second).await];
    all_equal(&within("the master", master).await.unwrap().unwrap(), &slaves);
}
