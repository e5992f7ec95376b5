//! How long this node waits for others: in proportion to their paths, gaps and disks, within the group's bounds
//! (`protocol.md` §6.1).

use core::time::Duration;
use std::collections::BTreeSet;

use crate::config::Parameters;
use crate::control::Patience;
use crate::id::{NodeId, Rank};
use crate::limits::{CONSENSUS_TICK, ELECTION_TICKS_MAX, ROUND_TRIP_UNKNOWN};
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::timers::Timer;
use crate::path::Path;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::RingMember;
use crate::view_change::{Limits, ViewChange};
use crate::wire::ControlFrame;

/// A view change waits for an answer for so many of the longest round trips to be expected.
const WEDGE_ROUND_TRIPS: u32 = 2;
/// A link takes so many round trips to come up: addresses, handshake, greeting.
const LINK_ROUND_TRIPS: u32 = 4;
/// A stall is one after so many of the longest recent syncs.
const STALL_SYNCS: u32 = 3;
/// A candidate waits for votes for so many of the longest recent syncs: its voters store the vote behind what they sync.
const VOTE_SYNCS: u32 = 2;
/// Ticks of the consensus library in the longest round trip to be expected.
const ROUND_TRIP_TICKS: u32 = 4;
/// Ticks of the consensus library in the longest silence of a leader that lives.
const SILENCE_TICKS: u32 = 8;
/// A node without a coordinator reports that after so many elections at the earliest.
const ELECTIONS: u32 = 2;

impl Machine {
    fn parameters(&self) -> Option<&Parameters> {
        self.state.view().map(|view| &view.parameters)
    }

    /// Measures the paths to the members, the voters and the coordinator, if the group's timeouts adapt.
    pub(super) fn probe_peers(&mut self) {
        let Some(view) = self.state.view().filter(|view| view.parameters.adapts()).cloned() else { return };
        let members = view.ring.iter().map(|member| member.node);
        let voters = self.state.electors().map(|(_, node, _)| node);
        let peers: BTreeSet<NodeId> = members.chain(voters).chain([self.tracking.node()]).collect();
        for peer in peers {
            if peer == self.identity.me || !self.links.contains_key(&peer) {
                continue;
            }
            let path = self.peers.paths.entry(peer).or_default();
            if path.is_probe_due(self.now) {
                path.probe(self.now);
                self.send_control(peer, ControlFrame::Probe { sent_us: self.now.0 });
            }
        }
    }

    /// A peer measures the path to this node.
    pub(super) fn take_probe(&mut self, from: NodeId, sent_us: u64) {
        self.hear(from);
        self.send_control(from, ControlFrame::Echo { sent_us });
    }

    pub(super) fn take_echo(&mut self, from: NodeId, sent_us: u64) {
        self.hear(from);
        if let Some(path) = self.peers.paths.get_mut(&from) {
            path.echo(Time(sent_us), self.now);
        }
    }

    /// A peer lives, in whatever view it is.
    fn hear(&mut self, from: NodeId) {
        if let Some(member) = &mut self.member
            && let Some(rank) = member.view.rank_of(from)
        {
            member.heard(rank, self.now);
        }
    }

    /// A process that was itself late by more than a heartbeat has heard nobody meanwhile.
    pub(super) fn notice_sleep(&mut self, now: Time) {
        let passed = now.since(self.now);
        if self.parameters().is_none_or(|parameters| passed <= parameters.heartbeat) {
            return;
        }
        let slept = self.timers.next().map_or(Duration::ZERO, |due| now.since(due)).min(passed);
        if self.parameters().is_none_or(|parameters| slept <= parameters.heartbeat) {
            return;
        }
        self.peers.paths.values_mut().for_each(|path| path.slept(slept));
        if self.identity.rules.holds(Rule::SleeperWaits) {
            self.peers.woke_at = Some(now);
            if let Some(change) = self.coordinating.as_mut().and_then(Coordinating::change_mut) {
                change.undecided_until = now + CONSENSUS_TICK;
                self.timers.set(Timer::Wedge, change.undecided_until);
            }
        }
    }

    /// What hardly any round trip to a node exceeds: where that is not measured, the longest to another.
    fn round_trip_max(&self, node: NodeId) -> Duration {
        if node == self.identity.me {
            return Duration::ZERO;
        }
        let measured = self.peers.paths.get(&node).and_then(Path::round_trip_max);
        let longest = || self.peers.paths.values().filter_map(Path::round_trip_max).max();
        measured.or_else(longest).unwrap_or(ROUND_TRIP_UNKNOWN)
    }

    /// How long a peer that lives may be silent. It begins a view up to a round trip later than this node.
    pub(super) fn silence_max(&self, node: NodeId) -> Duration {
        let Some(parameters) = self.parameters() else { return Parameters::default().failure_timeout };
        let path = self.peers.paths.get(&node).cloned().unwrap_or_default();
        let round_trips = if self.links.contains_key(&node) { 1 } else { LINK_ROUND_TRIPS };
        let gaps = path.silence_max(parameters.heartbeat, self.now);
        parameters.limit(parameters.failure_timeout, gaps + self.round_trip_max(node) * round_trips)
    }

