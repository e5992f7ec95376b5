//! Processes that die and come back, a master that attaches, and one who only watches.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::process::Command;

use common::{Cluster, Ended, Running, listening, printed, recompute, run, until};
use serde_json::Value;

/// Few enough numbers that a file is written and caught up with in no time.
const RATE: [&str; 2] = ["--rate", "5000"];

/// The only child of a process.
fn child_of(process: &Running) -> Option<u32> {
    let id = process.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().expect("kill").success());
}

fn alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn names(ports: &[u16]) -> Vec<String> {
    ports.iter().flat_map(|port| ["--slave".to_owned(), format!("127.0.0.1:{port}")]).collect()
}

fn master(cluster: &Cluster, args: &[&str], ports: &[u16]) -> Command {
    let mut command = cluster.node(&[&["master", "127.0.0.1", "0"], args].concat());
    command.args(names(ports));
    command
}

fn equal(master: &Ended, slaves: &[&Ended]) {
    assert_eq!(master.code(), Some(0), "{master:#?}");
    let words = format!("EQUAL: all {} results are the same", slaves.len());
    assert!(master.stdout.contains(&words), "{master:#?}");
    for slave in slaves {
        assert_eq!(slave.code(), Some(0), "{slave:#?}");
        assert_eq!(printed(&slave.stdout), printed(&slaves[0].stdout));
    }
}

/// A supervised slave's process is killed in SEND, under either policy.
fn comes_back(policy: &str) {
    let cluster = Cluster::new();
    let file = cluster.path("result.jsonl");
    let file_name = file.display().to_string();
    let others = [cluster.slave(&RATE), cluster.slave(&RATE)];
    let (mut supervised, port) = cluster.slave(&[&RATE[..], &["--supervise", "--result", &file_name]].concat());
    let ports = [others[0].1, others[1].1, port];
    let mut first = Running::start(master(&cluster, &["10m", "2s", "--on-failure", policy, "--expect", "3"], &ports));
    first.wait_for("SEND: approved");
    let before = child_of(&supervised).expect("a child");
    signal(before, "KILL");
    supervised.wait_for("it is started again in 100ms");
    supervised.wait_for("in the session of master");
    assert_ne!(child_of(&supervised), Some(before));
    // It broadcasts again.
    let firsts = || fs::read_to_string(&file).unwrap_or_default().matches("\"seq\":1,").count();
    until("a first number of its second run", || firsts() == 4);
    first.signal("INT");
    let (ended, supervised) = (first.end(), supervised.end());
    let [second, third] = others.map(|(slave, _)| slave.end());
    equal(&ended, &[&second, &third, &supervised]);
    let result = recompute(&file);
    let expected = format!("({}, {})  digest {}  own ", result.values.len(), result.sum, result.digest);
    assert!(supervised.stdout.starts_with(&expected), "{expected}: {supervised:#?}");
    // It is one node, which has begun to count twice.
    let text = fs::read_to_string(&file).expect("the file");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    let firsts: Vec<Value> = lines.filter(|line| line["seq"] == 1).map(|line| line["origin"].clone()).collect();
    let twice = firsts.iter().filter(|origin| firsts.iter().filter(|other| other == origin).count() == 2).count();
    assert_eq!((firsts.len(), twice), (4, 2), "{firsts:?}");
}

#[test]
fn a_supervised_slave_comes_back_to_a_session_that_waits_for_it() {
    comes_back("wait");
}

#[test]
fn a_supervised_slave_comes_back_to_a_session_that_went_on_without_it() {
    comes_back("evict");
}

/// The number of approved messages in a master's line.
fn approved(line: &str) -> u64 {
    let count = line.split("approved ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {line}"))
}

