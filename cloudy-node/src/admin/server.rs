//! The thread that serves an admin endpoint until the node is closed. It has a runtime of its own, so it answers also while the node's is blocked,
//! and its clients cost the node no time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::error::AdminError;
use super::listener::{AdminListener, Socket};
use super::routes::{App, Client};
use crate::health::Health;

/// Maximum of connections. A further one replaces the oldest that is not a stream of events.
const CONNECTIONS_MAX: usize = 64;
/// Maximum bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Maximum of headers of a request.
const HEADERS_MAX: usize = 64;
/// The buffer of the system for what a client has not read.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Time for a client to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Time for a request with its response, unless it is a stream of events.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);
/// The life of a stream of events, after which a page connects again.
const EVENTS_FOR: Duration = Duration::from_secs(600);
/// A pause after the system has refused a connection, for example for lack of open files.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Starts the thread. It ends with the node.
pub(super) fn start(listener: AdminListener, app: App, health: Health) -> Result<(), AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
    let accepting = {
        let _entered = runtime.enter();
        Accepting::of(listener.0).map_err(AdminError::Thread)?
    };
    let app = Arc::new(app);
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = health.closed() => {}
                () = serve(accepting, Arc::clone(&app)) => {}
                () = app.follow() => {}
            }
        });
    };
    std::thread::Builder::new().name("cloudy-admin".to_owned()).spawn(work).map_err(AdminError::Thread)?;
    Ok(())
}

enum Accepting {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        /// Removes the file when the thread ends.
        _socket: super::unix::UnixSocket,
    },
}

impl Accepting {
    fn of(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            #[cfg(unix)]
            Socket::Unix(socket) => {
                Ok(Self::Unix { listener: UnixListener::from_std(socket.listener.try_clone()?)?, _socket: socket })
            }
        }
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<u64>,
    open: BTreeMap<u64, (AbortHandle, Arc<AtomicBool>)>,
    next: u64,
}

impl Connections {
    /// Serves a connection in a task of its own.
    fn add<S>(&mut self, app: &Arc<App>, io: S, local: Option<SocketAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.make_place();
        let (id, streams) = (self.next, Arc::new(AtomicBool::new(false)));
        self.next += 1;
        let client = Client { local, streams: Arc::clone(&streams), stalled: Arc::default() };
        let app = Arc::clone(app);
        let task = self.tasks.spawn(async move {
            connection(io, &app, &client).await;
            id
        });
        self.open.insert(id, (task, streams));
    }

    fn make_place(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended);
        }
        if self.open.len() >= CONNECTIONS_MAX {
            let mut requests = self.open.iter().filter(|(_, (_, streams))| !streams.load(Ordering::Relaxed));
            let oldest = requests.next().map(|(&id, _)| id);
            if let Some((task, _)) = oldest.and_then(|id| self.open.remove(&id)) {
                task.abort();
            }
        }
    }

    fn ended(&mut self, ended: Result<u64, tokio::task::JoinError>) {
        match ended {
            Ok(id) => drop(self.open.remove(&id)),
            Err(error) if error.is_panic() => {
                tracing::error!("a request to the admin endpoint failed; this is a defect: report it");
                self.open.retain(|_, (task, _)| !task.is_finished());
            }
            // It was replaced.
            Err(_) => {}
        }
    }
}

/// Accepts connections until it is dropped, and closes them all then.
async fn serve(accepting: Accepting, app: Arc<App>) {
    let mut connections = Connections::default();
    loop {
        let accepted = match &accepting {
            Accepting::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Without it a client that does not read is noticed later.
                let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
                let local = stream.local_addr().ok();
                connections.add(&app, stream, local);
            }),
            #[cfg(unix)]
            Accepting::Unix { listener, .. } => {
                listener.accept().await.map(|(stream, _)| connections.add(&app, stream, None))
            }
        };
        if let Err(error) = accepted {
            tracing::debug!(%error, "the admin endpoint cannot accept a connection");
            // sleep: the system does not announce when it has resources again.
            sleep(ACCEPT_AGAIN_AFTER).await;
        }
    }
}

/// Serves one request. Every part of it has a time limit.
pub(super) async fn connection<S>(io: S, app: &Arc<App>, client: &Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| app.answer(request, client));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(serving);
    // Errors of clients need no line in the log.
    if timeout(RESPONSE_WITHIN, &mut serving).await.is_err() && client.streams.load(Ordering::Relaxed) {
        tokio::select! {
            _ = timeout(EVENTS_FOR, serving) => {}
            () = client.stalled.notified() => {}
        }
    }
}
