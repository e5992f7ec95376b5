//! The HTTP interface.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloudy_node::recipes::Locks;
use cloudy_node::{EndReason, Group, Index, Replica, ReplicaError, SubmitError};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use crate::store::{Change, Command, Condition, Entry, Store};

/// How long a request waits for the group.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A lock is released this long after its node stopped renewing it.
const LEASE: Duration = Duration::from_secs(10);
/// How long a request waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What the requests use.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) kv: Replica<Store>,
    pub(crate) locks: Locks,
    /// The groups of both.
    pub(crate) groups: [Group; 2],
    /// Notified once this node has left.
    pub(crate) has_left: Arc<Notify>,
}

pub(crate) fn routes(api: Api) -> Router {
    Router::new()
        .route("/kv/{key}", get(read).put(put).delete(remove))
        .route("/watch", get(watch))
        .route("/locks/{name}", post(lock))
        .route("/members", get(members))
        .route("/ready", get(ready))
        .route("/leave", post(leave))
        .with_state(api)
}

/// An answer that is an error: a status, and a line of text.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let status = match &error {
            // It is applied, or may be: the client has to read before it sends the command again.
            SubmitError::Unknown { .. } | SubmitError::ResponseLost(_) => StatusCode::GATEWAY_TIMEOUT,
            // It is applied nowhere.
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

fn unavailable(error: impl ToString) -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Consistency {
    /// What this node knows.
    Local,
    /// Also all that was answered anywhere before.
    #[default]
    Linearizable,
}

#[derive(Debug, Deserialize)]
struct ReadQuery {
    #[serde(default)]
    consistency: Consistency,
}

async fn read(
    State(api): State<Api>,
    Path(key): Path<String>,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Failure> {
    let entry = match query.consistency {
        Consistency::Local => api.kv.read(|store| store.get(&key)).await.map_err(unavailable)?,
        Consistency::Linearizable => {
            api.kv.read_linearizable(|store| store.get(&key)).timeout(TIMEOUT).await.map_err(unavailable)?
        }
    };
    let Entry { value, revision } = entry.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "no such key".to_owned()))?;
    Ok(([(ETAG, tag(revision))], value).into_response())
}

async fn put(
    State(api): State<Api>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: Bytes,
) -> Result<Response, Failure> {
    change(&api, Command { key, condition: condition(&headers)?, value: Some(value.into()) }).await
}

async fn remove(State(api): State<Api>, Path(key): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    change(&api, Command { key, condition: condition(&headers)?, value: None }).await
}

async fn change(api: &Api, command: Command) -> Result<Response, Failure> {
    let response = api.kv.submit(command).timeout(TIMEOUT).await?;
    let before = response.before.map(|entry| entry.revision);
    let body = Json(json!({ "index": response.changed_at, "before": before }));
    Ok(match response.changed_at {
        Some(index) => ([(ETAG, tag(index))], body).into_response(),
        None => (StatusCode::PRECONDITION_FAILED, body).into_response(),
    })
}

fn tag(revision: Index) -> String {
    format!("\"{revision}\"")
}

/// Compare and swap: `If-Match: "REVISION"`, or `If-None-Match: *` for a key that must be absent.
fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::IsAbsent),
        (Some(tag), None) => {
            let revision = tag.trim_matches('"').parse().map(Index);
            let revision = revision.map_err(|_| bad_request("If-Match must be the ETag of a response"));
            revision.map(Condition::HasRevision)
        }
        _ => Err(bad_request("give If-Match: \"REVISION\", or If-None-Match: *")),
    }
}

fn bad_request(text: &str) -> Failure {
    Failure(StatusCode::BAD_REQUEST, text.to_owned())
}

#[derive(Debug, Deserialize)]
struct WatchQuery {
    /// The first index. Default: the next one here.
    from: Option<u64>,
}

