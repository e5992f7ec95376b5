//! A rolling upgrade, and back: processes of two versions in one group. The test build with the feature `next-version`
//! runs as the next release if `CLOUDY_NEXT_VERSION` is set, else as this one. `CLOUDY_TEST_OLDER_PROGRAM` names another
//! program for the second role, such as one without the feature.
#![cfg(feature = "next-version")]

mod common;

use std::fs::{File, read_to_string};
use std::io::Write;
use std::process::{Child, Command, Stdio};

use common::{Cluster, Ended, cloudy, free_port, run, until};
use serde_json::Value;

const MEMBERS: usize = 4;
/// Lines that each running member sends during a restart.
const LINES: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    This,
    Next,
}

/// A group whose members are restarted in different versions.
struct Upgrade {
    cluster: Cluster,
    ports: [u16; MEMBERS],
    admin: [String; MEMBERS],
    members: Vec<Child>,
    /// Number of lines that each member has sent.
    sent: [usize; MEMBERS],
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        // They may have ended.
        self.members.iter_mut().for_each(|member| drop((member.kill(), member.wait())));
    }
}

impl Upgrade {
    fn start() -> Self {
        let cluster = Cluster::new();
        let admin = std::array::from_fn(|at| format!("unix:{}", cluster.path(&format!("admin-{at}")).display()));
        let ports = std::array::from_fn(|_| free_port());
        let mut upgrade = Self { cluster, ports, admin, members: Vec::new(), sent: [0; MEMBERS] };
        upgrade.members = (0..MEMBERS).map(|at| upgrade.spawn(at, Version::This)).collect();
        upgrade.wait_for_all("the group is created");
        upgrade
    }

    fn command(&self, at: usize, version: Version, data: &str) -> Command {
        let bind = format!("127.0.0.1:{}", self.ports[at]);
        let mut command = cloudy(&["join", "orders", "--bind", &bind, "--durability", "disk", "--stay"]);
        if version == Version::Next {
            command.env("CLOUDY_NEXT_VERSION", "1");
        } else if let Some(program) = std::env::var_os("CLOUDY_TEST_OLDER_PROGRAM") {
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = Command::new(program);
            command.args(arguments);
        }
        command.arg("--data").arg(self.cluster.path(data)).arg("--cluster-key").arg(&self.cluster.key);
        command.args(["--expect", &MEMBERS.to_string(), "--admin", &self.admin[at]]);
        for port in &self.ports {
            command.args(["--seed", &format!("127.0.0.1:{port}")]);
        }
        command
    }

    fn spawn(&self, at: usize, version: Version) -> Child {
        let mut command = self.command(at, version, &format!("data-{at}"));
        let output = File::options().append(true).create(true).open(self.cluster.path(&format!("output-{at}")));
        command.stdin(Stdio::piped()).stdout(output.unwrap()).stderr(Stdio::inherit()).spawn().unwrap()
    }

    fn send(&mut self, at: usize) {
        for _ in 0..LINES {
            let line = format!("{at} {}", self.sent[at]);
            writeln!(self.members[at].stdin.as_mut().unwrap(), "{line}").unwrap();
            self.sent[at] += 1;
        }
    }

    /// The complete lines of a member that have a field.
    fn lines(&self, at: usize, field: &str) -> Vec<Value> {
        let text = read_to_string(self.cluster.path(&format!("output-{at}"))).unwrap();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = complete.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| !line[field].is_null()).collect()
    }

    /// Waits until every member has every message and every receipt, and is in the latest view.
    fn wait_for_all(&self, what: &str) {
        let total: usize = self.sent.iter().sum();
        let is_whole = |at: usize| {
            let views = self.lines(at, "members");
            self.lines(at, "text").len() == total
                && self.lines(at, "receipt").len() == self.sent[at]
                && views.last().is_some_and(|view| view["members"].as_array().unwrap().len() == MEMBERS)
        };
        until(what, || (0..MEMBERS).all(is_whole));
    }

    /// Kills a member and starts it in a version, while the others send.
    fn restart(&mut self, at: usize, version: Version) {
        self.members[at].kill().unwrap();
        self.members[at].wait().unwrap();
        (0..MEMBERS).filter(|other| *other != at).for_each(|other| self.send(other));
        self.members[at] = self.spawn(at, version);
        self.wait_for_all(&format!("member {at} is back as {version:?}"));
        self.send(at);
        self.wait_for_all(&format!("member {at} sends as {version:?}"));
    }

    fn level(&self, at: usize) -> Value {
        let status = run(cloudy(&["status", &self.admin[at], "-o", "json"])).json();
        status["groups"][0]["feature_level"].clone()
    }

    fn format(&self, at: usize) -> String {
        read_to_string(self.cluster.path(&format!("data-{at}/FORMAT"))).unwrap()
    }

    /// Runs a member in a version that the group does not accept.
    fn refused(&self, at: usize, data: &str) -> Ended {
        let mut command = self.command(at, Version::This, data);
        command.args(["--open-timeout", "20s"]);
        run(command)
    }
}

#[test]
fn four_members_are_upgraded_and_back_under_load_until_the_level_rises() {
    let mut upgrade = Upgrade::start();
    (0..MEMBERS).for_each(|at| upgrade.send(at));
    upgrade.wait_for_all("all have sent");
    for (at, version) in
        [(0, Version::Next), (1, Version::Next), (2, Version::Next), (0, Version::This), (0, Version::Next)]
    {
        upgrade.restart(at, version);
        assert_eq!(upgrade.level(1), 7, "a member supports no higher level");
        assert!((0..MEMBERS).all(|at| upgrade.format(at).contains("format 6\n")));
    }
    upgrade.restart(3, Version::Next);
    until("the level rises", || (0..MEMBERS).all(|at| upgrade.level(at) == 8));
    until("the format rises", || (0..MEMBERS).all(|at| upgrade.format(at).contains("format 7\n")));
    upgrade.restart(1, Version::Next);

    let expected = upgrade.lines(0, "text");
    assert!(expected.iter().zip(1..).all(|(line, index)| line["index"] == index), "an index is missing");
    for at in 1..MEMBERS {
        assert_eq!(upgrade.lines(at, "text"), expected, "the results differ");
    }

    upgrade.members[2].kill().unwrap();
    upgrade.members[2].wait().unwrap();
    upgrade
        .refused(2, "data-2")
        .failed_with(&["has data format 7, and this program knows format 6", "use the version"]);
    upgrade.refused(2, "new").failed_with(&[
        "has feature level 8",
        "supports levels up to 7",
        "takes no part in the group",
    ]);
}
