//! Sessions between hosts with addresses of their own, over a network that loses, slows down and falls apart.
//!
//! Each host is a network namespace, which only Linux has and only root makes; elsewhere the tests say that they are
//! skipped.
#![cfg(target_os = "linux")]

mod common;
#[path = "namespaces/doctor.rs"]
mod doctor;
#[path = "namespaces/lab.rs"]
mod lab;
#[path = "namespaces/session.rs"]
mod session;

use common::Cluster;
use lab::{Dropped, Lab, address, address_v6};
use serde_json::Value;
use session::{MASTER, SLAVES, Session, name, until};

/// Bounds the entries that a slave misses while it is cut off: others retain no more than this.
const PACED: &[&str] = &["--rate", "2000"];
const EVICT: &[&str] = &["--on-failure", "evict"];
const WAIT: &[&str] = &["--on-failure", "wait"];

fn lab() -> Option<Lab> {
    Lab::new(1 + SLAVES)
}

fn views(object: &Value) -> usize {
    object["views"].as_array().expect("a list").len()
}

#[test]
fn hosts_find_each_other_by_multicast_and_end_with_one_result() {
    let Some(lab) = lab() else { return };
    let object = Session::start(lab, PACED, &["500ms", "500ms"]).end().is_equal();
    assert_eq!(views(&object), 0, "{object}");
}

/// A master on host 0 that looks for so many slaves by multicast ends with a good verdict.
fn finds(lab: &Lab, cluster: &Cluster, host: &str, slaves: &str) {
    let args = ["master", host, "10501", "300ms", "300ms", "--expect", slaves, "--discovery-timeout", "30s"];
    let ended = lab.spawn(MASTER, &cluster.node(&args)).end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
}

#[test]
fn a_slave_is_found_whose_interface_comes_late_or_is_created_again() {
    let Some(lab) = Lab::new(2) else { return };
    let cluster = Cluster::new();
    let master = address(MASTER).to_string();
    lab.unplug(1);
    let mut slave = lab.spawn(1, &cluster.node(&["slave", "0.0.0.0", "10500", "--stay"]));
    slave.wait_for("listening on 0.0.0.0:10500");
    lab.plug(1);
    finds(&lab, &cluster, &master, "1");
    slave.wait_for("waiting for the next master");
    lab.unplug(1);
    lab.plug(1);
    finds(&lab, &cluster, &master, "1");
}

