//! `cloudy demo` with faults at times: processes that are killed, paused and cut off from each other.
#![cfg(unix)]

mod common;

use common::{Ended, Recomputed, cloudy, recompute, run};
use serde_json::Value;

/// Runs a demo with result files for 2 s of SEND.
fn demo(args: &[&str]) -> (Ended, Value, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir_name = dir.path().display().to_string();
    let ended = run(cloudy(&[&["demo", "--json", "--result-dir", &dir_name], args].concat()));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let object = ended.json();
    assert_eq!(object["equal"], true, "{object}");
    assert_eq!(object["problems"], Value::Array(Vec::new()), "{object}");
    (ended, object, dir)
}

/// Each process that is named has one result, in its row and in its file, up to the end of the session.
fn agree(object: &Value, dir: &tempfile::TempDir, names: &[&str]) {
    let mut first: Option<Recomputed> = None;
    for name in names {
        let row = row(object, name);
        let file = recompute(&dir.path().join(format!("{name}.jsonl")));
        assert_eq!(row["killed"], false, "{row}");
        assert_eq!(row["count"].as_u64(), Some(file.values.len() as u64), "{row}");
        assert_eq!(row["digest"], file.digest, "{row}");
        // Its broadcasts are in the result, before and after.
        assert!(file.origins.iter().any(|origin| row["node"] == **origin), "{row}");
        let first = first.get_or_insert_with(|| recompute(&dir.path().join(format!("{name}.jsonl"))));
        assert_eq!(file, *first, "{name}");
    }
}

