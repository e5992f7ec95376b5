//! Sessions that end early: by Ctrl-C, or because a process dies.
#![cfg(unix)]

mod common;

use common::{Cluster, Running, printed};

/// Two slaves and a master in a session that would go on for long, with messages approved.
fn session(cluster: &Cluster) -> (Running, [Running; 2], [u16; 2]) {
    let [(mut first, first_port), (mut second, second_port)] = [cluster.slave(&[]), cluster.slave(&[])];
    let mut master = Running::start(cluster.node(&["master", "127.0.0.1", "0", "10m", "1s", "--expect", "2"]));
    master.wait_for("SEND: approved");
    first.wait_for("approved");
    second.wait_for("approved");
    (master, [first, second], [first_port, second_port])
}

fn all_end_well(master: Running, slaves: [Running; 2]) {
    let master = master.end();
    assert_eq!(master.code(), Some(0), "{master:#?}");
    assert!(master.stdout.contains("EQUAL: all 2 results are the same"), "{master:#?}");
    let [first, second] = slaves.map(Running::end);
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)), "{first:#?} {second:#?}");
    assert_eq!(printed(&first.stdout), printed(&second.stdout));
    assert!(!first.stdout.starts_with("(0, "), "nothing was approved: {first:#?}");
}

#[test]
fn ctrl_c_at_the_master_ends_the_session_with_results() {
    let cluster = Cluster::new();
    let (master, slaves, _) = session(&cluster);
    master.signal("INT");
    all_end_well(master, slaves);
}

/// One of two slaves gets a signal; the other and the master go on until the session is ended.
fn one_leaves(name: &str, code: i32) {
    let cluster = Cluster::new();
    let (mut master, [first, second], [_, port]) = session(&cluster);
    second.signal(name);
    let left = second.end();
    assert_eq!((left.code(), left.stdout.as_str()), (Some(code), ""), "{left:#?}");
    assert!(left.stderr.contains("left the session, which continues without this slave"), "{left:#?}");
    master.wait_for(&format!("127.0.0.1:{port} has left: the session continues without it"));
    master.wait_for("SEND: approved");
    master.signal("INT");
    let (master, first) = (master.end(), first.end());
    master.failed_without_error(&[
        &format!("127.0.0.1:{port} left the session before its end, and has no result"),
        &format!("INCOMPLETE: no result from 127.0.0.1:{port}"),
    ]);
    assert_eq!(first.code(), Some(0), "{first:#?}");
    assert!(master.stdout.contains(first.stdout.split(['(', ',']).nth(1).expect("a count")), "{master:#?} {first:#?}");
}

#[test]
fn ctrl_c_at_a_slave_makes_it_leave_and_the_others_go_on() {
    one_leaves("INT", 130);
}

#[test]
fn sigterm_and_sighup_at_a_slave_make_it_leave_and_are_no_failure() {
    one_leaves("TERM", 0);
    one_leaves("HUP", 0);
}

#[test]
fn the_last_slave_that_leaves_ends_the_session() {
    let cluster = Cluster::new();
    let (mut master, [first, second], [port, _]) = session(&cluster);
    first.signal("TERM");
    assert_eq!(first.end().code(), Some(0));
    master.wait_for(&format!("127.0.0.1:{port} has left"));
    second.signal("TERM");
    let (master, second) = (master.end(), second.end());
    assert_eq!(second.code(), Some(0), "{second:#?}");
    assert!(second.stdout.starts_with('('), "nobody else has its result: {second:#?}");
    master.failed_without_error(&[&format!("INCOMPLETE: no result from 127.0.0.1:{port}")]);
}

