//! `cloudy doctor` on paths with faults.

use std::process::Command;

use crate::common::{Cluster, Ended, Running, cloudy};
use crate::lab::{Lab, address};

/// The host of the peer; the doctor is on host 0.
const PEER: usize = 1;

fn peer(lab: &Lab, cluster: &Cluster) -> Running {
    let mut slave = lab.spawn(PEER, &cluster.node(&["slave", &address(PEER).to_string(), "10500", "--stay"]));
    slave.wait_for("listening on");
    slave
}

fn doctor(lab: &Lab, cluster: &Cluster, more: &[&str]) -> Ended {
    let peer = format!("{}:10500", address(PEER));
    let mut command: Command = cloudy(&["doctor", "--peer", &peer, "--cluster-key"]);
    command.arg(&cluster.key).args(more);
    lab.spawn(0, &command).end()
}

/// Whether a check has a finding; buffers are those of this machine.
fn found(ended: &Ended, check: &str) -> bool {
    ended.stdout.lines().any(|line| line.starts_with(check))
}

#[test]
fn doctor_finds_a_direction_that_is_blocked_and_a_narrow_path_and_no_more() {
    let Some(lab) = Lab::new(2) else { return };
    let cluster = Cluster::new();
    let _peer = peer(&lab, &cluster);
    let multicast = ["--multicast", &address(0).to_string()].map(str::to_owned);
    let multicast: Vec<&str> = multicast.iter().map(String::as_str).collect();
    let healthy = doctor(&lab, &cluster, &multicast);
    let all = ["broken", "warning path", "warning link", "warning round", "warning multicast"];
    assert!(all.iter().all(|check| !found(&healthy, check)), "{healthy:#?}");
    for (from, to) in [(0, PEER), (PEER, 0)] {
        lab.block(from, to);
        let blocked = doctor(&lab, &cluster, &["--timeout", "1s"]);
        assert!(blocked.code() == Some(2) && found(&blocked, "broken link: no link to"), "{blocked:#?}");
        assert!(blocked.stdout.contains("open UDP port 10500 in both directions"), "{blocked:#?}");
        lab.heal();
    }
    lab.narrow(PEER, 1_280);
    let narrow = doctor(&lab, &cluster, &[]);
    assert!(found(&narrow, "warning path mtu: the largest datagram to"), "{narrow:#?}");
    assert_eq!(narrow.code(), Some(1), "{narrow:#?}");
    lab.unplug(0);
    let unplugged = doctor(&lab, &cluster, &[&multicast[..], &["--timeout", "1s"]].concat());
    assert!(found(&unplugged, "warning multicast: "), "{unplugged:#?}");
}
