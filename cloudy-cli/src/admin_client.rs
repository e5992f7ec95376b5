//! Reads the status of a node from its admin endpoint.

use std::time::Duration;

use cloudy_node::admin::{AdminAddress, NodeStatus, STATUS_SCHEMA};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Maximum size of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The reason for which there is no status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoStatus {
    /// No node answers.
    #[error("no node answers at {address} ({cause}); check the address, and that the node runs with --admin {address}")]
    NoAnswer { address: String, cause: String },
    /// It does not answer in time.
    #[error("{address} did not answer within {} ms; is the node overloaded or stopped?", limit.as_millis())]
    Late { address: String, limit: Duration },
    /// The answer is of another program or version.
    #[error("the answer of {address} is not the status of a node of this version ({cause}); use the same version")]
    Foreign { address: String, cause: String },
}

/// The text of `/status`, and its content.
pub(crate) async fn fetch(address: &AdminAddress, limit: Duration) -> Result<(String, NodeStatus), NoStatus> {
    let name = address.to_string();
    let no_answer = |cause: std::io::Error| NoStatus::NoAnswer { address: name.clone(), cause: cause.to_string() };
    let answer = timeout(limit, get(address)).await;
    let answer = answer.map_err(|_| NoStatus::Late { address: name.clone(), limit })?.map_err(no_answer)?;
    let foreign = |cause: String| NoStatus::Foreign { address: name.clone(), cause };
    let text = String::from_utf8(answer).map_err(|error| foreign(error.to_string()))?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Err(foreign("no HTTP answer".to_owned())) };
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(foreign(format!("it answers {first:?}")));
    }
    let status: NodeStatus = serde_json::from_str(body).map_err(|error| foreign(error.to_string()))?;
    if status.schema != STATUS_SCHEMA {
        return Err(foreign(format!("its schema is {}, and this program reads {STATUS_SCHEMA}", status.schema)));
    }
    Ok((body.trim_end().to_owned(), status))
}

async fn get(address: &AdminAddress) -> std::io::Result<Vec<u8>> {
    match address {
        AdminAddress::Tcp(address) => exchange(TcpStream::connect(address).await?).await,
        #[cfg(unix)]
        AdminAddress::Unix(path) => exchange(tokio::net::UnixStream::connect(path).await?).await,
        #[cfg(not(unix))]
        AdminAddress::Unix(_) => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

/// One request. By version 1.0 the answer is in one piece, and the connection ends with it.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}
