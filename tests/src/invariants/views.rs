//! What is known of each view: lanes, wedges and results of one have nothing to do with those of another.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudy_proto::{View, ViewId};

use super::lanes::Lanes;
use super::wedge::Wedges;

/// One view, from the moment that somebody has installed it.
#[derive(Debug)]
pub(super) struct ViewLog {
    pub(super) view: Arc<View>,
    /// By rank: the node's place.
    pub(super) ring: Vec<usize>,
    pub(super) lanes: Lanes,
    pub(super) wedges: Wedges,
    /// The place of the last slot that entered a result by the walk.
    pub(super) walked: Option<(u64, usize)>,
    /// Where it begins, as the first complete member said.
    pub(super) first: Option<u64>,
}

impl ViewLog {
    pub(super) fn new(view: Arc<View>, ring: Vec<usize>, nodes: usize) -> Self {
        let (lanes, wedges) = (Lanes::new(nodes, ring.len()), Wedges::new(nodes, ring.len()));
        Self { view, ring, lanes, wedges, walked: None, first: None }
    }

    pub(super) fn rank_of(&self, node: usize) -> Option<usize> {
        self.ring.iter().position(|&member| member == node)
    }
}

/// All views, by id.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<ViewId, ViewLog>);

impl Views {
    pub(super) fn get(&self, view: ViewId) -> Option<&ViewLog> {
        self.0.get(&view)
    }

    pub(super) fn get_mut(&mut self, view: ViewId) -> Option<&mut ViewLog> {
        self.0.get_mut(&view)
    }

    pub(super) fn insert(&mut self, log: ViewLog) {
        self.0.insert(log.view.id, log);
    }

    pub(super) fn latest(&self) -> Option<&ViewLog> {
        self.0.values().next_back()
    }
}