type Events = Sse<axum::response::sse::KeepAliveStream<stream::BoxStream<'static, Result<Event, Infallible>>>>;

fn events(events: impl Stream<Item = Event> + Send + 'static) -> Events {
    Sse::new(events.map(Ok).boxed()).keep_alive(KeepAlive::default())
}

/// Changes from an index on, as server-sent events. A browser that connects again sends the id of its last event.
async fn watch(State(api): State<Api>, Query(query): Query<WatchQuery>, headers: HeaderMap) -> Result<Events, Failure> {
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last_id.or(query.from.map(|from| from.saturating_sub(1)));
    let after = after.map_or_else(|| *api.kv.watch().borrow(), Index);
    let changes = api.kv.read(|store| store.changes_after(after)).await.map_err(unavailable)?;
    if changes.is_none() {
        let text = format!("changes after index {after} are dropped: read the keys, then watch from a later index");
        return Err(Failure(StatusCode::GONE, text));
    }
    Ok(events(stream::unfold((api.kv, after), next_changes).flat_map(stream::iter)))
}

/// The next changes after an index, once there are some. The stream ends if this member is too far behind.
async fn next_changes((kv, after): (Replica<Store>, Index)) -> Option<(Vec<Event>, (Replica<Store>, Index))> {
    let mut applied = kv.watch();
    loop {
        let changes = kv.read(|store| store.changes_after(after)).await.ok()??;
        if let Some(last) = changes.last() {
            let last = last.index;
            let event = |change: Change| {
                let value = change.value.map(|value| String::from_utf8_lossy(&value).into_owned());
                let data = json!({ "key": change.key, "value": value });
                Event::default().id(change.index.to_string()).data(data.to_string())
            };
            return Some((changes.into_iter().map(event).collect(), (kv, last)));
        }
        tokio::select! {
            changed = applied.changed() => changed.ok()?,
            _ = kv.closed() => return None,
        }
    }
}

/// Acquires a lock, and holds it until the client closes the connection. The first event has the fencing token; a second
/// one says that the lock is lost.
async fn lock(State(api): State<Api>, Path(name): Path<String>) -> Result<Events, Failure> {
    let guard = api.locks.acquire(name, LEASE).timeout(LOCK_TIMEOUT).await.map_err(unavailable)?;
    let granted = Event::default().event("granted").data(guard.token().to_string());
    // The guard goes with the stream.
    let lost = async move {
        guard.lost().await;
        Event::default().event("lost")
    };
    Ok(events(stream::iter([granted]).chain(stream::once(lost))))
}

async fn members(State(api): State<Api>) -> Result<Response, Failure> {
    let [group, _] = &api.groups;
    let status = group.status().await.ok_or_else(|| unavailable("this node is shut down"))?;
    let members = status.view.iter().flat_map(|view| &view.ring).map(|member| member.node.to_string());
    let members: Vec<String> = members.collect();
    let view = status.view.as_ref().map(|view| view.id.0);
    let body = json!({
        "node": group.node_id().to_string(),
        "view": view,
        "members": members,
        "applied": *api.kv.watch().borrow(),
        "is_current": status.is_current(),
    });
    Ok(Json(body).into_response())
}

/// For a load balancer: whether this node is an active member.
async fn ready(State(api): State<Api>) -> StatusCode {
    let [kv, locks] = &api.groups;
    let is_ready = kv.is_current().await && locks.is_current().await;
    if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Leaves for good, and ends this process.
async fn leave(State(api): State<Api>) -> Result<(), Failure> {
    for group in &api.groups {
        group.leave().await.map_err(unavailable)?;
    }
    api.has_left.notify_one();
    Ok(())
}

/// Returns once the store of this process changes no further, unless this node has left: why.
pub(crate) async fn broken(api: &Api) -> ReplicaError {
    match api.kv.closed().await {
        ReplicaError::Ended(EndReason::Left) => std::future::pending().await,
        reason => reason,
    }
}
