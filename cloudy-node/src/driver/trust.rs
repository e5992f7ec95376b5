//! The peers that this node trusts: changes of the cluster key, and revocations.

use std::collections::BTreeSet;
use std::slice;

use bytes::Bytes;
use cloudy_proto::NodeId;
use cloudy_proto::limits::REVOKED_PER_FRAME_MAX;
use cloudy_proto::wire::NodeFrame;
use rustls::pki_types::CertificateDer;
use tracing::Level;

use crate::cluster_keys::{ClusterKeys, RevokedFullError};
use crate::driver::Driver;
use crate::endpoint;
use crate::error::{CreateGroupError, JoinError, RevokeError, SetKeysError};
use crate::group::EndReason;
use crate::identity::{Identity, node_id_of};
use crate::link::{Link, NewLink, REVOKED_WORDS, SAME_IDENTITY_WORDS};
use crate::link_error::{LinkFailure, code};
use crate::repeats::Source;

/// The closing text for a peer whose key is not accepted.
const KEY_DROPPED_WORDS: &str =
    "the cluster key that vouches for this node is no longer accepted: give it the present key file";

/// The log text for a peer with a certificate for another public key.
const NOT_ITS_OWN: &str = "link closed: the peer presents a certificate that is not its own";

/// This node's identity, and the means to verify the others'. Its links hold the revocations.
pub(super) struct Trust {
    identity: Identity,
    /// Whether the keys were changed after the start, so that a peer may know this node by a former one.
    renewed: bool,
    /// The reason for which this node takes part in no group.
    pub(super) expelled: Option<Expelled>,
}

/// The reason that closes all groups of a node and prevents joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expelled {
    /// The node's identity was revoked.
    Revoked,
    /// An older process has the node's identity.
    SameIdentity,
}

impl Expelled {
    pub(super) fn join_error(self) -> JoinError {
        match self {
            Self::Revoked => JoinError::Revoked,
            Self::SameIdentity => JoinError::SameIdentity,
        }
    }

    pub(super) fn create_group_error(self) -> CreateGroupError {
        match self {
            Self::Revoked => CreateGroupError::Revoked,
            Self::SameIdentity => CreateGroupError::SameIdentity,
        }
    }

    fn end_reason(self) -> EndReason {
        match self {
            Self::Revoked => EndReason::Revoked,
            Self::SameIdentity => EndReason::SameIdentity,
        }
    }
}

impl Trust {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, renewed: false, expelled: None }
    }

    #[cfg(feature = "admin")]
    pub(super) fn fingerprints(&self) -> &[String] {
        self.identity.fingerprints()
    }

    /// Whether an accepted key vouches for a link: by its handshake's certificate, or a later one for the same public
    /// key.
    fn vouches_for(&self, link: &Link) -> bool {
        let renewed =
            link.renewed.as_ref().is_some_and(|certificate| self.identity.trusts(slice::from_ref(certificate)));
        renewed || self.identity.trusts(&endpoint::peer_chain(&link.connection))
    }

    fn certificate(&self) -> Option<NodeFrame> {
        let certificate = self.identity.issued_certificate().filter(|_| self.renewed)?;
        Some(NodeFrame::Certificate(Bytes::copy_from_slice(certificate)))
    }
}

impl Driver {
    pub(super) fn set_keys(&mut self, keys: &ClusterKeys) -> Result<(), SetKeysError> {
        let identity = self.trust.identity.with_keys(keys)?;
        self.links.adopt(&identity)?;
        tracing::info!(primary = %keys.primary(), "the cluster's keys have changed");
        self.trust.identity = identity;
        self.trust.renewed = true;
        for (peer, link) in &self.peers {
            if self.trust.vouches_for(link) {
                self.trust.certificate().into_iter().for_each(|frame| link.push_node(frame));
            } else {
                tracing::warn!(peer = %peer.short(), "link closed: the cluster key that vouches for the peer is no longer accepted");
                link.close(code::KEY_DROPPED, KEY_DROPPED_WORDS);
            }
        }
        let taken = self.links.revoked.set_keys(keys.revoked());
        if !taken.forgotten.is_empty() {
            tracing::error!(
                "{} nodes that earlier lines of the key file revoked are accepted again: {RevokedFullError}",
                taken.forgotten.len()
            );
            taken.forgotten.into_iter().for_each(|node| self.dialler.allow(node));
        }
        self.shut_out(taken.fresh, true);
        self.peers.values().for_each(|link| tell_revoked(link, &taken.confirmed, true));
        Ok(())
    }

    pub(super) fn revoke(&mut self, node: NodeId) -> Result<(), RevokeError> {
        if self.links.revoked.add_own(node)? {
            self.shut_out(BTreeSet::from([node]), true);
        } else {
            // Peers may have had no capacity for it while other peers had reported it.
            self.peers.values().for_each(|link| tell_revoked(link, &[node], true));
        }
        Ok(())
    }

