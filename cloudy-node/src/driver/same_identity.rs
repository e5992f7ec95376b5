//! Two processes with one identity, for example from a copied data directory: they are named in the log, and one of
//! them stops (`protocol.md` §4).
//!
//! A link of another process replaces the peer's earlier link. If that process was restarted, the older link has no
//! answer. If it runs, it answers, so that both processes are known to run at once.

use std::net::SocketAddr;

use cloudy_proto::NodeId;
use cloudy_proto::wire::NodeFrame;
use tracing::Level;

use super::Driver;
use super::trust::Expelled;
use crate::link::{Link, NewLink, SAME_IDENTITY_WORDS};
use crate::link_error::code;
use crate::repeats::Source;

/// Maximum of replaced links that are kept: the next one closes the oldest. Each is closed at the idle timeout, if its
/// process is gone.
const SUPERSEDED_MAX: usize = 32;
/// The log texts at this node, and at the others.
const OWN_IDENTITY_TWICE: &str = "another process has the identity of this node";
const IDENTITY_TWICE: &str = "two processes have one identity";
const REMEDY: &str = "stop one of the two, and give it a data directory and a node key of its own";

/// Links that a link of another process with the same identity has replaced, oldest first.
#[derive(Default)]
pub(super) struct Superseded {
    links: Vec<Link>,
}

impl Superseded {
    fn keep(&mut self, link: Link) {
        if self.links.len() == SUPERSEDED_MAX {
            self.links.remove(0).close(code::DUPLICATE, "another connection of this pair stays");
        }
        self.links.push(link);
    }

    fn take(&mut self, link: u64) -> Option<Link> {
        let at = self.links.iter().position(|kept| kept.id == link)?;
        Some(self.links.remove(at))
    }

    /// Removes a closed connection.
    pub(super) fn forget(&mut self, link: u64) {
        self.links.retain(|kept| kept.id != link);
    }

    /// The replaced links, which have to answer.
    pub(super) fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    /// Closes the replaced links of a peer.
    pub(super) fn close(&mut self, peer: NodeId, code: u32, words: &str) {
        self.links.extract_if(.., |link| link.peer == peer).for_each(|link| link.close(code, words));
    }

    pub(super) fn close_all(&mut self, code: u32, words: &str) {
        self.links.drain(..).for_each(|link| link.close(code, words));
    }
}

impl Driver {
    /// Keeps a link that a newer one of the peer replaces.
    pub(super) fn replaced(&mut self, mut old: Link, new: &NewLink) {
        if old.process == new.process || old.connection.close_reason().is_some() {
            old.close(code::DUPLICATE, "another connection of this pair stays");
            return;
        }
        old.end_groups();
        old.push_node(NodeFrame::SameIdentity { process: new.process, address: new.remote() });
        self.superseded.keep(old);
    }

    /// Notes that the process at the other end of a replaced link runs, beside the one that replaced it.
    pub(super) fn present(&mut self, peer: NodeId, link: u64) {
        let Some(old) = self.superseded.take(link) else { return };
        let (process, address) = (old.process, old.remote());
        old.close(code::DUPLICATE, "another connection of this pair stays");
        let Some(current) = self.peers.get(&peer).filter(|current| current.process != process) else { return };
        current.push_node(NodeFrame::SameIdentity { process, address });
        let other = current.remote();
        let text = format_args!(
            "{IDENTITY_TWICE}, that of node {peer}: at {address} and at {other}; the one that was started later ends: {REMEDY}"
        );
        self.links.repeats.say(Level::ERROR, IDENTITY_TWICE, Source::Node(peer), text);
    }

    /// Another process has this node's identity, as a peer or this node itself has detected.
    pub(super) fn told_same_identity(&mut self, by: NodeId, process: u64, address: SocketAddr) {
        if let Some(link) = self.peers.get(&by) {
            link.push_node(NodeFrame::Present);
        }
        if process == self.links.process || self.trust.expelled.is_some() {
            return;
        }
        let ends = self.links.process > process;
        let what = if ends { "this one, started later, ends" } else { "that one, started later, is to end" };
        let me = self.me;
        let text = format_args!("{OWN_IDENTITY_TWICE}, {me}: at {address}; {what}: {REMEDY}");
        self.links.repeats.say(Level::ERROR, OWN_IDENTITY_TWICE, Source::Node(by), text);
        if ends {
            self.expel(Expelled::SameIdentity);
            for link in self.peers.values() {
                link.close(code::SAME_IDENTITY, SAME_IDENTITY_WORDS);
            }
        }
    }
}
