//! Slow and hostile clients, with paused time and a driver that a test plays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::{GroupId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::convert::About;
use super::routes::{App, Client};
use super::server::connection;
use super::source::Source;
use crate::driver::snapshot::{Ended, Snapshot};
use crate::driver::{Command, Inbox, Mailbox, mailbox};
use crate::group::EndReason;
use crate::health::Health;
use crate::storage::StoreError;

/// What a connection holds between the two sides.
const PIPE_BYTES: usize = 4 << 10;
/// No connection lasts longer that does not read.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

fn app() -> (Arc<App>, Mailbox, Inbox) {
    let (mailbox, _, inbox) = mailbox(Health::default(), Duration::from_secs(1));
    let address = SocketAddr::from(([127, 0, 0, 1], 7400));
    let about = About { node: NodeId([1; 32]), address, started: std::time::Instant::now() };
    (Arc::new(App::new(Source::new(about, mailbox.downgrade()))), mailbox, inbox)
}

/// A driver without open groups that answers.
fn answers(mut inbox: Inbox, ended: Vec<Ended>) {
    tokio::spawn(async move {
        while let Some(command) = inbox.commands.recv().await {
            if let Command::Snapshot { reply } = command {
                let (groups, links, fingerprints) = Default::default();
                let ended = ended.clone();
                // A request that is gone needs no answer.
                let _ = reply.send(Snapshot { groups, ended, links, disk: None, fingerprints });
            }
        }
    });
}

/// A client, and the task that serves it.
fn connect(app: &Arc<App>) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (client, server) = duplex(PIPE_BYTES);
    let app = Arc::clone(app);
    let serving = tokio::spawn(async move {
        let client = Client { local: None, streams: Arc::default(), stalled: Arc::default() };
        connection(server, &app, &client).await;
    });
    (client, serving)
}

async fn get(app: &Arc<App>, path: &str) -> String {
    let (mut client, _serving) = connect(app);
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: cloudy\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_request_ends_after_its_time() {
    let (app, _mailbox, inbox) = app();
    answers(inbox, Vec::new());
    for part in ["", "GET /status HTTP/1.1\r\nHost: "] {
        let (began, (mut client, serving)) = (Instant::now(), connect(&app));
        client.write_all(part.as_bytes()).await.unwrap();
        serving.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_long_is_refused() {
    let (app, _mailbox, inbox) = app();
    answers(inbox, Vec::new());
    for request in [
        format!("GET /?{} HTTP/1.1\r\n\r\n", "a".repeat(40_000)),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(40_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
    ] {
        let (client, serving) = connect(&app);
        let (mut reader, mut writer) = tokio::io::split(client);
        // It is closed before all of the request is read.
        let _ = tokio::join!(writer.write_all(request.as_bytes()), serving);
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text).await;
        let text = String::from_utf8_lossy(&text);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_loses_its_connection_and_its_place() {
    let (app, _mailbox, inbox) = app();
    answers(inbox, Vec::new());
    for path in ["/", "/events"] {
        let began = Instant::now();
        let mut unread = Vec::new();
        for _ in 0..8 {
            let (mut client, serving) = connect(&app);
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: cloudy\r\n\r\n").as_bytes()).await.unwrap();
            unread.push((client, serving));
        }
        tokio::task::yield_now().await;
        for (_client, serving) in unread {
            serving.await.unwrap();
        }
        assert!(began.elapsed() < ENDS_WITHIN, "{path}: {:?}", began.elapsed());
    }
    let (mut client, _serving) = connect(&app);
    client.write_all(b"GET /events HTTP/1.1\r\nHost: cloudy\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

#[tokio::test(start_paused = true)]
async fn pages_beyond_the_maximum_are_refused_until_one_is_closed() {
    let (app, _mailbox, inbox) = app();
    answers(inbox, Vec::new());
    let mut open = Vec::new();
    for _ in 0..8 {
        let (mut client, serving) = connect(&app);
        client.write_all(b"GET /events HTTP/1.1\r\nHost: cloudy\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        open.push((client, serving));
    }
    let refused = get(&app, "/events").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too many pages are open"), "{refused}");
    assert!(get(&app, "/livez").await.starts_with("HTTP/1.1 200 "), "other routes are served");
    let (client, serving) = open.pop().unwrap();
    drop(client);
    serving.await.unwrap();
    let (mut client, _serving) = connect(&app);
    client.write_all(b"GET /events HTTP/1.1\r\nHost: cloudy\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_turn_is_asked_once_and_is_not_live() {
    let (app, _mailbox, mut inbox) = app();
    let answers = futures_util::future::join_all((0..5).map(|_| get(&app, "/livez"))).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("has not answered within 2 s"), "{answer}");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(get(&app, "/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(matches!(inbox.commands.try_recv(), Ok(Command::Snapshot { .. })));
    assert!(inbox.commands.try_recv().is_err(), "one question is open, not one for each request");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_ended_by_a_failure_is_a_reason_and_one_that_was_left_is_not() {
    let failed = || EndReason::DiskFailed { cause: StoreError::Write { cause: "no space left".to_owned() } };
    let cases = [
        (vec![("orders", failed())], "group \"orders\": this node's disk failed"),
        (vec![("orders", EndReason::Left)], "this node is in no group\n"),
        (vec![("orders", failed()), ("orders", EndReason::Left)], "this node is in no group\n"),
        (vec![("orders", EndReason::Left), ("stock", failed())], "group \"stock\": this node's disk failed"),
    ];
    for (ends, words) in cases {
        let (app, _mailbox, inbox) = app();
        let ended = |(name, reason): (&str, EndReason)| Ended {
            id: GroupId([1; 16]),
            name: name.to_owned(),
            reason,
            at: std::time::SystemTime::now(),
        };
        answers(inbox, ends.into_iter().map(ended).collect());
        let text = get(&app, "/readyz?verbose").await;
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains(words), "no {words:?} in {text}");
    }
}
