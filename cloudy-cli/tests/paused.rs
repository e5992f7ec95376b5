//! Processes that stop in SEND for longer than the failure timeout, as on a machine that swaps or sleeps, and go on.
#![cfg(unix)]

mod common;

use common::{Cluster, Ended, Recomputed, Running, recompute};

/// Bounds the entries that a paused slave misses: others retain no more than this.
const RATE: [&str; 2] = ["--rate", "2000"];

/// A running session, with messages approved; slaves write their results to files.
struct Session {
    cluster: Cluster,
    master: Running,
    slaves: Vec<Running>,
    names: Vec<String>,
}

impl Session {
    fn in_send(slaves: usize, send: &str, grace: &str) -> Self {
        let cluster = Cluster::new();
        let start = |number| {
            let file = file(&cluster, number).display().to_string();
            cluster.slave(&[&RATE[..], &["--json", "--result", &file]].concat())
        };
        let (slaves, ports): (Vec<Running>, Vec<u16>) = (0..slaves).map(start).unzip();
        let expect = slaves.len().to_string();
        let args = ["master", "127.0.0.1", "0", send, grace, "--on-failure", "evict", "--expect", &expect, "--json"];
        let mut master = Running::start(cluster.node(&args));
        master.wait_for("SEND: approved");
        let names = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Self { cluster, master, slaves, names }
    }

    /// Pauses a slave until the others have gone on without it, and waits until it is back.
    fn pause_slave(&mut self, number: usize) {
        self.slaves[number].signal("STOP");
        let line = self.master.wait_for(", without ");
        assert!(line.contains(&self.names[number]), "another than {} left: {line}", self.names[number]);
        self.slaves[number].signal("CONT");
        self.master.wait_for(&format!("{} is back", self.names[number]));
    }

    /// All end with one result, by their output and their files.
    fn ends_equal(self) {
        let Self { cluster, master, slaves, .. } = self;
        let slaves: Vec<Ended> = slaves.into_iter().map(Running::end).collect();
        let master = master.end();
        assert_eq!(master.code(), Some(0), "{master:#?}");
        let object = master.json();
        assert_eq!((&object["equal"], &object["problems"]), (&true.into(), &serde_json::json!([])), "{object}");
        let first = recompute(&file(&cluster, 0));
        for (number, slave) in slaves.iter().enumerate() {
            assert_eq!(slave.code(), Some(0), "{slave:#?}");
            let (own, written) = (slave.json(), recompute(&file(&cluster, number)));
            assert_eq!(written, first, "slave {number}");
            assert_eq!(own["count"].as_u64(), Some(written.values.len() as u64), "{own}");
            assert_eq!(own["digest"], written.digest, "{own}");
            assert_eq!(own["own"].as_u64(), Some(distinct(&written, own["node"].as_str().expect("an id"))), "{own}");
        }
    }
}

/// The number of different numbers of an origin in a result: random ones of 53 bits, each broadcast once.
fn distinct(result: &Recomputed, origin: &str) -> u64 {
    let of_it = result.values.iter().zip(&result.origins).filter(|(_, by)| *by == origin);
    let mut bits: Vec<u64> = of_it.map(|(value, _)| value.to_bits()).collect();
    bits.sort_unstable();
    bits.dedup();
    bits.len() as u64
}

fn file(cluster: &Cluster, number: usize) -> std::path::PathBuf {
    cluster.path(&format!("result-{number}.jsonl"))
}

#[test]
fn a_coordinator_that_is_paused_past_the_end_of_send_shows_equal_results() {
    // Of four slaves the master coordinates at first: with it the voters are an odd number.
    let mut session = Session::in_send(4, "2s", "4s");
    session.master.signal("STOP");
    session.slaves.iter_mut().for_each(|slave| drop(slave.wait_for("GRACE")));
    session.master.signal("CONT");
    session.ends_equal();
}

#[test]
fn slaves_end_on_time_while_their_coordinator_is_paused() {
    let mut session = Session::in_send(4, "2s", "500ms");
    session.master.signal("STOP");
    let slaves: Vec<Ended> = session.slaves.drain(..).map(Running::end).collect();
    assert!(slaves.iter().all(|slave| slave.code() == Some(0)), "{slaves:#?}");
    let digests: Vec<_> = slaves.iter().map(|slave| slave.json()["digest"].clone()).collect();
    assert!(digests.iter().all(|digest| digest.is_string() && *digest == digests[0]), "{digests:#?}");
    session.master.signal("CONT");
    let master = session.master.end();
    // No node is left to inform it, but its socket may hold earlier messages.
    match master.code() {
        Some(0) => assert_eq!(master.json()["nodes"][0]["digest"], digests[0]),
        _ => master.failed_with(&["help: "]),
    }
}

#[test]
fn every_slave_in_turn_is_paused_and_comes_back_the_coordinator_among_them() {
    // Of three slaves one coordinates: the master would make the voters an even number.
    let mut session = Session::in_send(3, "10m", "1s");
    (0..3).for_each(|number| session.pause_slave(number));
    session.master.signal("INT");
    session.ends_equal();
}

#[test]
fn a_master_and_a_slave_that_are_paused_together_end_with_the_others() {
    let mut session = Session::in_send(4, "10m", "1s");
    session.master.signal("STOP");
    session.slaves[2].signal("STOP");
    session.slaves[0].wait_for(": 3 slaves");
    session.master.signal("CONT");
    session.slaves[2].signal("CONT");
    session.slaves[0].wait_for(": 4 slaves");
    session.master.signal("INT");
    session.ends_equal();
}
