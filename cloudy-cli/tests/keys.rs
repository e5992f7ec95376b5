//! Processes whose key file changes while they run.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Cluster, Ended, Running, cloudy, listening, printed, run};

const RATE: [&str; 2] = ["--rate", "5000"];

/// `cloudy key`, which has to succeed.
fn key(args: &[&str], file: &Path) -> Ended {
    let mut command = cloudy(&["key", args[0]]);
    let ended = run({
        command.arg(file).args(&args[1..]);
        command
    });
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    ended
}

/// The line's word after this one.
fn after<'a>(line: &'a str, word: &str) -> &'a str {
    let rest = line.split(word).nth(1).unwrap_or_else(|| panic!("no {word:?} in {line}"));
    rest.trim_start().split([' ', ',']).next().expect("a word")
}

/// A slave with its own key file, its address, and its node's id.
fn slave_with(cluster: &Cluster, file: &Path) -> (Running, u16, String) {
    let mut command = cloudy(&["slave", "127.0.0.1", "0", "--no-discovery"]);
    let mut slave = Running::start({
        command.args(RATE).arg("--cluster-key").arg(file);
        command.current_dir(cluster.dir.path());
        command
    });
    let line = slave.wait_for("listening on 127.0.0.1:");
    let port = after(&line, "127.0.0.1:").parse().expect("a port");
    let id = after(&line, "as node").to_owned();
    assert_eq!(id.len(), 64, "{line}");
    (slave, port, id)
}

fn master(cluster: &Cluster, args: &[&str], ports: &[u16]) -> Command {
    let mut command = cluster.node(&[&["master", "127.0.0.1", "0"], args].concat());
    command.args(ports.iter().flat_map(|port| ["--slave".to_owned(), format!("127.0.0.1:{port}")]));
    command
}

#[test]
fn a_session_goes_on_while_its_cluster_changes_its_key() {
    let cluster = Cluster::new();
    let before = cluster.path("before.key");
    fs::copy(&cluster.key, &before).expect("copied");
    let (first, second) = (cluster.slave(&RATE), cluster.slave(&RATE));
    let mut running = Running::start(master(&cluster, &["5m", "1s", "--expect", "2"], &[first.1, second.1]));
    running.wait_for("SEND");
    let (mut first, mut second) = (first.0, second.0);
    let everybody = |nodes: [&mut Running; 3], words: &str| {
        for node in nodes {
            node.wait_for(words);
        }
    };

    let said = key(&["rotate"], &cluster.key).stdout;
    assert!(said.contains("step 1 of 3") && said.contains("--switch"), "{said}");
    let next = after(&said, "accepted too").to_owned();
    everybody([&mut first, &mut second, &mut running], &format!("{next} is accepted too, as the next key"));
    let good = fs::read(&cluster.key).expect("the file");
    let secret = std::str::from_utf8(&good[13..40]).expect("digits");
    // Half of it, as by a copy that broke off.
    fs::write(&cluster.key, &good[..good.len() - 10]).expect("written");
    everybody([&mut first, &mut second, &mut running], "this node keeps its present keys: ");
    fs::write(&cluster.key, &good).expect("written");
    everybody([&mut first, &mut second, &mut running], "is valid again: cluster key fingerprint");
    key(&["rotate", "--switch"], &cluster.key);
    everybody([&mut first, &mut second, &mut running], &format!("cluster key fingerprint {next}; "));
    let said = key(&["rotate", "--finish"], &cluster.key).stdout;
    assert!(said.contains("step 3 of 3") && !said.contains("accepted too"), "{said}");
    everybody([&mut first, &mut second, &mut running], &format!("cluster key fingerprint {next}"));

    running.signal("INT");
    let (running, first, second) = (running.end(), first.end(), second.end());
    assert_eq!((running.code(), first.code(), second.code()), (Some(0), Some(0), Some(0)), "{running:#?}");
    assert_eq!(printed(&first.stdout), printed(&second.stdout));
    for node in [&running, &first, &second] {
        // One for the half file, and no node was refused or cut off.
        assert_eq!(node.stderr.matches("ERROR").count(), 1, "{node:#?}");
        for words in ["link closed", "a node was refused", "no link", secret] {
            assert!(!node.stderr.contains(words), "{words:?} in {node:#?}");
        }
    }
    // A node that has only the former key is a stranger.
    let (slave, port) = listening(Running::start({
        let mut command = cloudy(&["slave", "127.0.0.1", "0", "--no-discovery", "--cluster-key"]);
        command.arg(&before);
        command
    }));
    run(master(&cluster, &["1s", "1s"], &[port])).failed_with(&["another cluster key"]);
    slave.signal("INT");
    assert_eq!(slave.end().code(), Some(130));
}

