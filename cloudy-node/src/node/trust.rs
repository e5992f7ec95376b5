//! The keys and revocations of a running node.

use std::collections::BTreeSet;

use cloudy_proto::NodeId;

use crate::cluster_keys::ClusterKeys;
use crate::driver::Command;
use crate::error::{RevokeError, SetKeysError};
use crate::identity::Identity;
use crate::node::{Node, NodeBuilder, StartError};

impl NodeBuilder {
    /// Sets the cluster's keys: the node presents a certificate of the primary key, accepts nodes of either key, and
    /// refuses revoked nodes. It creates a fresh identity, unless [`identity`](Self::identity) sets one that was made
    /// with any of the keys. [`Node::set_keys`] can change them later.
    pub fn cluster_keys(mut self, keys: &ClusterKeys) -> Self {
        self.keys = Some(keys.clone());
        self
    }

    /// The identity that was set, or a fresh one, under the keys.
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
    /// Replaces the keys; [`key_file::follow`](crate::key_file::follow) calls this for a changed key file.
    ///
    /// From then on this node presents a certificate of the primary key, also to linked nodes, and accepts nodes of
    /// both keys. A link stays while an accepted key vouches for the other node: the key of its handshake, or a later
    /// one that the node presented. Other links are closed at once. Nodes that the keys revoke are excluded as by
    /// [`Node::revoke`]. Earlier revocations remain in force with any keys.
    ///
    /// Cancel safe: dropped after its first poll, it still sets the keys.
    ///
    /// # Errors
    /// The keys cannot be used; the node keeps its present ones.
    pub async fn set_keys(&self, keys: &ClusterKeys) -> Result<(), SetKeysError> {
        let keys = Box::new(keys.clone());
        self.mailbox.ask(|reply| Command::SetKeys { keys, reply }).await?
    }

    /// Excludes a node for good, here and at all nodes that are linked, directly or through others. Its links are
    /// closed at once with that reason, its groups continue without it as their policy defines, and it is refused
    /// whenever it returns. A node that revokes itself gives up its groups.
    ///
    /// Each node keeps the revocation while it runs, and forwards it to every node that it links to. A revocation that
    /// must outlast a restart of all nodes belongs in their key files ([`ClusterKeys::revoke`]). A holder of the
    /// cluster key can return with a fresh identity: to exclude a person, revoke the node and change the key.
    ///
    /// Cancel safe: dropped after its first poll, it still revokes the node.
    ///
    /// # Errors
    /// The maximum number of nodes is revoked already, without this one.
    pub async fn revoke(&self, node: NodeId) -> Result<(), RevokeError> {
        self.mailbox.ask(|reply| Command::Revoke { node, reply }).await?
    }

    /// The nodes that this one refuses: revoked by its keys, by [`Node::revoke`], or by other nodes.
    #[must_use]
    pub fn revoked(&self) -> BTreeSet<NodeId> {
        self.revoked.all()
    }
}