#[test]
fn a_slave_waits_for_its_address_and_is_found_then() {
    let Some(lab) = Lab::new(2) else { return };
    let cluster = Cluster::new();
    let slave = address(1).to_string();
    lab.unplug(1);
    let mut slave = lab.spawn(1, &cluster.node(&["slave", &slave, "10500", "--start-timeout", "30s"]));
    slave.wait_for("the node retries for 30s");
    lab.plug(1);
    finds(&lab, &cluster, &address(MASTER).to_string(), "1");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn hosts_find_each_other_by_ipv6_multicast() {
    let Some(lab) = Lab::new(4) else { return };
    let cluster = Cluster::new();
    let slave = |host: usize| {
        let mut slave = lab.spawn(host, &cluster.node(&["slave", &address_v6(host).to_string(), "10500"]));
        slave.wait_for("listening on [fd77::");
        slave
    };
    let slaves = [1, 2, 3].map(slave);
    finds(&lab, &cluster, &address_v6(MASTER).to_string(), "3");
    slaves.into_iter().for_each(|slave| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn hosts_with_link_local_addresses_only_find_and_reach_each_other() {
    let Some(lab) = Lab::new(3) else { return };
    let cluster = Cluster::new();
    // Other hosts can use it only after the check that it is unique, which takes a second or two.
    let hosts = [MASTER, 1, 2].map(|host| format!("{}%eth0", lab.link_local(host)));
    let slave = |host: usize| {
        let mut slave = lab.spawn(host, &cluster.node(&["slave", &hosts[host], "10500"]));
        slave.wait_for("listening on [fe80::");
        slave
    };
    let slaves = [1, 2].map(slave);
    finds(&lab, &cluster, &hosts[MASTER], "2");
    slaves.into_iter().for_each(|slave| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn a_slave_that_listens_on_all_addresses_is_found_by_masters_of_both_families() {
    let Some(lab) = Lab::new(2) else { return };
    let cluster = Cluster::new();
    let mut slave = lab.spawn(1, &cluster.node(&["slave", "::", "10500", "--stay"]));
    slave.wait_for("listening on [::]:10500");
    finds(&lab, &cluster, &address_v6(MASTER).to_string(), "1");
    slave.wait_for("waiting for the next master");
    finds(&lab, &cluster, &address(MASTER).to_string(), "1");
}

#[test]
fn results_are_equal_over_a_network_that_loses_packets() {
    let Some(lab) = lab() else { return };
    (0..=SLAVES).for_each(|host| lab.loss(host, 5));
    let session = Session::in_send(lab, PACED, EVICT);
    until("packets are lost everywhere", || (0..=SLAVES).all(|host| session.lab.dropped(host, Dropped::Lost) > 0));
    (1..=SLAVES).for_each(|host| session.goes_on(host, 1));
    session.stop().is_equal();
}

#[test]
fn nobody_is_evicted_for_a_slow_link() {
    // At the link's full rate: under full load its queue delays signs of life by more than the failure timeout.
    over_a_slow_link(PACED, &[&["2s", "2s"], EVICT].concat());
}

#[test]
fn a_session_at_full_load_goes_as_fast_as_its_slowest_link() {
    // GRACE for the windows that are full at its start: seconds over this link.
    over_a_slow_link(&[], &[&["1s", "6s"], WAIT].concat());
}

fn over_a_slow_link(slave_args: &[&str], master_args: &[&str]) {
    let Some(lab) = lab() else { return };
    lab.slow(2, "2mbit");
    let session = Session::start(lab, slave_args, master_args);
    until("the link is too slow", || session.lab.held_back(2) > 0);
    let object = session.end().is_equal();
    assert_eq!(views(&object), 0, "{object}");
}

#[test]
fn a_slave_that_was_cut_off_is_evicted_and_comes_back() {
    let Some(lab) = lab() else { return };
    let mut session = Session::in_send(lab, PACED, EVICT);
    session.lab.isolate(2);
    let without = session.leaves(2);
    for host in [1, 3, 4] {
        session.goes_on(host, without);
    }
    session.lab.heal();
    let back = session.is_back(2);
    (1..=SLAVES).for_each(|host| session.goes_on(host, back));
    let outcome = session.stop();
    outcome.is_equal();
    assert!((1..=SLAVES).all(|host| outcome.messages(host, back) > 0), "{outcome:#?}");
}

#[test]
fn a_session_continues_over_a_path_that_takes_only_smaller_packets_from_now_on() {
    let Some(lab) = lab() else { return };
    // Only full load fills packets up to the maximum size of the path every time.
    let session = Session::in_send(lab, &[], WAIT);
    // Routers drop packets that are too large, and their messages about that are dropped too.
    session.lab.narrow(2, 1_280);
    until("larger packets are dropped", || session.lab.too_large(2) > 0);
    session.hosts().for_each(|host| session.goes_on(host, 1));
    let object = session.stop().is_equal();
    assert_eq!(views(&object), 0, "{object}");
}

#[test]
fn a_slave_whose_interface_is_created_again_in_mid_session_comes_back() {
    let Some(lab) = lab() else { return };
    let mut session = Session::in_send(lab, PACED, EVICT);
    session.lab.unplug(2);
    let without = session.leaves(2);
    session.goes_on(1, without);
    session.lab.plug(2);
    let back = session.is_back(2);
    (1..=SLAVES).for_each(|host| session.goes_on(host, back));
    session.stop().is_equal();
}

#[test]
fn approvals_wait_for_a_slave_that_is_cut_off_where_the_policy_says_so() {
    let Some(lab) = lab() else { return };
    let session = Session::in_send(lab, PACED, WAIT);
    session.lab.isolate(2);
    session.stands_still(1);
    assert!(session.lab.dropped(1, Dropped::Cut) > 0 && session.lab.dropped(2, Dropped::Cut) > 0);
    session.lab.heal();
    (1..=SLAVES).for_each(|host| session.goes_on(host, 1));
    let object = session.stop().is_equal();
    assert_eq!(views(&object), 0, "{object}");
}

#[test]
fn of_two_slaves_with_a_one_way_cut_between_them_one_is_evicted() {
    let Some(lab) = lab() else { return };
    let session = Session::in_send(lab, PACED, EVICT);
    session.lab.block(1, 2);
    one_of_the_pair_leaves_until_the_heal(session);
}

#[test]
fn of_two_slaves_that_only_others_reach_one_is_evicted() {
    let Some(lab) = lab() else { return };
    let session = Session::in_send(lab, PACED, EVICT);
    session.lab.partition(&[1], &[2]);
    one_of_the_pair_leaves_until_the_heal(session);
}

/// Slaves 1 and 2 are cut off from each other, one way or both.
fn one_of_the_pair_leaves_until_the_heal(mut session: Session) {
    let line = session.master.wait_for(", without ");
    let pair = [1, 2].map(|host| line.contains(&name(host)));
    assert!(pair[0] != pair[1] && line.contains("view 2: 3 slaves"), "{line}");
    let (evicted, stays) = if pair[0] { (1, 2) } else { (2, 1) };
    for host in [stays, 3, 4] {
        session.goes_on(host, 2);
    }
    session.lab.heal();
    let back = session.is_back(evicted);
    (1..=SLAVES).for_each(|host| session.goes_on(host, back));
    session.stop().is_equal();
}

#[test]
fn a_session_goes_on_without_a_host_that_is_gone() {
    let Some(lab) = lab() else { return };
    let mut session = Session::in_send(lab, PACED, EVICT);
    session.lab.down(3);
    let without = session.leaves(3);
    for host in [1, 2, 4] {
        session.goes_on(host, without);
    }
    // Alone it would wait for the others until the planned end.
    session.kill(3);
    let outcome = session.stop();
    assert_eq!(outcome.master.code(), Some(1), "a result is missing: {outcome:#?}");
    let object = outcome.master.json();
    assert!(object["verdict"].as_str().is_some_and(|verdict| verdict.contains(&name(3))), "{object}");
    assert!(object["problems"][0].as_str().is_some_and(|problem| problem.contains(&name(3))), "{object}");
    outcome.agree(&[1, 2, 4]);
}

/// Sessions that end on time with any fault of their master: it is out of reach from the middle of SEND on.
const TIMED: (&str, &str) = ("2s", "6s");
const MASTERS_SLAVES: [usize; SLAVES] = [1, 2, 3, 4];

#[test]
fn a_session_ends_on_time_without_the_master_s_host_which_says_that_it_knows_no_results() {
    let Some(lab) = lab() else { return };
    let session = Session::in_send_for("1s", "1s", lab, PACED, EVICT);
    session.lab.isolate(MASTER);
    // Slaves end first, and none tells the master.
    let outcome = session.end();
    outcome.slaves_agree(&MASTERS_SLAVES);
    outcome.master.failed_with(&["help: "]);
    assert!(outcome.master.stdout.is_empty(), "{:#?}", outcome.master);
}

#[test]
fn a_master_s_host_that_was_cut_off_shows_the_results_once_it_is_back() {
    without_the_master_for_a_while(|lab| lab.isolate(MASTER));
}

#[test]
fn a_master_s_host_that_heard_nothing_for_a_while_shows_the_results() {
    without_the_master_for_a_while(|lab| MASTERS_SLAVES.into_iter().for_each(|slave| lab.block(slave, MASTER)));
}

#[test]
fn a_master_s_host_that_was_not_heard_for_a_while_shows_the_results() {
    without_the_master_for_a_while(|lab| MASTERS_SLAVES.into_iter().for_each(|slave| lab.block(MASTER, slave)));
}

/// From the middle of SEND until the slaves, timed by another, are in GRACE.
fn without_the_master_for_a_while(cut: impl Fn(&Lab)) {
    let Some(lab) = lab() else { return };
    let mut session = Session::in_send_for(TIMED.0, TIMED.1, lab, PACED, EVICT);
    cut(&session.lab);
    session.hosts().for_each(|host| session.enters(host, "GRACE"));
    let dropped: u64 = (0..=SLAVES).map(|host| session.lab.dropped(host, Dropped::Cut)).sum();
    assert!(dropped > 0, "nothing was cut");
    session.lab.heal();
    session.end().is_equal();
}

#[test]
fn a_majority_goes_on_and_what_the_minority_sends_waits_for_the_heal() {
    let (majority, minority) = ([1, 2, 3], [4, 5]);
    let Some(lab) = Lab::new(1 + majority.len() + minority.len()) else { return };
    let mut session = Session::in_send(lab, PACED, EVICT);
    session.lab.partition(&minority, &[&[MASTER][..], &majority].concat());
    let without = session.has(majority.len());
    for host in majority {
        session.goes_on(host, without);
    }
    for host in minority {
        session.stands_still(host);
        let (_, view) = session.last_entry(host).expect("messages before the cut");
        assert_eq!(view, 1, "host {host} went on alone");
    }
    session.lab.heal();
    let back = session.has(majority.len() + minority.len());
    session.hosts().for_each(|host| session.goes_on(host, back));
    let outcome = session.stop();
    outcome.is_equal();
    assert!((1..=5).all(|host| outcome.messages(host, back) > 0), "{outcome:#?}");
}
