//! `cloudy doctor`: silent on a healthy pair, and a finding with a remedy for each planted fault.

mod common;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Cluster, Ended, Running, cloudy, free_port, listening, run};
use serde_json::Value;

/// A node of the cluster that runs, and its address.
fn peer(cluster: &Cluster) -> (Running, String) {
    let (slave, port) = listening(Running::start(cluster.node(&["slave", "127.0.0.1", "0"])));
    (slave, format!("127.0.0.1:{port}"))
}

fn doctor(cluster: &Cluster, more: &[&str]) -> Command {
    let mut command = cloudy(&["doctor", "--cluster-key"]);
    command.arg(&cluster.key).args(more);
    command
}

/// The finding of a check, which has a remedy.
fn found(ended: &Ended, code: i32, check: &str, words: &[&str]) {
    assert_eq!(ended.code(), Some(code), "{ended:#?}");
    let name = if code == 2 { "broken" } else { "warning" };
    let at = ended.stdout.find(&format!("{name} {check}: ")).unwrap_or_else(|| panic!("no {check} in {ended:#?}"));
    let finding: String = ended.stdout[at..].lines().take(2).collect::<Vec<_>>().join("\n");
    assert!(finding.contains("\n  remedy: "), "{finding}");
    words.iter().for_each(|words| assert!(finding.contains(words), "no {words:?} in {finding}"));
}

#[test]
fn a_healthy_pair_is_silent() {
    let cluster = Cluster::new();
    let (_peer, address) = peer(&cluster);
    let data = cluster.path("new").display().to_string();
    let ended = run(doctor(&cluster, &["--peer", &address, "--data", &data]));
    // The buffers are those of this machine.
    let others = ended.stdout.lines().filter(|line| !line.starts_with("warning buffers") && !line.contains("sysctl"));
    assert_eq!(others.count(), 0, "{ended:#?}");
    let json = run(doctor(&cluster, &["--peer", &address, "--json"]));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let checks: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    for check in ["files", "key", "link", "round trip", "path mtu"] {
        assert!(checks.contains(&check), "no {check} in {report:#}");
    }
}

#[test]
fn a_peer_with_another_key_or_without_a_node_is_found() {
    let cluster = Cluster::new();
    let (_peer, address) = peer(&cluster.stranger());
    found(&run(doctor(&cluster, &["--peer", &address])), 2, "key", &["another cluster key", "cloudy key show"]);
    let closed = format!("127.0.0.1:{}", free_port());
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    for address in [closed, silent.local_addr().unwrap().to_string()] {
        let ended = run(doctor(&cluster, &["--peer", &address, "--timeout", "1s"]));
        found(&ended, 2, "link", &["no link to", "open UDP port"]);
    }
}

#[test]
fn wrong_rights_are_found() {
    let cluster = Cluster::new();
    let data = cluster.path("data");
    cloudy_node::DataDir::open(&data, true).unwrap();
    let directory = data.display().to_string();
    fs::set_permissions(data.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    found(&run(doctor(&cluster, &["--data", &directory])), 2, "data", &["node.key", "chmod 600"]);
    fs::set_permissions(data.join("node.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&cluster.key, fs::Permissions::from_mode(0o644)).unwrap();
    found(&run(doctor(&cluster, &[])), 2, "key", &["cluster.key", "chmod"]);
}

#[test]
fn a_small_limit_of_files_is_found() {
    let cluster = Cluster::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 60; exec \"$0\" doctor --cluster-key \"$1\"", env!("CARGO_BIN_EXE_cloudy")]);
    command.arg(&cluster.key);
    found(&run(command), 2, "files", &["60 files", "ulimit -n"]);
}
