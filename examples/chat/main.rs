//! A chat: browsers at any instance see the same messages in the same order, and miss none when they connect again. Start
//! equal processes, each with the same seeds, and open `http://127.0.0.1:8001`, `:8002` or `:8003`:
//!
//! ```console
//! $ for n in 1 2 3; do
//!     cargo run -p cloudy-examples --bin chat -- --key cluster.key --bind 127.0.0.1:740$n --http 127.0.0.1:800$n \
//!       --seed 127.0.0.1:7401 --seed 127.0.0.1:7402 --seed 127.0.0.1:7403 --expect 3 &
//!   done
//! ```

#[path = "../common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Html;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use clap::Parser;
use cloudy_node::{Approved, ApprovedError, ApprovedItem, Group, Index, payload_slices};
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;

use common::NodeArgs;

/// How long a message waits for its approval.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An instance of a chat.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Address of the HTTP interface
    #[arg(long)]
    http: SocketAddr,
}

/// Broadcasts a message, and answers with its index once every instance has it.
async fn say(State(group): State<Group>, text: String) -> Result<String, (StatusCode, String)> {
    let receipt = group.broadcast(text).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let approval = receipt.timeout(TIMEOUT).await;
    // It may be approved later: the sender sees it among the messages then.
    let approval = approval.map_err(|error| (StatusCode::GATEWAY_TIMEOUT, error.to_string()))?;
    Ok(approval.index.to_string())
}

/// The messages as server-sent events. A browser that connects again, to any instance, sends the id of its last event,
/// which is an index of the group.
async fn messages(
    State(group): State<Group>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let approved = group.approved_from(Index(last.unwrap_or(0) + 1));
    let events = stream::unfold(approved, next_events).flat_map(stream::iter).map(Ok);
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// The next messages, once there are some. The stream ends with the group.
async fn next_events(mut approved: Approved) -> Option<(Vec<Event>, Approved)> {
    let events = match approved.next_batch().await? {
        Ok(ApprovedItem::Batch(entry)) => {
            let texts = payload_slices(&entry.batch.body).map(String::from_utf8_lossy);
            let event = |(index, text): (u64, _)| Event::default().id(index.to_string()).data(text);
            (entry.first_index.0..).zip(texts).map(event).collect()
        }
        Ok(ApprovedItem::View(at)) => {
            let members = at.view.members().to_string();
            vec![Event::default().event("members").data(members)]
        }
        // The oldest messages are no longer here.
        Err(ApprovedError::Lagged { .. } | ApprovedError::Unreadable { .. }) => Vec::new(),
        Err(_) => return None,
    };
    Some((events, approved))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let node = args.node.start().await?;
    let group = args.node.open(&node, "chat").await?;
    let routes = Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/messages", post(say).get(messages))
        .with_state(group.clone());
    let listener = TcpListener::bind(args.http).await?;
    eprintln!("serves http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, routes) => served?,
        _ = tokio::signal::ctrl_c() => {}
    }
    group.leave().await?;
    node.shutdown().await;
    Ok(())
}
