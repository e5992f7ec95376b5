//! The coordinator's side of a view change: wedge, collect the answers, fix the cut (`protocol.md` §6.2).

use std::sync::Arc;

use crate::id::{NodeId, Rank, ViewId};
use crate::time::Time;
use crate::view::View;
use crate::wire::Wedged;

/// A view change in progress.
#[derive(Debug)]
pub(crate) struct ViewChange {
    view: Arc<View>,
    /// Whether no view follows the one that it installs.
    last: bool,
    /// By rank.
    answers: Vec<Option<Wedged>>,
    /// By rank: whether it has reported that it syncs, and will answer.
    wedging: Vec<bool>,
    /// By rank: whether its result differs from the others', so that it has no part in the cut.
    left_out: Vec<bool>,
    /// By rank: whether its link went down after it answered.
    parted: Vec<bool>,
    /// The time of the request to wedge.
    asked_at: Time,
    /// The time until which nothing is decided, because this process was stopped: earlier reports and links do not show
    /// which nodes live.
    undecided_until: Time,
    /// Whether too few would have been left: members report their findings of this moment.
    again: bool,
    /// Whether the cut was proposed.
    proposed: bool,
}

/// The reason for which an answer to `Wedge` is impossible: the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("it is not a member of the view that is wedged")]
    NotAMember,
    #[error("its incarnation is not the one that the ring lists")]
    OtherRun,
    #[error("it names {named} lanes where the view has {lanes}")]
    Lanes { named: usize, lanes: usize },
}

impl ViewChange {
    pub(crate) fn new(view: Arc<View>, last: bool, now: Time) -> Self {
        Self {
            answers: vec![None; view.members()],
            wedging: vec![false; view.members()],
            left_out: vec![false; view.members()],
            parted: vec![false; view.members()],
            asked_at: now,
            undecided_until: now,
            again: false,
            proposed: false,
            last,
            view,
        }
    }

    /// The view that is wedged.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Whether no view follows the one that it installs.
    pub(crate) fn is_last(&self) -> bool {
        self.last
    }

    /// Makes no view follow the one that it installs. True if that is new, and the next view was not proposed yet.
    pub(crate) fn become_last(&mut self) -> bool {
        let is_news = !self.proposed && !self.last;
        self.last |= is_news;
        is_news
    }

    /// By rank.
    pub(crate) fn answers(&self) -> &[Option<Wedged>] {
        &self.answers
    }

    pub(crate) fn answer_of(&self, rank: Rank) -> Option<&Wedged> {
        self.answers[rank.at()].as_ref()
    }

    /// The time of the request to wedge the view.
    pub(crate) fn asked_at(&self) -> Time {
        self.asked_at
    }

    /// Whether the members received repeated requests, and report their findings of this moment.
    pub(crate) fn is_repeated(&self) -> bool {
        self.again
    }

    /// Whether the next view was proposed.
    pub(crate) fn is_proposed(&self) -> bool {
        self.proposed
    }

    pub(crate) fn propose(&mut self) {
        self.proposed = true;
    }

    /// Decides nothing before a time, because this process was stopped.
    pub(crate) fn wait_until(&mut self, until: Time) {
        self.undecided_until = until;
    }

    /// Whether nothing is decided at a time.
    pub(crate) fn waits_at(&self, now: Time) -> bool {
        self.undecided_until > now
    }

