//! External events at links, processes and applications.

use bytes::Bytes;
use cloudy_proto::limits::PAYLOAD_BYTES_MAX;
use cloudy_proto::{Input, Request};

use crate::invariants::Failure;
use crate::sim::node::Item;
use crate::sim::plan::{Fault, Plan, Who};
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::{World, address};

/// The breach that a frame lost from its stream causes, and no honest node without one.
const GAP: &str = "are missing before its frame";

/// A link that stays down for as long flaps slowly.
const LONG_FLAP_US: u64 = 10_000;

/// The time after which a group that does not exist yet is checked again.
const CREATION_US: u64 = 50_000;
/// A node that has announced that it stops does so after this time, whatever the others do.
const SUSPEND_MAX_US: u64 = 400_000;

impl World {
    /// A new connection; both ends learn of it, each in its time.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let epoch = self.network.connect(a, b);
        for (home, peer) in [(a, b), (b, a)] {
            let Some(node) = self.latest[home] else { continue };
            let at = self.now_us + self.network.notice_us(&mut self.dice);
            self.queue.at(at, Event::Up { node, peer, epoch });
        }
    }

    /// The connection is gone; both ends learn of it, each in its time.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let Some(epoch) = self.network.cut(a, b) else { return };
        self.pipes.cut(a, b);
        self.stats.met(Met::LinkCut);
        if a == Plan::CREATOR || b == Plan::CREATOR {
            self.stats.met(Met::CoordinatorLinkCut);
        }
        for (home, peer) in [(a, b), (b, a)] {
            let Some(node) = self.latest[home] else { continue };
            let at = self.now_us + self.network.notice_us(&mut self.dice);
            self.queue.at(at, Event::Down { node, peer, epoch });
        }
    }

    pub(super) fn redial(&mut self, a: usize, b: usize) {
        if self.running(a).is_none() || self.running(b).is_none() || self.network.live(a, b).is_some() {
            return;
        }
        let blocked_until = self.network.blocked_until(a, b);
        if blocked_until > self.now_us {
            self.queue.at(blocked_until, Event::Redial { a, b });
        } else {
            self.connect(a, b);
        }
    }

    /// A machine gives a silent link up: it comes back as soon as the network lets it.
    pub(super) fn redial_silent(&mut self, node: usize, peer: cloudy_proto::NodeId) {
        self.cut_for(self.nodes[node].home, self.judge.home_of(peer), 1_000);
    }

    pub(super) fn cut_for(&mut self, a: usize, b: usize, outage_us: u64) {
        self.cut(a, b);
        self.queue.at(self.now_us + outage_us, Event::Redial { a, b });
    }

    /// A node learns that a link is up.
    pub(super) fn link_up(&mut self, node: usize, peer: usize, epoch: u64) -> Result<(), Failure> {
        let end = &mut self.nodes[node].links[peer];
        if epoch <= end.seen {
            return Ok(());
        }
        if end.told.is_some() {
            self.stats.met(Met::LinkReplaced);
        }
        end.replace(Some(epoch), epoch);
        let early = core::mem::take(&mut end.early);
        let input = Input::LinkUp { peer: self.ids[peer], addresses: vec![address(peer)], advertised: None };
        self.tell(node, &input);
        self.handle(node, input);
        early.into_iter().try_for_each(|packet| self.take_packet(node, packet))
    }

    /// A node learns that a link is gone.
    pub(super) fn link_down(&mut self, node: usize, peer: usize, epoch: u64) -> Result<(), Failure> {
        let end = &mut self.nodes[node].links[peer];
        if end.told == Some(epoch) {
            end.replace(None, epoch);
            let input = Input::LinkDown { peer: self.ids[peer] };
            self.tell(node, &input);
            self.handle(node, input);
        } else if epoch > end.seen {
            // It was gone before this end knew of it, and so was the one before, if that was still up here.
            let was_up = end.told.is_some();
            end.replace(None, epoch);
            if was_up {
                let input = Input::LinkDown { peer: self.ids[peer] };
                self.handle(node, input);
            }
        }
        Ok(())
    }

    /// A machine closes a link: only because of a frame that was lost from a stream, or of a rule that is off.
    pub(super) fn close_link(&mut self, node: usize, peer: cloudy_proto::NodeId, reason: &str) -> Result<(), Failure> {
        let peer = self.judge.home_of(peer);
        let tainted = self.judge.is_tainted(node) || self.latest[peer].is_some_and(|peer| self.judge.is_tainted(peer));
        let altered = self.corrupter.has_altered_snapshot_of(self.nodes[node].home);
        let excused =
            self.plan.mutated || tainted || altered || (self.plan.network.lost_per_mille > 0 && reason.contains(GAP));
        if !excused {
            let what = format!("closes the link to node {peer}: {reason}");
            return Err(self.judge.failure("no honest node breaks the protocol", node, what));
        }
        self.stats.met(Met::LinkClosed);
        self.cut_for(self.nodes[node].home, peer, 1_000);
        Ok(())
    }

    fn note_fault(&mut self, fault: &Fault) {
        self.tell(Plan::CREATOR, fault);
        if self.judge.view().is_none() && !self.healed {
            self.stats.met(Met::FaultBeforeView);
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) -> Result<(), Failure> {
        self.note_fault(&fault);
        match fault {
            // It has begun before the world is calm.
            Fault::Suspend { node, after_us, announced: true } if self.healed || !self.has_stale_disk() => {
                self.stop(node, after_us)?;
            }
            _ if self.healed => {}
            fault if self.has_stale_disk() && !matches!(fault, Fault::StaleDisk { .. }) => self.spare(fault),
            Fault::Cut { a, b, outage_us } => self.cut_for(a, b, outage_us),
            Fault::Flap { a, b, times, outage_us } => self.flap(a, b, times, outage_us),
            Fault::Replace { a, b } => {
                if self.network.live(a, b).is_some() {
                    self.connect(a, b);
                }
            }
            Fault::Isolate { who, outage_us } => {
                let Some(node) = self.resolve(who).map(|place| self.nodes[place].home) else { return Ok(()) };
                self.stats.met(Met::NodeIsolated);
                for peer in (0..self.latest.len()).filter(|&peer| peer != node) {
                    self.cut_for(node, peer, outage_us);
                }
            }
            Fault::Partition { side, bridge, outage_us } => self.part(side, bridge, outage_us),
            Fault::PartCoordinator { companions, outage_us } => {
                let Some(coordinator) = self.resolve(Who::Coordinator) else { return Ok(()) };
                let side = companions | 1 << self.nodes[coordinator].home;
                if side.count_ones() as usize * 2 < self.plan.nodes {
                    self.stats.met(Met::CoordinatorInMinority);
                }
                self.part(side, None, outage_us);
            }
            Fault::OneWay { from, to, for_us } => {
                self.stats.met(Met::LinkOneWay);
                self.hold(from, to, for_us);
            }
            Fault::Mute { who, for_us } => {
                let Some(node) = self.resolve(who).map(|place| self.nodes[place].home) else { return Ok(()) };
                self.stats.met(Met::NodeMute);
                (0..self.latest.len()).filter(|&peer| peer != node).for_each(|peer| self.hold(node, peer, for_us));
            }
            Fault::Narrow { a, b, narrow, for_us } => self.narrow(a, b, narrow, for_us),
            Fault::Slow { who, for_us } => self.pause(who, for_us),
            Fault::ClockJump { who, by_us } => {
                let Some(node) = self.resolve(who) else { return Ok(()) };
                self.stats.met(Met::ClockJumped);
                self.nodes[node].clock.start_us += by_us;
                self.nodes[node].wake_at_us = None;
                self.queue.at(self.now_us, Event::Wake { node });
            }
            Fault::Kill { who } => self.kill(who)?,
            Fault::Restart { who, after_us } => self.restart(who, after_us)?,
            Fault::LoseDisk { who, after_us } => self.lose_disk(who, after_us)?,
            Fault::FailDisk { who, how, after_us } => self.fail_disk(who, how, after_us)?,
            Fault::StaleDisk { who, age_us, after_us } => self.copy_disk(who, age_us, after_us),
            Fault::PutBack { home, after_us } => self.put_back(home, after_us)?,
            Fault::PowerCut { within_us } => self.cut_power(within_us)?,
            Fault::SlowDisk { who, for_us } => {
                let Some(node) = self.resolve(who) else { return Ok(()) };
                self.stats.met(Met::DiskSlow);
                self.disk_held_us.insert(self.nodes[node].home, self.now_us + for_us);
            }
            Fault::End { node } => self.end(node)?,
            Fault::Leave { node } => self.wants_to_leave(node)?,
            Fault::Suspend { node, after_us, .. } => self.announce_stop(node, after_us)?,
        }
        Ok(())
    }

    /// A link is cut several times.
    fn flap(&mut self, a: usize, b: usize, times: u64, outage_us: u64) {
        self.stats.met(if outage_us < LONG_FLAP_US { Met::LinkFlapped } else { Met::LinkFlappedSlowly });
        for time in 0..times {
            let at = self.now_us + time * 2 * outage_us;
            self.queue.at(at, Event::Fault(Fault::Cut { a, b, outage_us }));
        }
    }

    /// The place of whom a fault befalls.
    pub(super) fn resolve(&self, who: Who) -> Option<usize> {
        match who {
            Who::Node(home) => self.latest[home],
            Who::Coordinator => self.judge.coordinator(),
        }
    }

    /// Cuts all links between two sides, but for a node that stands between them.
    fn part(&mut self, side: u32, bridge: Option<usize>, outage_us: u64) {
        self.stats.met(if bridge.is_some() { Met::PartitionBridged } else { Met::Partitioned });
        for a in 0..self.latest.len() {
            for b in 0..a {
                if (side >> a ^ side >> b) & 1 == 1 && bridge != Some(a) && bridge != Some(b) {
                    self.network.part(a, b, self.now_us + outage_us);
                    self.cut_for(a, b, outage_us);
                }
            }
        }
    }

    fn pause(&mut self, who: Who, for_us: u64) {
        let Some(node) = self.resolve(who) else { return };
        self.stats.met(if who == Who::Coordinator { Met::CoordinatorPaused } else { Met::NodeSlow });
        let until = self.now_us + for_us;
        self.nodes[node].asleep_until_us = self.nodes[node].asleep_until_us.max(until);
        self.queue.at(until, Event::Wake { node });
    }

    fn hold(&mut self, from: usize, to: usize, for_us: u64) {
        let until = self.now_us + for_us;
        self.network.hold(from, to, until);
        self.queue.at(until, Event::Release { from, to });
    }

    fn end(&mut self, node: usize) -> Result<(), Failure> {
        let creator = node == Plan::CREATOR;
        let Some(node) = self.running(node).filter(|_| self.judge.view().is_some()) else { return Ok(()) };
        self.end_wanted = true;
        self.stats.met(if creator { Met::EndedByCreator } else { Met::EndedByMember });
        self.give(node, Item::Ask(Request::End))
    }

    /// A node announces that it stops.
    fn announce_stop(&mut self, home: usize, after_us: u64) -> Result<(), Failure> {
        let place = self.running(home).filter(|&place| self.has_view(place) && self.judge.is_created());
        let Some(place) = place.filter(|&place| self.nodes[place].app.leaves.is_none()) else { return Ok(()) };
        self.stats.met(Met::SuspendAsked);
        self.nodes[place].app.suspends = Some(after_us);
        self.queue
            .at(self.now_us + SUSPEND_MAX_US, Event::Fault(Fault::Suspend { node: home, after_us, announced: true }));
        self.give(place, Item::Ask(Request::Suspend))
    }

    fn wants_to_leave(&mut self, home: usize) -> Result<(), Failure> {
        let stays = |place: &usize| self.has_view(*place) && self.nodes[*place].app.suspends.is_none();
        let Some(place) = self.running(home).filter(stays) else { return Ok(()) };
        self.stats.met(Met::LeaveAsked);
        self.nodes[place].app.leaves.get_or_insert(false);
        self.run(place)
    }

    /// An application broadcasts some payloads, and will again.
    pub(super) fn broadcast(&mut self, node: usize) -> Result<(), Failure> {
        let traffic = self.plan.traffic.clone();
        let app = &self.nodes[node].app;
        if !self.nodes[node].alive
            || !self.is_loaded()
            || app.leaves.is_some()
            || app.suspends.is_some()
            || app.broadcast >= traffic.payloads_max
        {
            return Ok(());
        }
        let next_at = self.now_us + self.dice.between(1, traffic.gap_us);
        self.queue.at(next_at, Event::Broadcast { node });
        if !self.nodes[node].app.open {
            return Ok(());
        }
        let mut payloads = Vec::new();
        for _ in 0..self.dice.between(1, traffic.burst_max) {
            let mut bytes = self.dice.between(traffic.payload_bytes_min, traffic.payload_bytes_max);
            if self.dice.chance(traffic.large_per_mille) {
                self.stats.met(Met::LargePayload);
                bytes += self.plan.parameters.window_bytes;
            }
            if bytes == PAYLOAD_BYTES_MAX as u64 {
                self.stats.met(Met::PayloadMaximum);
            }
            payloads.push(Bytes::from(self.dice.bytes(bytes as usize)));
        }
        self.broadcast_all(node, payloads)
    }

    /// An application broadcasts these.
    pub(crate) fn broadcast_all(&mut self, node: usize, payloads: Vec<Bytes>) -> Result<(), Failure> {
        if !self.nodes[node].app.queue.is_empty() {
            self.stats.met(Met::OutboxFull);
        }
        for payload in payloads {
            self.stats.met(Met::Broadcast);
            self.judge.broadcast(node, payload.clone());
            self.nodes[node].app.broadcast += 1;
            self.nodes[node].app.queue.push_back(payload);
        }
        self.run(node)
    }

    /// Faults and broadcasts end: every link between live nodes comes up, and every process runs.
    pub(super) fn heal(&mut self) -> Result<(), Failure> {
        // Earlier losses show once the links are new; until the group exists this is repeated.
        let lossy = self.plan.network.lost_per_mille > 0 && !self.healed;
        self.healed = true;
        self.tell(Plan::CREATOR, &"calm from here on");
        self.network.calm();
        let queued = self.pipes.widen_all();
        queued.into_iter().try_for_each(|packet| self.comes_through(packet))?;
        let waited = self.network.release_all();
        waited.into_iter().try_for_each(|packet| self.arrive(packet))?;
        self.nodes.iter_mut().for_each(|node| node.asleep_until_us = 0);
        self.free_disks()?;
        self.start_all()?;
        for a in 0..self.latest.len() {
            for b in 0..a {
                if lossy {
                    self.cut(a, b);
                }
                self.redial(a, b);
            }
        }
        if self.judge.view().is_none() {
            // A group that does not exist yet cannot be closed.
            self.queue.at(self.now_us + CREATION_US, Event::Heal);
        } else {
            self.end_if_wanted();
            self.begin_load();
        }
        (0..self.nodes.len()).try_for_each(|node| self.run(node))
    }

    /// Asks the group to close, if that is planned, or if it would wait for ever for a node that has crashed.
    pub(super) fn end_if_wanted(&mut self) {
        let left = |home: usize| self.latest[home].is_some_and(|place| self.nodes[place].left);
        let dead = |home: usize| self.latest[home].is_some() && self.running(home).is_none() && !left(home);
        let killed = (0..self.latest.len()).any(dead) && !self.plan.evicts();
        let stalls = killed && (self.plan.session.is_none() || !self.judge.kicked_off());
        if self.end_wanted || stalls {
            self.end_wanted = true;
            // The creator if it lives, or else a member.
            let may_ask = |&home: &usize| home == Plan::CREATOR || self.plan.is_member(home);
            let asker = (0..self.latest.len()).filter(may_ask).find_map(|home| self.running(home));
            asker.into_iter().for_each(|node| self.nodes[node].inbox.push_back(Item::Ask(Request::End)));
        }
    }
}
