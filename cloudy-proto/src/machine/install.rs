//! The installation of a view (`protocol.md` §6.4).

use std::sync::Arc;

use crate::command::Dropped;
use crate::delivery::Delivery;
use crate::due::Due;
use crate::id::{Index, NodeId, Rank, Round, ViewId};
use crate::io::{Event, StaleDisk};
use crate::machine::arrival::Arrival;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::delivery;
use crate::machine::identity::Identity;
use crate::machine::join::Joining;
use crate::machine::peers::Peers;
use crate::machine::storage::Storage;
use crate::machine::timers::{Timer, Timers};
use crate::member::{Member, Start};
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::session::Session;
use crate::stored::Record;
use crate::view::{InstalledView, Origin, View};

/// The views before an installed one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'a> {
    /// It is the first.
    Nothing,
    /// The view so far, which ended at the cut.
    View { view: &'a View, cut: &'a [Round] },
    /// Views that this node does not know.
    Skipped,
}

/// Leads this node from the view before into one that the log installs.
pub(super) struct InstallHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) arrival: &'a mut Arrival,
    pub(super) peers: &'a mut Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) session: &'a mut Option<Session>,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
    pub(super) due: &'a mut Due,
}

/// This node's part in an installed view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installed {
    pub(super) was_member: bool,
    /// The rank of this incarnation.
    pub(super) rank: Option<Rank>,
    /// The rank of an earlier incarnation whose data are on this disk.
    former_rank: Option<Rank>,
    /// The first index of the view, if the result here reaches it.
    first: Option<Index>,
    /// Whether this node joins, and reads the result.
    reads: bool,
}

impl Installed {
    /// Whether the result here reaches the view.
    pub(super) fn is_complete(&self) -> bool {
        self.first.is_some()
    }

    /// Whether this node follows the result.
    pub(super) fn follows(&self, is_fetching: bool) -> bool {
        self.was_member || is_fetching || self.rank.is_some() || self.reads
    }
}