    /// Handles a member's answer. One for another view changes nothing, and a second one only if the member is complete
    /// by then.
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
        if self.left_out[rank.at()] {
            return Ok(());
        }
        self.parted[rank.at()] = false;
        let known = &mut self.answers[rank.at()];
        if known.as_ref().is_none_or(|known| wedged.complete && !known.complete) {
            *known = Some(wedged);
        }
        Ok(())
    }

    /// Forgets the answers.
    pub(crate) fn ask_again(&mut self, now: Time) {
        self.again = true;
        self.asked_at = now;
        self.wedging.iter_mut().for_each(|wedging| *wedging = false);
        self.answers.iter_mut().for_each(|answer| *answer = None);
        self.parted.iter_mut().for_each(|parted| *parted = false);
    }

    /// Notes that the link of a member went down: if it has answered, it receives another request once it is back.
    pub(crate) fn part(&mut self, node: NodeId) {
        if let Some(rank) = self.view.rank_of(node) {
            self.parted[rank.at()] = self.answers[rank.at()].is_some();
        }
    }

    /// Whether a member has answered, and its link has not gone down later.
    pub(crate) fn is_in_reach(&self, rank: Rank) -> bool {
        !self.parted[rank.at()]
    }

    /// Notes that a member syncs before it answers.
    pub(crate) fn syncs(&mut self, from: NodeId, view: ViewId) {
        if let Some(rank) = self.view.rank_of(from).filter(|_| view == self.view.id) {
            self.wedging[rank.at()] = true;
        }
    }

    /// Notes another incarnation of a node: the answer of an earlier one is void, and it receives another request.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(rank) = self.view.rank_of(node) {
            self.answers[rank.at()] = None;
            (self.wedging[rank.at()], self.left_out[rank.at()]) = (false, false);
            self.parted[rank.at()] = false;
        }
    }

    /// Excludes a member whose result differs from the others': its answers do not count.
    pub(crate) fn leave_out(&mut self, node: NodeId) {
        if let Some(rank) = self.view.rank_of(node) {
            self.answers[rank.at()] = None;
            self.left_out[rank.at()] = true;
        }
    }

    /// Whether a member has not answered on its present link, and its answer would count.
    pub(crate) fn awaits_answer(&self, rank: Rank) -> bool {
        (self.answers[rank.at()].is_none() || self.parted[rank.at()]) && !self.left_out[rank.at()]
    }

    /// Whether a member has not answered on its present link; or was not complete when it did, may be by now, and no
    /// complete member has answered.
    pub(crate) fn awaits(&self, node: NodeId) -> bool {
        let answer = |rank: Rank| self.answers[rank.at()].as_ref().filter(|_| self.is_in_reach(rank));
        let complete = self.view.ranks().any(|rank| answer(rank).is_some_and(|answer| answer.complete));
        let answered = |rank: Rank| answer(rank).is_some_and(|answer| answer.complete || complete);
        self.view.rank_of(node).is_some_and(|rank| !answered(rank) && !self.left_out[rank.at()])
    }

    /// Whether a member has reported that it will answer.
    pub(crate) fn is_wedging(&self, node: NodeId) -> bool {
        self.view.rank_of(node).is_some_and(|rank| self.wedging[rank.at()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::digest::Digest;
    use crate::id::{Incarnation, Index, Round};
    use crate::view::{Origin, Place, RingMember};
    use crate::wire::Findings;

    #[test]
    fn incomplete_members_are_queried_again_until_one_is_complete() {
        let member = |node| RingMember {
            node: NodeId([node; 32]),
            incarnation: Incarnation(u64::from(node)),
            origin: Origin::Joiner,
            addresses: vec![],
            advertised: None,
        };
        let view =
            View { id: ViewId(1), ring: (1..=3).map(member).collect(), parameters: Parameters::default(), last: false };
        let mut change = ViewChange::new(Arc::new(view), false, Time(0));
        let answer = |node: u8, complete| Wedged {
            view: ViewId(1),
            incarnation: Incarnation(u64::from(node)),
            frontiers: vec![Round(0); 3],
            complete,
            first: Index(u64::from(complete)),
            digest: Digest(0),
            cursor: Place::default(),
            findings: Findings::default(),
        };
        let awaited = |change: &ViewChange| [1, 2, 3].map(|node| change.awaits(NodeId([node; 32])));
        assert_eq!(awaited(&change), [true; 3]);
        assert_eq!(change.answer(NodeId([1; 32]), answer(1, false)), Ok(()));
        assert_eq!(awaited(&change), [true; 3], "it may be complete by now");
        assert_eq!(change.answer(NodeId([2; 32]), answer(2, false)), Ok(()));
        assert_eq!(change.answer(NodeId([2; 32]), answer(2, true)), Ok(()));
        assert_eq!(awaited(&change), [false, false, true], "one is enough");
        assert_eq!(change.answer(NodeId([2; 32]), answer(2, false)), Ok(()));
        assert!(change.answers[1].as_ref().is_some_and(|answer| answer.complete), "what was complete stays so");
        change.part(NodeId([2; 32]));
        assert_eq!(awaited(&change), [true; 3], "it may be gone");
        assert_eq!(change.answer(NodeId([2; 32]), answer(2, true)), Ok(()));
        assert_eq!(awaited(&change), [false, false, true], "it is back");
        let stranger = change.answer(NodeId([4; 32]), answer(4, true));
        assert_eq!(stranger, Err(AnswerError::NotAMember));
    }
}
