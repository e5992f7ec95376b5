//! The timeouts of this node for others: in proportion to their paths, gaps and disks, within the group's bounds
//! (`protocol.md` §6.1).

use core::time::Duration;

use crate::config::Parameters;
use crate::control::{ControlState, Patience};
use crate::id::{NodeId, Rank};
use crate::limits::{CONSENSUS_TICK, ELECTION_TICKS_MAX, LINGER, PROBE_EVERY, ROUND_TRIP_UNKNOWN};
use crate::machine::control_log::ControlLog;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::storage::Storage;
use crate::path::Path;
use crate::time::Time;
use crate::view::{RingMember, View};
use crate::view_change::{Limits, ViewChange};

/// The timeout of an answer in a view change, in longest expected round trips.
const WEDGE_ROUND_TRIPS: u32 = 2;
/// The number of round trips in which a link comes up: addresses, handshake, greeting.
const LINK_ROUND_TRIPS: u32 = 4;
/// The stall timeout in longest recent syncs.
const STALL_SYNCS: u32 = 3;
/// The time for which a candidate waits for votes, in longest recent syncs: its voters store the vote behind other
/// records.
const VOTE_SYNCS: u32 = 2;
/// The number of round trips in which a member has the rest of the final result, and its report is committed.
const LINGER_ROUND_TRIPS: u32 = 5;
/// Ticks of the consensus library in the longest expected round trip.
const ROUND_TRIP_TICKS: u32 = 4;
/// The minimum number of elections after which a node without a coordinator reports that.
const ELECTIONS: u32 = 2;

/// The timeouts of this node at one moment. It changes nothing.
#[derive(Clone, Copy)]
pub(super) struct Timeouts<'a> {
    me: NodeId,
    now: Time,
    /// The parameters of the present view, if there is one.
    parameters: Option<&'a Parameters>,
    peers: &'a Peers,
    /// The longest recent sync of this node's disk.
    own_sync: Duration,
    log: &'a ControlState,
}

impl<'a> Timeouts<'a> {
    pub(super) fn new(
        identity: &Identity,
        log: &'a ControlLog,
        peers: &'a Peers,
        storage: &Storage,
        now: Time,
    ) -> Self {
        let parameters = log.state().view().map(|view| &view.parameters);
        Self { me: identity.me, now, parameters, peers, own_sync: storage.syncs.slowest(now), log: log.state() }
    }
}

