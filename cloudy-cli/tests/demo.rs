//! `cloudy demo` as users run it: real processes over loopback UDP.

mod common;

use std::collections::BTreeSet;

use cloudy_node::session::numbers::Numbers;
use common::{Ended, Recomputed, Running, cloudy, recompute, run};
use serde_json::Value;

/// The period of SEND where nothing delays messages.
const SEND: &str = "300ms";

fn demo(args: &[&str]) -> Ended {
    demo_of(SEND, args)
}

fn demo_of(send: &str, args: &[&str]) -> Ended {
    run(cloudy(&[&["demo", "--send", send, "--grace", "300ms"], args].concat()))
}

/// Runs a demo with result files: its JSON object, and the files, which must be equal to it and to each other.
fn demo_with_files(nodes: usize, args: &[&str]) -> (Value, Recomputed) {
    demo_of_files(SEND, nodes, args)
}

fn demo_of_files(send: &str, nodes: usize, args: &[&str]) -> (Value, Recomputed) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_name = dir.path().display().to_string();
    let nodes_text = nodes.to_string();
    let ended = demo_of(send, &[&["--json", "--nodes", &nodes_text, "--result-dir", &dir_name], args].concat());
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let object = ended.json();
    assert_eq!(object["equal"], true, "{object}");
    let rows = object["nodes"].as_array().expect("rows").clone();
    assert_eq!(rows.len(), nodes);
    let mut first: Option<Recomputed> = None;
    for (number, row) in (1..).zip(&rows) {
        assert_eq!(row["name"], format!("slave-{number}"));
        let file = recompute(&dir.path().join(format!("slave-{number}.jsonl")));
        assert_eq!(row["count"].as_u64(), Some(file.values.len() as u64), "{row}");
        assert_eq!(row["sum"].as_f64().map(f64::to_bits), Some(file.sum.to_bits()), "{row}");
        assert_eq!(row["digest"], file.digest, "{row}");
        let own = file.origins.iter().filter(|origin| row["node"] == **origin).count();
        assert_eq!(row["own"].as_u64(), Some(own as u64), "{row}");
        // Slots that the cut includes are not confirmed by every slave, and slots it confirmed may be cut off.
        assert!(row["confirmations"].as_u64() > Some(0), "{row}");
        let first = first.get_or_insert(file);
        assert_eq!(recompute(&dir.path().join(format!("slave-{number}.jsonl"))), *first);
    }
    (object, first.expect("a slave"))
}

#[test]
fn a_demo_on_disk_ends_with_equal_results_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = cloudy(&["demo", "--send", "300ms", "--grace", "300ms", "--nodes", "3", "--durability", "disk"]);
    command.env("TMPDIR", dir.path());
    let mut running = Running::start(command);
    running.wait_for("SEND");
    let files = |at: &std::path::Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(at).expect("listed").map(|file| file.expect("a file").path()).collect()
    };
    let [scratch] = &files(dir.path())[..] else { panic!("{:?}", files(dir.path())) };
    let stores = files(&scratch.join("data")).iter().filter(|data| data.join("cloudy.redb").exists()).count();
    assert_eq!(stores, 4, "three slaves and the master");
    let ended = running.end();
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("EQUAL: all 3 results are the same: "), "{ended:#?}");
    assert_eq!(files(dir.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_table_has_a_row_per_slave_and_a_verdict() {
    let ended = demo(&[]);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("periods: send 300ms, grace 100ms, stop 200ms"), "{ended:#?}");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["node", "count", "sum", "digest", "own", "confirmations"]
    );
    for (number, line) in (1..=4).zip(&lines[2..6]) {
        assert!(line.starts_with(&format!("slave-{number} ")), "{line}");
    }
    assert!(lines[6].starts_with("EQUAL: all 4 results are the same: "), "{ended:#?}");
    assert_eq!(lines.len(), 7);
    for phase in ["SEND", "GRACE", "STOP"] {
        assert!(ended.stderr.contains(phase), "{ended:#?}");
    }
    let results: BTreeSet<Vec<&str>> =
        lines[2..6].iter().map(|line| line.split_whitespace().skip(1).take(3).collect()).collect();
    assert_eq!(results.len(), 1);
    let count: u64 = results.first().expect("a result")[0].parse().expect("a number");
    assert!(count > 0, "nothing was approved");
}

#[test]
fn the_sums_are_those_of_the_files_at_any_number_of_slaves() {
    for nodes in [2, 8] {
        let (object, result) = demo_with_files(nodes, &["--seed", "3"]);
        assert!(!result.values.is_empty());
        assert_eq!(object["seed"], 3);
        let origins: BTreeSet<&String> = result.origins.iter().collect();
        assert!(origins.len() <= nodes);
    }
}