impl InstallHandler<'_> {
    /// Leaves the previous view, and enters the new one into the result.
    pub(super) fn begin(&mut self, view: &Arc<View>, before: Before<'_>) -> Installed {
        let me = (self.identity.me, self.identity.incarnation);
        let was_member = match before {
            Before::Nothing => false,
            Before::View { view, .. } => view.rank_of_run(me.0, me.1).is_some(),
            Before::Skipped => !self.arrival.is_joining() && self.log.state().was_member(self.identity.me),
        };
        let rank = view.rank_of_run(me.0, me.1);
        let listed = view.rank_of(self.identity.me);
        // Before the first view nothing is missing, except at a later joiner.
        let complete = match before {
            Before::Nothing => !self.arrival.is_joining() || (self.identity.was_there_first && listed.is_some()),
            Before::View { cut, .. } if self.plane.is_member() => self.leave_view(rank.is_some(), cut),
            Before::View { view: before, cut } => {
                let answered = listed.is_some_and(|rank| view.member(rank).origin != Origin::Joiner);
                let survives = answered && self.disk_knows_answer(before.id);
                self.leave_view(survives, cut)
            }
            Before::Skipped => self.leave_view(false, &[]) || !self.identity.rules.holds(Rule::SkippedViewIsIncomplete),
        };
        // The place of an earlier incarnation whose data are on this disk. Nothing is known of one that left none.
        let former_rank = listed.filter(|_| complete && self.identity.is_restored && rank.is_none());
        let first = complete.then(|| self.result.state().index().next());
        if let Some(first) = first {
            self.delivery().begin_view(InstalledView { first, view: Arc::clone(view) });
        }
        if let Some(first) = first.filter(|_| rank.or(former_rank).is_some()) {
            self.storage.records.keep(Record::Complete { view: view.id, first });
        }
        self.outputs.event(Event::ViewInstalled {
            view: Arc::clone(view),
            first: first.unwrap_or_default(),
            active: rank.is_some(),
        });
        self.timers.set(Timer::Heartbeat, self.timers.now() + view.parameters.heartbeat);
        let reads = self.arrival.joining().is_some_and(Joining::reads);
        Installed { was_member, rank, former_rank, first, reads }
    }

    /// Enters the view as a member, or as an earlier incarnation that was one.
    pub(super) fn enter(&mut self, view: &Arc<View>, installed: &Installed) {
        if view.last {
            return;
        }
        if let Some(rank) = installed.rank {
            self.enter_as(view, rank, installed.first);
            self.on_ring();
        }
        if let Some(rank) = installed.former_rank {
            let now = self.timers.now();
            let former = Member::former(view, rank, installed.first, now, self.identity.rules);
            self.plane.enter_as_former(former);
        }
    }

    /// Whether the disk of an earlier incarnation holds its answer for a view. Otherwise it is older than the group
    /// relies on.
    fn disk_knows_answer(&mut self, view: ViewId) -> bool {
        let of_view = self.plane.former().is_some_and(|former| former.view.id == view);
        if !of_view || self.plane.wedged() >= view || !self.identity.rules.holds(Rule::DiskKnowsItsAnswer) {
            return true;
        }
        self.outputs.event(Event::StaleDisk(StaleDisk::Answer { view }));
        false
    }

    /// Ends this node's part in the view before, and puts back own messages beyond the cut. True if the result is here
    /// up to the next view's first index.
    fn leave_view(&mut self, survives: bool, cut: &[Round]) -> bool {
        let Some((mut member, restarted)) = self.plane.leave() else { return false };
        // The disk of an earlier incarnation has every message below the cut that its answer led to, and no skips.
        let holds = restarted || member.holds(cut);
        let complete = (survives && member.is_complete() && holds) || !self.identity.rules.holds(Rule::CutIsHeld);
        let own = if !complete {
            member.take_own()
        } else if self.identity.rules.holds(Rule::FinalReachesCut) {
            member.walk_cut(cut, &mut self.delivery())
        } else {
            Vec::new()
        };
        if restarted && self.identity.rules.holds(Rule::RestartedSendsNothingOld) {
            return complete;
        }
        if self.identity.rules.holds(Rule::PutBackAtHead) {
            self.plane.outbox_mut().put_back(own);
        } else {
            self.plane.outbox_mut().put_behind(own);
        }
        complete
    }

    fn enter_as(&mut self, view: &Arc<View>, rank: Rank, first: Option<Index>) {
        // Messages that are in the result need not be broadcast again.
        let approved = self.result.state().last_seq(self.identity.me, self.identity.incarnation);
        self.plane.outbox_mut().leave_out(approved);
        let start = first.map(|first| Start { first, before: self.result.state().end_before(first) });
        let mut member = Member::new(Arc::clone(view), rank, start, self.timers.now(), self.identity.rules);
        if self.session.as_ref().is_some_and(Session::is_kicked_off) {
            member.open();
        }
        let linked = self.peers.linked().into_iter().filter_map(|peer| view.rank_of(peer));
        linked.for_each(|rank| member.link_up(rank));
        self.plane.enter(member);
        self.due.on_view();
    }

    /// Notes that this incarnation is on the ring: in a session it broadcasts, unless that is over.
    fn on_ring(&mut self) {
        if !self.arrival.observes() {
            self.arrival.finish();
            self.timers.stop(Timer::Join);
        }
        let stream = self.log.state().stream(self.identity.me, self.identity.incarnation);
        if let Some(event) = self.session.as_mut().and_then(|session| session.on_ring(stream)) {
            self.outputs.event(event);
        }
    }

    /// Reports the nodes that a view change excluded.
    pub(super) fn report_dropped(&mut self, dropped: &[(NodeId, Dropped)]) {
        for &(node, why) in dropped {
            if !matches!(why, Dropped::Left | Dropped::Suspended) {
                self.peers.evictions.evict(node, self.timers.now());
            } else if node == self.identity.me {
                continue;
            }
            self.outputs.event(match why {
                Dropped::Silent => Event::Silent { node },
                Dropped::Blamed => Event::Blamed { node },
                Dropped::Left => Event::Left { node },
                Dropped::Suspended => Event::Suspended { node },
            });
        }
    }

    fn delivery(&mut self) -> Delivery<'_> {
        delivery(self.identity, self.result, self.storage, self.outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, pair};

    /// The view after the first one, with these members.
    fn next(machine: &Machine, members: &[NodeId]) -> (Arc<View>, Arc<View>) {
        let before = machine.log.state().view().cloned().expect("it is a member");
        let ring = before.ring.iter().filter(|member| members.contains(&member.node)).cloned().collect();
        let view = View { id: before.id.next(), ring, parameters: before.parameters.clone(), last: false };
        (before, Arc::new(view))
    }

    #[test]
    fn a_survivor_is_complete_and_an_evicted_member_is_not() {
        for (members, stays) in [(&[COORDINATOR, MEMBER][..], true), (&[COORDINATOR][..], false)] {
            let (_, mut member) = pair(Parameters::default());
            let (before, view) = next(&member, members);
            let mut install = member.installing();
            let installed = install.begin(&view, Before::View { view: &before, cut: &[Round(0); 2] });
            install.enter(&view, &installed);
            assert!(installed.was_member && installed.follows(false));
            assert_eq!((installed.is_complete(), member.plane.is_member()), (stays, stays));
        }
    }

    #[test]
    fn a_member_that_skipped_a_view_has_to_fetch() {
        let (_, mut member) = pair(Parameters::default());
        let (_, view) = next(&member, &[COORDINATOR, MEMBER]);
        let installed = member.installing().begin(&view, Before::Skipped);
        assert!(installed.was_member && installed.rank.is_some() && !installed.is_complete());
    }

    #[test]
    fn the_return_of_an_evicted_node_is_delayed_and_that_of_one_that_departed_is_not() {
        let (mut coordinator, _) = pair(Parameters::default());
        let now = coordinator.timers.now();
        let departed = [(MEMBER, Dropped::Left), (MEMBER, Dropped::Suspended)];
        coordinator.installing().report_dropped(&departed);
        assert!(!coordinator.peers.evictions.keeps_out(MEMBER, now));
        coordinator.installing().report_dropped(&[(MEMBER, Dropped::Silent)]);
        assert!(coordinator.peers.evictions.keeps_out(MEMBER, now));
    }
}