impl Timeouts<'_> {
    /// A bound that hardly any round trip to a node exceeds: without a measurement, the longest to another one.
    fn round_trip_max(&self, node: NodeId) -> Duration {
        if node == self.me {
            return Duration::ZERO;
        }
        let measured = self.peers.path(node).and_then(Path::round_trip_max);
        measured.or_else(|| self.peers.longest_round_trip()).unwrap_or(ROUND_TRIP_UNKNOWN)
    }

    /// The silence that is allowed to a live peer. It begins a view up to a round trip later than this node.
    pub(super) fn silence_max(&self, node: NodeId) -> Duration {
        let Some(parameters) = self.parameters else { return Parameters::default().failure_timeout };
        let path = self.peers.path(node).cloned().unwrap_or_default();
        let round_trips = if self.peers.is_linked(node) { 1 } else { LINK_ROUND_TRIPS };
        let gaps = path.silence_max(parameters.heartbeat, self.now);
        parameters.limit(parameters.failure_timeout, gaps + self.round_trip_max(node) * round_trips)
    }

    /// Maximum silence of a live coordinator: one off the ring sends no heartbeats and answers probes. Groups with
    /// fixed timeouts send none.
    pub(super) fn probed_silence_max(&self, node: NodeId) -> Duration {
        if !self.parameters.is_some_and(Parameters::adapts) {
            return Duration::MAX;
        }
        self.silence_max(node) + PROBE_EVERY * 2
    }

    /// Whether a member is linked and has sent within the silence of a live one.
    pub(super) fn seems_alive(&self, node: NodeId) -> bool {
        if node == self.me {
            return true;
        }
        if self.parameters.is_none() || !self.peers.is_linked(node) {
            return false;
        }
        let heard_at = self.peers.heard_at(node);
        heard_at.is_some_and(|at| self.now.since(at) <= self.silence_max(node))
    }

    /// The longest recent sync of a member, including one in progress, from its last report.
    fn slowest_sync(&self, node: NodeId) -> Duration {
        if node == self.me {
            return self.own_sync;
        }
        let sync_ms = self.peers.heartbeat(node).map(|heartbeat| heartbeat.sync_ms);
        Duration::from_millis(sync_ms.unwrap_or_default().into())
    }

    /// By rank: the limits of each member of a view.
    pub(super) fn limits(&self, view: &View) -> Vec<Limits> {
        let parameters = &view.parameters;
        let limits = |of: &RingMember| {
            let sync = (self.slowest_sync(of.node) * STALL_SYNCS).min(parameters.sync_timeout);
            let stall = parameters.stall_timeout.max(sync) + self.round_trip_max(of.node);
            Limits { silence: self.silence_max(of.node), stall: parameters.limit(parameters.stall_timeout, stall) }
        };
        view.ring.iter().map(limits).collect()
    }

    /// Coordinator: whether the timeout of a member's answer to `Wedge` has passed. A live member may be slow; one that
    /// has reported that it syncs may take as long as a sync may.
    pub(super) fn is_overdue(&self, change: &ViewChange, rank: Rank) -> bool {
        let (parameters, node) = (&change.view().parameters, change.view().member(rank).node);
        let round_trips = self.round_trip_max(node) * WEDGE_ROUND_TRIPS;
        let silent = parameters.limit(parameters.wedge_timeout, round_trips);
        let is_linked = node == self.me || self.peers.is_linked(node);
        let limit = match self.seems_alive(node) {
            true if change.is_wedging(node) => silent.max(parameters.sync_timeout),
            true => parameters.limit(silent, parameters.stall_timeout),
            false if is_linked => silent,
            false => parameters.wedge_timeout,
        };
        self.now.since(change.asked_at()) >= limit
    }

    /// Coordinator: whether the change does not wait for a member that was reported as failed: a majority of the view
    /// has answered, and neither these nor the coordinator have received anything of the member for a while.
    pub(super) fn is_given_up(&self, change: &ViewChange, rank: Rank) -> bool {
        let in_reach = |rank: &Rank| change.is_in_reach(*rank);
        let answers = || change.view().ranks().filter(in_reach).filter_map(|rank| change.answer_of(rank));
        let is_majority = answers().count() * 2 > change.view().members();
        let is_down = || answers().any(|answer| answer.findings.down.contains(&rank));
        let is_quiet = || answers().all(|answer| answer.findings.quiet.contains(&rank));
        let node = change.view().member(rank).node;
        let heard_at = self.peers.heard_at(node);
        let is_quiet_here = || heard_at.is_none_or(|at| self.now.since(at) > self.silence_max(node) / 2);
        is_majority && is_down() && is_quiet() && is_quiet_here()
    }

    /// The time between two ticks of the consensus library: an election takes more than a round trip to the other
    /// voters.
    pub(super) fn consensus_tick_every(&self) -> Duration {
        let timeout_max = self.parameters.map_or(Duration::ZERO, |parameters| parameters.timeout_max);
        let voters = self.log.electors().map(|(_, node, _)| node).filter(|node| self.peers.is_linked(*node));
        let round_trip = voters.map(|node| self.round_trip_max(node)).max().unwrap_or_default();
        let tick = (round_trip / ROUND_TRIP_TICKS).min(timeout_max / ELECTION_TICKS_MAX as u32).max(CONSENSUS_TICK);
        // Whole milliseconds, as runtimes count them: another rounding would lead to another run.
        Duration::from_millis(tick.as_millis() as u64)
    }

    /// The number of additional ticks for which a candidate waits for votes that others have yet to store.
    fn vote_ticks(&self) -> usize {
        let Some(parameters) = self.parameters else { return 0 };
        let voters = self.log.electors().map(|(_, node, _)| node);
        let sync = voters.map(|node| self.slowest_sync(node)).max().unwrap_or_default();
        let wait = (sync * VOTE_SYNCS).min(parameters.timeout_max);
        wait.as_micros().div_ceil(self.consensus_tick_every().as_micros()) as usize
    }

    /// The patience of this node's voter with slow disks.
    pub(super) fn voter_patience(&self) -> Patience {
        let answers_early = self.parameters.is_some_and(Parameters::adapts);
        Patience { vote_ticks: self.vote_ticks(), answers_early }
    }

    /// The time for which a finished session serves live members that have not reported: they fetch, sync and report.
    pub(super) fn linger(&self, view: &View) -> Duration {
        let needs = |member: &RingMember| {
            self.round_trip_max(member.node) * LINGER_ROUND_TRIPS + self.slowest_sync(member.node) * STALL_SYNCS
        };
        view.parameters.limit(LINGER, view.ring.iter().map(needs).max().unwrap_or_default())
    }

    /// The time without a coordinator after which a node reports that.
    pub(super) fn coordinator_loss_max(&self) -> Duration {
        let Some(parameters) = self.parameters else { return Parameters::default().coordinator_timeout };
        let ticks = ELECTION_TICKS_MAX + self.vote_ticks();
        let elections = self.consensus_tick_every() * ticks as u32 * ELECTIONS;
        parameters.limit(parameters.coordinator_timeout, elections)
    }
}
