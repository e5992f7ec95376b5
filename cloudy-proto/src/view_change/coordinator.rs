//! The coordinator's side of a view change: wedge, collect the answers, fix the cut (`protocol.md` §6.2).

use std::sync::Arc;

use crate::id::NodeId;
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
    /// When the silent are dropped.
    pub(crate) wedge_ends_at: Time,
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
            wedge_ends_at: now + view.parameters.wedge_timeout,
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
        self.answers.iter_mut().for_each(|answer| *answer = None);
    }

    pub(crate) fn answered(&self, node: NodeId) -> bool {
        self.view.rank_of(node).is_some_and(|rank| self.answers[rank.at()].is_some())
    }
}
