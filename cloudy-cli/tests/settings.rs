//! Options by variables, and versions.

mod common;

use common::{Cluster, cloudy, run};
use serde_json::Value;

#[test]
fn versions_are_printed_as_json() {
    let ended = run(cloudy(&["version", "--json"]));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let version: Value = ended.json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let of = |value: u64| serde_json::json!({ "min": value, "max": value });
    assert_eq!(version["wire"], of(cloudy_node::WIRE_VERSION.into()));
    assert_eq!(version["disk"], of(cloudy_node::DATA_FORMAT_VERSION));
    assert_eq!(version["feature_level"], cloudy_node::WIRE_VERSION);
}

#[test]
fn a_variable_sets_an_option_and_an_option_comes_before_it() {
    let cluster = Cluster::new();
    let show = |option: Option<&str>| {
        let mut command = cloudy(&["tail", "127.0.0.1:1", "--cluster-key"]);
        command.arg(cluster.path("none")).env("CLOUDY_FROM", "0").env("CLOUDY_GROUP", "orders");
        command.args(option.map(|value| ["--from", value]).into_iter().flatten());
        run(command)
    };
    let refused = show(None);
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--from"), "{refused:?}");
    // The file of the key is missing: the command line was accepted.
    let accepted = show(Some("7"));
    assert_eq!(accepted.code(), Some(1), "{accepted:?}");
}

#[test]
fn the_processes_of_a_demo_do_not_read_variables() {
    let cluster = Cluster::new();
    let mut command =
        cloudy(&["demo", "--nodes", "2", "--send", "200ms", "--grace", "300ms", "--json", "--cluster-key"]);
    // Each slave would write this file, and run another process.
    let file = cluster.path("result.jsonl");
    command.arg(&cluster.key).env("CLOUDY_RESULT", &file).env("CLOUDY_SUPERVISE", "yes");
    let ended = run(command);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!file.exists());
}
