//! Bounds on the nodes that the control log remembers: the cost of a group's operations is the same after any number of
//! process starts (`protocol.md` §6).

use super::ControlState;
use crate::id::{Incarnation, NodeId};
use crate::limits::{EVICTED_REMEMBERED_MAX, OTHERS_REMEMBERED_MAX};

impl ControlState {
    /// Forgets the nodes with the oldest incarnations, beyond the log's bounds. Members of the ring, voters and the
    /// creator stay. Every node that applies the log forgets the same.
    pub(super) fn forget_surplus(&mut self) {
        if self.incarnations.len() > OTHERS_REMEMBERED_MAX {
            let (evicted, others): (Vec<_>, Vec<_>) =
                self.unused().partition(|(_, node)| self.members_ever.contains(node) && !self.left.contains(node));
            self.forget_oldest(evicted, EVICTED_REMEMBERED_MAX);
            self.forget_oldest(others, OTHERS_REMEMBERED_MAX);
        }
        self.forget_streams();
    }

    /// Nodes that nothing in the state refers to.
    fn unused(&self) -> impl Iterator<Item = (Incarnation, NodeId)> {
        let is_member = |node| self.view.as_ref().is_some_and(|view| view.rank_of(node).is_some());
        let votes = |node| self.electors.values().any(|(elector, _)| *elector == node);
        let all = self.incarnations.iter().map(|(node, (incarnation, _))| (*incarnation, *node));
        all.filter(move |(_, node)| !is_member(*node) && !votes(*node) && self.creator != Some(*node))
    }

    fn forget_oldest(&mut self, mut nodes: Vec<(Incarnation, NodeId)>, remembered_max: usize) {
        let surplus = nodes.len().saturating_sub(remembered_max);
        if surplus == 0 {
            return;
        }
        nodes.select_nth_unstable(surplus - 1);
        for (_, node) in &nodes[..surplus] {
            self.incarnations.remove(node);
            self.members_ever.remove(node);
            self.left.remove(node);
        }
    }