#[test]
fn a_revoked_slave_is_cut_off_and_told_and_the_others_go_on() {
    let cluster = Cluster::new();
    let copies = [cluster.path("second.key"), cluster.path("third.key")];
    for copy in &copies {
        fs::copy(&cluster.key, copy).expect("copied");
    }
    // Only the first slave and the master see the file change.
    let (first, port) = cluster.slave(&RATE);
    let (mut second, second_port, _) = slave_with(&cluster, &copies[0]);
    let (third, third_port, id) = slave_with(&cluster, &copies[1]);
    let ports = [port, second_port, third_port];
    let mut running = Running::start(master(&cluster, &["5m", "1s", "--on-failure", "evict", "--expect", "3"], &ports));
    running.wait_for("SEND: approved");

    let said = key(&["revoke", &id], &cluster.key).stdout;
    assert!(said.contains(&format!("revoked {id}")) && said.contains("cloudy key rotate"), "{said}");
    third.end().failed_with(&["this node's identity was revoked in its cluster", "it closes its groups"]);
    second.wait_for(&format!("node {id} was revoked; to keep that over a restart, add it to this node's key file"));
    running.wait_for("2 slaves");
    running.signal("INT");
    let (running, first, second) = (running.end(), first.end(), second.end());
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)), "{running:#?}");
    assert_eq!(printed(&first.stdout), printed(&second.stdout));
    assert!(running.stderr.contains("applied the key file") && running.stderr.contains("nodes revoked: 1"));
    assert!(!running.stdout.is_empty(), "it has a verdict: {running:#?}");
}

#[test]
fn what_is_no_node_or_no_key_file_is_refused_in_words() {
    let cluster = Cluster::new();
    let before = fs::read(&cluster.key).expect("the file");
    for (id, words) in [("c2ff500e", "64 hexadecimal digits, this has 8"), (&"g".repeat(64), "not a hexadecimal digit")]
    {
        let mut command = cloudy(&["key", "revoke"]);
        command.arg(&cluster.key).arg(id);
        let ended = run(command);
        assert!(ended.code() == Some(2) && ended.stderr.contains(words), "{ended:#?}");
    }
    let refused = |args: &[&str], file: &Path, words: &str| {
        let mut command = cloudy(&["key", args[0]]);
        command.arg(file).args(&args[1..]);
        run(command).failed_with(&[words]);
    };
    let id = "ab".repeat(32);
    refused(&["rotate", "--finish"], &cluster.key, "there is no next key");
    refused(&["rotate"], &cluster.path("missing.key"), "there is no key file");
    refused(&["revoke", &id], &cluster.path("missing.key"), "there is no key file");
    assert_eq!(fs::read(&cluster.key).expect("the file"), before, "it is as before");
    let bad = cluster.path("bad.key");
    fs::copy(&cluster.key, &bad).expect("copied");
    fs::write(&bad, [&before[..], b"revoked nobody\n"].concat()).expect("written");
    refused(&["revoke", &id], &bad, "line 2: a node's id has 64 hexadecimal digits");
}
