//! `cloudy bench` as users run it: real processes over loopback UDP.

mod common;

use common::{Ended, Running, cloudy, run};
use serde_json::Value;

const ROW_FIELDS: [&str; 15] = [
    "nodes",
    "senders",
    "size_bytes",
    "ring",
    "durability",
    "approved_per_s",
    "mb_per_s",
    "cpu_ns_per_message",
    "latency_us",
    "packets_per_message",
    "memory_mib_max",
    "baseline",
    "ratio",
    "ratio_min",
    "ratio_max",
];

fn bench(args: &[&str]) -> Ended {
    run(cloudy(&[&["bench", "--nodes", "2", "--warm-up", "50ms", "--duration", "200ms"], args].concat()))
}

/// The rows of a run that ended well: so all nodes had the same result.
fn rows(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let object = ended.json();
    for field in ["machine", "commit", "version", "build", "flags"] {
        assert!(!object[field].is_null(), "no {field} in {object}");
    }
    let rows = object["rows"].as_array().expect("rows").clone();
    for row in &rows {
        ROW_FIELDS.iter().for_each(|field| assert!(row.get(field).is_some(), "no {field} in {row}"));
        let latency = ["p50", "p99", "p999", "max"].map(|field| row["latency_us"][field].as_u64().expect("a latency"));
        assert!(latency.is_sorted() && latency[0] > 0, "{row}");
        for field in ["approved_per_s", "mb_per_s", "packets_per_message", "memory_mib_max"] {
            assert!(row[field].as_f64() > Some(0.0), "no {field} in {row}");
        }
    }
    rows
}

#[test]
fn nodes_end_with_one_result_and_the_row_has_all_fields() {
    let rows = rows(&bench(&["--size", "100", "--json"]));
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&row["nodes"], &row["size_bytes"], &row["ring"]), (&2.into(), &100.into(), &"pipelined".into()));
    assert!(row["baseline"].is_null() && row["ratio"].is_null(), "{row}");
}

#[test]
fn the_baseline_runs_beside_and_gives_a_ratio() {
    let rows = rows(&bench(&["--baseline", "--repeat", "2", "--json", "--sweep", "ring=pipelined,relay,token"]));
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(row["baseline"]["approved_per_s"].as_f64() > Some(0.0), "{row}");
        assert!(row["baseline"]["latency_us"]["p50"].as_u64() > Some(0), "{row}");
        let ratios = ["ratio_min", "ratio", "ratio_max"].map(|field| row[field].as_f64().expect("a ratio"));
        assert!(ratios.is_sorted() && ratios[0] > 0.0, "{row}");
    }
}

#[test]
fn a_schedule_is_kept_in_one_process_over_a_bad_network() {
    let args = ["--in-process", "--baseline", "--rate", "200", "--loss", "5%", "--latency", "2ms", "--json"];
    for row in rows(&bench(&args)) {
        for latency in [&row["latency_us"], &row["baseline"]["latency_us"]] {
            // There, back as a confirmation, and there again as an approval; the sender knows after two.
            assert!(latency["p50"].as_u64() >= Some(4_000), "{row}");
        }
    }
}

#[test]
fn payloads_without_a_stamp_have_no_latency_and_one_sender_is_enough() {
    let ended = bench(&["--size", "0", "--senders", "one", "--baseline", "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let row = &ended.json()["rows"][0];
    assert!(row["latency_us"].is_null() && row["baseline"]["latency_us"].is_null(), "{row}");
    assert!(row["approved_per_s"].as_f64() > Some(0.0) && row["senders"] == 1, "{row}");
}

#[test]
fn large_payloads_a_table_and_a_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = dir.path().join("bench.html");
    std::fs::write(&page, "<!DOCTYPE html>\nan older page").expect("written");
    let ended = bench(&["--size", "1MiB", "--html", page.to_str().expect("text")]);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("approved/s") && ended.stdout.contains("EQUAL"), "{ended:#?}");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("</html>") && !page.contains("older"), "the page replaces the older one");
    assert!(ended.stderr.contains("row 1 of 1"), "{ended:#?}");
}

