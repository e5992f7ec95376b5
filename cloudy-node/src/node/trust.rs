//! Whom a node trusts, while it runs.

use std::collections::BTreeSet;

use cloudy_proto::NodeId;

use crate::cluster_keys::ClusterKeys;
use crate::driver::Command;
use crate::error::{RevokeError, SetKeysError};
use crate::identity::Identity;
use crate::node::{Node, NodeBuilder, StartError};

impl NodeBuilder {
    /// The cluster's keys: the node shows a certificate of the primary one, accepts nodes of either, and refuses those that
    /// are revoked. It makes itself a fresh identity, unless [`identity`](Self::identity) gives one, made of any of the
    /// keys, that is to stay the same node. Another set can be given later ([`Node::set_keys`]).
    pub fn cluster_keys(mut self, keys: &ClusterKeys) -> Self {
        self.keys = Some(keys.clone());
        self
    }

    /// The identity that was given, or a fresh one, under the keys.
    pub(super) fn take_identity(&mut self) -> Result<Identity, StartError> {
        let given = self.identity.take().transpose()?;
        Ok(match (given, &self.keys) {
            (Some(identity), Some(keys)) => identity.with_keys(keys)?,
            (Some(identity), None) => identity,
            (None, Some(keys)) => Identity::generate(keys.primary())?.with_keys(keys)?,
            (None, None) => return Err(StartError::NoIdentity),
        })
    }
}

impl Node {
    /// Takes other keys, as a changed key file holds them; [`key_file::follow`](crate::key_file::follow) does so by itself.
    ///
    /// From here on this node shows a certificate of the primary key, to the nodes that are linked too, and accepts nodes of
    /// both keys. A link stays as long as an accepted key vouches for the other node: the one of its handshake, or one that
    /// it has shown since. Others are closed at once. Nodes that the keys revoke are shut out as by [`Node::revoke`]; those
    /// that are revoked already stay so, whatever the keys say.
    ///
    /// Cancel safe: dropped after its first poll, it sets the keys all the same.
    ///
    /// # Errors
    /// What is wrong; the node goes on with the keys that it has.
    pub async fn set_keys(&self, keys: &ClusterKeys) -> Result<(), SetKeysError> {
        let keys = Box::new(keys.clone());
        self.mailbox.ask(|reply| Command::SetKeys { keys, reply }).await?
    }

    /// Shuts a node out for good, here and at all nodes that are linked, directly or by others: its links are closed at
    /// once, its groups go on without it as their policy says, and it is refused whenever it comes back. It is told so. A
    /// node that revokes itself gives up its groups.
    ///
    /// Each node keeps this as long as it runs, and tells every node that it links to; what is to outlast a restart of all
    /// belongs in their key files ([`ClusterKeys::revoke`]). A holder of the cluster key can come back under a fresh
    /// identity: to shut out the person who runs a node, revoke it and change the key.
    ///
    /// Cancel safe: dropped after its first poll, it revokes the node all the same.
    ///
    /// # Errors
    /// Too many nodes are revoked, and this one is not.
    pub async fn revoke(&self, node: NodeId) -> Result<(), RevokeError> {
        self.mailbox.ask(|reply| Command::Revoke { node, reply }).await?
    }

    /// The nodes that this one refuses: of its keys, of [`Node::revoke`], and what other nodes have told.
    #[must_use]
    pub fn revoked(&self) -> BTreeSet<NodeId> {
        self.revoked.all()
    }
}
