//! Helpers of these tests only.

use std::net::SocketAddr;
use std::sync::{Mutex, Once};

use cloudy_node::EndpointLimits;
use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::{ClusterKey, Event, Group, GroupConfig, Node, NodeId, Parameters};

use crate::common::{Message, within};

/// A node that can be cut off.
pub(crate) async fn start_cuttable(key: &ClusterKey, limits: EndpointLimits) -> (Node, FaultControl) {
    let socket = FaultSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Faults::none()).unwrap();
    let control = socket.control();
    let node = Node::builder().cluster_key(key).limits(limits).socket(socket).start().await.unwrap();
    (node, control)
}

pub(crate) fn config(change: impl FnOnce(&mut Parameters)) -> GroupConfig {
    let mut config = GroupConfig::default();
    change(&mut config.parameters);
    config
}

pub(crate) fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

/// Waits for an event of a group.
pub(crate) async fn event<T>(group: &Group, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
    let mut events = group.events();
    loop {
        let event = within(what, events.next()).await.unwrap_or_else(|| panic!("the group ended before: {what}"));
        let event = event.unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

pub(crate) async fn linked(group: &Group, node: NodeId) -> bool {
    let status = group.status().await.expect("the group lives");
    status.members.iter().any(|member| member.node == node && member.linked)
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// From here on, panics in tasks of the library are noted.
pub(crate) fn watch_for_panics() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|at| at.file().contains("src/")) {
                PANICS.lock().unwrap().push(info.to_string());
            }
            before(info);
        }));
    });
}

/// None of them panicked.
pub(crate) fn assert_no_task_panicked() {
    assert_eq!(*PANICS.lock().unwrap(), Vec::<String>::new());
}
