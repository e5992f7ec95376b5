//! Requests and responses.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use tokio::sync::Notify;

use super::events::{Stream, Streams};
use super::history::History;
use super::metrics;
use super::page::Page;
use super::source::Source;
use super::status::NodeStatus;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const EVENTS: &str = "text/event-stream";

/// The client of a connection.
pub(super) struct Client {
    /// The local address of the connection; none for a unix socket.
    pub(super) local: Option<SocketAddr>,
    /// Whether the response is a stream of events.
    pub(super) streams: Arc<AtomicBool>,
    /// Notified once it has not read its stream for too long.
    pub(super) stalled: Arc<Notify>,
}

/// The state that the routes share.
pub(super) struct App {
    source: Arc<Source>,
    history: Arc<History>,
    streams: Streams,
    page: Page,
}

/// The body of a response.
pub(super) enum Content {
    /// All of it.
    Whole(Option<Bytes>),
    /// Parts, for as long as the client reads.
    Events(Stream),
}

impl Content {
    fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(stream) => stream.poll_next(context).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

impl App {
    pub(super) fn new(source: Source) -> Self {
        Self { source: Arc::new(source), history: Arc::default(), streams: Streams::new(), page: Page::new() }
    }

    /// Follows the node for the history, until it is dropped.
    pub(super) async fn follow(&self) {
        self.history.follow(Arc::clone(&self.source)).await;
    }

    /// Answers a request.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Result<Response<Content>, Infallible> {
        if !is_addressed_here(&request, client) {
            let words = "this address is not the name of the admin endpoint: use its IP address, or localhost\n";
            return Ok(response(StatusCode::MISDIRECTED_REQUEST, TEXT, words));
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused =
                response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "the admin endpoint only serves GET and HEAD\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(refused);
        }
        Ok(match request.uri().path() {
            "/livez" => self.live().await,
            "/readyz" => self.ready(is_verbose(request.uri().query())).await,
            "/status" => self.status().await,
            "/metrics" => self.metrics(accepts_open_metrics(&request)).await,
            "/" => self.page(),
            "/events" if request.method() == Method::GET => self.events(client),
            _ => response(StatusCode::NOT_FOUND, TEXT, "there is /, /livez, /readyz, /status and /metrics\n"),
        })
    }

    async fn live(&self) -> Response<Content> {
        match self.source.status().await {
            Ok(_) => response(StatusCode::OK, TEXT, "ok\n"),
            Err(error) => unavailable(error),
        }
    }

    async fn ready(&self, verbose: bool) -> Response<Content> {
        match self.source.status().await {
            Ok(status) if status.ready => {
                let words = if verbose { groups_in_words(&status) } else { String::new() };
                response(StatusCode::OK, TEXT, words + "ok\n")
            }
            Ok(status) => {
                let lines = if verbose { status.reasons.clone() } else { Vec::new() };
                let words = lines.into_iter().map(|reason| reason + "\n").collect::<String>();
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, words + "not ready\n")
            }
            Err(error) => unavailable(error),
        }
    }

    fn page(&self) -> Response<Content> {
        let mut page = response(StatusCode::OK, HTML, self.page.markup.clone());
        if let Some(policy) = self.page.policy.clone() {
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        }
        page
    }

    fn events(&self, client: &Client) -> Response<Content> {
        let stalled = Arc::clone(&client.stalled);
        let Some(stream) = self.streams.open(&self.source, &self.history, move || stalled.notify_one()) else {
            return unavailable("too many pages are open: close one of them");
        };
        client.streams.store(true, Ordering::Relaxed);
        let mut events = response(StatusCode::OK, EVENTS, "");
        *events.body_mut() = Content::Events(stream);
        events
    }

    async fn metrics(&self, open_metrics: bool) -> Response<Content> {
        match self.source.status().await.map(metrics::text_of) {
            Ok(Ok(text)) if open_metrics => response(StatusCode::OK, metrics::OPEN_METRICS, text),
            Ok(Ok(text)) => response(StatusCode::OK, metrics::PLAIN_METRICS, metrics::plain_of(&text)),
            // Only a writer that is full fails, and a text grows.
            Ok(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            Err(error) => unavailable(error),
        }
    }

    async fn status(&self) -> Response<Content> {
        match self.source.status().await.map(|status| serde_json::to_string(&*status)) {
            Ok(Ok(json)) => response(StatusCode::OK, JSON, json + "\n"),
            // A status has nothing that JSON cannot express.
            Ok(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            Err(error) => unavailable(error),
        }
    }
}

fn groups_in_words(status: &NodeStatus) -> String {
    let line = |group: &super::GroupStatus| {
        let view = group.view.as_ref().map_or(0, |view| view.id);
        format!("group {:?}: view {view} has {} members, index {}\n", group.name, group.members.len(), group.index)
    };
    status.groups.iter().map(line).collect()
}

/// Whether the query of a request asks for reasons.
fn is_verbose(query: Option<&str>) -> bool {
    let is = |part: &str| part == "verbose" || part.strip_prefix("verbose=").is_some_and(|value| value != "0");
    query.is_some_and(|query| query.split('&').any(is))
}

/// Whether a client reads OpenMetrics; others get the older text format.
fn accepts_open_metrics<B>(request: &Request<B>) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/openmetrics-text"))
}

/// Whether a request on loopback names a host of this machine. A page of another site could otherwise give its own name
/// this address, and read the status in a browser of this machine.
fn is_addressed_here<B>(request: &Request<B>, client: &Client) -> bool {
    let is_loopback = client.local.is_some_and(|local| local.ip().to_canonical().is_loopback());
    let Some(host) = request.headers().get(HOST).filter(|_| is_loopback) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn unavailable(error: impl ToString) -> Response<Content> {
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, error.to_string() + "\n")
}

fn response(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Content> {
    let mut response = Response::new(Content::whole(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
