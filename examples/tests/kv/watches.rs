//! Watching keys, and locks that go with their connection.

use super::client::{events, get, put, request};
use super::cluster::Cluster;

async fn next(lines: &mut tokio::sync::mpsc::UnboundedReceiver<String>) -> String {
    let line = tokio::time::timeout(std::time::Duration::from_secs(30), lines.recv());
    line.await.expect("an event comes").expect("the stream continues")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_at_an_index_and_a_lock_is_released_with_its_connection() {
    let mut cluster = Cluster::start(3, false).await;
    let nodes = cluster.https();
    let first = put(nodes[0], "/kv/colour", "red").await.unwrap().revision.unwrap();
    let second = put(nodes[1], "/kv/colour", "blue").await.unwrap().revision.unwrap();
    assert_eq!(get(nodes[2], "/kv/colour").await.unwrap().body, "blue");
    let stale = [("if-match", format!("\"{first}\""))];
    assert_eq!(request(nodes[0], "PUT /kv/colour", &stale, "green").await.unwrap().status, 412);
    // From the second change on, and all that follows.
    let mut watch = events(nodes[2], &format!("GET /watch?from={second}"), "").await;
    assert_eq!(next(&mut watch).await, format!("id: {second}"));
    assert_eq!(next(&mut watch).await, r#"data: {"key":"colour","value":"blue"}"#);
    let removed = request(nodes[0], "DELETE /kv/colour", &[], "").await.unwrap().revision.unwrap();
    assert_eq!(next(&mut watch).await, format!("id: {removed}"));
    assert_eq!(next(&mut watch).await, r#"data: {"key":"colour","value":null}"#);
    // A node that joins late and is no seed.
    put(nodes[0], "/kv/colour", "green").await.unwrap();
    let late = cluster.add();
    cluster.all_ready().await;
    assert_eq!(get(cluster.http(late), "/kv/colour").await.unwrap().body, "green");
    // Two clients at different nodes.
    let mut holder = events(nodes[0], "POST /locks/backup", "").await;
    assert_eq!(next(&mut holder).await, "event: granted");
    let token = next(&mut holder).await;
    let mut waiting = events(nodes[1], "POST /locks/backup", "").await;
    drop(holder);
    assert_eq!(next(&mut waiting).await, "event: granted");
    assert!(number(&next(&mut waiting).await) > number(&token));
}

fn number(line: &str) -> u64 {
    line.trim_start_matches("data: ").parse().unwrap()
}