    /// The longest recent sync of a member, one that is not finished included, as it said last.
    fn slowest_sync(&self, node: NodeId) -> Duration {
        if node == self.identity.me {
            return self.syncs.slowest(self.now);
        }
        let said = self.peers.heard.get(&node).map(|(_, heartbeat)| heartbeat.sync_ms);
        Duration::from_millis(said.unwrap_or_default().into())
    }

    /// By rank: how long each member may take of the view that this node is a member of, or an earlier run of it.
    pub(super) fn limits(&self) -> Vec<Limits> {
        let Some(member) = self.member.as_ref().or(self.former.as_ref()) else { return Vec::new() };
        let parameters = &member.view.parameters;
        let limits = |of: &RingMember| {
            let sync = (self.slowest_sync(of.node) * STALL_SYNCS).min(parameters.sync_timeout);
            let stall = parameters.stall_timeout.max(sync) + self.round_trip_max(of.node);
            Limits { silence: self.silence_max(of.node), stall: parameters.limit(parameters.stall_timeout, stall) }
        };
        member.view.ring.iter().map(limits).collect()
    }

    /// Coordinator: the time for a member's answer to `Wedge` is over. One that is heard of may be slow; one that has said
    /// that it syncs may take as long as a sync may.
    pub(super) fn is_overdue(&self, change: &ViewChange, rank: Rank) -> bool {
        let (parameters, node) = (&change.view.parameters, change.view.member(rank).node);
        let round_trips = self.round_trip_max(node) * WEDGE_ROUND_TRIPS;
        let silent = parameters.limit(parameters.wedge_timeout, round_trips);
        let is_linked = node == self.identity.me || self.links.contains_key(&node);
        let limit = match self.seems_alive(node) {
            true if change.is_wedging(node) => silent.max(parameters.sync_timeout),
            true => parameters.limit(silent, parameters.stall_timeout),
            false if is_linked => silent,
            false => parameters.wedge_timeout,
        };
        self.now.since(change.asked_at) >= limit
    }

    /// Coordinator: the change does not wait for a member that was reported as failed, while a majority of the view has
    /// answered and none of these, nor the coordinator, has heard of the member for a while.
    pub(super) fn is_given_up(&self, change: &ViewChange, rank: Rank) -> bool {
        let in_reach = |rank: &Rank| change.is_in_reach(*rank);
        let answers = || change.view.ranks().filter(in_reach).filter_map(|rank| change.answers[rank.at()].as_ref());
        let is_majority = answers().count() * 2 > change.view.members();
        let is_down = || answers().any(|answer| answer.findings.down.contains(&rank));
        let is_quiet = || answers().all(|answer| answer.findings.quiet.contains(&rank));
        let node = change.view.member(rank).node;
        let heard_at = self.peers.heard.get(&node).map(|(at, _)| *at);
        let is_quiet_here = || heard_at.is_none_or(|at| self.now.since(at) > self.silence_max(node) / 2);
        is_majority && is_down() && is_quiet() && is_quiet_here()
    }

    /// Between two ticks of the consensus library: an election takes more than a round trip to the other voters, and begins
    /// after more than a gap between their heartbeats.
    pub(super) fn consensus_tick_every(&self) -> Duration {
        let Some(parameters) = self.parameters().filter(|parameters| parameters.adapts()) else {
            return CONSENSUS_TICK;
        };
        let tick = |node: NodeId| {
            let gaps = self.peers.paths.get(&node).map(|path| path.silence_max(parameters.heartbeat, self.now));
            (self.round_trip_max(node) / ROUND_TRIP_TICKS).max(gaps.unwrap_or_default() / SILENCE_TICKS)
        };
        let voters =
            self.state.electors().filter(|(_, node, _)| *node != self.identity.me && self.links.contains_key(node));
        let longest = voters.map(|(_, node, _)| tick(node)).max().unwrap_or_default();
        let tick = longest.min(parameters.timeout_max / ELECTION_TICKS_MAX as u32).max(CONSENSUS_TICK);
        // Whole milliseconds, as runtimes count them: what is rounded differently is another run.
        Duration::from_millis(tick.as_millis() as u64)
    }

    /// For how many more ticks a candidate waits for votes that others have yet to store.
    fn vote_ticks(&self) -> usize {
        let Some(parameters) = self.parameters() else { return 0 };
        let voters = self.state.electors().map(|(_, node, _)| node);
        let sync = voters.map(|node| self.slowest_sync(node)).max().unwrap_or_default();
        let wait = (sync * VOTE_SYNCS).min(parameters.timeout_max);
        wait.as_micros().div_ceil(self.consensus_tick_every().as_micros()) as usize
    }

    /// How this node's voter treats slow disks.
    pub(super) fn voter_patience(&self) -> Patience {
        let answers_early = self.parameters().is_some_and(Parameters::adapts);
        Patience { vote_ticks: self.vote_ticks(), answers_early }
    }

    /// After how long without a coordinator a node says so.
    pub(super) fn coordinator_loss_max(&self) -> Duration {
        let Some(parameters) = self.parameters() else { return Parameters::default().coordinator_timeout };
        let ticks = ELECTION_TICKS_MAX + self.vote_ticks();
        let elections = self.consensus_tick_every() * ticks as u32 * ELECTIONS;
        parameters.limit(parameters.coordinator_timeout, elections)
    }
}
