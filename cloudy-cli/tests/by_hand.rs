//! A master and its slaves started by hand: found by multicast or by name, refused in words.

mod common;

use std::net::UdpSocket;

use common::{Cluster, Running, cloudy, printed, recompute, run};

#[test]
fn a_master_finds_its_slaves_by_multicast() {
    let cluster = Cluster::new();
    let file = cluster.path("result.jsonl");
    let file_name = file.display().to_string();
    let slaves = [cluster.slave(&["--result", &file_name]), cluster.slave(&[]), cluster.slave(&["--json"])];
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300000", "300000", "5"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.starts_with("periods: send 300ms, grace 100ms, stop 200ms"), "{ended:#?}");
    assert!(ended.stdout.contains("EQUAL: all 3 results are the same"), "{ended:#?}");
    for (_, port) in &slaves {
        assert!(ended.stdout.contains(&format!("127.0.0.1:{port} ")), "{ended:#?}");
    }
    let [first, second, third] = slaves.map(|(slave, _)| slave.end());
    for slave in [&first, &second, &third] {
        assert_eq!(slave.code(), Some(0), "{slave:#?}");
    }
    let result = recompute(&file);
    let count = result.values.len();
    for slave in [&first, &second] {
        let expected = format!("({count}, {})  digest {}  own ", result.sum, result.digest);
        assert!(slave.stdout.starts_with(&expected), "{expected}: {slave:#?}");
    }
    let object = third.json();
    assert_eq!((object["count"].as_u64(), object["sum"].as_f64()), (Some(count as u64), Some(result.sum)));
    assert_eq!(object["digest"], result.digest);
}

#[test]
fn several_names_of_one_slave_are_one_slave() {
    let cluster = Cluster::new();
    let (slave, port) = cluster.slave(&["--no-discovery"]);
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let args = ["--send-for", "0.2", "--wait-for", "0.3", "--slave", &names[0], "--slave", &names[1], "--json"];
    let ended = run(cluster.node(&[&["master", "127.0.0.1", "0"], &args[..]].concat()));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_eq!(ended.json()["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn no_slave_is_an_error_at_once() {
    let cluster = Cluster::new();
    run(cluster.node(&["master", "127.0.0.1", "0", "10m", "10m"])).failed_with(&["no slave was found", "cloudy slave"]);
}

#[test]
fn fewer_slaves_than_expected_are_an_error_and_the_slave_goes_on_waiting() {
    let cluster = Cluster::new();
    let (slave, _) = cluster.slave(&[]);
    let short = ["master", "127.0.0.1", "0", "200ms", "300ms", "--expect"];
    run(cluster.node(&[&short[..], &["2"]].concat())).failed_with(&["1 of 2 slaves were found"]);
    let ended = run(cluster.node(&[&short[..], &["1"]].concat()));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn a_slave_of_another_cluster_is_refused_in_words_and_the_session_goes_on() {
    let cluster = Cluster::new();
    let strangers = cluster.stranger();
    let own = [cluster.slave(&[]), cluster.slave(&[])];
    let (mut stranger, port) = strangers.slave(&[]);
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("EQUAL: all 2 results are the same"), "{ended:#?}");
    let refused = ended.stderr.lines().find(|line| line.contains(&format!("without 127.0.0.1:{port}: ")));
    assert!(refused.is_some_and(|line| line.contains("key")), "{ended:#?}");
    let words = stranger.wait_for("refused");
    assert!(words.contains("key"), "{words}");
    own.into_iter().for_each(|(slave, _)| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn a_second_master_is_refused_in_words_and_the_session_goes_on() {
    let cluster = Cluster::new();
    let slaves = [cluster.slave(&[]), cluster.slave(&[])];
    let mut first = Running::start(cluster.node(&["master", "127.0.0.1", "0", "10m", "300ms", "--expect", "2"]));
    first.wait_for("SEND: approved");
    run(cluster.node(&["master", "127.0.0.1", "0", "1s", "300ms"]))
        .failed_with(&["no slave takes part", "is in group \"session\" of node "]);
    first.signal("INT");
    let ended = first.end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("EQUAL: all 2 results are the same"), "{ended:#?}");
    slaves.into_iter().for_each(|(slave, _)| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn a_slave_that_stays_takes_the_next_master() {
    let cluster = Cluster::new();
    let file = cluster.path("result.jsonl");
    let (mut slave, _) = cluster.slave(&["--stay", "--json", "--result", &file.display().to_string()]);
    let counts = [(); 2].map(|()| {
        let ended = run(cluster.node(&["master", "127.0.0.1", "0", "200ms", "300ms", "--json"]));
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        let count = ended.json()["nodes"][0]["count"].as_u64().expect("a count");
        slave.wait_for("waiting for the next master");
        count
    });
    slave.signal("INT");
    let ended = slave.end();
    let printed: Vec<Option<u64>> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object")["count"].as_u64())
        .collect();
    assert_eq!(printed, counts.map(Some), "{ended:#?}");
    assert_eq!(recompute(&file).values.len() as u64, counts[1], "the file has the last session only");
}

#[test]
fn a_taken_port_is_named() {
    let cluster = Cluster::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port().to_string();
    for command in ["slave", "master"] {
        run(cluster.node(&[command, "127.0.0.1", &port])).failed_with(&[&port]);
    }
    let lossy = ["slave", "127.0.0.1", &port, "--loss", "1%"];
    run(cluster.node(&lossy)).failed_with(&[&port]);
}

#[test]
fn what_cannot_be_written_is_named_before_anything_is_joined() {
    let cluster = Cluster::new();
    let file = cluster.path("missing").join("result.jsonl").display().to_string();
    let ended = run(cluster.node(&["slave", "127.0.0.1", "0", "--result", &file]));
    ended.failed_with(&["cannot write the result to", &file]);
    assert!(!ended.stderr.contains("listening"), "{ended:#?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_the_file_and_not_the_session() {
    let cluster = Cluster::new();
    let (full, _) = cluster.slave(&["--result", "/dev/full"]);
    let (whole, _) = cluster.slave(&[]);
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "200ms", "300ms", "--expect", "2"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let full = full.end();
    full.failed_with(&["/dev/full", "incomplete"]);
    assert_eq!(printed(&full.stdout), printed(&whole.end().stdout));
}

#[test]
fn a_wrong_duration_is_a_wrong_command_line() {
    for args in [&["master", "127.0.0.1", "0", "2 s", "1s"][..], &["demo", "--send", "soon"]] {
        let ended = run(cloudy(args));
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains("write for example 2s"), "{ended:#?}");
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_node_asks_for_huge_pages_unless_its_environment_says_otherwise() {
    let cluster = Cluster::new();
    let tunables = |set: Option<&str>| {
        let mut command = cluster.node(&["slave", "127.0.0.1", "0"]);
        match set {
            Some(value) => command.env("GLIBC_TUNABLES", value),
            None => command.env_remove("GLIBC_TUNABLES"),
        };
        let (slave, _) = common::listening(Running::start(command));
        let environment = std::fs::read_to_string(format!("/proc/{}/environ", slave.id())).expect("its environment");
        let found = environment.split('\0').find_map(|entry| entry.strip_prefix("GLIBC_TUNABLES="));
        found.map(str::to_owned)
    };
    let asked = tunables(None).expect("the same process has begun again with it");
    assert!(asked.starts_with("glibc.malloc.hugetlb=1"), "{asked}");
    assert_eq!(tunables(Some("")).as_deref(), Some(""), "whoever sets it decides");
}