#[test]
fn lost_datagrams_do_not_change_that_results_are_equal() {
    for faults in
        [&["--loss", "10%"][..], &["--loss", "20%", "--reorder", "5%", "--duplicate", "5%", "--jitter", "2ms"]]
    {
        // Every slave has to confirm a message before STOP: a lost one is repeated after a timeout, which doubles.
        let (_, result) = demo_of_files("1s", 4, faults);
        assert!(!result.values.is_empty(), "nothing was approved with {faults:?}");
    }
}

#[test]
fn a_token_session_gives_the_seed_s_numbers_in_turn() {
    for nodes in [2, 3] {
        let (object, result) = demo_with_files(nodes, &["--ring", "token", "--seed", "7"]);
        assert_eq!(object["ring"], "token");
        assert!(result.values.len() > nodes, "only {} were approved", result.values.len());
        let mut streams: Vec<Numbers> = (0..nodes as u64).map(|stream| Numbers::new(7, stream)).collect();
        for (at, value) in result.values.iter().enumerate() {
            let rank = at % nodes;
            assert_eq!(value.to_bits(), streams[rank].next_number().to_bits(), "index {}", at + 1);
            assert_eq!(result.origins[at], result.origins[rank], "index {}", at + 1);
        }
    }
}

#[test]
fn a_relay_session_ends_with_equal_results_at_any_number_of_slaves() {
    for (nodes, faults) in [(2, &[][..]), (5, &["--loss", "5%"])] {
        let (object, result) = demo_with_files(nodes, &[&["--ring", "relay"], faults].concat());
        assert_eq!(object["ring"], "relay");
        let origins: BTreeSet<&String> = result.origins.iter().collect();
        assert_eq!(origins.len(), nodes, "each one's numbers went all the way round");
    }
}

#[test]
fn a_demo_that_has_nothing_to_compare_never_says_equal() {
    let ended = demo(&["--nodes", "1"]);
    assert_eq!(ended.code(), Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("needs 2 slaves or more") && ended.stdout.is_empty(), "{ended:#?}");
    let ended = run(cloudy(&["demo", "--send", "0s", "--grace", "300ms", "--nodes", "2"]));
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("NOTHING TO COMPARE") && !ended.stdout.contains("EQUAL"), "{ended:#?}");
}

#[test]
fn ctrl_c_ends_a_demo_with_its_results() {
    for signal in ["INT", "TERM"] {
        let mut demo = Running::start(cloudy(&["demo", "--send", "10m", "--json", "--nodes", "2"]));
        demo.wait_for("SEND: approved");
        demo.signal(signal);
        let ended = demo.end();
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        let object = ended.json();
        assert_eq!(object["equal"], true);
        assert!(object["nodes"][0]["count"].as_u64() > Some(0), "{object}");
    }
}

/// The processes that a process has started.
#[cfg(target_os = "linux")]
fn children(of: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("a running process");
    list.split_whitespace().map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_slave_that_dies_is_named_and_the_others_end_with_a_result() {
    let mut demo = Running::start(cloudy(&["demo", "--send", "10m", "--nodes", "3"]));
    demo.wait_for("SEND: approved");
    let slaves = children(demo.id());
    assert_eq!(slaves.len(), 4, "slaves, and the master after them");
    assert!(std::process::Command::new("kill").args(["-KILL", &slaves[1]]).status().expect("kill").success());
    demo.wait_for("slave-2 ended (signal: 9");
    demo.signal("INT");
    let ended = demo.end();
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("slave-2 gave no answer"), "{ended:#?}");
    assert!(ended.stdout.contains("INCOMPLETE: no result from slave-2"), "{ended:#?}");
    for name in ["slave-1 ", "slave-3 "] {
        let row = ended.stdout.lines().find(|line| line.starts_with(name)).expect("a row");
        assert!(row.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok()) > Some(0), "{row}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_process_outlives_its_demo() {
    let mut demo = Running::start(cloudy(&["demo", "--send", "10m", "--nodes", "2"]));
    demo.wait_for("SEND: approved");
    let processes = children(demo.id());
    assert_eq!(processes.len(), 3, "slaves, and the master");
    demo.signal("KILL");
    let gone = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let give_up_at = std::time::Instant::now() + common::PATIENCE;
    while !processes.iter().all(gone) {
        assert!(std::time::Instant::now() < give_up_at, "still there: {processes:?}");
        // sleep: another program's process gives no other sign.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_slave_that_cannot_start_is_named_with_what_it_said() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("slave-2.jsonl")).expect("in the way");
    let ended = demo(&["--result-dir", &dir.path().display().to_string()]);
    ended.failed_with(&["slave-2 did not start", "is not a regular file"]);
    let file = dir.path().join("slave-1.jsonl").display().to_string();
    demo(&["--result-dir", &file]).failed_with(&["cannot create the directory", &file]);
}
