//! A view comes into force (`protocol.md` §6.4).

use std::sync::Arc;

use crate::id::{Index, Rank, Round, ViewId};
use crate::io::{Event, StaleDisk};
use crate::machine::Machine;
use crate::machine::join::Joining;
use crate::machine::timers::Timer;
use crate::member::{Member, Start};
use crate::rules::Rule;
use crate::session::Session;
use crate::stored::Record;
use crate::view::{InstalledView, Origin, View};

/// What came before a view that is installed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'a> {
    /// It is the first.
    Nothing,
    /// The view in force so far, which ended at the cut.
    View { view: &'a View, cut: &'a [Round] },
    /// Views that this node never heard of.
    Skipped,
}

impl Machine {
    /// The log installs a view.
    pub(super) fn install(&mut self, view: Arc<View>, before: Before<'_>) {
        let me = (self.identity.me, self.identity.incarnation);
        let was_member = match before {
            Before::Nothing => false,
            Before::View { view, .. } => view.rank_of_run(me.0, me.1).is_some(),
            Before::Skipped => !self.arrival.is_joining() && self.log.state().was_member(self.identity.me),
        };
        let rank = view.rank_of_run(me.0, me.1);
        let listed = view.rank_of(self.identity.me);
        // Before the first view nothing is missing, but to who comes later.
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
        // The place of an earlier run that left what it held on this disk. Of one that did not nothing is known here.
        let former_rank = listed.filter(|_| complete && self.identity.is_restored && rank.is_none());
        let first = complete.then(|| self.result.state().index().next());
        if let Some(first) = first {
            self.delivery().begin_view(InstalledView { first, view: Arc::clone(&view) });
        }
        if let Some(first) = first.filter(|_| rank.or(former_rank).is_some()) {
            self.storage.records.keep(Record::Complete { view: view.id, first });
        }
        self.event(Event::ViewInstalled {
            view: Arc::clone(&view),
            first: first.unwrap_or_default(),
            active: rank.is_some(),
        });
        self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
        self.note_members(&view);
        self.note_session(&view);
        let reads = self.arrival.joining().is_some_and(Joining::reads);
        if let Some(rank) = rank.filter(|_| !view.last) {
            self.enter_view(&view, rank, first);
            self.on_ring();
        }
        if let Some(rank) = former_rank.filter(|_| !view.last) {
            let former = Member::former(&view, rank, first, self.timers.now(), self.identity.rules);
            self.plane.enter_as_former(former);
        }
        let follows = was_member || self.catch_up.fetches.is_fetching() || rank.is_some() || reads;
        if view.last {
            self.last_installed();
        }
        if complete && view.last && follows {
            self.finish();
        } else if !complete && follows {
            self.fetch().start(&view);
        }
        if rank.is_none() && !view.last {
            if was_member && !self.closing.departure().is_wanted() {
                self.event(Event::Evicted { view: view.id });
            }
            self.send_rejoin();
        }
        if view.last && self.arrival.observes() {
            self.say_report();
        }
        if self.is_coordinator() {
            self.view_change().finish(&view);
            self.let_go();
            self.heard_early(&view);
        }
    }

    /// Of an earlier run: its disk holds what that answered for a view, or it is older than what the group relies on.
    fn disk_knows_answer(&mut self, view: ViewId) -> bool {
        let of_view = self.plane.former().is_some_and(|former| former.view.id == view);
        if !of_view || self.plane.wedged() >= view || !self.identity.rules.holds(Rule::DiskKnowsItsAnswer) {
            return true;
        }
        self.event(Event::StaleDisk(StaleDisk::Answer { view }));
        false
    }

    /// Ends this node's part in the view before, and puts back what the cut did not take. True if the result is here up
    /// to the next view's first index.
    fn leave_view(&mut self, survives: bool, cut: &[Round]) -> bool {
        let Some((mut member, restarted)) = self.plane.leave() else { return false };
        // Of an earlier run the disk has every message below the cut that its answer led to, and no skips.
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

    fn enter_view(&mut self, view: &Arc<View>, rank: Rank, first: Option<Index>) {
        // Whatever the result holds by now need not be broadcast again.
        let approved = self.last_approved();
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

    /// This incarnation is on the ring: in a session it broadcasts, unless that is over.
    fn on_ring(&mut self) {
        if !self.arrival.observes() {
            self.arrival.finish();
            self.timers.stop(Timer::Join);
        }
        let stream = self.log.state().stream(self.identity.me, self.identity.incarnation);
        if let Some(event) = self.session.as_mut().and_then(|session| session.on_ring(stream)) {
            self.event(event);
        }
    }
}
