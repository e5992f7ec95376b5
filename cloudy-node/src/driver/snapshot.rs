//! What the admin endpoint reads of a node: one request, answered in one turn of the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use cloudy_proto::{GroupId, NodeId, Status};
use quinn::Connection;

use crate::driver::Driver;
use crate::driver::disk::{Disk, DiskSnapshot};
use crate::group::EndReason;
use crate::group::shared::Shared;

/// Maximum of groups that ended here and are remembered.
const ENDED_KEPT_MAX: usize = 16;

/// A group that ended at this node.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    pub(crate) reason: EndReason,
    pub(crate) at: SystemTime,
}

/// The groups that ended here last, oldest first.
#[derive(Default)]
pub(crate) struct EndedGroups(VecDeque<Ended>);

impl EndedGroups {
    /// Notes a group that ended, with its reason.
    pub(super) fn add(&mut self, shared: &Shared) {
        let Some(reason) = shared.lock().ended.clone() else { return };
        if self.0.len() == ENDED_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Ended { id: shared.id, name: shared.name.clone(), reason, at: SystemTime::now() });
    }
}

/// The state of a node at one moment. The connections are read outside the driver.
pub(crate) struct Snapshot {
    pub(crate) groups: Vec<(Arc<Shared>, Status)>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) links: Vec<(NodeId, Connection)>,
    pub(crate) disk: Option<DiskSnapshot>,
    /// The fingerprint of the primary key, then that of the other accepted key.
    pub(crate) fingerprints: Vec<String>,
}

impl Driver {
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.now();
        Snapshot {
            groups: self.groups.values().map(|run| (Arc::clone(&run.shared), run.machine.status(now))).collect(),
            ended: self.ended.0.iter().cloned().collect(),
            links: self.peers.iter().map(|(peer, link)| (*peer, link.connection.clone())).collect(),
            disk: self.disk.as_ref().map(Disk::snapshot),
            fingerprints: self.trust.fingerprints().to_vec(),
        }
    }
}
