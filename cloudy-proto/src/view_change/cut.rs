//! The cut: where the lanes of a view end (`protocol.md` §6.3).

use crate::id::{Rank, Round};
use crate::rules::{Rule, Rules};
use crate::view::View;
use crate::wire::Wedged;

/// Who goes on, and where the lanes end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) survivors: Vec<Rank>,
    pub(crate) rounds: Vec<Round>,
}

/// The cut of a view by the answers to its `Wedge`, by rank; none while no complete member has answered.
pub(crate) fn cut_of(view: &View, answers: &[Option<Wedged>], rules: Rules) -> Option<Cut> {
    let answered = || view.ranks().filter_map(|rank| answers[rank.at()].as_ref().map(|answer| (rank, answer)));
    if !answered().any(|(_, answer)| answer.complete) {
        return None;
    }
    let lane_end = |lane: Rank| {
        let frontiers = answered().map(|(_, answer)| answer.frontiers[lane.at()]);
        if rules.hold(Rule::CutAtMinimum) { frontiers.min() } else { frontiers.max() }
    };
    let rounds = view.ranks().map(|lane| lane_end(lane).unwrap_or_default()).collect();
    Some(Cut { survivors: answered().map(|(rank, _)| rank).collect(), rounds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::digest::Digest;
    use crate::id::{Incarnation, Index, NodeId, ViewId};
    use crate::view::{Origin, RingMember};

    fn view(members: u8) -> View {
        let member = |at| RingMember {
            node: NodeId([at; 32]),
            incarnation: Incarnation(u64::from(at) + 1),
            origin: Origin::Joiner,
            addresses: vec![],
        };
        View { id: ViewId(1), ring: (0..members).map(member).collect(), parameters: Parameters::default(), last: false }
    }

    fn answer(frontiers: [u64; 3], complete: bool) -> Option<Wedged> {
        Some(Wedged {
            view: ViewId(1),
            incarnation: Incarnation(1),
            frontiers: frontiers.map(Round).to_vec(),
            complete,
            first: Index(1),
            digest: Digest(0),
        })
    }

    #[test]
    fn lanes_end_at_the_minimum_of_those_who_answered() {
        let answers = [answer([5, 2, 9], true), None, answer([4, 3, 9], true)];
        let cut = cut_of(&view(3), &answers, Rules::default());
        let rounds = vec![Round(4), Round(2), Round(9)];
        assert_eq!(cut, Some(Cut { survivors: vec![Rank(0), Rank(2)], rounds }));
    }

    #[test]
    fn there_is_no_cut_without_a_complete_survivor() {
        assert_eq!(cut_of(&view(3), &[None, answer([1, 1, 1], false), None], Rules::default()), None);
        assert_eq!(cut_of(&view(3), &[None, None, None], Rules::default()), None);
    }
}
