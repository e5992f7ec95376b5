//! From one view to the next: suspicion, wedge, cut (`protocol.md` §6.1–§6.3).

use std::sync::Arc;

use crate::command::{Command, Dropped, InstallView};
use crate::config::{Durability, OnFailure, Parameters};
use crate::id::{Index, NodeId, Rank, ViewId};
use crate::io::{Event, Output};
use crate::limits::MEMBERS_MAX;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::stored::Record;
use crate::view::{Origin, RingMember, View};
use crate::view_change::{ViewChange, cut_of};
use crate::wire::{ControlFrame, Wedged};

impl Machine {
    /// A member looks at the others, and reports what it finds.
    pub(super) fn suspect(&mut self) {
        let Some(member) = self.plane.member() else { return };
        let limits = self.timeouts().limits(&member.view);
        let Some(member) = self.plane.member_mut().filter(|member| !member.wedged) else { return };
        let known = member.findings().down.len();
        if member.view.parameters.on_failure == OnFailure::Evict && member.suspect(&limits, self.timers.now()) {
            let down = member.findings().down[known..].iter().map(|rank| member.view.member(*rank).node);
            let linked: Vec<NodeId> = down.filter(|node| self.peers.is_linked(*node)).collect();
            linked.into_iter().for_each(|peer| self.outputs.push(Output::Redial { peer }));
            self.say_suspect();
        }
    }