#[test]
fn a_slave_that_missed_more_than_is_retained_names_the_option_and_by_default_it_comes_back() {
    for (retain, comes_back) in [(&["--retain", "8MiB"][..], false), (&[], true)] {
        let cluster = Cluster::new();
        let busy = ["--rate", "100000"];
        let others = [(); 2].map(|()| cluster.slave(&[&busy[..], retain].concat()));
        let (mut supervised, port) = cluster.slave(&[&busy[..], &["--supervise"]].concat());
        let ports = [others[0].1, others[1].1, port];
        let mut first =
            Running::start(master(&cluster, &["10m", "2s", "--on-failure", "evict", "--expect", "3"], &ports));
        // Nine bytes each: 1.5 times the retained size of the first case. A smaller bound would not hold the messages
        // that are approved at once after a stall, and the slaves' own readers would lag.
        while approved(&first.wait_for("SEND: approved")) < 1_500_000 {}
        signal(child_of(&supervised).expect("a child"), "KILL");
        if comes_back {
            // Its lines from before the crash come first.
            supervised.wait_for("is started again");
            supervised.wait_for("in the session of master");
            first.signal("INT");
            assert_eq!(supervised.end().code(), Some(0));
        } else {
            supervised.end().failed_with(&["no slave retains that", "--retain"]);
            first.signal("INT");
        }
        assert_eq!(first.end().code(), Some(if comes_back { 0 } else { 1 }));
    }
}

#[test]
fn a_supervisor_passes_an_interrupt_on_and_ends_with_its_slave() {
    let cluster = Cluster::new();
    let (supervised, _) = cluster.slave(&["--supervise"]);
    let child = child_of(&supervised).expect("a child");
    supervised.signal("INT");
    let ended = supervised.end();
    assert_eq!(ended.code(), Some(130), "{ended:#?}");
    until("the slave is gone", || !alive(child));
    assert!(!ended.stderr.contains("crashed"), "{ended:#?}");
    // A slave's error about a wrong start is final.
    let missing = cluster.path("missing").join("result.jsonl").display().to_string();
    let ended = run(cluster.node(&["slave", "127.0.0.1", "0", "--supervise", "--result", &missing]));
    ended.failed_with(&["cannot write the result to"]);
    assert!(!ended.stderr.contains("crashed"), "{ended:#?}");
}

/// A supervised slave with its own directory for temporary files.
fn supervised_in(cluster: &Cluster) -> (Running, u16, std::path::PathBuf) {
    let temporary = cluster.path("tmp");
    fs::create_dir(&temporary).expect("a directory");
    let mut command = cluster.node(&["slave", "127.0.0.1", "0", "--supervise"]);
    command.env("TMPDIR", &temporary);
    let (supervised, port) = listening(Running::start(command));
    (supervised, port, temporary)
}

fn files_in(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).expect("listed").map(|file| file.expect("a file").path()).collect()
}

#[test]
fn a_supervisor_writes_no_key_anywhere_and_a_service_that_is_ended_has_not_failed() {
    let cluster = Cluster::new();
    let (supervised, _, temporary) = supervised_in(&cluster);
    assert_eq!(files_in(&temporary), [] as [std::path::PathBuf; 0]);
    let child = child_of(&supervised).expect("a child");
    let arguments = fs::read(format!("/proc/{child}/cmdline")).expect("its arguments");
    assert!(arguments.len() < 1_000, "a key among them? {}", String::from_utf8_lossy(&arguments));
    supervised.signal("TERM");
    assert_eq!(supervised.end().code(), Some(0));
}

#[test]
fn a_slave_whose_supervisor_is_gone_ends_and_leaves_nothing_behind() {
    for name in ["KILL", "HUP"] {
        let cluster = Cluster::new();
        let (supervised, port, temporary) = supervised_in(&cluster);
        let child = child_of(&supervised).expect("a child");
        supervised.signal(name);
        until("the slave is gone", || !alive(child));
        until("its port is free", || UdpSocket::bind(("127.0.0.1", port)).is_ok());
        assert_eq!(files_in(&temporary), [] as [std::path::PathBuf; 0], "after SIG{name}");
        let code = if name == "HUP" { Some(0) } else { None };
        assert_eq!(supervised.end().code(), code, "after SIG{name}");
    }
}

#[test]
fn a_slave_whose_supervisor_is_killed_leaves_its_session_to_the_others() {
    let cluster = Cluster::new();
    let (other, other_port) = cluster.slave(&RATE);
    let (supervised, port) = cluster.slave(&[&RATE[..], &["--supervise"]].concat());
    let mut first = Running::start(master(&cluster, &["10m", "500ms", "--expect", "2"], &[other_port, port]));
    first.wait_for("SEND: approved");
    supervised.signal("KILL");
    first.wait_for(&format!("127.0.0.1:{port} has left: the session continues without it"));
    first.signal("INT");
    first.end().failed_without_error(&[&format!("INCOMPLETE: no result from 127.0.0.1:{port}")]);
    assert_eq!(other.end().code(), Some(0));
}

