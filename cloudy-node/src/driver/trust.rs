//! Which peers this node trusts: a change of the cluster key, and nodes that are shut out for good.

use std::collections::BTreeSet;
use std::slice;

use bytes::Bytes;
use cloudy_proto::NodeId;
use cloudy_proto::limits::{REVOKED_MAX, REVOKED_PER_FRAME_MAX};
use cloudy_proto::wire::NodeFrame;
use rustls::pki_types::CertificateDer;
use tracing::Level;

use crate::cluster_keys::{ClusterKeys, RevokedFullError};
use crate::driver::Driver;
use crate::endpoint;
use crate::group::EndReason;
use crate::identity::{Identity, node_id_of};
use crate::link::{Link, NewLink, REVOKED_WORDS, code};
use crate::node::{JoinError, RevokeError, SetKeysError};
use crate::repeats::Source;
use crate::tls::LinkFailure;

/// What a peer is told whose key is no longer accepted.
const KEY_DROPPED_WORDS: &str =
    "the cluster key that vouches for this node is no longer accepted: give it the present key file";

/// What the log says of a peer with a certificate for another public key.
const NOT_ITS_OWN: &str = "link closed: the peer shows a certificate that is not its own";

/// A node's own standing, and what it takes to judge the others'. Whom it has shut out, its links know.
pub(super) struct Trust {
    identity: Identity,
    /// The keys were changed since the node was started, so a peer may know this node by a former one.
    renewed: bool,
    /// This node itself is shut out.
    pub(super) revoked_here: bool,
}

impl Trust {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, renewed: false, revoked_here: false }
    }

    /// Its handshake's certificate counts, or one that it has told since for the same public key.
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
        let mut revoked = self.links.revoked.all();
        revoked.extend(keys.revoked());
        if revoked.len() > REVOKED_MAX {
            return Err(RevokedFullError.into());
        }
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
        self.shut_out(keys.revoked().clone());
        Ok(())
    }

    pub(super) fn revoke(&mut self, node: NodeId) -> Result<(), RevokeError> {
        let revoked = self.links.revoked.all();
        if revoked.len() >= REVOKED_MAX && !revoked.contains(&node) {
            return Err(RevokedFullError.into());
        }
        self.shut_out(BTreeSet::from([node]));
        Ok(())
    }

    /// A peer passes on who is shut out.
    pub(super) fn told_revoked(&mut self, peer: NodeId, nodes: Vec<NodeId>) {
        let known = self.links.revoked.all();
        let mut fresh: Vec<NodeId> = nodes.into_iter().filter(|node| !known.contains(node)).collect();
        let room = REVOKED_MAX - known.len();
        if fresh.len() > room {
            let cause = "not all nodes that a peer revokes are refused here";
            let text = format_args!("{cause}: {RevokedFullError}");
            self.links.repeats.say(Level::ERROR, cause, Source::Node(peer), text);
            fresh.truncate(room);
        }
        for node in fresh.iter().filter(|&&node| node != self.me) {
            tracing::warn!(
                from = %peer.short(),
                "node {node} was revoked; to keep that over a restart, add it to this node's key file: cloudy key revoke"
            );
        }
        self.shut_out(fresh.into_iter().collect());
    }

    /// Refuses these nodes from here on, and passes that on; the caller has seen to the bound.
    fn shut_out(&mut self, mut nodes: BTreeSet<NodeId>) {
        let known = self.links.revoked.all();
        nodes.retain(|node| !known.contains(node));
        if nodes.is_empty() {
            return;
        }
        self.links.revoked.add(nodes.iter().copied());
        for &node in &nodes {
            self.dialler.never(node);
            if let Some(link) = self.peers.get(&node) {
                tracing::warn!(peer = %node.short(), "link closed: the peer's identity was revoked");
                link.close(code::REVOKED, REVOKED_WORDS);
                // At once: what it has sent meanwhile does not count.
                let link = link.id;
                self.link_down(node, link, "its identity was revoked");
            }
        }
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        for link in self.peers.values() {
            tell_revoked(link, &nodes);
        }
        if nodes.contains(&self.me) {
            self.found_revoked(self.me);
        }
    }

    /// This node is shut out, as a peer says, or its own keys.
    pub(super) fn found_revoked(&mut self, by: NodeId) {
        if std::mem::replace(&mut self.trust.revoked_here, true) {
            return;
        }
        tracing::error!(
            "this node, {}, was revoked, as node {} says: no node of its cluster links to it any more, and it gives up its groups",
            self.me,
            by.short()
        );
        for run in self.groups.values() {
            run.shared.end(EndReason::Revoked);
        }
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.ended(group);
        }
        for joining in std::mem::take(&mut self.joining).into_values() {
            // Whoever joined has given up.
            let _ = joining.reply.send(Err(JoinError::Revoked));
        }
        self.dialler.forget(|_| false);
    }

    /// Why a link is not to be, as of this moment: the keys may have changed since its handshake began.
    pub(super) fn turn_away(&self, new: &NewLink) -> Option<LinkFailure> {
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

    /// A link is up: the peer learns what it needs to trust this node, and not to trust others.
    pub(super) fn tell_trust(&self, link: &Link) {
        self.trust.certificate().into_iter().for_each(|frame| link.push_node(frame));
        tell_revoked(link, &self.links.revoked.all().into_iter().collect::<Vec<_>>());
    }

    /// A peer shows a certificate of another key. It counts when the keys change, and for the public key of the link only:
    /// the peer has proved in the handshake that it holds the private one.
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

fn tell_revoked(link: &Link, nodes: &[NodeId]) {
    for nodes in nodes.chunks(REVOKED_PER_FRAME_MAX) {
        link.push_node(NodeFrame::Revoked(nodes.to_vec()));
    }
}
