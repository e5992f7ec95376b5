//! `--admin`: a node's status over HTTP.
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::{Cluster, Running, cloudy, free_port, until};
use serde_json::Value;

#[test]
fn a_taken_admin_port_is_an_error_before_any_file_is_created() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let [data, key] = ["data", "cluster.key"].map(|name| directory.path().join(name).display().to_string());
    let node = ["--data", &data, "--cluster-key", &key, "--admin", &address];
    let bind = format!("127.0.0.1:{}", free_port());
    let lines = [
        [&["join", "orders", "--bind", &bind, "--seed", "127.0.0.1:9"][..], &node].concat(),
        [&["slave", "127.0.0.1:0"][..], &node].concat(),
        [&["master", "127.0.0.1:0"][..], &node].concat(),
        vec!["tail", "127.0.0.1:9", "--cluster-key", &key, "--admin", &address],
        vec!["demo", "--stay", "--admin", &address],
    ];
    for line in lines {
        let output = cloudy(&line).stdin(Stdio::null()).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {words}");
        assert!(
            words.contains(&format!("port {} on 127.0.0.1 is in use", taken.local_addr().unwrap().port())),
            "{words}"
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{line:?}");
    }
}

#[test]
fn a_demo_that_stays_shows_its_first_slave_until_it_is_stopped() {
    let cluster = Cluster::new();
    let socket = cluster.path("admin.sock");
    let mut demo = cloudy(&["demo", "--stay", "--nodes", "3", "--json", "--admin"]);
    demo.arg(format!("unix:{}", socket.display())).arg("--cluster-key").arg(&cluster.key);
    let demo = Running::start(demo);
    let status = || {
        let mut stream = UnixStream::connect(&socket).ok()?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: cloudy\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str::<Value>(text.split_once("\r\n\r\n")?.1).ok()
    };
    let approved = |status: Value| {
        let group = &status["groups"][0];
        group["members"].as_array().map_or(0, Vec::len) == 3 && group["index"].as_u64() > Some(1_000)
    };
    until("the slaves broadcast", || status().is_some_and(approved));
    demo.signal("INT");
    let ended = demo.end();
    assert_eq!((ended.code(), &ended.json()["equal"]), (Some(0), &Value::Bool(true)), "{ended:#?}");
}
