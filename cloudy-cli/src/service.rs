//! Notifications to a service manager (sd_notify(3)): ready, status, alive, stopping. A thread sends it, so that
//! a manager that does not read blocks no node. Without the variable `NOTIFY_SOCKET` nothing is sent.

use std::convert::Infallible;
use std::future::pending;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use cloudy_node::{Group, Node};
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

/// The variables by which a service manager addresses one process; its children have no use for them.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Between two looks at the state of a group.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The time for which the end of a command waits for the manager.
const STOPPING_MAX: Duration = Duration::from_millis(500);

enum State {
    Ready,
    Status(String),
    Alive,
    Stopping,
}

type Message = (State, oneshot::Sender<()>);

/// The thread that sends; None without a manager.
fn manager() -> Option<&'static Sender<Message>> {
    static MANAGER: OnceLock<Option<Sender<Message>>> = OnceLock::new();
    let start = || {
        std::env::var_os(VARIABLES[0]).filter(|socket| !socket.is_empty())?;
        let (messages, waiting) = channel::<Message>();
        let thread = thread::Builder::new().name("service manager".to_owned());
        let send = move || waiting.iter().for_each(|(state, _)| send(&state));
        thread.spawn(send).ok().map(|_| messages)
    };
    MANAGER.get_or_init(start).as_ref()
}

#[cfg(unix)]
fn send(state: &State) {
    use sd_notify::NotifyState;
    let state = match state {
        State::Ready => NotifyState::Ready,
        State::Status(text) => NotifyState::Status(text),
        State::Alive => NotifyState::Watchdog,
        State::Stopping => NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager does not receive the state of this process");
    }
}

#[cfg(not(unix))]
fn send(_state: &State) {}

/// The receiver ends once it is sent.
fn tell(state: State) -> Option<oneshot::Receiver<()>> {
    let (sent, is_sent) = oneshot::channel();
    manager()?.send((state, sent)).ok()?;
    Some(is_sent)
}

/// The process has done what it was started for to begin with: it serves.
pub(crate) fn ready() {
    drop(tell(State::Ready));
}

/// One line on what the process does.
pub(crate) fn status(text: &str) {
    // The manager reads lines.
    drop(tell(State::Status(text.replace('\n', " "))));
}

/// The process begins to end.
pub(crate) async fn stopping() {
    if let Some(sent) = tell(State::Stopping) {
        // A manager that does not read is not waited for.
        drop(timeout(STOPPING_MAX, sent).await);
    }
}

/// Shows the manager that the node's driver works, if it wants that: each sign of life is an answer of the driver.
pub(crate) async fn watchdog(node: &Node) -> Infallible {
    let Some(limit) = watchdog_limit() else { return pending().await };
    let mut due = interval((limit / 3).max(Duration::from_millis(1)));
    loop {
        due.tick().await;
        node.traffic().await;
        drop(tell(State::Alive));
    }
}

#[cfg(unix)]
fn watchdog_limit() -> Option<Duration> {
    manager().and_then(|_| sd_notify::watchdog_enabled())
}

#[cfg(not(unix))]
fn watchdog_limit() -> Option<Duration> {
    None
}

/// Shows the manager the state of a group. The process is ready once this node is an active member.
pub(crate) async fn follow(group: &Group) -> Infallible {
    if manager().is_none() {
        return pending().await;
    }
    let (mut due, mut shown, mut was_current) = (interval(LOOK_EVERY), String::new(), false);
    loop {
        due.tick().await;
        let Some(now) = group.status().await else { return pending().await };
        let members = now.view.as_ref().map_or(0, |view| view.members());
        let state = if now.is_current() { "active" } else { "not active" };
        let text = format!("group {}: {state}, {members} members, {} messages", group.name(), now.index);
        if now.is_current() && !std::mem::replace(&mut was_current, true) {
            ready();
        }
        if text != shown {
            status(&text);
            shown = text;
        }
    }
}