#[test]
fn all_slaves_that_are_told_to_leave_in_send_are_named_and_send_ended_early() {
    let cluster = Cluster::new();
    let (master, slaves, ports) = session(&cluster);
    slaves.iter().for_each(|slave| slave.signal("STOP"));
    // Pending until both continue: neither leaves before the other wants to.
    slaves.iter().for_each(|slave| slave.signal("TERM"));
    slaves.iter().for_each(|slave| slave.signal("CONT"));
    let master = master.end();
    master.failed_without_error(&["SEND ended early, after ", " of 10m, because ", " stopped and no slave stayed"]);
    let early = master.stdout.lines().find(|line| line.starts_with("SEND ended early")).expect("a line");
    for (slave, port) in slaves.into_iter().zip(ports) {
        let slave = slave.end();
        assert_eq!(slave.code(), Some(0), "{slave:#?}");
        let has_result = slave.stdout.starts_with('(');
        assert_eq!(early.contains(&format!("127.0.0.1:{port}")), has_result, "{slave:#?} {master:#?}");
        assert_eq!(slave.stderr.contains("no slave is left to continue the session"), has_result, "{slave:#?}");
    }
}

#[test]
fn ctrl_c_at_every_process_at_once_ends_them_all_in_order() {
    let cluster = Cluster::new();
    let (master, slaves, _) = session(&cluster);
    let ids = [&master, &slaves[0], &slaves[1]].map(|process| process.id().to_string());
    assert!(std::process::Command::new("kill").arg("-INT").args(ids).status().expect("kill").success());
    let (master, slaves) = (master.end(), slaves.map(Running::end));
    assert!(matches!(master.code(), Some(0 | 1)) && master.stdout.contains("digest"), "{master:#?}");
    for slave in slaves {
        // Whichever came first, its own leaving or the end for all.
        let has_result = slave.stdout.starts_with('(');
        assert_eq!(slave.code(), Some(if has_result { 0 } else { 130 }), "{slave:#?} {master:#?}");
    }
}

#[test]
fn a_hang_up_at_the_master_ends_the_session_with_results() {
    let cluster = Cluster::new();
    let (master, slaves, _) = session(&cluster);
    master.signal("HUP");
    all_end_well(master, slaves);
}

#[test]
fn a_second_signal_ends_master_and_slave_at_once() {
    let cluster = Cluster::new();
    let (master, [first, second], _) = session(&cluster);
    // Without it, no orderly end of the others is possible.
    second.signal("STOP");
    for process in [master, first] {
        process.signal("TERM");
        process.signal("INT");
        let ended = process.end();
        assert_eq!((ended.code(), ended.stdout.starts_with('(')), (Some(130), false), "{ended:#?}");
    }
    second.signal("CONT");
}