fn row<'a>(object: &'a Value, name: &str) -> &'a Value {
    let rows = object["nodes"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// The faults as texts.
fn faults(object: &Value) -> Vec<String> {
    let list = object["faults"].as_array().expect("a list");
    let text = |fault: &Value| {
        let names: Vec<&str> = fault["nodes"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        format!("{} {}", fault["kind"].as_str().expect("a kind"), names.join(","))
    };
    list.iter().map(text).collect()
}

/// Of a view: its id, who left and who came back, by name.
type Change = (u64, Vec<String>, Vec<String>);

fn views(object: &Value) -> Vec<Change> {
    let name = |value: &Value| value.as_str().or(value["name"].as_str()).expect("a name").to_owned();
    let names = |value: &Value| value.as_array().expect("a list").iter().map(name).collect::<Vec<_>>();
    let view = |view: &Value| (view["id"].as_u64().expect("an id"), names(&view["without"]), names(&view["back"]));
    object["views"].as_array().expect("a list").iter().map(view).collect()
}

/// These slaves left, and no other before the first came back; in the last view all are there.
///
/// Later a slave may leave once more, because the links of one that was cut off come back one after the other.
fn left_and_came_back(object: &Value, expected: &[&str]) {
    let views = views(object);
    let ids: Vec<u64> = views.iter().map(|view| view.0).collect();
    assert_eq!(ids, (2..2 + views.len() as u64).collect::<Vec<_>>(), "{object}");
    let mut first: Vec<&String> = views.iter().take_while(|view| view.2.is_empty()).flat_map(|view| &view.1).collect();
    first.sort_unstable();
    assert_eq!(first, expected, "{object}");
    let last = object["views"].as_array().and_then(|views| views.last()).expect("a view");
    assert_eq!(last["slaves"].as_array().map(Vec::len), Some(4), "{object}");
}

#[test]
fn a_killed_slave_leaves_and_the_others_end_with_one_result() {
    let (ended, object, dir) = demo(&["--kill", "slave2@300ms"]);
    agree(&object, &dir, &["slave-1", "slave-3", "slave-4"]);
    let killed = row(&object, "slave-2");
    assert_eq!((&killed["killed"], &killed["count"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(faults(&object), ["kill slave-2"]);
    assert!(object["faults"][0]["at_us"].as_u64() >= Some(300_000), "{object}");
    assert_eq!(views(&object), [(2, vec!["slave-2".to_owned()], vec![])], "{ended:#?}");
    for line in [" s  kill slave-2", " s  view 2: 3 slaves, without slave-2 (no answer)"] {
        assert!(ended.stderr.contains(line), "{line}: {ended:#?}");
    }
    assert!(!ended.stderr.contains("slave-2 ended"), "it was no surprise: {ended:#?}");
}

#[test]
fn the_table_marks_who_was_killed() {
    let ended = run(cloudy(&["demo", "--send", "1500ms", "--grace", "500ms", "--nodes", "3", "--kill", "1@200ms"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let row = ended.stdout.lines().find(|line| line.starts_with("slave-1 ")).expect("a row");
    assert_eq!(row.split_whitespace().nth(1), Some("killed"), "{row}");
    assert!(ended.stdout.contains("EQUAL: all 2 results are the same: "), "{ended:#?}");
}

#[test]
fn a_paused_slave_comes_back_and_prints_the_same_result() {
    // Longer than the failure timeout: it has to leave.
    let (ended, object, dir) = demo(&["--pause", "slave3@200ms..1200ms"]);
    agree(&object, &dir, &["slave-1", "slave-2", "slave-3", "slave-4"]);
    assert_eq!(faults(&object), ["pause slave-3", "resume slave-3"]);
    left_and_came_back(&object, &["slave-3"]);
    assert!(ended.stderr.contains(": 4 slaves, slave-3 is back"), "{ended:#?}");
}

#[test]
fn slaves_that_were_cut_off_come_back_and_print_the_same_result() {
    // Time to come back: probes of a silent link are as far apart as it was silent (RFC 9002 §6.2.1).
    let (ended, object, dir) = demo(&["--grace", "4s", "--partition", "1,2/3,4,master@200ms..1200ms"]);
    agree(&object, &dir, &["slave-1", "slave-2", "slave-3", "slave-4"]);
    let names = "slave-1,slave-2,slave-3,slave-4,master";
    assert_eq!(faults(&object), [format!("partition {names}"), format!("heal {names}")]);
    assert_eq!(object["faults"][0]["sides"][0], serde_json::json!(["slave-1", "slave-2"]), "{object}");
    left_and_came_back(&object, &["slave-1", "slave-2"]);
    assert!(ended.stderr.contains(" s  partition slave-1,slave-2 / slave-3,slave-4,master"), "{ended:#?}");
}

#[test]
fn a_paused_master_goes_on_with_its_session() {
    let (_, object, dir) = demo(&["--pause", "master@200ms..700ms"]);
    agree(&object, &dir, &["slave-1", "slave-2", "slave-3", "slave-4"]);
    assert_eq!(faults(&object), ["pause master", "resume master"]);
}

#[test]
fn a_fault_that_cannot_happen_is_refused_before_anything_starts() {
    for (args, words) in [
        (["--kill", "slave5@1s"], "there is no slave-5: the demo has 4"),
        (["--pause", "1@1s..5s"], "STOP begins at 2800ms"),
    ] {
        let ended = run(cloudy(&[&["demo"], &args[..]].concat()));
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains(words) && ended.stderr.contains("help: "), "{ended:#?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.contains("starting"), "{ended:#?}");
    }
}

#[test]
fn a_session_ends_on_time_without_its_master() {
    let (_, object, dir) = demo(&["--nodes", "3", "--kill", "master@600ms"]);
    assert_eq!(faults(&object), ["kill master"]);
    agree(&object, &dir, &["slave-1", "slave-2", "slave-3"]);
}

/// Rounds of each of the three tests below; `CLOUDY_KILL_ROUNDS` asks for another number.
const KILL_ROUNDS: u64 = 4;

/// Kills a slave and the master in every session, at times spread over SEND.
fn kill_in_rounds(third: u64) {
    let rounds = std::env::var("CLOUDY_KILL_ROUNDS").map_or(KILL_ROUNDS, |rounds| rounds.parse().expect("a number"));
    for round in (0..rounds).map(|round| 3 * round + third) {
        let slave = format!("slave{}@{}ms", 1 + round % 5, (round * 137) % 800);
        let master = format!("master@{}ms", (round * 211) % 800);
        let args = ["--nodes", "5", "--send", "800ms", "--grace", "1200ms", "--rate", "5000", "--kill", &slave];
        let (ended, object, _dir) = demo(&[&args[..], &["--kill", &master][..]].concat());
        let rows = object["nodes"].as_array().expect("rows");
        let results = rows.iter().filter(|row| row["count"].as_u64() > Some(0)).count();
        assert!(results >= 4, "{slave} {master}: {ended:#?}");
    }
}

#[test]
fn the_master_and_a_slave_may_die_at_any_moment_first_third() {
    kill_in_rounds(0);
}

#[test]
fn the_master_and_a_slave_may_die_at_any_moment_second_third() {
    kill_in_rounds(1);
}

#[test]
fn the_master_and_a_slave_may_die_at_any_moment_last_third() {
    kill_in_rounds(2);
}