    /// Handles revocations from a peer: of its own operator, or forwarded.
    pub(super) fn told_revoked(&mut self, peer: NodeId, nodes: &[NodeId], own: bool) {
        let told = self.links.revoked.tell(peer, nodes, own);
        if told.left_out > 0 {
            let cause = "not all nodes that a peer revokes are refused here";
            let text = format_args!(
                "{cause}: there is no capacity for more of what peers revoke; to refuse them, add them to this node's key file: cloudy key revoke"
            );
            self.links.repeats.say(Level::ERROR, cause, Source::Node(peer), text);
        }
        for node in told.fresh.iter().filter(|&&node| node != self.me) {
            tracing::warn!(
                from = %peer.short(),
                "node {node} was revoked; to keep that over a restart, add it to this node's key file: cloudy key revoke"
            );
        }
        self.shut_out(told.fresh, false);
    }

    /// Disconnects nodes that were added to the revocations, and forwards these.
    fn shut_out(&mut self, nodes: BTreeSet<NodeId>, own: bool) {
        if nodes.is_empty() {
            return;
        }
        for &node in &nodes {
            self.dialler.never(node);
            self.superseded.close(node, code::REVOKED, REVOKED_WORDS);
            if let Some(link) = self.peers.get(&node) {
                tracing::warn!(peer = %node.short(), "link closed: the peer's identity was revoked");
                link.close(code::REVOKED, REVOKED_WORDS);
                // At once: frames that it has sent meanwhile do not count.
                let link = link.id;
                self.link_down(node, link, "its identity was revoked");
            }
        }
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        for link in self.peers.values() {
            tell_revoked(link, &nodes, own);
        }
        if nodes.contains(&self.me) {
            self.found_revoked(self.me);
        }
    }

    /// Notes that this node is revoked, by a peer's report or its own keys.
    pub(super) fn found_revoked(&mut self, by: NodeId) {
        if self.trust.expelled.is_some() {
            return;
        }
        tracing::error!(
            "this node, {}, was revoked, as node {} reports: no node of its cluster links to it, and it closes its groups",
            self.me,
            by.short()
        );
        self.expel(Expelled::Revoked);
    }

    /// Closes all groups, and prevents further joins.
    pub(super) fn expel(&mut self, why: Expelled) {
        self.trust.expelled = Some(why);
        for run in self.groups.values() {
            run.shared.end(why.end_reason());
        }
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.ended(group);
        }
        for joining in std::mem::take(&mut self.joining).into_values() {
            // The caller may have given up.
            let _ = joining.reply.send(Err(why.join_error().into()));
        }
        self.dialler.forget(|_| false);
    }

    /// The reason to refuse a link at this moment: the keys may have changed after the start of its handshake.
    pub(super) fn turn_away(&self, new: &NewLink) -> Option<LinkFailure> {
        if self.trust.expelled == Some(Expelled::SameIdentity) {
            new.connection.close(code::SAME_IDENTITY.into(), SAME_IDENTITY_WORDS.as_bytes());
            return Some(LinkFailure::ClosedHere);
        }
        if self.links.revoked.contains(new.peer) {
            new.connection.close(code::REVOKED.into(), REVOKED_WORDS.as_bytes());
            return Some(LinkFailure::RevokedThere);
        }
        if self.trust.renewed && !self.trust.identity.trusts(&endpoint::peer_chain(&new.connection)) {
            new.connection.close(code::KEY_DROPPED.into(), KEY_DROPPED_WORDS.as_bytes());
            return Some(LinkFailure::OtherClusterKey);
        }
        None
    }

    /// Sends a new peer this node's certificate and revocations.
    pub(super) fn tell_trust(&self, link: &Link) {
        self.trust.certificate().into_iter().for_each(|frame| link.push_node(frame));
        // The operator's revocations come first: the peer's capacity for forwarded ones may be used up.
        let (own, told) = self.links.revoked.to_pass_on();
        tell_revoked(link, &own, true);
        tell_revoked(link, &told, false);
    }

    /// Handles another certificate of a peer. It counts when the keys change, and only for the public key of the link:
    /// the peer has proved in the handshake that it holds the private key.
    pub(super) fn told_certificate(&mut self, peer: NodeId, certificate: &[u8]) {
        let certificate = CertificateDer::from(certificate.to_vec());
        let Some(link) = self.peers.get_mut(&peer) else { return };
        if node_id_of(&certificate).is_ok_and(|node| node == peer) {
            link.renewed = Some(certificate);
        } else {
            self.links.repeats.say(Level::WARN, NOT_ITS_OWN, Source::Node(peer), NOT_ITS_OWN);
            link.close(code::BREACH, "a certificate that is not the sender's");
        }
    }
}

fn tell_revoked(link: &Link, nodes: &[NodeId], own: bool) {
    for nodes in nodes.chunks(REVOKED_PER_FRAME_MAX) {
        link.push_node(NodeFrame::Revoked { own, nodes: nodes.to_vec() });
    }
}