#[test]
fn a_restart_needs_neither_the_program_s_file_nor_any_directory() {
    let cluster = Cluster::new();
    let directory = cluster.path("installed");
    fs::create_dir(&directory).expect("a directory");
    let program = directory.join("cloudy");
    fs::copy(env!("CARGO_BIN_EXE_cloudy"), &program).expect("copied");
    let mut command = Command::new(&program);
    command.args(["slave", "--supervise", "--no-discovery", "--cluster-key"]).arg(&cluster.key);
    command.args(["--", "127.0.0.1", "0"]).current_dir(&directory).env("TMPDIR", &directory);
    let mut supervised = Running::start(command);
    let before = supervised.wait_for("listening on 127.0.0.1:");
    fs::remove_dir_all(&directory).expect("removed");
    let child = child_of(&supervised).expect("a child");
    signal(child, "KILL");
    supervised.wait_for("it is started again in 100ms (failure 1 within 60s, 10 end this)");
    assert_eq!(supervised.wait_for("listening on 127.0.0.1:"), before, "the same node at the same port");
    supervised.signal("TERM");
    assert_eq!(supervised.end().code(), Some(0));
}

#[test]
fn a_restart_that_fails_is_tried_again() {
    let cluster = Cluster::new();
    let directory = cluster.path("results");
    fs::create_dir(&directory).expect("a directory");
    let file = directory.join("result.jsonl").display().to_string();
    let (mut supervised, _) = cluster.slave(&["--supervise", "--result", &file]);
    fs::remove_dir_all(&directory).expect("removed");
    signal(child_of(&supervised).expect("a child"), "KILL");
    supervised.wait_for("cannot write the result to");
    supervised.wait_for("the slave did not start again; it is started again in");
    fs::create_dir(&directory).expect("a directory");
    supervised.wait_for("listening on 127.0.0.1:");
    supervised.signal("TERM");
    assert_eq!(supervised.end().code(), Some(0));
}

#[test]
fn a_second_signal_to_a_supervisor_ends_its_slave_at_once() {
    let cluster = Cluster::new();
    let (supervised, _) = cluster.slave(&["--supervise"]);
    let child = child_of(&supervised).expect("a child");
    // It cannot end in order.
    signal(child, "STOP");
    supervised.signal("TERM");
    supervised.signal("INT");
    assert_eq!(supervised.end().code(), Some(130));
    until("the slave is gone", || !alive(child));
}

#[test]
fn a_master_attaches_after_another_was_killed() {
    let cluster = Cluster::new();
    let slaves = [(); 3].map(|()| cluster.slave(&RATE));
    let ports = slaves.each_ref().map(|(_, port)| *port);
    let mut first = Running::start(master(&cluster, &["10m", "1s", "7"], &ports));
    first.wait_for("SEND: approved");
    signal(first.id(), "KILL");
    drop(first);
    let mut attached = Running::start(master(&cluster, &["--attach"], &ports[1..2]));
    attached.wait_for("SEND: approved");
    attached.signal("INT");
    let attached = attached.end();
    let slaves = slaves.map(|(slave, _)| slave.end());
    equal(&attached, &slaves.each_ref());
    let heading = "periods: send 10m, grace 800ms, stop 200ms (together 601s); ring pipelined, seed 7\n";
    assert!(attached.stdout.starts_with(heading), "{attached:#?}");
}

#[test]
fn a_session_in_memory_whose_processes_all_died_is_gone_and_everybody_says_how_to_begin_anew() {
    let cluster = Cluster::new();
    let mut slaves = [(); 3].map(|()| cluster.slave(&[&RATE[..], &["--supervise"]].concat()));
    let ports = slaves.each_ref().map(|(_, port)| *port);
    let mut first = Running::start(master(&cluster, &["60s", "1s"], &ports));
    first.wait_for("SEND: approved");
    let children = slaves.each_ref().map(|(slave, _)| child_of(slave).expect("a child"));
    signal(first.id(), "KILL");
    children.iter().for_each(|&child| signal(child, "KILL"));
    drop(first);
    for (slave, _) in &mut slaves {
        slave.wait_for("once all are gone, what was in memory is lost, and a master has to begin another session");
        slave.wait_for("listening on");
    }
    run(master(&cluster, &["--attach"], &ports)).failed_with(&[
        "no queried slave has a running session",
        "if all processes of a session are gone, it is lost, unless it was on disk",
        "start a session by",
    ]);
    // No node continues without a state: the next session is another one, from its start.
    let second = run(master(&cluster, &["500ms", "500ms"], &ports));
    let slaves = slaves.map(|(slave, _)| slave.end());
    equal(&second, &slaves.each_ref());
}