/// A demo with messages approved, and its directory for temporary files.
fn demo(cluster: &Cluster) -> (Running, std::path::PathBuf) {
    let temporary = cluster.path("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = common::cloudy(&["demo", "--nodes", "2", "--send", "10m"]);
    command.env("TMPDIR", &temporary);
    let mut demo = Running::start(command);
    demo.wait_for("SEND: approved");
    (demo, temporary)
}

#[test]
fn a_signal_to_a_demo_ends_its_session_with_results() {
    for name in ["INT", "TERM", "HUP"] {
        let cluster = Cluster::new();
        let (demo, temporary) = demo(&cluster);
        demo.signal(name);
        let ended = demo.end();
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        assert!(ended.stdout.contains("EQUAL: all 2 results are the same"), "{ended:#?}");
        assert_eq!(std::fs::read_dir(&temporary).expect("listed").count(), 0, "after SIG{name}");
    }
}

#[test]
fn no_private_key_outlives_a_demo_that_is_killed() {
    let cluster = Cluster::new();
    let temporary = cluster.path("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = common::cloudy(&["demo", "--nodes", "2", "--send", "10m", "--durability", "disk"]);
    command.env("TMPDIR", &temporary);
    let mut demo = Running::start(command);
    demo.wait_for("SEND: approved");
    demo.signal("KILL");
    assert_eq!(demo.end().code(), None);
    let files = || std::fs::read_dir(&temporary).expect("listed").count();
    common::until("its processes have deleted its files", || files() == 0);
}

#[test]
fn a_tail_whose_group_is_gone_ends_by_name() {
    let cluster = Cluster::new();
    let [(first, port), (second, other)] = [cluster.slave(&["--rate", "2000"]), cluster.slave(&["--rate", "2000"])];
    let mut master = Running::start(cluster.node(&["master", "127.0.0.1", "0", "10m", "1s", "--expect", "2"]));
    master.wait_for("SEND: approved");
    let (output, own) = (cluster.path("tail"), common::cloudy(&[]));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$0\" tail \"$1\" --cluster-key \"$2\" --lost-timeout 500ms > \"$3\""]);
    command.arg(own.get_program()).arg(format!("127.0.0.1:{port}")).arg(&cluster.key).arg(&output);
    let tail = Running::start(command);
    common::until("it reads", || std::fs::metadata(&output).is_ok_and(|file| file.len() > 0));
    for process in [master, first, second] {
        process.signal("KILL");
        assert_eq!(process.end().code(), None);
    }
    let killed_at = std::time::Instant::now();
    let ended = tail.end();
    // The links of dead processes are closed after 12 s.
    assert!(killed_at.elapsed() < std::time::Duration::from_secs(9), "{:?}", killed_at.elapsed());
    ended.failed_with(&["no coordinator of group \"session\" was in reach for 500ms", "--from", "--lost-timeout"]);
    for port in [port, other] {
        assert!(ended.stderr.contains(&format!("at 127.0.0.1:{port}")), "{ended:#?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_second_signal_to_a_demo_ends_it_at_once_and_leaves_nothing_behind() {
    let cluster = Cluster::new();
    let (demo, temporary) = demo(&cluster);
    let id = demo.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
    let slave = children.split_whitespace().next().expect("a slave");
    // Without it, no orderly end of the others is possible.
    let stopped = std::process::Command::new("kill").args(["-STOP", slave]).status();
    assert!(stopped.expect("kill").success());
    demo.signal("TERM");
    demo.signal("INT");
    let ended = demo.end();
    assert_eq!((ended.code(), ended.stdout.contains("EQUAL")), (Some(130), false), "{ended:#?}");
    assert_eq!(std::fs::read_dir(&temporary).expect("listed").count(), 0);
    common::until("its slave is gone", || {
        std::fs::read_to_string(format!("/proc/{slave}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
#[cfg(target_os = "linux")]
fn what_was_started_by_nohup_outlives_its_terminal() {
    let cluster = Cluster::new();
    let own = cluster.node(&["slave", "127.0.0.1", "0"]);
    let mut command = std::process::Command::new("nohup");
    command.arg(own.get_program()).args(own.get_args());
    let (mut slave, port) = common::listening(Running::start(command));
    slave.signal("HUP");
    let args = ["master", "127.0.0.1", "0", "200ms", "300ms", "--slave", &format!("127.0.0.1:{port}")];
    let master = common::run(cluster.node(&args));
    assert_eq!(master.code(), Some(0), "{master:#?}");
    slave.wait_for("GRACE");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn ctrl_c_while_nothing_runs_ends_at_once() {
    let cluster = Cluster::new();
    let (slave, _) = cluster.slave(&[]);
    slave.signal("INT");
    let ended = slave.end();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(130), ""), "{ended:#?}");
    let (mut slave, port) = cluster.slave(&["--no-discovery"]);
    let missing = format!("127.0.0.1:{}", common::free_port());
    let present = format!("127.0.0.1:{port}");
    let args = ["master", "127.0.0.1", "0", "1s", "1s", "--slave", &present, "--slave", &missing, "--json"];
    let mut master = Running::start(cluster.node(&args));
    master.wait_for("found");
    master.signal("TERM");
    assert_eq!(master.end().code(), Some(130));
    // The master's invitation is void, and the slave waits for another.
    slave.wait_for("waiting");
    slave.signal("TERM");
    assert_eq!(slave.end().code(), Some(0), "a service that is ended has not failed");
}

/// What looks like the first datagram of a handshake (RFC 9000 §17.2.2) that no client continues.
fn half_open(round: u16) -> Vec<u8> {
    let mut datagram = vec![0; 1_200];
    datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
    datagram[5] = 8;
    datagram[6..8].copy_from_slice(&round.to_be_bytes());
    datagram[15..19].copy_from_slice(&[0, 0x44, 0x9e, 0]);
    datagram
}

#[test]
fn garbage_and_half_open_handshakes_at_every_port_disturb_no_session() {
    let cluster = Cluster::new();
    let [(mut first, first_port), (second, second_port)] = [cluster.slave(&[]), cluster.slave(&[])];
    let master_port = common::free_port();
    let arguments = ["master", "127.0.0.1", &master_port.to_string(), "10m", "1s", "--expect", "2"];
    let mut master = Running::start(cluster.node(&arguments));
    master.wait_for("SEND: approved");
    first.wait_for("approved");
    for round in 0..500u16 {
        // A sender of its own each time, as if they were many.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let garbage: Vec<u8> = (0..round).map(|at| (at ^ round) as u8).collect();
        for port in [first_port, second_port, master_port] {
            for datagram in [&garbage, &half_open(round)] {
                socket.send_to(datagram, ("127.0.0.1", port)).expect("sent");
            }
        }
    }
    first.wait_for("approved");
    master.wait_for("SEND: approved");
    master.signal("INT");
    all_end_well(master, [first, second]);
}

#[test]
fn a_dead_slave_is_named_and_the_others_end_with_a_result() {
    let cluster = Cluster::new();
    let (master, [first, second], [_, dead_port]) = session(&cluster);
    second.signal("KILL");
    assert_eq!(second.end().code(), None);
    master.signal("INT");
    let master = master.end();
    assert_eq!(master.code(), Some(1), "{master:#?}");
    let dead = format!("127.0.0.1:{dead_port}");
    assert!(master.stdout.contains(&format!("{dead} gave no answer")), "{master:#?}");
    assert!(master.stdout.contains(&format!("INCOMPLETE: no result from {dead}")), "{master:#?}");
    let first = first.end();
    assert_eq!(first.code(), Some(0), "{first:#?}");
    assert!(master.stdout.contains(first.stdout.split(['(', ',']).nth(1).expect("a count")), "{master:#?} {first:#?}");
}

#[test]
fn a_session_goes_on_without_a_dead_slave_where_the_policy_says_so() {
    let cluster = Cluster::new();
    let [(first, _), (second, _), (dead, dead_port)] = [cluster.slave(&[]), cluster.slave(&[]), cluster.slave(&[])];
    let arguments = ["master", "127.0.0.1", "0", "10m", "1s", "--expect", "3", "--on-failure", "evict"];
    let mut master = Running::start(cluster.node(&arguments));
    master.wait_for("SEND: approved");
    dead.signal("KILL");
    assert_eq!(dead.end().code(), None);
    master.wait_for(&format!("127.0.0.1:{dead_port} does not answer: the session continues without it"));
    master.wait_for("view 2: 2 slaves");
    let approved =
        |line: String| line.split("approved ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let before = approved(master.wait_for("SEND: approved"));
    let after = approved(master.wait_for("SEND: approved"));
    assert!(before.is_some() && before < after, "approvals go on: {before:?}, {after:?}");
    master.signal("INT");
    let master = master.end();
    assert_eq!(master.code(), Some(1), "one result is missing: {master:#?}");
    let [first, second] = [first, second].map(Running::end);
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)), "{first:#?} {second:#?}");
    assert_eq!(printed(&first.stdout), printed(&second.stdout));
}

#[test]
fn a_session_goes_on_without_its_master() {
    let cluster = Cluster::new();
    let (master, slaves, _) = session(&cluster);
    master.signal("KILL");
    assert_eq!(master.end().code(), None);
    let mut attached = Running::start(cluster.node(&["master", "127.0.0.1", "0", "--attach"]));
    attached.wait_for("SEND: approved");
    attached.signal("INT");
    assert_eq!(attached.end().code(), Some(0));
    let [first, second] = slaves.map(Running::end);
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)), "{first:#?} {second:#?}");
    assert_eq!(printed(&first.stdout), printed(&second.stdout));
    assert!(!first.stdout.starts_with("(0, "), "nothing was approved: {first:#?}");
}

#[test]
fn a_master_lost_before_the_session_is_an_error_in_words() {
    let cluster = Cluster::new();
    let (mut slave, port) = cluster.slave(&["--no-discovery"]);
    let missing = format!("127.0.0.1:{}", common::free_port());
    let present = format!("127.0.0.1:{port}");
    let args = ["master", "127.0.0.1", "0", "1s", "1s", "--slave", &present, "--slave", &missing];
    let mut master = Running::start(cluster.node(&args));
    master.wait_for("found");
    master.signal("KILL");
    assert_eq!(master.end().code(), None);
    // It waits for another one.
    slave.wait_for("waiting");
    slave.signal("INT");
    let ended = slave.end();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(130), ""), "{ended:#?}");
}

