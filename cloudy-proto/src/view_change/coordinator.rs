//! The coordinator's side of a view change: wedge, collect the answers, fix the cut (`protocol.md` §6.2).

use std::sync::Arc;

use crate::id::{NodeId, Rank, ViewId};
use crate::time::Time;
use crate::view::View;
use crate::wire::Wedged;

/// A view change under way.
#[derive(Debug)]
pub(crate) struct ViewChange {
    pub(crate) view: Arc<View>,
    /// No view is to follow the one that it installs.
    pub(crate) last: bool,
    /// By rank.
    pub(crate) answers: Vec<Option<Wedged>>,
    /// By rank: it has said that it syncs what it has, and will answer.
    wedging: Vec<bool>,
    /// When the silent are dropped.
    pub(crate) wedge_ends_at: Time,
    /// When those are dropped that still sync.
    sync_ends_at: Time,
    /// Too few would have been left: members say what they find at this moment.
    pub(crate) again: bool,
    /// The cut was proposed.
    pub(crate) proposed: bool,
}

/// An answer to `Wedge` that cannot be: the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("it is not a member of the view that is wedged")]
    NotAMember,
    #[error("its run is not the one that the ring lists")]
    OtherRun,
    #[error("it names {named} lanes where the view has {lanes}")]
    Lanes { named: usize, lanes: usize },
}

impl ViewChange {
    pub(crate) fn new(view: Arc<View>, last: bool, now: Time) -> Self {
        Self {
            answers: vec![None; view.members()],
            wedging: vec![false; view.members()],
            wedge_ends_at: now + view.parameters.wedge_timeout,
            sync_ends_at: now + view.parameters.sync_timeout,
            again: false,
            proposed: false,
            last,
            view,
        }
    }

    /// Takes a member's answer; one for another view, or a second one, changes nothing.
    pub(crate) fn answer(&mut self, from: NodeId, wedged: Wedged) -> Result<(), AnswerError> {
        if wedged.view != self.view.id {
            return Ok(());
        }
        let rank = self.view.rank_of(from).ok_or(AnswerError::NotAMember)?;
        if self.view.member(rank).incarnation != wedged.incarnation {
            return Err(AnswerError::OtherRun);
        }
        if wedged.frontiers.len() != self.view.members() {
            return Err(AnswerError::Lanes { named: wedged.frontiers.len(), lanes: self.view.members() });
        }
        self.answers[rank.at()].get_or_insert(wedged);
        Ok(())
    }

    /// Forgets the answers.
    pub(crate) fn ask_again(&mut self, now: Time) {
        self.again = true;
        self.wedge_ends_at = now + self.view.parameters.wedge_timeout;
        self.sync_ends_at = now + self.view.parameters.sync_timeout;
        self.wedging.iter_mut().for_each(|wedging| *wedging = false);
        self.answers.iter_mut().for_each(|answer| *answer = None);
    }

    /// A member syncs what it has before it answers.
    pub(crate) fn syncs(&mut self, from: NodeId, view: ViewId) {
        if let Some(rank) = self.view.rank_of(from).filter(|_| view == self.view.id) {
            self.wedging[rank.at()] = true;
        }
    }

    /// Another run of a node has begun: what an earlier one answered is void, and it is asked again.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(rank) = self.view.rank_of(node) {
            self.answers[rank.at()] = None;
            self.wedging[rank.at()] = false;
        }
    }

    /// The time for an answer is over.
    pub(crate) fn is_overdue(&self, rank: Rank, now: Time) -> bool {
        now >= if self.wedging[rank.at()] { self.sync_ends_at } else { self.wedge_ends_at }
    }

    pub(crate) fn answered(&self, node: NodeId) -> bool {
        self.view.rank_of(node).is_some_and(|rank| self.answers[rank.at()].is_some())
    }
}
