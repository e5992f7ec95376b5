//! The creator's part: it invites nodes that are ready, and creates the group with all of them or not at all.

use std::collections::BTreeSet;
use std::time::Duration;

use cloudy_proto::NodeId;
use cloudy_proto::wire::NamedGroup;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::driver::{CreationEvent, Known};
use crate::error::CreateGroupError;
use crate::group::shared::Departs;
use crate::handle::Group;
use crate::node::PendingGroup;
use crate::open::progress::{OpenEvent, OpenGroupError};
use crate::open::work::{Next, Work};

/// How long the invited nodes may take to accept.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// Creates the group with these nodes and this one. Until view 1 is proposed, no node relies on it.
    pub(super) async fn create(
        &mut self,
        others: Vec<NodeId>,
        known: &mut watch::Receiver<Known>,
    ) -> Result<Next, OpenGroupError> {
        let mut members: Vec<NodeId> = others.iter().copied().chain([self.node.id()]).collect();
        members.sort_unstable();
        self.attempt(OpenEvent::Creating { members });
        let mut creation = match self.node.prepare_group(&self.name, self.config.clone()).await {
            Ok(creation) => creation,
            Err(error @ (CreateGroupError::NameTaken { .. } | CreateGroupError::Leaving { .. })) => {
                return Ok(self.not_created(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        match gather(&mut creation, &others, known).await {
            Ok(()) => {}
            Err(Gathering::Closed) => return Err(creation.end_reason().await.into()),
            // Dropping it cancels the creation, and notifies the nodes that accepted.
            Err(Gathering::Failed(why)) => return Ok(self.not_created(why)),
        }
        let (reply, created) = oneshot::channel();
        // From here on others may install view 1, so it is not given up.
        self.node.mailbox.health.spawn("creation of a group", async move {
            let created = creation.create(None).without_timeout().await;
            if let Err(Ok(group)) = reply.send(created) {
                withdraw(&group);
            }
        });
        match created.await {
            Ok(created) => Ok(Next::Opened(created?)),
            Err(_) => Err(self.node.closed().await.into()),
        }
    }
}

/// The caller is gone: this node leaves, and the other members continue.
fn withdraw(group: &Group) {
    group.shared.depart(Departs::Leaves);
    group.mailbox.wake();
}

enum Gathering {
    /// The reason why not all nodes accept.
    Failed(String),
    /// The node is closed.
    Closed,
}

/// Returns once all invited nodes have accepted.
async fn gather(
    creation: &mut PendingGroup,
    others: &[NodeId],
    known: &mut watch::Receiver<Known>,
) -> Result<(), Gathering> {
    let mut missing: BTreeSet<NodeId> = others.iter().copied().collect();
    let gives_up_at = Instant::now() + ACCEPT_TIMEOUT;
    while !missing.is_empty() {
        let failed = |why: String| Err(Gathering::Failed(why));
        tokio::select! {
            event = creation.next_event() => match event {
                Some(CreationEvent::AskedToJoin { node }) if missing.contains(&node) => creation.invite(node),
                // Others join once the group is created.
                Some(CreationEvent::AskedToJoin { .. }) => {}
                Some(CreationEvent::Accepted { node }) => drop(missing.remove(&node)),
                Some(CreationEvent::Refused { node, reason }) => {
                    return failed(format!("node {} does not accept the invitation: {reason}", node.short()));
                }
                Some(CreationEvent::Lost { node }) => {
                    return failed(format!("node {} accepted, and was lost before all had", node.short()));
                }
                None => return Err(Gathering::Closed),
            },
            changed = known.changed() => {
                if changed.is_err() {
                    return Err(Gathering::Closed);
                }
                let known = known.borrow();
                if let Some(lost) = missing.iter().find(|node| !known.peers.contains_key(node)) {
                    return failed(format!("node {} was lost before it accepted", lost.short()));
                }
                let runs = |report: &cloudy_proto::wire::NameReport| matches!(report.group, NamedGroup::Runs { .. });
                if let Some((node, _)) = known.reports().find(|(_, report)| runs(report)) {
                    return failed(format!("node {} is in a group of that name", node.short()));
                }
            }
            // sleep: a bound on the answers of other nodes.
            () = sleep_until(gives_up_at) => {
                let names = missing.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
                return failed(format!("these nodes have not accepted the invitation: {names}"));
            }
        }
    }
    Ok(())
}
