//! Sessions that are over before SEND: their slaves wait for the next master.

use std::future::pending;
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::session::{
    MasterConfig, MasterError, MasterEvent, NotBegun, SessionName, SlaveConfig, SlaveEvent, SlaveStop, run_master,
    run_slave,
};
use cloudy_node::{Durability, Node, OnFailure, RingKind, SessionPlan};
use tokio::sync::mpsc;

use crate::common::{key, start, within};
use crate::help::start_cuttable;

fn config(slaves: [&Node; 2]) -> MasterConfig {
    let ms = Duration::from_millis;
    MasterConfig::new(SessionPlan::new(ms(100), ms(100), ms(200)).seed(1))
        .session(SessionName::default())
        .durability(Durability::Memory)
        .ring(RingKind::Pipelined)
        .on_failure(OnFailure::Wait)
        .failure_timeout(ms(500))
        .timeout_max(Duration::from_secs(10))
        .slaves(slaves.map(|node| node.local_addr().to_string()).into())
        .multicast(None)
        .expect(Some(slaves.len()))
        .discovery_timeout(Duration::from_secs(20))
        .ready_timeout(Duration::from_secs(60))
}

/// The way in which a master gives up in START.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivesUp {
    Killed,
    Stopped,
    /// The slaves do not reach each other in time.
    NotReady,
}

/// Two slaves that cannot reach each other, so that START does not end, and a master that gives up in it.
async fn the_next_master_has_a_session(how: GivesUp) {
    let killed = how == GivesUp::Killed;
    let key = key();
    let (first, (second, cut)) = (start(&key).await, start_cuttable(&key, EndpointLimits::default()).await);
    cut.partition([first.local_addr()]);
    let slave = |node: &Node| {
        let (node, (say, said)) = (node.clone(), mpsc::unbounded_channel());
        let observe = move |event| drop(say.send(event));
        (tokio::spawn(async move { run_slave(&node, SlaveConfig::default(), pending(), observe).await }), said)
    };
    let mut slaves = [slave(&first), slave(&second)];
    let (master, next) = (start(&key).await, start(&key).await);
    let (created, mut is_created) = mpsc::unbounded_channel();
    let observe = |event| {
        if matches!(event, MasterEvent::Created { .. }) {
            let _ = created.send(());
        }
    };
    let config = config([&first, &second]);
    if how == GivesUp::NotReady {
        let impatient = config.clone().ready_timeout(Duration::from_millis(300));
        let outcome = within("the master gives up", run_master(&master, &impatient, pending(), observe)).await;
        assert!(matches!(outcome, Err(MasterError::NotReady { .. })), "{outcome:?}");
        master.shutdown().await;
    } else if killed {
        tokio::select! {
            outcome = run_master(&master, &config, pending(), observe) => panic!("{outcome:?}"),
            _ = within("the group", is_created.recv()) => {}
        }
        master.shutdown().await;
    } else {
        let stop = async {
            is_created.recv().await;
        };
        let outcome = within("the master stops", run_master(&master, &config, stop, observe)).await;
        assert!(matches!(outcome, Err(MasterError::Stopped)), "{outcome:?}");
        master.shutdown().await;
    }
    cut.heal();
    for (_, said) in &mut slaves {
        let cause = loop {
            match within("the end of the session", said.recv()).await.expect("it waits") {
                SlaveEvent::NotBegun { cause, master: node } => {
                    assert_eq!(node, master.id());
                    break cause;
                }
                SlaveEvent::Phase(phase) => assert!(!killed, "{phase:?} of a session that has not begun"),
                _ => {}
            }
        };
        // A slave that the end does not reach in time has lost the master.
        assert!(!killed || cause == NotBegun::MasterLost, "{cause:?}");
        let waiting = within("it waits", said.recv()).await;
        assert_eq!(waiting, Some(SlaveEvent::Waiting));
    }
    let outcome = within("the next session", run_master(&next, &config, pending(), |_| {})).await.unwrap();
    assert!(outcome.all_equal(), "{outcome:?}");
    for (slave, _) in slaves {
        assert_eq!(within("its result", slave).await.unwrap().unwrap().master, next.id());
    }
}

#[tokio::test]
async fn slaves_whose_master_is_lost_before_send_wait_for_the_next_one() {
    the_next_master_has_a_session(GivesUp::Killed).await;
}

#[tokio::test]
async fn slaves_whose_master_stops_before_send_wait_for_the_next_one() {
    the_next_master_has_a_session(GivesUp::Stopped).await;
}

#[tokio::test]
async fn slaves_that_do_not_reach_each_other_in_time_wait_for_the_next_master() {
    the_next_master_has_a_session(GivesUp::NotReady).await;
}

#[tokio::test]
async fn all_slaves_that_leave_in_send_report_that_they_left() {
    let key = key();
    let [first, second, master] = [start(&key).await, start(&key).await, start(&key).await];
    let mut config = config([&first, &second]);
    config.plan.send = Duration::from_secs(600);
    let (leave, leaves) = tokio::sync::watch::channel(false);
    let run = |node: &Node| {
        let (node, mut leaves) = (node.clone(), leaves.clone());
        let stop = async move {
            drop(leaves.wait_for(|leaves| *leaves).await);
            SlaveStop::Leave
        };
        tokio::spawn(async move { run_slave(&node, SlaveConfig::default(), stop, |_| {}).await })
    };
    let slaves = [run(&first), run(&second)];
    let observe = |event| {
        if matches!(&event, MasterEvent::Approved(indexes) if indexes.iter().any(|(_, index)| index.0 > 0)) {
            leave.send_replace(true);
        }
    };
    let outcome = within("the session", run_master(&master, &config, pending(), observe)).await.unwrap();
    let reported: Vec<_> = outcome.rows.iter().filter_map(|row| row.result.summary()).collect();
    assert!(!reported.is_empty(), "the last one has a result: {outcome:?}");
    for summary in reported {
        assert!(summary.left.is_some_and(|sent| sent > Duration::ZERO && sent < config.plan.send), "{summary:?}");
    }
    for slave in slaves {
        // Without a result it has left before the last one.
        let _ = within("it ends", slave).await.unwrap();
    }
}
