//! The times of approvals at a node.

use std::collections::VecDeque;

use cloudy_node::{NodeId, ViewId};

use crate::bench::orders::{Failed, Span};

/// The time for which approvals are kept.
const KEPT_US: u64 = 60_000_000;
/// Maximum of views that are kept: a failure causes a few.
const VIEWS_MAX: usize = 32;

/// The messages that were approved at this node, with their times.
#[derive(Default)]
pub(crate) struct History {
    /// The time, with the number of messages.
    approvals: VecDeque<(u64, u64)>,
    views: VecDeque<Seen>,
    messages: u64,
}

/// A view at this node.
struct Seen {
    id: ViewId,
    ring: Vec<NodeId>,
    /// The time of the first approval of an own message in it.
    first_own_us: Option<u64>,
}

impl History {
    /// Notes another view.
    pub(crate) fn view(&mut self, id: ViewId, ring: Vec<NodeId>) {
        if self.views.len() == VIEWS_MAX {
            self.views.pop_front();
        }
        self.views.push_back(Seen { id, ring, first_own_us: None });
    }

    /// Notes approved messages of one origin in a view.
    pub(crate) fn approved(&mut self, at_us: u64, view: ViewId, own: bool, messages: u64) {
        self.messages += messages;
        self.approvals.push_back((at_us, messages));
        while self.approvals.front().is_some_and(|(first_us, _)| first_us + KEPT_US < at_us) {
            self.approvals.pop_front();
        }
        if let Some(seen) = self.views.iter_mut().find(|seen| own && seen.id == view) {
            seen.first_own_us.get_or_insert(at_us);
        }
    }

    /// Number of messages in the result.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The present view, if it has this number of members and an own message was approved in it.
    pub(crate) fn whole(&self, members: usize) -> Option<ViewId> {
        let last = self.views.back()?;
        (last.ring.len() == members && last.first_own_us.is_some()).then_some(last.id)
    }

    /// The measurements of a failure, once it is over and the window after it has passed.
    pub(crate) fn span(&self, failed: &Failed, now_us: u64) -> Option<Span> {
        let &Failed { at_us, ref without, window_us } = failed;
        let goes_on_us = match without.as_slice() {
            // Nothing else is expected: events in the same time count.
            [] => at_us + window_us,
            without => {
                let is_without = |seen: &&Seen| without.iter().all(|node| !seen.ring.contains(node));
                let later = self.views.iter().filter(is_without).filter_map(|seen| seen.first_own_us);
                later.filter(|first_us| *first_us >= at_us).min()?
            }
        };
        let end_us = goes_on_us + window_us;
        let since = self.approvals.iter().map(|(approved_us, _)| *approved_us);
        let since: Vec<u64> =
            since.skip_while(|approved_us| *approved_us < at_us).take_while(|at| *at < end_us).collect();
        let ends = [at_us].into_iter().chain(since.iter().copied()).zip(since.iter().copied().chain([end_us]));
        (now_us >= end_us).then(|| Span {
            view: self.views.back().map_or(ViewId(0), |seen| seen.id),
            new_view_us: (!without.is_empty()).then_some(goes_on_us - at_us),
            still_us: ends.map(|(from_us, to_us)| to_us - from_us).max().unwrap_or_default(),
            before_per_s: self.rate(at_us.saturating_sub(window_us), at_us),
            during_per_s: self.rate(at_us, goes_on_us),
            after_per_s: self.rate(goes_on_us, end_us),
        })
    }

    fn rate(&self, from_us: u64, to_us: u64) -> f64 {
        let inside = self.approvals.iter().filter(|(at_us, _)| (from_us..to_us).contains(at_us));
        inside.map(|(_, messages)| messages).sum::<u64>() as f64 * 1e6 / to_us.saturating_sub(from_us).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];

    /// A hundred messages a second until 2 s, nothing until 2.8 s, then others' in view 1, and own ones in view 2.
    fn history() -> History {
        let mut history = History::default();
        history.view(ViewId(1), NODES.to_vec());
        (1..=200).for_each(|at| history.approved(at * 10_000, ViewId(1), true, 1));
        history.approved(2_800_000, ViewId(1), false, 7);
        history.view(ViewId(2), NODES[..2].to_vec());
        history.approved(2_810_000, ViewId(2), false, 1);
        (0..100).for_each(|at| history.approved(2_820_000 + at * 10_000, ViewId(2), true, 2));
        history
    }

    #[test]
    fn a_failure_lasts_until_an_own_message_is_approved_in_a_view_without_those_that_failed() {
        let failed = Failed { at_us: 2_005_000, without: vec![NODES[2]], window_us: 500_000 };
        let history = history();
        assert_eq!(history.span(&failed, 3_319_999), None);
        let span = history.span(&failed, 3_320_000).expect("it is over");
        assert_eq!((span.view, span.new_view_us, span.still_us), (ViewId(2), Some(815_000), 795_000));
        assert_eq!((span.before_per_s, span.after_per_s), (100.0, 200.0));
        assert_eq!(span.during_per_s.round(), 10.0);
        assert_eq!(history.span(&Failed { without: vec![NODES[1]], ..failed }, 9_000_000), None);
    }

    #[test]
    fn a_failure_without_a_view_change_ends_after_its_duration() {
        let failed = Failed { at_us: 1_000_000, without: Vec::new(), window_us: 500_000 };
        let span = history().span(&failed, 2_000_000).expect("it is over");
        assert_eq!((span.new_view_us, span.still_us), (None, 10_000));
        assert_eq!((span.before_per_s, span.during_per_s, span.after_per_s), (100.0, 100.0, 100.0));
    }

    #[test]
    fn silence_to_the_end_counts() {
        let mut history = History::default();
        history.view(ViewId(1), NODES.to_vec());
        history.approved(1_000, ViewId(1), true, 1);
        let failed = Failed { at_us: 2_000, without: Vec::new(), window_us: 500 };
        assert_eq!(history.span(&failed, 3_000).map(|span| span.still_us), Some(1_000));
    }

    #[test]
    fn a_group_is_whole_once_an_own_message_is_approved_by_so_many() {
        let mut history = history();
        assert_eq!((history.whole(2), history.whole(3), history.messages()), (Some(ViewId(2)), None, 408));
        history.view(ViewId(3), NODES.to_vec());
        assert_eq!(history.whole(3), None);
        history.approved(9_000_000, ViewId(3), true, 1);
        assert_eq!(history.whole(3), Some(ViewId(3)));
    }
}