#[test]
fn a_page_that_cannot_be_written_is_said_before_anything_runs() {
    let ended = bench(&["--html", "/no/such/directory/bench.html"]);
    ended.failed_with(&["/no/such/directory/bench.html"]);
    assert!(!ended.stderr.contains("row 1"), "{ended:#?}");
}

const FAILOVER_FIELDS: [&str; 8] =
    ["failure", "rounds", "new_view_us", "still_us", "before_per_s", "during_per_s", "after_per_s", "each"];

/// A bench of failures with three nodes, as JSON.
fn failover(args: &[&str]) -> Value {
    let usual = ["bench", "failover", "--nodes", "3", "--rate", "200", "--json"];
    let ended = run(cloudy(&[&usual[..], args].concat()));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    ended.json()
}

#[test]
fn a_group_goes_on_after_failures_of_each_kind() {
    let object = failover(&["--rounds", "1", "--catch-up", "0"]);
    for field in ["machine", "commit", "version", "build", "flags"] {
        assert!(!object[field].is_null(), "no {field} in {object}");
    }
    assert!(object["catch_up"].is_null(), "{object}");
    let rows = object["failures"].as_array().expect("rows");
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["failure"].as_str()).collect();
    assert_eq!(kinds, ["member", "coordinator", "master", "partition"]);
    for row in rows {
        FAILOVER_FIELDS.iter().for_each(|field| assert!(row.get(field).is_some(), "no {field} in {row}"));
        let still = ["p50", "p99", "max"].map(|field| row["still_us"][field].as_u64().expect("a time"));
        assert!(still.is_sorted() && still[0] > 0, "{row}");
        for field in ["before_per_s", "after_per_s"] {
            assert!(row[field].as_f64() > Some(0.0), "no {field} in {row}");
        }
        let each = row["each"].as_array().expect("rounds");
        assert_eq!((row["rounds"].as_u64(), each.len()), (Some(1), 1), "{row}");
        for round in each {
            match row["failure"].as_str() {
                Some("coordinator" | "master") => assert_eq!(round["coordinator_failed"], true, "{round}"),
                Some("member") => assert_eq!(round["coordinator_failed"], false, "{round}"),
                _ => {}
            }
            assert!(round["after_per_s"].as_f64() > Some(0.0), "{round}");
            // Without its master a group needs no other view.
            if row["failure"] != "master" {
                assert!(round["view_after"].as_u64() > round["view_before"].as_u64(), "{round}");
                assert!(round["new_view_us"].as_u64() > Some(0), "{round}");
            }
        }
    }
}

#[test]
fn newcomers_catch_up_with_a_long_result() {
    let object = failover(&["--failure", "member", "--rounds", "2", "--catch-up", "1MiB"]);
    assert_eq!(object["failures"][0]["each"].as_array().map(Vec::len), Some(2), "{object}");
    let catch_up = &object["catch_up"];
    assert!(catch_up["messages"].as_u64() > Some(10_000), "{catch_up}");
    assert!(catch_up["messages_per_s"].as_f64() > Some(0.0) && catch_up["mb_per_s"].as_f64() > Some(0.0), "{catch_up}");
}

#[test]
fn a_soak_looks_at_the_memory_of_all_nodes() {
    let ended = run(cloudy(&["bench", "soak", "--nodes", "3", "--rate", "200", "--duration", "1200ms", "--json"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let object = ended.json();
    assert!(object["messages"].as_u64() > Some(300), "{object}");
    if cfg!(target_os = "linux") {
        let looks = object["memory"]["looks"].as_array().expect("looks");
        assert_eq!(looks.len(), 60, "{object}");
        let all =
            |look: &Value| look["mib"].as_array().is_some_and(|mib| mib.len() == 3 && mib[0].as_f64() > Some(1.0));
        assert!(looks.iter().all(all), "{object}");
    } else {
        assert!(object["memory"].is_null(), "{object}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_bench_of_failures() {
    let mut bench = Running::start(cloudy(&["bench", "failover", "--nodes", "3", "--rate", "100"]));
    bench.wait_for("round 1 of 50");
    bench.signal("INT");
    let ended = bench.end();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(130), ""), "{ended:#?}");
}