#[test]
fn several_slaves_that_are_told_to_leave_at_once_have_a_result_where_the_master_has_it() {
    for _ in 0..3 {
        let cluster = Cluster::new();
        let slaves = [(); 3].map(|()| cluster.slave(&["--no-discovery"]));
        let mut command = cluster.node(&["master", "127.0.0.1", "0", "10m", "1s"]);
        for (_, port) in &slaves {
            command.args(["--slave", &format!("127.0.0.1:{port}")]);
        }
        let mut master = Running::start(command);
        master.wait_for("SEND: approved");
        slaves.iter().for_each(|(slave, _)| slave.signal("TERM"));
        let master = master.end();
        for (slave, port) in slaves {
            let slave = slave.end();
            let left = master.stdout.contains(&format!("127.0.0.1:{port} left the session"));
            assert_eq!(slave.stdout.starts_with('('), !left, "{slave:#?} {master:#?}");
        }
    }
}

#[test]
fn a_slave_that_dies_before_send_ends_the_start_by_name() {
    let cluster = Cluster::new();
    let [(mut first, port), (dead, dead_port)] =
        [cluster.slave(&["--no-discovery"]), cluster.slave(&["--no-discovery"])];
    // On such a path some seconds pass before SEND.
    let mut command = cluster.node(&["master", "127.0.0.1", "0", "10m", "1s", "--latency", "700ms"]);
    command.args(["--discovery-timeout", "20s"]);
    for port in [port, dead_port] {
        command.args(["--slave", &format!("127.0.0.1:{port}")]);
    }
    let mut master = Running::start(command);
    master.wait_for("2 slaves take part");
    dead.signal("KILL");
    assert_eq!(dead.end().code(), None);
    let master = master.end();
    master.failed_with(&[&format!("127.0.0.1:{dead_port} gave no sign of life"), "before SEND", "--on-failure evict"]);
    assert!(!master.stderr.contains(&format!("127.0.0.1:{port} gave")), "{master:#?}");
    first.wait_for("waiting for the next master");
    first.signal("TERM");
    assert_eq!(first.end().code(), Some(0));
}