    /// Forgets random streams whose incarnations cannot return to the ring; the last stream stays, because the next one
    /// follows it.
    pub(super) fn forget_streams(&mut self) {
        let last = self.streams.values().max().copied();
        let (view, incarnations) = (self.view.as_ref(), &self.incarnations);
        self.streams.retain(|(node, run), stream| {
            let is_latest = incarnations.get(node).is_some_and(|(latest, _)| latest == run);
            Some(*stream) == last || is_latest || view.is_some_and(|view| view.rank_of_run(*node, *run).is_some())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Dropped, InstallView};
    use crate::config::Parameters;
    use crate::control::state::Applied;
    use crate::id::{LogIndex, ViewId};
    use crate::limits::{FORGET_EVERY, LOG_STATE_BYTES_MAX};
    use crate::rules::Rules;
    use crate::view::{Origin, RingMember};
    use crate::wire::{decode_log_state, encode_command, encode_log_state};

    fn node(at: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(at as u64).to_be_bytes());
        NodeId(id)
    }

    fn apply(state: &mut ControlState, command: &Command) -> Applied {
        state.apply(encode_command(command)).expect("a command")
    }

    fn starts(state: &mut ControlState, at: usize) {
        apply(state, &Command::Incarnate { node: node(at), run: at as u64 });
    }

    fn install(state: &mut ControlState, ring: &[usize], dropped: &[(usize, Dropped)]) {
        let from = state.view().map_or(ViewId(0), |view| view.id);
        let member = |at: &usize| RingMember {
            node: node(*at),
            incarnation: state.incarnation(node(*at)).expect("it started"),
            origin: Origin::Joiner,
            addresses: vec![],
            advertised: None,
        };
        let ring = ring.iter().map(member).collect();
        let dropped = dropped.iter().map(|(at, why)| (node(*at), *why)).collect();
        let parameters = Parameters { session: true, ..Parameters::default() };
        let install = InstallView { from, ring, parameters, cut: vec![], last: false, dropped };
        assert!(matches!(apply(state, &Command::InstallView(install)), Applied::Installed { .. }));
    }

    /// A group whose creator is node 0 and whose member is node 1.
    fn created() -> ControlState {
        let mut state = ControlState::default();
        apply(&mut state, &Command::Created { creator: node(0) });
        starts(&mut state, 1);
        install(&mut state, &[1], &[]);
        state
    }

    #[test]
    fn a_state_is_as_long_after_any_number_of_process_starts() {
        let mut state = created();
        let bytes = |state: &ControlState| encode_log_state(&state.log_state()).len();
        (2..2_000).for_each(|at| starts(&mut state, at));
        let after_some = bytes(&state);
        (2_000..100_000).for_each(|at| starts(&mut state, at));
        // Incarnations and names of more bytes.
        let more = 4 * (OTHERS_REMEMBERED_MAX + FORGET_EVERY as usize);
        assert!(bytes(&state) < after_some + more, "{} bytes, {after_some} after 2,000 starts", bytes(&state));
        assert_eq!(state.incarnation(node(1)).map(|incarnation| incarnation.0), Some(2), "a member stays");
        assert!(state.incarnation(node(99_999)).is_some() && state.incarnation(node(5_000)).is_none());
    }

    #[test]
    fn a_node_that_begins_with_a_state_forgets_the_same() {
        let mut whole = created();
        (2..500).for_each(|at| starts(&mut whole, at));
        let (index, encoded) = (LogIndex(whole.next().0 - 1), encode_log_state(&whole.log_state()));
        let state = decode_log_state(&encoded).expect("a state");
        let mut resumed = ControlState::resumed(Rules::default(), index, state, encoded);
        (500..1_500).for_each(|at| [&mut whole, &mut resumed].into_iter().for_each(|state| starts(state, at)));
        assert_eq!(whole.log_state(), resumed.log_state());
    }

    #[test]
    fn of_members_that_come_and_go_the_oldest_are_forgotten_and_newcomers_push_out_none() {
        let mut state = created();
        let last = EVICTED_REMEMBERED_MAX + 3;
        for at in 2..=last {
            starts(&mut state, at);
            install(&mut state, &[1, at], &[]);
            install(&mut state, &[1], &[(at, Dropped::Silent)]);
        }
        (10_000..12_000).for_each(|at| starts(&mut state, at));
        state.forget_surplus();
        let known = |at| state.was_member(node(at)) && state.incarnation(node(at)).is_some();
        assert_eq!([1, 2, 3, 4, last].map(known), [true, false, false, true, true]);
        let stream = |at| state.incarnation(node(at)).and_then(|run| state.stream(node(at), run));
        assert_eq!((stream(4), stream(last)), (Some(3), Some(last as u64 - 1)), "streams are those of before");
    }

    #[test]
    fn a_member_that_left_is_forgotten_before_one_that_was_evicted() {
        let mut state = created();
        for (at, why) in [(2, Dropped::Silent), (3, Dropped::Left)] {
            starts(&mut state, at);
            install(&mut state, &[1, at], &[]);
            install(&mut state, &[1], &[(at, why)]);
        }
        (10_000..10_000 + OTHERS_REMEMBERED_MAX).for_each(|at| starts(&mut state, at));
        state.forget_surplus();
        assert_eq!([2, 3].map(|at| state.was_member(node(at))), [true, false]);
    }

    #[test]
    fn a_state_that_remembers_all_it_may_is_within_its_bound() {
        let mut state = created();
        for at in 2..2 + EVICTED_REMEMBERED_MAX {
            starts(&mut state, at);
            install(&mut state, &[1, at], &[]);
        }
        (10_000..10_000 + OTHERS_REMEMBERED_MAX).for_each(|at| starts(&mut state, at));
        for at in 1..2 + EVICTED_REMEMBERED_MAX {
            let report = bytes::Bytes::from(vec![0; crate::limits::REPORT_BYTES_MAX]);
            let command = Command::Report { node: node(at), result: Default::default(), report };
            assert!(matches!(apply(&mut state, &command), Applied::Reported { .. }), "{at}");
        }
        let bytes = encode_log_state(&state.log_state()).len();
        assert!(bytes < LOG_STATE_BYTES_MAX * 3 / 4, "{bytes} bytes, and the widest ring has yet to be named");
    }
}
