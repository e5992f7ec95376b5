//! What happens to links, processes and applications from outside.

use bytes::Bytes;
use cloudy_proto::{Input, Request};

use crate::invariants::Failure;
use crate::sim::node::Item;
use crate::sim::plan::{Fault, Plan};
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::{World, address};

/// The breach that a frame lost from its stream causes, and no honest node without one.
const GAP: &str = "are missing before its frame";

impl World {
    /// A new connection; both ends learn of it, each in its time.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let epoch = self.network.connect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let at = self.now_us + self.network.notice_us(&mut self.dice);
            self.queue.at(at, Event::Up { node, peer, epoch });
        }
    }

    /// The connection is gone; both ends learn of it, each in its time.
    fn cut(&mut self, a: usize, b: usize) {
        let Some(epoch) = self.network.cut(a, b) else { return };
        self.stats.met(Met::LinkCut);
        if a == Plan::FOUNDER || b == Plan::FOUNDER {
            self.stats.met(Met::CoordinatorLinkCut);
        }
        for (node, peer) in [(a, b), (b, a)] {
            let at = self.now_us + self.network.notice_us(&mut self.dice);
            self.queue.at(at, Event::Down { node, peer, epoch });
        }
    }

    pub(super) fn redial(&mut self, a: usize, b: usize) {
        if self.nodes[a].alive && self.nodes[b].alive && self.network.live(a, b).is_none() {
            self.connect(a, b);
        }
    }

    fn cut_for(&mut self, a: usize, b: usize, outage_us: u64) {
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
        let input = Input::LinkUp { peer: self.nodes[peer].id, addresses: vec![address(peer)] };
        self.tell(node, &input);
        self.handle(node, input);
        early.into_iter().try_for_each(|packet| self.take_packet(node, packet))
    }

    /// A node learns that a link is gone.
    pub(super) fn link_down(&mut self, node: usize, peer: usize, epoch: u64) -> Result<(), Failure> {
        let now = self.nodes[node].clock.at(self.now_us);
        let end = &mut self.nodes[node].links[peer];
        if end.told == Some(epoch) {
            end.replace(None, epoch);
            end.down_since = now;
            let input = Input::LinkDown { peer: self.nodes[peer].id };
            self.tell(node, &input);
            self.handle(node, input);
        } else if epoch > end.seen {
            // It was gone before this end knew of it, and so was the one before, if that was still up here.
            let was_up = end.told.is_some();
            end.replace(None, epoch);
            if was_up {
                end.down_since = now;
                let input = Input::LinkDown { peer: self.nodes[peer].id };
                self.handle(node, input);
            }
        }
        Ok(())
    }

    /// A machine closes a link: only because of a frame that was lost from a stream, or of a rule that is off.
    pub(super) fn close_link(&mut self, node: usize, peer: cloudy_proto::NodeId, reason: &str) -> Result<(), Failure> {
        let peer = self.judge.place_of(peer);
        let excused = self.plan.mutated || (self.plan.network.lost_per_mille > 0 && reason.contains(GAP));
        if !excused {
            let what = format!("closes the link to node {peer}: {reason}");
            return Err(self.judge.failure("no honest node breaks the protocol", node, what));
        }
        self.stats.met(Met::LinkClosed);
        self.cut_for(node, peer, 1_000);
        Ok(())
    }

    pub(crate) fn fault(&mut self, fault: Fault) -> Result<(), Failure> {
        self.tell(Plan::FOUNDER, &fault);
        match fault {
            _ if self.healed => {}
            Fault::Cut { a, b, outage_us } => self.cut_for(a, b, outage_us),
            Fault::Flap { a, b, times } => {
                self.stats.met(Met::LinkFlapped);
                for time in 0..times {
                    let at = self.now_us + time * 300;
                    self.queue.at(at, Event::Fault(Fault::Cut { a, b, outage_us: 150 }));
                }
            }
            Fault::Replace { a, b } => {
                if self.network.live(a, b).is_some() {
                    self.connect(a, b);
                }
            }
            Fault::Isolate { node, outage_us } => {
                self.stats.met(Met::NodeIsolated);
                for peer in (0..self.plan.nodes).filter(|&peer| peer != node) {
                    self.cut_for(node, peer, outage_us);
                }
            }
            Fault::Slow { node, for_us } => {
                self.stats.met(Met::NodeSlow);
                let until = self.now_us + for_us;
                self.nodes[node].asleep_until_us = self.nodes[node].asleep_until_us.max(until);
                self.queue.at(until, Event::Wake { node });
            }
            Fault::Kill { node } => self.kill(node),
            Fault::End { node } => self.end(node)?,
        }
        Ok(())
    }

    fn kill(&mut self, node: usize) {
        if self.judge.view().is_none() {
            return;
        }
        self.stats.met(Met::MemberKilled);
        self.nodes[node].alive = false;
        self.nodes[node].inbox.clear();
        for peer in (0..self.plan.nodes).filter(|&peer| peer != node) {
            self.cut(node, peer);
        }
    }

    fn end(&mut self, node: usize) -> Result<(), Failure> {
        if self.judge.view().is_none() || !self.nodes[node].alive {
            return Ok(());
        }
        self.end_wanted = true;
        self.stats.met(if node == Plan::FOUNDER { Met::EndedByFounder } else { Met::EndedByMember });
        self.give(node, Item::Ask(Request::End))
    }

    /// An application broadcasts some payloads, and will again.
    pub(super) fn broadcast(&mut self, node: usize) -> Result<(), Failure> {
        let traffic = self.plan.traffic.clone();
        if !self.nodes[node].alive || self.healed || self.nodes[node].app.broadcast >= traffic.payloads_max {
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

    /// Faults and broadcasts end: every link between the living comes up, and everybody runs.
    pub(super) fn heal(&mut self) -> Result<(), Failure> {
        self.healed = true;
        self.tell(Plan::FOUNDER, &"calm from here on");
        let lossy = self.plan.network.lost_per_mille > 0;
        self.network.calm();
        for a in 0..self.plan.nodes {
            self.nodes[a].asleep_until_us = 0;
            for b in 0..a {
                if lossy {
                    self.cut(a, b);
                }
                self.redial(a, b);
            }
        }
        let killed = self.nodes.iter().any(|node| !node.alive) && !self.plan.evicts();
        if self.end_wanted || (killed && self.plan.session.is_none()) || (killed && !self.judge.kicked_off()) {
            self.end_wanted = true;
            self.nodes[Plan::FOUNDER].inbox.push_back(Item::Ask(Request::End));
        }
        (0..self.plan.nodes).try_for_each(|node| self.run(node))
    }
}