#[test]
fn a_session_whose_slaves_are_all_dead_ends_by_name_when_its_periods_are_over() {
    let cluster = Cluster::new();
    let [(first, _), (second, port)] = [cluster.slave(&[]), cluster.slave(&[])];
    let mut master = Running::start(cluster.node(&["master", "127.0.0.1", "0", "1s", "1s", "--expect", "2"]));
    master.wait_for("SEND: approved");
    for process in [first, second] {
        process.signal("KILL");
        assert_eq!(process.end().code(), None);
    }
    master.end().failed_with(&["no slave is in reach at the end of the session", &format!("127.0.0.1:{port}")]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_demo_that_is_stopped_does_not_wait_for_a_slave_that_stands_still() {
    let cluster = Cluster::new();
    let (demo, _) = demo(&cluster);
    let id = demo.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
    let slave = children.split_whitespace().next().expect("a slave");
    let paused = std::process::Command::new("kill").args(["-STOP", slave]).status();
    assert!(paused.expect("kill").success());
    demo.signal("TERM");
    let stopped_at = std::time::Instant::now();
    demo.end().failed_without_error(&["did not end after the session and was killed"]);
    assert!(stopped_at.elapsed() < std::time::Duration::from_secs(8), "{:?}", stopped_at.elapsed());
}
