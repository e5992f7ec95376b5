//! `cloudy status`, `check`, and what `doctor` reads of an admin endpoint.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Cluster, Ended, Running, cloudy, free_port, run, until};
use serde_json::Value;

/// A member of a group of one, with an admin endpoint.
fn member(cluster: &Cluster) -> (Running, String) {
    let (at, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let mut command = cloudy(&["join", "orders", "--bind", &at, "--seed", &at, "--expect", "1", "--stay"]);
    command.args(["--admin", &admin, "--cluster-key"]).arg(&cluster.key);
    let mut member = Running::start(command);
    member.wait_for("in group");
    (member, admin)
}

fn check(target: &str, more: &[&str]) -> Ended {
    let mut command = cloudy(&["check", target]);
    command.args(more);
    run(command)
}

#[test]
fn a_node_that_works_is_ok_and_its_status_is_shown() {
    let cluster = Cluster::new();
    let (_member, admin) = member(&cluster);
    until("it is ready", || check(&admin, &[]).code() == Some(0));
    let ended = check(&admin, &["--expect", "1", "--lag-warning", "10", "--lag-critical", "100", "--group", "orders"]);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
    assert!(ended.stdout.starts_with("CLOUDY OK - group \"orders\" has 1 members | "), "{ended:#?}");
    assert!(ended.stdout.contains("'orders_lag'=0;10;100;0"), "{ended:#?}");
    let json = check(&admin, &["-o", "json"]).json();
    assert_eq!((json["state"].as_str(), json["figures"]["orders_members"].as_u64()), (Some("OK"), Some(1)));
    let few = check(&admin, &["--expect", "3"]);
    assert_eq!(few.code(), Some(2), "{few:#?}");
    assert!(few.stdout.contains("CLOUDY CRITICAL - group \"orders\" has 1 members, expected are 3"), "{few:#?}");
    let other = check(&admin, &["--group", "other"]);
    assert!(other.code() == Some(2) && other.stdout.contains("no group \"other\""), "{other:#?}");
    let shown = run(cloudy(&["status", &admin]));
    for words in ["state    ready", "group    orders", "this node"] {
        assert!(shown.stdout.contains(words), "no {words:?} in {shown:#?}");
    }
    let mut by_variable = cloudy(&["status", "-o", "json"]);
    by_variable.env("CLOUDY_ADMIN", &admin);
    assert_eq!(run(by_variable).json()["groups"][0]["name"].as_str(), Some("orders"));
}

/// Answers one request with a status whose fields are changed.
fn imitated(status: &Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, body) = (listener.local_addr().unwrap().to_string(), status.to_string());
    std::thread::spawn(move || {
        let mut stream: TcpStream = listener.accept().unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).unwrap();
    });
    address
}

#[test]
fn lags_clocks_versions_and_missing_nodes_are_reported() {
    let cluster = Cluster::new();
    let (running, admin) = member(&cluster);
    until("it is ready", || check(&admin, &[]).code() == Some(0));
    let status = run(cloudy(&["status", &admin, "-o", "json"])).json();
    let mut lagging = status.clone();
    lagging["groups"][0]["members"][0]["lag"] = 50.into();
    let critical = check(&imitated(&lagging), &["--lag-warning", "10", "--lag-critical", "20"]);
    assert!(critical.code() == Some(2) && critical.stdout.contains("lacks 50 messages"), "{critical:#?}");
    assert_eq!(check(&imitated(&lagging), &["--lag-warning", "10", "--lag-critical", "99"]).code(), Some(1));
    let mut not_ready = status.clone();
    (not_ready["ready"], not_ready["reasons"]) = (false.into(), vec!["it | waits\nlong"].into());
    let critical = check(&imitated(&not_ready), &[]);
    assert!(critical.stdout.starts_with("CLOUDY CRITICAL - it   waits long | "), "{critical:#?}");
    assert_eq!((critical.code(), critical.stdout.lines().count()), (Some(2), 1), "{critical:#?}");
    let mut other = status.clone();
    other["schema"] = 99.into();
    assert_eq!(check(&imitated(&other), &[]).code(), Some(3));
    let doctor = |status: &Value| {
        let mut command = cloudy(&["doctor", "--status", &imitated(status), "--cluster-key"]);
        command.arg(&cluster.key);
        run(command)
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut off = status.clone();
    off["at_ms"] = (now - 3_600_000).into();
    let found = doctor(&off);
    assert!(
        found.code() == Some(1) && found.stdout.contains("warning clock: ") && found.stdout.contains("NTP"),
        "{found:#?}"
    );
    let mut newer = status.clone();
    (newer["at_ms"], newer["wire_version"]) = (now.into(), 99.into());
    let found = doctor(&newer);
    assert!(!found.stdout.contains("version: "), "a version in common: {found:#?}");
    newer["wire_version_min"] = 99.into();
    let found = doctor(&newer);
    assert!(found.code() == Some(2) && found.stdout.contains("broken version: "), "{found:#?}");
    drop(running);
    let gone = check(&admin, &[]);
    assert!(gone.code() == Some(2) && gone.stdout.starts_with("CLOUDY CRITICAL - no node answers"), "{gone:#?}");
    assert_eq!(check("nonsense", &[]).code(), Some(3), "a wrong command line is no critical state");
    run(cloudy(&["status", &admin])).failed_with(&["no node answers at", "--admin"]);
}
