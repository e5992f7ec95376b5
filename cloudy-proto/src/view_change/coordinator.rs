//! The coordinator's side of the last view change: wedge, collect the answers, fix the cut, then collect the reports
//! (`protocol.md` §6.2, §9 STOP).

use std::sync::Arc;

use crate::id::{NodeId, Rank};
use crate::time::Time;
use crate::view::View;
use crate::wire::Wedged;

/// A view change under way.
#[derive(Debug)]
pub(crate) struct LastChange {
    pub(crate) view: Arc<View>,
    /// By rank.
    pub(crate) answers: Vec<Option<Wedged>>,
    /// By rank: its result is complete.
    reported: Vec<bool>,
    /// When the silent are dropped.
    pub(crate) wedge_ends_at: Time,
    /// The cut was proposed.
    pub(crate) proposed: bool,
    /// When those who have not reported are no longer waited for; set once the last view is in force.
    pub(crate) linger_ends_at: Option<Time>,
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

impl LastChange {
    pub(crate) fn new(view: Arc<View>, now: Time) -> Self {
        Self {
            answers: vec![None; view.members()],
            reported: vec![false; view.members()],
            wedge_ends_at: now + view.parameters.wedge_timeout,
            proposed: false,
            linger_ends_at: None,
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

    pub(crate) fn all_answered(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    /// Those who gave no answer.
    pub(crate) fn silent(&self) -> Vec<NodeId> {
        let ranks = self.view.ranks().filter(|rank| self.answers[rank.at()].is_none());
        ranks.map(|rank| self.view.member(rank).node).collect()
    }

    /// Notes that a member's result is complete; false if it had said so before, or is no member.
    pub(crate) fn report(&mut self, from: NodeId) -> bool {
        let Some(rank) = self.view.rank_of(from) else { return false };
        !core::mem::replace(&mut self.reported[rank.at()], true)
    }

    pub(crate) fn all_reported(&self) -> bool {
        self.reported.iter().all(|&reported| reported)
    }

    /// Those who have not reported, by rank.
    pub(crate) fn unreported(&self) -> impl Iterator<Item = Rank> + '_ {
        self.view.ranks().filter(|rank| !self.reported[rank.at()])
    }
}