#[test]
fn attaching_to_nothing_is_an_error_and_periods_are_not_an_attached_master_s_to_choose() {
    let cluster = Cluster::new();
    let (slave, port) = cluster.slave(&[]);
    run(master(&cluster, &["--attach"], &[port])).failed_with(&[
        "no queried slave has a running session",
        "is in no group \"session\"",
        "without --attach",
    ]);
    for args in [&["2s", "1s"][..], &["--ring", "token"], &["--send-for", "2"]] {
        let ended = run(master(&cluster, &[&["--attach"], args].concat(), &[port]));
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
    }
    slave.signal("INT");
    assert_eq!(slave.end().code(), Some(130));
}

#[test]
fn a_tail_prints_the_whole_result_and_ends_with_the_group() {
    let cluster = Cluster::new();
    let file = cluster.path("result.jsonl");
    let file_name = file.display().to_string();
    let (first, port) = cluster.slave(&[&RATE[..], &["--result", &file_name]].concat());
    let (second, other) = cluster.slave(&RATE);
    let mut master = Running::start(master(&cluster, &["2s", "500ms"], &[port, other]));
    master.wait_for("SEND: approved");
    let tail = |args: &[&str]| {
        let mut command = common::cloudy(&[&["tail", &format!("127.0.0.1:{other}")], args].concat());
        command.arg("--cluster-key").arg(&cluster.key);
        Running::start(command)
    };
    let (whole, part) = (tail(&[]), tail(&["--from", "1000"]));
    let interrupted = tail(&[]);
    let (whole, part, ended) = (whole.end(), part.end(), master.end());
    interrupted.signal("INT");
    assert!(matches!(interrupted.end().code(), Some(0 | 130)));
    equal(&ended, &[&first.end(), &second.end()]);
    assert_eq!((whole.code(), part.code()), (Some(0), Some(0)), "{whole:#?}");
    let expected = fs::read_to_string(&file).expect("the file");
    let all = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let is_view = |line: &Value| line["members"].is_array();
    let objects = |text: &str| -> Vec<Value> { all(text).into_iter().filter(|line| !is_view(line)).collect() };
    let expected = objects(&expected);
    assert!(objects(&whole.stdout) == expected, "{}", whole.stdout.lines().last().unwrap_or_default());
    let views = |text: &str| -> Vec<(u64, u64, usize)> {
        let number = |line: &Value, name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"));
        let members = |line: &Value| line["members"].as_array().map_or(0, Vec::len);
        let lines = all(text).into_iter().filter(is_view);
        lines.map(|line| (number(&line, "view"), number(&line, "index"), members(&line))).collect()
    };
    let count = expected.len() as u64 - 1;
    assert_eq!(views(&whole.stdout), [(1, 1, 2), (2, count + 1, 2)], "each before its first index");
    assert_eq!(views(&part.stdout), views(&whole.stdout), "the view in force comes first");
    let part = objects(&part.stdout);
    let (last, messages) = part.split_last().expect("a last line");
    assert!(messages == &expected[999..expected.len() - 1]);
    assert_eq!(last.to_string(), format!("{{\"count\":{}}}", expected.len() - 1));
    run({
        let mut command = common::cloudy(&["tail", &format!("127.0.0.1:{other}")]);
        command.arg("--cluster-key").arg(&cluster.key);
        command
    })
    .failed_with(&["cannot read along at"]);
}

#[test]
fn a_supervisor_reports_that_its_slave_was_stopped_and_that_it_continues() {
    let cluster = Cluster::new();
    let (mut supervisor, _, _) = supervised_in(&cluster);
    let child = child_of(&supervisor).expect("a slave");
    signal(child, "STOP");
    supervisor.wait_for(&format!("process {child}, is stopped"));
    signal(child, "CONT");
    supervisor.wait_for(&format!("process {child}, continues"));
    supervisor.signal("TERM");
    assert_eq!(supervisor.end().code(), Some(0));
}
