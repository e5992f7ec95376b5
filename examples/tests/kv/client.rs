//! A client of one node: one connection for each request.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a node waits for its group.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An answer of a node.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The revision of the value that was read or put.
    pub(crate) revision: Option<u64>,
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// No connection: the request was not sent.
    NotSent,
    /// The node may have received the request.
    Lost,
}

/// Sends a request with further header lines.
pub(crate) async fn request(
    node: SocketAddr,
    line: &str,
    headers: &[(&str, String)],
    body: &str,
) -> Result<Answer, NoAnswer> {
    let mut stream = TcpStream::connect(node).await.map_err(|_| NoAnswer::NotSent)?;
    let mut text = format!("{line} HTTP/1.1\r\nhost: kv\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text += body;
    let exchange = async {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = timeout(TIMEOUT, exchange).await.map_err(|_| NoAnswer::Lost)?.map_err(|_| NoAnswer::Lost)?;
    parse(&answer).ok_or(NoAnswer::Lost)
}

/// None if the connection ended within the answer.
fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let length: usize = header("content-length")?.parse().ok()?;
    let revision = header("etag").and_then(|tag| tag.trim_matches('"').parse().ok());
    (body.len() == length).then(|| Answer { status, revision, body: body.to_owned() })
}

pub(crate) async fn get(node: SocketAddr, path: &str) -> Result<Answer, NoAnswer> {
    request(node, &format!("GET {path}"), &[], "").await
}

pub(crate) async fn put(node: SocketAddr, path: &str, body: &str) -> Result<Answer, NoAnswer> {
    request(node, &format!("PUT {path}"), &[], body).await
}

/// Opens a stream of events with further header lines, and returns the lines of the events.
pub(crate) async fn events(
    node: SocketAddr,
    line: &str,
    headers: &str,
) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let mut stream = TcpStream::connect(node).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nhost: kv\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let (lines, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        loop {
            // The connection is closed with the receiver, or by the node.
            let length = tokio::select! {
                length = stream.read(&mut buffer) => length.unwrap_or(0),
                () = lines.closed() => 0,
            };
            if length == 0 {
                return;
            }
            text += &String::from_utf8_lossy(&buffer[..length]);
            while let Some((line, rest)) = text.split_once('\n') {
                if line.starts_with("data:") || line.starts_with("event:") || line.starts_with("id:") {
                    let _ = lines.send(line.trim_end().to_owned());
                }
                text = rest.to_owned();
            }
        }
    });
    received
}
