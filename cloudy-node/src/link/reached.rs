//! The peers that this node's dials have reached: several addresses of a peer are dialled in parallel, and one becomes
//! its link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloudy_proto::NodeId;
use quinn::Connection;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// Connections to one peer that were dialled in parallel are established within this time of each other. A later one
/// sends a hello: the peer may have been restarted meanwhile.
const TOGETHER: Duration = Duration::from_secs(1);

/// The last connection to a peer on which a hello was sent, with its time.
type Last = Option<(Connection, Instant)>;

/// The peers that were dialled recently. Clones share the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Reached(Arc<Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<Last>>>>>);

/// The exclusive right of a connection to send a hello to a peer.
#[derive(Debug)]
pub(super) struct Claim(OwnedMutexGuard<Last>);

impl Reached {
    /// Waits until no other connection that this node dialled sends a hello to the peer. Cancel safe.
    pub(super) async fn claim(&self, peer: NodeId) -> Claim {
        let turn = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            table.retain(|_, last| {
                let recent = |last: &Last| last.as_ref().is_some_and(|(_, at)| at.elapsed() < TOGETHER);
                Arc::strong_count(last) > 1 || last.try_lock().is_ok_and(|last| recent(&last))
            });
            Arc::clone(table.entry(peer).or_default())
        };
        Claim(turn.lock_owned().await)
    }
}

impl Claim {
    /// Whether another connection, dialled at the same time, is the link to the peer.
    pub(super) fn is_linked(&self) -> bool {
        self.0.as_ref().is_some_and(|(last, at)| last.close_reason().is_none() && at.elapsed() < TOGETHER)
    }

    /// Makes this connection the link.
    pub(super) fn link(&mut self, connection: Connection) {
        *self.0 = Some((connection, Instant::now()));
    }
}
