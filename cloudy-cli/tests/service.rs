//! A node under a service manager: notifications, JSON logs, a file of options.
#![cfg(unix)]

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use common::{Cluster, PATIENCE, Running, cloudy, free_port, run};
use serde_json::Value;

/// A service manager's socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(cluster: &Cluster) -> Self {
        let path = cluster.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self { socket, path }
    }

    fn give(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "300000");
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4_096];
        let length = self.socket.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
    }

    /// The notifications up to one that contains the words.
    fn until(&self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            seen.push(self.next());
            if seen[seen.len() - 1].contains(words) {
                return seen;
            }
        }
    }
}

#[test]
fn a_member_is_ready_once_it_is_in_its_group_and_shows_that_its_driver_works() {
    let (cluster, ports) = (Cluster::new(), [free_port(), free_port()]);
    let manager = Manager::new(&cluster);
    let join = |at: usize| {
        let mut command = cloudy(&["join", "orders", "--expect", "2", "--stay", "--bind"]);
        command.arg(format!("127.0.0.1:{}", ports[at])).arg("--cluster-key").arg(&cluster.key);
        for port in ports {
            command.args(["--seed", &format!("127.0.0.1:{port}")]);
        }
        command
    };
    let mut first = join(0);
    manager.give(&mut first);
    let first = Running::start(first);
    let waiting = manager.until("1 of 2 nodes are ready");
    assert!(!waiting.iter().any(|state| state == "READY=1"), "{waiting:?}");
    // A node that waits works.
    manager.until("WATCHDOG=1");
    let second = Running::start(join(1));
    manager.until("READY=1");
    manager.until("STATUS=group orders: active, 2 members, 0 messages");
    manager.until("WATCHDOG=1");
    first.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(first.end().code(), Some(0));
    second.signal("TERM");
    assert_eq!(second.end().code(), Some(0));
}

#[test]
fn a_slave_is_ready_while_it_waits_for_a_master() {
    let cluster = Cluster::new();
    let manager = Manager::new(&cluster);
    let mut slave = cluster.node(&["slave", "127.0.0.1:0"]);
    manager.give(&mut slave);
    let slave = Running::start(slave);
    manager.until("READY=1");
    slave.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn a_manager_that_does_not_read_blocks_nothing() {
    let cluster = Cluster::new();
    let manager = Manager::new(&cluster);
    let mut slave = cluster.node(&["slave", "127.0.0.1:0"]);
    // Signs of life in short succession fill the socket soon.
    slave.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "3000");
    let mut slave = Running::start(slave);
    slave.wait_for("waiting for a master");
    slave.signal("TERM");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn a_file_has_the_options_and_the_log_is_json() {
    let (cluster, port) = (Cluster::new(), free_port());
    let file = cluster.path("cloudy.toml");
    let key = cluster.key.display();
    let text =
        format!("cluster-key = \"{key}\"\nlog-format = \"json\"\n[join]\nbind = \"127.0.0.1:{port}\"\nexpect = 1\n");
    std::fs::write(&file, text).expect("written");
    let mut command = cloudy(&["join", "orders"]);
    command.env("CLOUDY_CONFIG", &file).env("NO_COLOR", "1");
    let ended = run(command);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let says = |words: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(words)));
    assert!(says("listens on 127.0.0.1") && says("in group \"orders\""), "{ended:?}");
    // An error is an object too, with its remedy.
    let mut command = cloudy(&["join", "orders", "--expect", "1", "--log-format=json", "--bind", "192.0.2.1:7400"]);
    command.env("CLOUDY_CONFIG", &file);
    let ended = run(command);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let last: Value = ended.stderr.lines().last().map(|line| serde_json::from_str(line).expect(line)).expect("a line");
    assert_eq!(last["level"], "ERROR", "{ended:?}");
    // What is wrong in the file is named by its line.
    std::fs::write(&file, "[join]\nbind = \"127.0.0.1:1\"\nexpct = 1\n").expect("written");
    let mut command = cloudy(&["join", "orders"]);
    command.env("CLOUDY_CONFIG", &file);
    let ended = run(command);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("line 3: there is no option `expct` of `cloudy join`"), "{ended:?}");
}

#[test]
fn the_log_has_colours_only_if_they_are_requested_where_there_is_no_terminal() {
    let log = |color: &str| {
        let cluster = Cluster::new();
        let mut command = cloudy(&["join", "orders", "--expect", "1", "-v", "--color", color, "--bind"]);
        command.arg(format!("127.0.0.1:{}", free_port())).arg("--cluster-key").arg(&cluster.key);
        let ended = run(command);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        ended.stderr
    };
    assert!(log("always").contains("\u{1b}[32m"));
    assert!(!log("auto").contains('\u{1b}') && !log("never").contains('\u{1b}'));
}
