//! The coordinator: the consensus leader, and how the other nodes find it (`protocol.md` §6.1, §6.6).

use core::time::Duration;
use std::collections::BTreeSet;

use crate::command::{Command, Standing};
use crate::control::{Elector, Electorate, Voter, VoterChange};
use crate::id::{ConsensusId, NodeId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::timers::Timer;
use crate::machine::tracking::Claim;
use crate::rules::Rule;
use crate::session::Session;
use crate::wire::{ControlFrame, encode_command};

/// Between two questions for the log's tail, while no coordinator is linked.
const SEEK_EVERY: Duration = Duration::from_millis(100);
/// How many coordinator timeouts a node that comes into the group, or observes it, waits for a coordinator.
const JOINER_PATIENCE: u32 = 5;

impl Machine {
    /// This node leads the voters: it takes over whatever its predecessor left.
    pub(super) fn begin_coordinating(&mut self, term: u64) {
        self.coordinating = Some(Coordinating::new(term));
        self.tracking.on_lead(self.identity.me, term);
        self.plane.forget_ready_report();
        self.found_coordinator();
        if self.log.state().founder().is_none() && self.arrival.founding.is_some() {
            self.propose(&Command::Founded { founder: self.identity.me });
        }
        self.event(Event::Coordinator { node: self.identity.me });
        self.incarnate_itself();
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|peer| self.announce(peer));
        self.begin_founding();
        self.take_over_phase();
        self.view_change().report_suspects();
        self.say_report();
        self.say_rejoin();
        self.ask_to_leave();
    }

    /// What a predecessor may have begun and not brought to its end.
    fn take_over_phase(&mut self) {
        if self.log.state().view().is_some_and(|view| view.last) {
            return self.last_installed();
        }
        let in_grace = self.session.as_ref().is_some_and(Session::is_in_grace);
        let period_is_over = in_grace && !self.timers.is_set(Timer::Period);
        if in_grace {
            self.propose(&Command::Grace);
        }
        if self.closing.is_stopping() {
            self.view_change().start(true);
        } else if period_is_over || self.closing.is_wanted() {
            self.begin_stop();
        }
        self.view_change().replace_stale();
    }

    /// Another voter leads, or none.
    pub(super) fn end_coordinating(&mut self) {
        self.timers.stop(Timer::Wedge);
        self.timers.stop(Timer::Linger);
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|peer| self.say_resigned(peer));
        if self.tracking.node() == self.identity.me {
            self.lose_coordinator();
        } else {
            self.greet_coordinator();
        }
    }

    /// Tells a peer that may hold this node for the coordinator that it is not.
    pub(super) fn say_resigned(&mut self, peer: NodeId) {
        self.send_control(peer, ControlFrame::Resigned);
    }

    pub(super) fn take_resigned(&mut self, from: NodeId) {
        if self.tracking.on_resign(from) {
            self.lose_coordinator();
        }
    }

    /// Tells a linked peer of this group who coordinates it.
    pub(super) fn announce(&mut self, peer: NodeId) {
        let Some(term) = self.coordinating.as_ref().map(Coordinating::term) else { return };
        let invited = self.arrival.founding.as_ref().is_some_and(|founding| founding.has_invited(peer));
        let belongs = self.log.state().incarnation(peer).is_some()
            || self.log.state().founder() == Some(peer)
            || self.peers.is_observer(peer);
        if invited || belongs {
            self.send_control(peer, ControlFrame::Coordinates { term });
        }
    }

    /// The node founded this group, invited this node to it, or came to it later, as the log says.
    pub(super) fn is_of_the_group(&self, node: NodeId) -> bool {
        self.log.state().incarnation(node).is_some()
            || self.log.state().founder() == Some(node)
            || node == self.tracking.node()
    }

    /// A node that claimed to coordinate may be a node of the group, as more of the log shows.
    pub(super) fn take_claim(&mut self) {
        let state = self.log.state();
        let is_listed = |node| state.incarnation(node).is_some() || state.founder() == Some(node);
        if let Some((term, node)) = self.tracking.take_claim(is_listed) {
            self.take_coordinates(node, term);
        }
    }

    pub(super) fn take_coordinates(&mut self, from: NodeId, term: u64) {
        if !self.is_of_the_group(from) {
            // A node that knows no view, or was away for long, may know no node that is still there. With no coordinator in
            // reach it relies on the claim.
            return self.tracking.keep_claim(from, term);
        }
        let claim = self.tracking.on_claim(from, term);
        // A node that still leads learns from the consensus library that it does not, and greets the coordinator then.
        if claim != Claim::Outdated && !self.is_coordinator() {
            if claim == Claim::New {
                self.tracking.on_new_reported();
                self.event(Event::Coordinator { node: from });
            }
            self.greet_coordinator();
        }
    }

    /// Says to the coordinator all that it may not know, on a fresh link or in a fresh term.
    pub(super) fn greet_coordinator(&mut self) {
        if !self.has_coordinator() {
            return self.lose_coordinator();
        }
        self.found_coordinator();
        self.say_follow(self.tracking.node());
        self.plane.forget_ready_report();
        self.say_report();
        self.view_change().report_suspects();
        self.say_rejoin();
        if self.closing.is_wanted() {
            self.send_control(self.tracking.node(), ControlFrame::End);
        }
        self.ask_to_leave();
    }

    pub(super) fn say_follow(&mut self, to: NodeId) {
        let voter = self.log.voter().filter(|_| self.votes()).map_or(ConsensusId(0), |voter| voter.id());
        let next = self.log.state().next();
        self.send_control(to, ControlFrame::Follow { next, voter });
    }

    fn found_coordinator(&mut self) {
        let node = self.tracking.node();
        if self.tracking.on_found() {
            self.event(Event::Coordinator { node });
        }
        self.log.on_coordinator_found();
        self.timers.stop(Timer::Seek);
    }

    /// A coordinator is known, and linked unless this is it.
    pub(super) fn has_coordinator(&self) -> bool {
        let is_linked = || self.peers.is_linked(self.tracking.node());
        self.is_coordinator() || (self.tracking.is_elsewhere(self.identity.me) && is_linked())
    }

    /// No coordinator is in reach: others may know more of the log meanwhile.
    pub(super) fn lose_coordinator(&mut self) {
        // A node that learns repeatedly that there is none continues to search all the same.
        if !self.log.state().is_closed()
            && (self.tracking.on_lost(self.timers.now()) || !self.identity.rules.holds(Rule::SeekGoesOn))
        {
            self.set_timer(Timer::Seek, SEEK_EVERY);
        }
    }

    /// Asks one linked member after the other for the log's tail, and says once that the coordinator is gone for long.
    pub(super) fn seek(&mut self) {
        let Some(lost) = self.tracking.lost_for(self.timers.now()) else { return };
        self.set_timer(Timer::Seek, SEEK_EVERY);
        let timeout = self.timeouts().coordinator_loss_max();
        // A joiner in the middle of a change waits for longer.
        let timeout = if self.arrival.joining.is_some() { timeout * JOINER_PATIENCE } else { timeout };
        if lost >= timeout {
            if self.tracking.report_loss() {
                let node = self.tracking.node();
                self.event(Event::CoordinatorLost { node });
            }
            self.tell_votes_lost();
        }
        let members = self.log.state().view().into_iter().flat_map(|view| view.ring.iter().map(|member| member.node));
        let claimant = self.tracking.claimant();
        let voters = self.log.state().electors().map(|(_, node, _)| node);
        let sources: BTreeSet<NodeId> = members.chain(claimant).chain(voters).collect();
        let linked: Vec<NodeId> = sources.into_iter().filter(|node| self.peers.is_linked(*node)).collect();
        if !linked.is_empty() {
            let turn = lost.as_millis() as usize / SEEK_EVERY.as_millis() as usize;
            self.say_follow(linked[turn % linked.len()]);
        }
    }

    /// Coordinator: makes the next change of who votes, if one is due.
    pub(super) fn reconfigure(&mut self) {
        let ends = self.closing.is_stopping() || self.change().is_some();
        let changing = self.log.voter().is_none_or(Voter::is_changing);
        // What others said while this process was stopped, and which links they had, says nothing of who lives.
        let woke = self.peers.has_just_woken(self.timers.now());
        if ends || changing || woke || !self.is_coordinator() {
            return;
        }
        let Some(electorate) = self.electorate() else { return };
        let Some(voter) = self.log.voter_mut() else { return };
        match electorate.next_change() {
            Some(VoterChange::Set { id, node, standing }) => {
                voter.propose_change(id, standing, encode_command(&Command::Voter { id, node, standing }));
            }
            Some(VoterChange::HandOver { to }) => voter.hand_over(to),
            None if electorate.is_settled() => return self.try_kickstart(),
            None => return,
        }
        self.run_consensus();
    }

    /// Coordinator: who votes, and who could.
    fn electorate(&self) -> Option<Electorate> {
        let view = self.log.state().view().filter(|view| !view.last)?;
        let members: Vec<Elector> = view.ring.iter().filter_map(|member| self.elector_of(member.node)).collect();
        let watches = |founder: &NodeId| view.rank_of(*founder).is_none() && !self.log.state().has_left(*founder);
        let founder = self.log.state().founder().filter(watches);
        let observer = founder.and_then(|founder| self.elector_of(founder));
        let listed = |id: ConsensusId| members.iter().chain(observer.iter()).any(|elector| elector.id == id);
        let voter_active = |id| self.log.voter().is_some_and(|voter| self.answers(voter, id));
        let former = self.log.state().electors().filter(|(id, ..)| !listed(*id));
        let former = former.map(|(id, node, standing)| {
            let known = self.elector_of(node).filter(|elector| elector.id == id);
            Elector {
                node,
                id,
                standing,
                linked: known.is_some_and(|elector| elector.linked),
                leaves: self.leaves(node),
                active: voter_active(id),
                level: false,
            }
        });
        let former = former.collect();
        Some(Electorate { leader: self.identity.me, members, observer, former, rules: self.identity.rules })
    }

    /// Coordinator: a voter has answered lately, and after its link went down, if that did. The consensus library alone
    /// counts answers of a process that is gone until its next look at them, which a coordinator that was paused has late.
    fn answers(&self, voter: &Voter, id: ConsensusId) -> bool {
        let is_quiet = self.log.is_quiet(id) && self.identity.rules.holds(Rule::LostLinkIsNoAnswer);
        !is_quiet && voter.follower(id).is_some_and(|follower| follower.active)
    }

    /// Coordinator: a node as one who votes or could; none if its run is not known.
    fn elector_of(&self, node: NodeId) -> Option<Elector> {
        let voter = self.log.voter()?;
        let said = self.coordinating.as_ref().and_then(|coordinating| coordinating.voter_name(node));
        let fresh = || self.log.state().incarnation(node).map(|incarnation| ConsensusId(incarnation.0));
        let id = if node == self.identity.me { voter.id() } else { said.or_else(fresh)? };
        let standing =
            self.log.state().electors().find(|(known, ..)| *known == id).map_or(Standing::Gone, |(.., is)| is);
        let follower = voter.follower(id);
        // A node that does not take part yet has to follow first; one that does stays until its link is gone.
        let follows = standing != Standing::Gone || self.has_follower(node);
        let linked = node == self.identity.me || self.peers.is_linked(node) && follows;
        let active = node == self.identity.me || self.answers(voter, id);
        let level = node == self.identity.me || active && follower.is_some_and(|follower| follower.level);
        Some(Elector { node, id, standing, linked, leaves: self.leaves(node), active, level })
    }

    /// Coordinator: a node has asked to leave, or has left but for its vote.
    fn leaves(&self, node: NodeId) -> bool {
        self.is_leaving(node) || self.log.state().has_left(node)
    }
}
