//! A master and its slaves started by hand: found by multicast or by name, refused with clear texts.

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
fn a_slave_that_was_named_and_takes_no_part_is_reported() {
    let cluster = Cluster::new();
    let missing = format!("127.0.0.1:{}", common::free_port());
    // Others make up the number only where the operator gives one.
    for (expect, code) in [(&[][..], 1), (&["--expect", "1"], 0)] {
        let (slave, port) = cluster.slave(&["--no-discovery"]);
        let present = format!("127.0.0.1:{port}");
        let args = ["master", "127.0.0.1", "0", "200ms", "300ms", "--slave", &present, "--slave", &missing];
        let ended = run(cluster.node(&[&args[..], expect].concat()));
        assert_eq!(ended.code(), Some(code), "{ended:#?}");
        assert!(ended.stdout.contains(&format!("{missing} was named and took no part: ")), "{ended:#?}");
        assert!(ended.stdout.contains("ONE RESULT"), "{ended:#?}");
        assert_eq!(slave.end().code(), Some(0));
    }
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
fn a_slave_of_another_cluster_does_not_answer_and_is_refused_in_words_where_it_is_named() {
    let cluster = Cluster::new();
    let strangers = cluster.stranger();
    let own = [cluster.slave(&[]), cluster.slave(&[])];
    let (mut stranger, port) = strangers.slave(&[]);
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("EQUAL: all 2 results are the same"), "{ended:#?}");
    assert!(!ended.stderr.contains(&format!("127.0.0.1:{port}")), "it was dialled: {ended:#?}");
    let words = stranger.wait_for("are not answered");
    assert!(words.contains("cluster key"), "{words}");
    own.into_iter().for_each(|(slave, _)| assert_eq!(slave.end().code(), Some(0)));
    let named = format!("127.0.0.1:{port}");
    let refused = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms", "--slave", &named]));
    refused.failed_with(&["no slave takes part", &format!("without {named}: "), "key"]);
    let words = stranger.wait_for("refused");
    assert!(words.contains("key"), "{words}");
}

#[test]
fn two_teams_with_one_key_get_the_slaves_of_their_own_sessions_and_hear_of_the_others() {
    let cluster = Cluster::new();
    let teams = ["team-a", "team-b"];
    let slaves = teams.map(|team| [(); 2].map(|()| cluster.slave(&["--session", team])));
    let masters = teams.map(|team| {
        let mut command = cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms", "--expect", "2"]);
        command.args(["--discovery-timeout", "20s"]);
        // A variable names the session as well.
        command.env("CLOUDY_SESSION", team);
        Running::start(command)
    });
    for (at, master) in masters.into_iter().enumerate() {
        let ended = master.end();
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        assert!(ended.stdout.contains("EQUAL: all 2 results are the same"), "{ended:#?}");
        for (_, port) in &slaves[at] {
            assert!(ended.stdout.contains(&format!("127.0.0.1:{port} ")), "{ended:#?}");
        }
        for (_, port) in &slaves[1 - at] {
            assert!(!ended.stdout.contains(&format!("127.0.0.1:{port} ")), "{ended:#?}");
        }
    }
    slaves.into_iter().flatten().for_each(|(slave, _)| assert_eq!(slave.end().code(), Some(0)));
}