    /// Tells the coordinator what was found in this view; again on every fresh link.
    pub(super) fn say_suspect(&mut self) {
        let Some(member) = self.plane.member() else { return };
        let (view, wedged, findings) = (member.view.id, member.wedged, member.findings().clone());
        if findings.down.is_empty() && findings.stalled.is_empty() && !wedged {
            return;
        }
        if self.is_coordinator() {
            self.suspected(self.identity.me, view, wedged);
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), ControlFrame::Suspect { view, findings, wedged });
        }
    }

    /// Coordinator: a member of the view in force has found something, or a predecessor wedged it. What was found it
    /// says again in its answer to `Wedge`.
    pub(super) fn suspected(&mut self, from: NodeId, view: ViewId, wedged: bool) {
        let latest = self.log.state().view().map_or(ViewId(0), |view| view.id);
        if let Some(coordinating) = &mut self.coordinating
            && view > latest
            && self.log.state().incarnation(from).is_some()
        {
            // Its disk was faster than the coordinator's.
            return coordinating.keep_suspicion(from, view, wedged);
        }
        let in_force = self.log.state().view().is_some_and(|latest| {
            let evicts = latest.parameters.on_failure == OnFailure::Evict;
            latest.id == view && latest.rank_of(from).is_some() && (evicts || wedged)
        });
        if in_force && !self.closing.is_stopping() {
            self.begin_change(false);
        }
    }

    /// Coordinator: wedges every member of the view in force, to install the next, or the last.
    pub(super) fn begin_change(&mut self, last: bool) {
        let Some(coordinating) = self.coordinating.as_mut().filter(|coordinating| coordinating.change().is_none())
        else {
            return if last {
                self.change_becomes_last()
            };
        };
        let Some(view) = self.log.state().view().filter(|view| !view.last).cloned() else { return };
        coordinating.start_change(ViewChange::new(Arc::clone(&view), last, self.timers.now()));
        self.set_timer(Timer::Wedge, view.parameters.wedge_timeout);
        self.flush_log();
        view.ring.iter().for_each(|member| self.say_wedge(member.node));
        if self.freeze(view.id, false) {
            self.answer_once_synced(self.identity.me, view.id);
        }
    }

    /// Coordinator: the group ends with the view that is being changed to, which may otherwise wait for `ring_min` for good.
    fn change_becomes_last(&mut self) {
        let Some(change) = self.change_mut().filter(|change| !change.proposed && !change.last) else { return };
        change.last = true;
        self.try_cut();
    }

    /// Coordinator: the view that was proposed took no effect, since a joiner was started again meanwhile.
    pub(super) fn change_afresh(&mut self) {
        if let Some(change) = self.coordinating.as_mut().and_then(Coordinating::take_proposed_change) {
            self.begin_change(change.last);
        }
    }

    /// Asks a member that has not answered to wedge. It must have been sent the log so far, or it would not know the
    /// view; who does not follow yet is asked once it does.
    pub(super) fn say_wedge(&mut self, node: NodeId) {
        let Some(coordinating) = &self.coordinating else { return };
        let Some(change) = coordinating.change().filter(|change| !change.proposed) else { return };
        let view = change.view.id;
        if change.awaits(node) && coordinating.has_follower(node) {
            let (last, again) = (change.last, change.again);
            self.send_control(node, ControlFrame::Wedge { view, last, again });
        }
    }

    /// A member freezes the view, for good, and says what it holds.
    pub(super) fn take_wedge(&mut self, from: NodeId, (view, last): (ViewId, bool), again: bool) {
        if from != self.tracking.node() || self.is_coordinator() {
            // It coordinated once, and has not heard that it does not.
            return;
        }
        if self.freeze(view, again) {
            if last {
                self.enter_stop();
            }
            self.answer_once_synced(from, view);
        }
    }

    /// Freezes a view that this node, or an earlier run of it, is a member of; false if it is of no such view.
    fn freeze(&mut self, view: ViewId, again: bool) -> bool {
        let now = self.timers.now();
        if !self.plane.is_member() && !self.identity.rules.holds(Rule::StaleMemberIsVoid) {
            let listed = self.log.state().view().and_then(|view| Some((view, view.rank_of(self.identity.me)?)));
            let with_nothing = listed.map(|(view, rank)| self.former_member(view, rank, Some(Index(1))));
            if self.plane.former().is_none() {
                with_nothing.into_iter().for_each(|member| self.plane.enter_as_former(member));
            }
        }
        let limits = self.plane.place().map(|member| self.timeouts().limits(&member.view)).unwrap_or_default();
        // Until the log lists this run, its answer would pass for the earlier run's.
        let known = self.log.state().is_latest_run(self.identity.me, self.identity.run) || !self.identity.is_restored;
        let member = self.plane.place_mut(known).filter(|member| member.view.id == view);
        let Some(member) = member else { return false };
        if again {
            member.find_again(&limits, now);
        }
        member.wedge();
        if self.plane.on_wedged(view) {
            self.storage.records.keep(Record::Wedged { view });
        }
        true
    }

    /// What this node holds of a view that it has frozen.
    pub(super) fn wedged(&self, view: ViewId) -> Option<Wedged> {
        let member = self.plane.place().filter(|member| member.view.id == view)?;
        let (incarnation, frontiers) = (member.incarnation(), member.frontiers());
        let (first, complete) = (member.first, member.complete);
        let digest = self.ends_before(first).digest;
        let (cursor, mut findings) = (member.cursor(), member.findings().clone());
        if member.view.parameters.adapts() {
            findings.quiet = member.quiet(&self.timeouts().limits(&member.view), self.timers.now());
        }
        Some(Wedged { view, incarnation, frontiers, complete, first, digest, cursor, findings })
    }

    pub(super) fn take_wedged(&mut self, from: NodeId, wedged: Wedged) {
        let Some(change) = self.change_mut() else { return };
        if let Err(error) = change.answer(from, wedged) {
            return self.breach(from, error.to_string());
        }
        self.try_cut();
    }

    /// Coordinator: a member syncs what it has, and answers then.
    pub(super) fn take_wedging(&mut self, from: NodeId, view: ViewId) {
        if let Some(change) = self.change_mut() {
            change.syncs(from, view);
        }
    }

    /// Coordinator: a run of a node begins. What an earlier one has answered is void: its disk answers again, if it has
    /// one.
    pub(super) fn ask_afresh(&mut self, node: NodeId) {
        let coordinating = self.coordinating.as_mut();
        let change = coordinating.and_then(Coordinating::change_mut).filter(|change| !change.proposed);
        let Some(change) = change else { return };
        if self.identity.durability == Durability::Disk || self.identity.rules.holds(Rule::StaleMemberIsVoid) {
            change.forget(node);
        }
        let view = change.view.id;
        if node != self.identity.me {
            self.say_wedge(node);
        } else if self.freeze(view, false) {
            self.answer_once_synced(self.identity.me, view);
        }
    }

    pub(super) fn wedge_over(&mut self) {
        self.try_cut();
        if let Some(change) = self.change().filter(|change| !change.proposed) {
            let (again, view) = (change.view.parameters.wedge_timeout, Arc::clone(&change.view));
            self.set_timer(Timer::Wedge, again);
            view.ring.iter().for_each(|member| self.say_wedge(member.node));
            self.ask_itself(view.id);
        }
    }

    /// Coordinator: fixes the cut once all have answered, or the time for it is over and a complete member has.
    pub(super) fn try_cut(&mut self) {
        let decides = |change: &&ViewChange| !change.proposed && change.undecided_until <= self.timers.now();
        let Some(change) = self.change().filter(decides) else { return };
        let stale = |rank: Rank| self.is_void(change.view.member(rank));
        let answers = self.staying(change);
        let timeouts = self.timeouts();
        let awaited = |rank: Rank| {
            let lacks = answers[rank.at()].is_none() && change.awaits_answer(rank);
            lacks && !stale(rank) && !timeouts.is_overdue(change, rank) && !timeouts.is_given_up(change, rank)
        };
        if change.view.ranks().any(awaited) {
            return;
        }
        self.compare_answers();
        let Some(change) = self.change().filter(|_| !self.outputs.is_halted()) else { return };
        let answers = self.staying(change);
        let stale = |rank: Rank| self.is_void(change.view.member(rank));
        let (view, last) = (Arc::clone(&change.view), change.last);
        let goes_on = |rank: Rank| !self.log.state().is_stale(view.member(rank));
        let on_disk = self.identity.durability == Durability::Disk;
        let restarted: Vec<bool> = view.ranks().map(|rank| on_disk && !goes_on(rank)).collect();
        let Some(cut) = cut_of(&view, &answers, &restarted, last, self.identity.rules) else { return };
        let is_silent = |rank: Rank| answers[rank.at()].is_none() && change.awaits_answer(rank) || stale(rank);
        let silent: Vec<bool> = view.ranks().map(is_silent).collect();
        let survivor = |rank| RingMember { origin: Origin::Survivor, ..view.member(rank).clone() };
        let (running, back): (Vec<Rank>, Vec<Rank>) = cut.survivors.iter().partition(|rank| goes_on(**rank));
        let mut ring: Vec<RingMember> = running.into_iter().map(survivor).collect();
        // They come back in the runs that they are in.
        let origin = if cut.from_disks { Origin::Restarted } else { Origin::Joiner };
        let joiners = back.into_iter().filter_map(|rank| self.joiner(view.member(rank).node));
        let mut joiners: Vec<RingMember> = joiners.map(|joiner| RingMember { origin, ..joiner }).collect();
        let gone = view.ranks().filter(|rank| !cut.survivors.contains(rank));
        let why = |rank: Rank| match silent[rank.at()] {
            true => Dropped::Silent,
            false if self.is_leaving(view.member(rank).node) => Dropped::Left,
            false => Dropped::Blamed,
        };
        let dropped = gone.map(|rank| (view.member(rank).node, why(rank))).collect();
        if !last {
            let places = MEMBERS_MAX.saturating_sub(ring.len() + joiners.len());
            joiners.extend(self.joiners(&view, places));
            joiners.sort_by_key(|joiner| joiner.node);
            if ring.len() + joiners.len() < usize::from(view.parameters.ring_min) {
                // Asked again until enough are back (`protocol.md` §6.3).
                return self.wedge_again();
            }
        }
        ring.append(&mut joiners);
        if let Some(change) = self.change_mut() {
            change.proposed = true;
        }
        let parameters = Parameters { ring: cut.ring, ..view.parameters.clone() };
        let (from, cut) = (view.id, cut.rounds);
        self.propose(&Command::InstallView(InstallView { from, ring, parameters, cut, last, dropped }));
    }

    /// Coordinator: too few would be left. All are asked again, once the time for answers is over.
    fn wedge_again(&mut self) {
        let now = self.timers.now();
        let is_due = |change: &&mut ViewChange| now.since(change.asked_at) >= change.view.parameters.wedge_timeout;
        let Some(change) = self.change_mut().filter(is_due) else { return };
        change.ask_again(now);
        let view = change.view.id;
        if self.freeze(view, true) {
            self.answer_once_synced(self.identity.me, view);
        }
    }

    /// A view change went on without these.
    pub(super) fn dropped(&mut self, dropped: &[(NodeId, Dropped)]) {
        for &(node, why) in dropped {
            if why != Dropped::Left {
                self.evicted_at(node);
            } else if node == self.identity.me {
                continue;
            }
            self.event(match why {
                Dropped::Silent => Event::Silent { node },
                Dropped::Blamed => Event::Blamed { node },
                Dropped::Left => Event::Left { node },
            });
        }
    }

    /// The change that led to the view in force is over; one that was wanted meanwhile may begin.
    pub(super) fn change_over(&mut self, view: &View) {
        self.timers.stop(Timer::Wedge);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.finish_change();
        }
        if self.closing.is_stopping() && !view.last {
            self.begin_change(true);
        }
        self.replace_stale();
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Parameters;
    use crate::io::{Input, Request};
    use crate::machine::tests::{alone, drain};

    #[test]
    fn the_end_of_a_group_does_not_wait_for_the_least_ring() {
        let mut machine = alone(Parameters { ring_min: 2, ..Parameters::default() });
        machine.begin_change(false);
        drain(&mut machine);
        assert!(machine.change().is_some(), "one member is too few");
        machine.handle(machine.timers.now(), Input::Request(Request::End));
        drain(&mut machine);
        assert!(machine.final_result().is_some());
    }
}
