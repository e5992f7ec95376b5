//! Sessions on disk: they outlive every process (`protocol.md` P7).
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Recomputed, Running, free_port, listening, printed, recompute};
use serde_json::Value;

/// Slaves of the session, each with a port and a data directory that it keeps.
const SLAVES: usize = 3;

struct Session {
    cluster: Cluster,
    ports: Vec<u16>,
    master_port: u16,
}

impl Session {
    fn new() -> Self {
        let ports = (0..SLAVES).map(|_| free_port()).collect();
        Self { cluster: Cluster::new(), ports, master_port: free_port() }
    }

    fn result(&self, at: usize) -> PathBuf {
        self.cluster.path(&format!("slave-{at}.jsonl"))
    }

    fn start_slaves(&self) -> Vec<Running> {
        (0..SLAVES).map(|at| listening(Running::start(self.slave(at))).0).collect()
    }

    fn slave(&self, at: usize) -> Command {
        let (data, result) = (self.cluster.path(&format!("data-{at}")), self.result(at));
        let mut slave = self.cluster.node(&["slave", "127.0.0.1", &self.ports[at].to_string(), "--rate", "2000"]);
        slave.arg("--data").arg(data).arg("--result").arg(result);
        slave
    }

    fn master(&self) -> Command {
        self.master_for("2500ms")
    }

    fn master_for(&self, send: &str) -> Command {
        self.master_of(send, &self.ports)
    }

    /// A master that names the slaves with these ports.
    fn master_of(&self, send: &str, ports: &[u16]) -> Command {
        let periods = [send, "500ms", "7", "--durability", "disk", "--json", "--on-failure", "evict"];
        let mut master =
            self.cluster.node(&[&["master", "127.0.0.1", &self.master_port.to_string()], &periods[..]].concat());
        master.arg("--data").arg(self.cluster.path("data-master"));
        for port in ports {
            master.arg("--slave").arg(format!("127.0.0.1:{port}"));
        }
        master
    }
}

/// The numbers that each slave's file held when the processes died, by their names.
fn written(session: &Session) -> Vec<BTreeSet<String>> {
    let names = |path: PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may be half written.
        let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.map(|object| format!("{} {} {}", object["index"], object["origin"], object["value"])).collect()
    };
    (0..SLAVES).map(|at| names(session.result(at))).collect()
}

/// The number of rounds in which all are killed; `CLOUDY_KILL_ROUNDS` changes it.
const KILL_ROUNDS: u64 = 3;