#[test]
fn a_master_names_the_slaves_of_another_session_that_it_leaves_alone() {
    let cluster = Cluster::new();
    let (own, _) = cluster.slave(&[]);
    let (other, port) = cluster.slave(&["--session", "team-b"]);
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms", "--json"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let words = format!("without 127.0.0.1:{port}: it belongs to session \"team-b\"");
    assert!(ended.stderr.contains(&words), "{ended:#?}");
    let object = ended.json();
    assert_eq!(object["refused"][0]["name"], format!("127.0.0.1:{port}"), "{object}");
    assert_eq!(object["nodes"].as_array().map(Vec::len), Some(1), "{object}");
    assert_eq!(own.end().code(), Some(0));
    // Named, and by a master that attaches, it is left alone as well.
    let named = format!("127.0.0.1:{port}");
    for args in [&["300ms", "300ms", "--slave", &named][..], &["--attach", "--slave", &named]] {
        let refused = run(cluster.node(&[&["master", "127.0.0.1", "0"], args].concat()));
        refused.failed_with(&["session/team-b"]);
    }
    other.signal("INT");
    other.end();
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
fn a_taken_port_leaves_no_file_behind() {
    let cluster = Cluster::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (home, data, result) = (cluster.path("home"), cluster.path("data"), cluster.path("result.jsonl"));
    std::fs::create_dir(&home).expect("a directory");
    for (command, more) in [("slave", &["--result"][..]), ("slave", &["--loss", "1%", "--result"]), ("master", &[])] {
        let mut node = cloudy(&[command, "127.0.0.1", &port, "--data"]);
        node.arg(&data).args(more).args(more.last().map(|_| &result));
        // The place of the default key file.
        node.env("HOME", &home).env("XDG_CONFIG_HOME", &home);
        run(node).failed_with(&[&port]);
        assert!(!data.exists() && !result.exists(), "{command} {more:?}");
        assert_eq!(std::fs::read_dir(&home).expect("a directory").count(), 0, "{command} {more:?}");
    }
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
fn a_session_without_messages_or_with_one_result_is_not_called_equal() {
    let cluster = Cluster::new();
    let slaves = [cluster.slave(&["--stay"]), cluster.slave(&["--stay"])];
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "0", "1", "0", "--expect", "2"]));
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("NOTHING TO COMPARE") && !ended.stdout.contains("EQUAL"), "{ended:#?}");
    assert!(ended.stderr.contains("warning: 1 of GRACE has no unit, so it is 1us"), "{ended:#?}");
    let one = format!("127.0.0.1:{}", slaves[0].1);
    for ring in ["pipelined", "token", "relay"] {
        let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms", "--ring", ring, "--slave", &one]));
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        assert!(ended.stdout.contains("ONE RESULT") && !ended.stdout.contains("EQUAL"), "{ended:#?}");
    }
}

#[test]
fn an_address_that_is_not_there_is_waited_for_and_said_once() {
    let cluster = Cluster::new();
    // TEST-NET-3 (RFC 5737) belongs to no host, and `.invalid` never exists (RFC 2606 §2).
    for (host, words) in [("203.0.113.1", "not an address of this machine"), ("x.invalid", "does not resolve")] {
        for command in [&["slave", host, "0"][..], &["master", host, "0"], &["slave", host, "0", "--supervise"]] {
            let ended = run(cluster.node(&[command, &["--start-timeout", "600ms"]].concat()));
            ended.failed_with(&[words, "the node retries for 600ms"]);
            assert_eq!(ended.stderr.matches("the node retries").count(), 1, "{ended:#?}");
        }
    }
}

#[test]
fn a_slave_s_name_that_does_not_resolve_is_looked_up_until_the_discovery_timeout() {
    let cluster = Cluster::new();
    let ended =
        run(cluster.node(&["master", "127.0.0.1", "0", "--slave", "x.invalid:1", "--discovery-timeout", "600ms"]));
    ended.failed_with(&["x.invalid:1: it does not resolve", "it is looked up again"]);
    assert_eq!(ended.stderr.matches("it is looked up again").count(), 1, "{ended:#?}");
}

/// A datagram is a write, so a line in pieces is several.
#[cfg(target_os = "linux")]
#[test]
fn every_line_on_stderr_is_written_at_once() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    const END: &[u8] = b"end";
    let cluster = Cluster::new();
    let (reader, writer) = UnixDatagram::pair().expect("a pair");
    let start = |command: &mut std::process::Command| {
        let stderr = OwnedFd::from(writer.try_clone().expect("a copy"));
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(stderr);
        command.spawn().expect("starts")
    };
    let mut slaves = [(); 2].map(|()| start(&mut cluster.node(&["-v", "slave", "127.0.0.1", "0"])));
    let search = ["--expect", "2", "--discovery-timeout", "20s"];
    let mut master =
        start(&mut cluster.node(&[&["-v", "master", "127.0.0.1", "0", "300ms", "300ms"], &search[..]].concat()));
    let mut failed = start(&mut cluster.node(&["master", "127.0.0.1", "0", "--slave", "127.0.0.1:1"]));
    let lines = std::thread::spawn(move || {
        let (mut lines, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Some(length) = reader.recv(&mut buffer).ok().filter(|length| buffer[..*length] != *END) {
            lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        lines
    });
    assert!(master.wait().expect("ends").success());
    slaves.iter_mut().for_each(|slave| assert!(slave.wait().expect("ends").success()));
    assert!(!failed.wait().expect("ends").success());
    writer.send(END).expect("sent after all that they wrote");
    let lines = lines.join().expect("read");
    assert!(
        lines.iter().any(|line| line.contains("SEND")) && lines.iter().any(|line| line.contains("INFO")),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("error: ") && line.contains("\nhelp: ")), "{lines:#?}");
    lines.iter().for_each(|line| assert!(line.ends_with('\n'), "a part of a line: {line:?} of {lines:#?}"));
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
    assert_eq!(tunables(Some("")).as_deref(), Some(""), "a variable that is set is kept");
}
