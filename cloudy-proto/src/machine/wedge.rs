//! A member's side of a view change: its findings against others, the freeze of the view, and its answer (`protocol.md`
//! §6.1, §6.2).

use crate::config::OnFailure;
use crate::id::{Index, NodeId, ViewId};
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::member::Member;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::stored::Record;
use crate::time::Time;
use crate::wire::{ControlFrame, Wedged};

/// Handles the requests of a view change to this node as a member of the view.
pub(super) struct WedgeHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) now: Time,
}

/// A member's answer to a request to wedge its view.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Its disk is syncing. The other answer follows.
    Syncing(ViewId),
    Wedged(Wedged),
}

impl Answer {
    pub(super) fn into_frame(self) -> ControlFrame {
        match self {
            Self::Syncing(view) => ControlFrame::Wedging { view },
            Self::Wedged(wedged) => ControlFrame::Wedged(wedged),
        }
    }
}

impl WedgeHandler<'_> {
    fn timeouts(&self) -> Timeouts<'_> {
        Timeouts::new(self.identity, self.log, self.peers, self.storage, self.now)
    }

    /// Finds members that have failed or stalled. Returns those that have failed after the last call; none if there is
    /// nothing new to report.
    pub(super) fn suspect(&mut self) -> Option<Vec<NodeId>> {
        let limits = self.timeouts().limits(&self.plane.member()?.view);
        let member = self.plane.member_mut().filter(|member| !member.is_wedged())?;
        let known = member.findings().down.len();
        let evicts = member.view.parameters.on_failure == OnFailure::Evict;
        let has_news = evicts && member.suspect(&limits, self.now);
        let nodes = |member: &Member| {
            member.findings().down[known..].iter().map(|rank| member.view.member(*rank).node).collect()
        };
        has_news.then(|| nodes(member))
    }

    /// Freezes a view with this node, or an earlier incarnation of it, as a member. False if there is no such view.
    /// `again`: its findings against others are those of this moment.
    pub(super) fn freeze(&mut self, view: ViewId, again: bool) -> bool {
        if !self.plane.is_member() && !self.identity.rules.holds(Rule::StaleMemberIsVoid) {
            let listed = self.log.state().view().and_then(|view| Some((view, view.rank_of(self.identity.me)?)));
            let rules = self.identity.rules;
            let with_nothing = listed.map(|(view, rank)| Member::former(view, rank, Some(Index(1)), self.now, rules));
            if self.plane.former().is_none() {
                with_nothing.into_iter().for_each(|member| self.plane.enter_as_former(member));
            }
        }
        let limits = self.plane.place().map(|member| self.timeouts().limits(&member.view)).unwrap_or_default();
        // Until the log lists this process, its answer would count as that of the earlier incarnation.
        let known = self.log.state().is_latest_run(self.identity.me, self.identity.run) || !self.identity.is_restored;
        let member = self.plane.place_mut(known).filter(|member| member.view.id == view);
        let Some(member) = member else { return false };
        if again {
            member.find_again(&limits, self.now);
        }
        member.wedge();
        if self.plane.on_wedged(view) {
            self.storage.records.keep(Record::Wedged { view });
        }
        true
    }

    /// Answers a request to wedge a view that is frozen here: with everything that this node holds once that is synced,
    /// and until then with the report that it syncs.
    pub(super) fn answer_once_synced(&mut self, to: NodeId, view: ViewId) -> Option<Answer> {
        let is_synced = self.storage.syncs.on_wedge_request(to, view, &self.storage.records);
        if self.identity.rules.holds(Rule::AnswerIsSynced) && !is_synced {
            return Some(Answer::Syncing(view));
        }
        self.due_answer().map(|(_, answer)| answer)
    }

    /// The answer that waited for the disk, once it is due, and the node that requested it.
    pub(super) fn due_answer(&mut self) -> Option<(NodeId, Answer)> {
        let waits = self.identity.rules.holds(Rule::AnswerIsSynced);
        let (to, view) = self.storage.syncs.take_wedge_request(waits)?;
        Some((to, Answer::Wedged(self.held(view)?)))
    }

    /// This node's answer for a view that it has frozen.
    fn held(&self, view: ViewId) -> Option<Wedged> {
        let member = self.plane.place().filter(|member| member.view.id == view)?;
        let (incarnation, frontiers) = (member.incarnation(), member.frontiers());
        let (first, complete) = (member.first(), member.is_complete());
        let digest = self.result.state().end_before(first).digest;
        let (cursor, mut findings) = (member.cursor(), member.findings().clone());
        if member.view.parameters.adapts() {
            findings.quiet = member.quiet(&self.timeouts().limits(&member.view), self.now);
        }
        Some(Wedged { view, incarnation, frontiers, complete, first, digest, cursor, findings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Durability, Parameters};
    use crate::id::Round;
    use crate::io::{Input, Output};
    use crate::machine::tests::{COORDINATOR, MEMBER, alone, drain, pair};

    #[test]
    fn a_member_freezes_only_its_own_view_and_answers_with_its_frontiers() {
        let (_, mut member) = pair(Parameters::default());
        assert!(!member.wedge().freeze(ViewId(2), false), "no such view");
        assert!(
            member.wedge().freeze(ViewId(1), false) && member.wedge().freeze(ViewId(1), false),
            "any number of times"
        );
        let answer = member.wedge().answer_once_synced(COORDINATOR, ViewId(1));
        let Some(Answer::Wedged(wedged)) = answer else { panic!("{answer:?}") };
        assert_eq!((wedged.view, wedged.frontiers, wedged.complete), (ViewId(1), vec![Round(0); 2], true));
        assert_eq!(member.wedge().due_answer(), None, "it is given once");
        assert_eq!(member.wedge().suspect(), None, "a frozen view finds nothing");
    }

    #[test]
    fn an_answer_waits_for_the_disk() {
        let mut machine = alone(Parameters { durability: Durability::Disk, ..Parameters::default() });
        assert!(machine.wedge().freeze(ViewId(1), false));
        assert_eq!(machine.wedge().answer_once_synced(MEMBER, ViewId(1)), Some(Answer::Syncing(ViewId(1))));
        machine.handle(machine.timers.now(), Input::Timeout);
        let tickets = drain(&mut machine).into_iter().filter_map(|output| match output {
            Output::Persist { ticket, .. } => Some(ticket),
            _ => None,
        });
        let ticket = tickets.last().expect("it stores that the view is wedged");
        assert_eq!(machine.wedge().due_answer(), None);
        machine.on_persisted(ticket);
        // This node coordinates: an answer to another node is void by then.
        assert!(
            machine
                .wedge()
                .answer_once_synced(MEMBER, ViewId(1))
                .is_some_and(|answer| answer != Answer::Syncing(ViewId(1)))
        );
    }
}