#[test]
fn a_session_outlives_the_death_of_all_its_processes_at_once() {
    let session = Session::new();
    let rounds = std::env::var("CLOUDY_KILL_ROUNDS").map_or(KILL_ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut before: Vec<BTreeSet<String>> = vec![BTreeSet::new(); SLAVES];
    for _ in 0..rounds {
        let slaves = session.start_slaves();
        let mut master = Running::start(session.master());
        master.wait_for("SEND");
        // Long enough into it for more to be on disk.
        let give_up_at = Instant::now() + PATIENCE;
        while written(&session).iter().zip(&before).any(|(now, before)| now.len() <= before.len()) {
            assert!(Instant::now() < give_up_at, "nothing more is approved");
            // sleep: a file gives no other sign.
            std::thread::sleep(Duration::from_millis(20));
        }
        slaves.iter().chain([&master]).for_each(|process| process.signal("KILL"));
        drop((slaves, master));
        let now = written(&session);
        for (at, before) in before.iter().enumerate() {
            assert!(before.is_subset(&now[at]), "slave {at} has lost what was approved");
        }
        before = now;
    }

    let slaves = session.start_slaves();
    let master = Running::start(session.master());
    let ended = master.end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stderr.contains("continuing the session"), "{ended:#?}");
    let object = ended.json();
    assert_eq!(object["equal"], true, "{object}");
    let mut first: Option<Recomputed> = None;
    for (at, slave) in slaves.into_iter().enumerate() {
        let ended = slave.end();
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        let file = recompute(&session.result(at));
        assert!(file.values.len() > before[at].len(), "it went on");
        let first = first.get_or_insert_with(|| recompute(&session.result(at)));
        assert_eq!(file, *first, "slave {at}");
    }
    let after = &written(&session)[0];
    for (at, before) in before.iter().enumerate() {
        let missing: Vec<&String> = before.difference(after).take(3).collect();
        assert!(missing.is_empty(), "slave {at} had approved {missing:?}");
    }
    // A finished session is not on the disk: each slave is ready for the next one.
    let slaves = session.start_slaves();
    let ended = Running::start(session.master()).end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(!ended.stderr.contains("continuing the session"), "{ended:#?}");
    slaves.into_iter().for_each(|slave| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn the_same_directories_serve_one_session_after_another() {
    let session = Session::new();
    for round in 0..3 {
        let slaves = session.start_slaves();
        let mut master = Running::start(session.master_for(if round == 1 { "10m" } else { "300ms" }));
        if round == 1 {
            master.wait_for("SEND: approved");
            master.signal("INT");
        }
        let ended = master.end();
        assert_eq!(ended.code(), Some(0), "round {round}: {ended:#?}");
        assert!(!ended.stderr.contains("continuing the session"), "round {round}: {ended:#?}");
        slaves.into_iter().for_each(|slave| assert_eq!(slave.end().code(), Some(0)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_could_not_be_printed_is_printed_at_the_next_start() {
    use std::process::Stdio;

    let session = Session::new();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let mut first = session.slave(0);
    first.stdin(Stdio::null()).stdout(full).stderr(Stdio::null());
    let mut first = first.spawn().expect("starts");
    let others = [1, 2].map(|at| listening(Running::start(session.slave(at))).0);
    let ended = Running::start(session.master_for("300ms")).end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_eq!(first.wait().expect("it ends").code(), Some(1), "its result is not printed");
    let [second, third] = others.map(Running::end);
    std::fs::remove_file(session.result(0)).expect("a file");
    let again = Running::start(session.slave(0)).end();
    assert_eq!(again.code(), Some(0), "{again:#?}");
    assert_eq!(printed(&again.stdout), printed(&second.stdout));
    assert_eq!(printed(&again.stdout), printed(&third.stdout));
    assert_eq!(recompute(&session.result(0)), recompute(&session.result(1)));
    // It is shown once: then the slave waits for the next master.
    let (waiting, _) = listening(Running::start(session.slave(0)));
    waiting.signal("TERM");
    assert_eq!(waiting.end().stdout, "");
}

/// Kills all processes of a session in SEND, starts them on other ports, and compares the results.
fn goes_on_elsewhere(named: bool) {
    let mut session = Session::new();
    let slaves = session.start_slaves();
    let mut master = Running::start(session.master());
    master.wait_for("SEND");
    slaves.iter().chain([&master]).for_each(|process| process.signal("KILL"));
    drop((slaves, master));
    session.ports = (0..SLAVES).map(|_| free_port()).collect();
    session.master_port = free_port();
    let slaves = session.start_slaves();
    let master = Running::start(session.master_of("2500ms", if named { &session.ports } else { &[] }));
    let ended = master.end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stderr.contains("continuing the session"), "{ended:#?}");
    assert_eq!(ended.json()["equal"], true, "{ended:#?}");
    slaves.into_iter().for_each(|slave| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn a_session_whose_processes_have_all_moved_finds_the_slaves_that_are_named() {
    goes_on_elsewhere(true);
}

#[test]
fn a_session_whose_processes_have_all_moved_finds_its_slaves_by_multicast() {
    goes_on_elsewhere(false);
}

#[test]
fn a_slave_without_a_data_directory_says_what_it_lacks() {
    let session = Session::new();
    let (slave, port) = session.cluster.slave(&[]);
    let mut master = session.cluster.node(&["master", "127.0.0.1", "0", "--durability", "disk"]);
    master.arg("--data").arg(session.cluster.path("data")).arg("--slave").arg(format!("127.0.0.1:{port}"));
    let ended = Running::start(master).end();
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("has no data directory: start it with one"), "{ended:#?}");
    drop(slave);
    let mut without = session.cluster.node(&["master", "127.0.0.1", "0", "--durability", "disk"]);
    without.arg("--slave").arg(format!("127.0.0.1:{port}"));
    let ended = Running::start(without).end();
    assert_eq!(ended.code(), Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("--data DIR"), "{ended:#?}");
}

#[test]
fn a_directory_that_is_not_its_own_is_refused_and_left_alone() {
    let cluster = Cluster::new();
    let foreign = cluster.path("foreign");
    std::fs::create_dir(&foreign).expect("a directory");
    std::fs::write(foreign.join("letter"), "dear").expect("a file");
    let other = cluster.path("other");
    let start = |path: &PathBuf| {
        let mut slave = cluster.node(&["slave", "127.0.0.1", "0"]);
        slave.arg("--data").arg(path);
        Running::start(slave)
    };
    let ended = start(&foreign).end();
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("name a new or empty directory"), "{ended:#?}");
    assert_eq!(std::fs::read_dir(&foreign).expect("a directory").count(), 1, "nothing was made in it");
    // Another format version.
    drop(listening(start(&other)));
    let format = other.join("FORMAT");
    let written = std::fs::read_to_string(&format).expect("a file");
    let text = written.replace("format ", "format 99");
    assert_ne!(text, written, "the file names its format");
    std::fs::write(&format, &text).expect("a file");
    let ended = start(&other).end();
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("use the version of cloudy that wrote it"), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&format).expect("a file"), text);
}

/// Set where a test can mount: that it is skipped is then a failure.
const REQUIRED_VARIABLE: &str = "CLOUDY_SMALL_DISK";

/// A separate small file system; removed when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, and a line that says so, where this process may not mount one.
    fn mount(at: PathBuf, options: &str) -> Option<Self> {
        std::fs::create_dir(&at).expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "cloudy-test"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        let required = std::env::var(REQUIRED_VARIABLE).is_ok_and(|value| value == "required");
        assert!(!required, "a small file system is required here ({REQUIRED_VARIABLE}), and cannot be mounted");
        eprintln!("skipped: this process may not mount a small file system");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The process that used it has ended.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_slave_whose_disk_is_full_says_so_and_the_others_end_with_equal_results() {
    let session = Session::new();
    let Some(small) = SmallDisk::mount(session.cluster.path("data-0"), "size=1m,mode=0700") else { return };
    let mut slaves = session.start_slaves();
    let master = Running::start(session.master_for("10m"));
    let full = slaves.remove(0).end();
    full.failed_with(&["this node's disk failed", "free space"]);
    master.signal("INT");
    let ended = master.end();
    assert_eq!(ended.code(), Some(1), "one has no result: {ended:#?}");
    let mut first: Option<Recomputed> = None;
    for (at, slave) in slaves.into_iter().enumerate() {
        let ended = slave.end();
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        let file = recompute(&session.result(at + 1));
        assert_eq!(file, *first.get_or_insert_with(|| recompute(&session.result(at + 1))), "slave {}", at + 1);
    }
    drop(small);
}
