//! The admin endpoint over real sockets, on real groups.

mod open_metrics;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloudy_node::admin::{AdminAddress, AdminError, AdminListener, GroupRole, NodeStatus, STATUS_SCHEMA};
use cloudy_node::{EndpointLimits, Group, GroupConfig, Node, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{create, key, read, start, start_all, until, within};
use crate::help::start_cuttable;

/// A response.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

/// Opens an admin endpoint of a node on a free port.
fn serve(node: &Node) -> SocketAddr {
    let listener = AdminListener::bind(&AdminAddress::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let AdminAddress::Tcp(address) = listener.address().unwrap() else { panic!("a TCP address") };
    node.serve_admin(listener).unwrap();
    address
}

async fn send(address: SocketAddr, request: &str) -> Response {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    parse(&within("a response", exchange).await)
}

fn parse(text: &str) -> Response {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str) -> Response {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

async fn status(address: SocketAddr) -> NodeStatus {
    let response = get(address, "/status").await;
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(&response.body).unwrap()
}

/// Waits until the status is as wanted: it may be a quarter of a second old.
async fn until_status(address: SocketAddr, what: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
    let mut found = None;
    until(what, async || {
        found = Some(status(address).await).filter(&wanted);
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Waits until the only group has this number of messages.
async fn until_index(address: SocketAddr, index: u64) -> NodeStatus {
    until_status(address, "the messages", |status| status.groups.first().is_some_and(|group| group.index == index))
        .await
}

/// Waits until `/readyz` returns this status with these words, and returns its body.
async fn until_ready_is(address: SocketAddr, status: u16, words: &str) -> String {
    let mut body = String::new();
    until(words, async || {
        let response = get(address, "/readyz?verbose").await;
        body = response.body;
        response.status == status && body.contains(words)
    })
    .await;
    body
}

async fn broadcast(group: &Group, payload: &str) {
    within("an approval", group.broadcast(payload).await.unwrap().into_future()).await.unwrap();
}

#[tokio::test]
async fn every_route_describes_a_running_group() {
    let nodes = start_all(&key(), 3).await;
    let address = serve(&nodes[0]);
    let alone = get(address, "/readyz?verbose").await;
    assert_eq!((alone.status, &*alone.body), (503, "this node is in no group\nnot ready\n"));
    assert_eq!(get(address, "/livez").await.status, 200);

    let groups = create(&nodes, "orders", GroupConfig::default()).await;
    for (at, group) in groups.iter().enumerate() {
        broadcast(group, &format!("message {at}")).await;
    }
    let status = until_index(address, 3).await;
    let body = until_ready_is(address, 200, "index 3").await;
    assert!(body.ends_with("members, index 3\nok\n"), "{body}");
    assert_eq!(get(address, "/readyz").await.body, "ok\n");

    assert_eq!((status.schema, status.ready, status.reasons.len()), (STATUS_SCHEMA, true, 0));
    assert_eq!((status.node, status.address), (nodes[0].id().to_string(), nodes[0].local_addr()));
    assert_eq!(status.peers.len(), 2);
    let [group] = &status.groups[..] else { panic!("one group: {:?}", status.groups) };
    assert_eq!((&*group.name, group.role, group.index), ("orders", GroupRole::Member, 3));
    assert_eq!((group.counters.approved_messages, group.counters.broadcast_messages), (3, 1));
    assert_eq!(group.receipt_latency.count(), 1, "one own message");
    assert_eq!((group.members.len(), group.views.len(), group.views[0].members.len()), (3, 1, 3));
    let others: Vec<_> = group.members.iter().filter(|member| !member.this_node).collect();
    assert!(others.iter().all(|member| member.alive && member.linked && member.round_trip_us.is_some()), "{others:?}");
    assert!(others.iter().all(|member| member.confirmation_us.is_some()), "each confirmed this node's message");
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused() {
    let node = start(&key()).await;
    let address = serve(&node);
    assert_eq!(get(address, "/other").await.status, 404);
    let post = send(address, &format!("POST /status HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(post.status, 405);
    assert!(post.head.contains("allow: get, head"), "{}", post.head);
    let head = send(address, &format!("HEAD /livez HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    assert_eq!((head.status, &*head.body), (200, ""));
    let rebound = send(address, "GET /status HTTP/1.1\r\nHost: evil.example:7401\r\n\r\n").await;
    assert_eq!(rebound.status, 421, "a page of another site does not read it");
    assert_eq!(send(address, "GET /livez HTTP/1.1\r\nHost: localhost:7401\r\n\r\n").await.status, 200);
    assert!(get(address, "/status").await.head.contains("cache-control: no-store"));
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_not_ready_until_it_is_back() {
    let key = key();
    let (cut, control) = start_cuttable(&key, EndpointLimits::default()).await;
    let nodes = [start(&key).await, start(&key).await, cut];
    let groups = create(&nodes, "orders", GroupConfig::default()).await;
    broadcast(&groups[0], "before").await;
    let (survivor, cut) = (serve(&nodes[0]), serve(&nodes[2]));
    for address in [survivor, cut] {
        until_status(address, "all vote", |status| status.ready && status.groups[0].voters.len() == 3).await;
    }

    let others: Vec<SocketAddr> = nodes[..2].iter().map(Node::local_addr).collect();
    control.partition(others);
    let began = Instant::now();
    let body = until_ready_is(cut, 503, "group \"orders\": this node hears from 1 of 3 voters").await;
    let timeout = Duration::from_millis(status(survivor).await.groups[0].view.as_ref().unwrap().failure_timeout_ms);
    assert!(body.contains(&nodes[0].id().short()) && body.contains(&nodes[1].id().short()), "{body}");
    assert!(began.elapsed() < timeout + Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(get(cut, "/livez").await.status, 200, "its driver turns");
    let continued = |status: &NodeStatus| status.ready && status.groups[0].members.len() == 2;
    let status = until_status(survivor, "the others continue", continued).await;
    let removed = &status.groups[0].views.last().unwrap().removed;
    assert_eq!(removed.iter().map(|entry| &*entry.node).collect::<Vec<_>>(), [nodes[2].id().to_string()]);

    control.heal();
    until_ready_is(cut, 200, "view ").await;
    until_status(cut, "all are members", |status| status.groups[0].members.len() == 3).await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error_before_the_node_starts() {
    let first = Node::builder().cluster_key(&key()).admin("127.0.0.1:0".parse().unwrap()).start().await;
    assert!(first.is_ok(), "{first:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Node::builder().cluster_key(&key()).admin(AdminAddress::Tcp(address)).start().await.unwrap_err();
    assert!(matches!(&error, StartError::Admin(AdminError::PortInUse { address: at }) if *at == address), "{error}");
    assert!(error.to_string().contains(&format!("port {} on 127.0.0.1 is in use", address.port())), "{error}");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_for_one_user_and_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let address = AdminAddress::Unix(path.clone());
        // A socket file of a process that is gone.
        drop(UnixListener::bind(&path).unwrap());
        let node = Node::builder().cluster_key(&key()).admin(address.clone()).start().await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut text = String::new();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: cloudy\r\n\r\n").await.unwrap();
        within("a response", stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(parse(&text).status, 200, "{text}");

        let error = AdminListener::bind(&address).unwrap_err();
        assert!(error.to_string().contains("a running process listens at unix:"), "{error}");
        node.shutdown().await;
        until("the socket file is removed", async || !path.exists()).await;
        std::fs::write(&path, "no socket").unwrap();
        let error = AdminListener::bind(&address).unwrap_err();
        assert!(error.to_string().contains("is not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "no socket");
        let missing = AdminAddress::Unix(directory.path().join("missing/admin.sock"));
        assert!(matches!(AdminListener::bind(&missing), Err(AdminError::Other { .. })));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }
}

async fn scrape(address: SocketAddr) -> Response {
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    send(address, &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_are_open_metrics_and_agree_with_the_result() {
    let nodes = start_all(&key(), 3).await;
    let address = serve(&nodes[0]);
    open_metrics::parse(&scrape(address).await.body);
    let groups = create(&nodes, "a \"group\"\\", GroupConfig::default()).await;
    for at in 0..20 {
        broadcast(&groups[at % 3], &format!("message {at}")).await;
    }
    let read = read(&groups[0], 1, 20).await;
    until_index(address, 20).await;
    let own = read.iter().filter(|message| message.id.origin == nodes[0].id()).count();
    let response = scrape(address).await;
    assert!(response.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", response.head);
    let metrics = open_metrics::parse(&response.body);
    let of_group = |name: &str| metrics.value(&format!("cloudy_{name}{{group=\"a \\\"group\\\"\\\\\"}}"));
    assert_eq!(of_group("result_index"), 20.0);
    assert_eq!(of_group("approved_messages_total"), 20.0);
    assert_eq!(of_group("broadcast_messages_total"), own as f64);
    assert_eq!(of_group("receipt_latency_seconds_count"), own as f64);
    assert_eq!((of_group("members"), of_group("group_ready"), of_group("lag_messages")), (3.0, 1.0, 0.0));
    let payload_bytes: usize = read.iter().map(|message| message.payload.len() + 1).sum();
    assert_eq!(of_group("approved_bytes_total"), payload_bytes as f64, "each with a length of one byte");
    assert_eq!((metrics.value("cloudy_ready"), metrics.value("cloudy_links")), (1.0, 2.0));
    assert_eq!(metrics.count("cloudy_peer_round_trip_seconds{"), 2);
    let plain = get(address, "/metrics").await;
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    for line in ["# TYPE cloudy_approved_messages_total counter", "# TYPE cloudy_build_info gauge", "cloudy_links 2.0"]
    {
        assert!(plain.body.lines().any(|found| found == line), "no {line:?} in {}", plain.body);
    }
    assert!(!plain.body.contains("# UNIT") && !plain.body.contains("# EOF"), "{}", plain.body);
    assert_eq!(metrics.count("cloudy_member_confirmation_seconds{"), 2, "no series for this node itself");
}

#[tokio::test]
async fn clients_that_send_and_read_nothing_cost_the_group_nothing() {
    let nodes = start_all(&key(), 2).await;
    let address = serve(&nodes[0]);
    let groups = create(&nodes, "orders", GroupConfig::default()).await;
    let mut clients = Vec::new();
    for at in 0..200 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = if at % 2 == 0 { "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n" } else { "GET /" };
        // The node may have closed an earlier one for it.
        let _ = client.write_all(request.as_bytes()).await;
        clients.push(client);
    }
    for at in 0..50 {
        broadcast(&groups[0], &format!("message {at}")).await;
    }
    assert_eq!(get(address, "/livez").await.status, 200, "the latest connection is served");
    let status = until_index(address, 50).await;
    assert_eq!((status.ready, status.groups[0].views.len()), (true, 1), "no member was evicted");
    drop(clients);
}

#[tokio::test]
async fn the_page_follows_the_group_by_events() {
    let nodes = start_all(&key(), 2).await;
    let address = serve(&nodes[0]);
    let page = get(address, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"), "{}", page.head);
    for link in ["src=", "@import", "url(", "http://", "https://"] {
        let outside = page.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains(link), "the page loads nothing: {link}");
    }
    let groups = create(&nodes, "orders", GroupConfig::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    broadcast(&groups[0], "message").await;
    let mut text = String::new();
    let shown = async {
        let mut part = [0; 4_096];
        while !(text.contains("event: history") && text.contains("\"index\":1,")) {
            let read = stream.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    };
    within("an event with the message", shown).await;
    assert!(text.to_ascii_lowercase().contains("content-type: text/event-stream"), "{text}");
}
