//! The outputs of machines, and their effects.

use std::hash::Hash;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::wire::{ControlFrame, Fetched, TallyFrame};
use cloudy_proto::{
    ApprovedItem, Entry, Event as Said, Frame, Index, NodeId, Output, Request, SlowDownEnd, SnapshotState, Time, wire,
};

use crate::invariants::Failure;
use crate::sim::codec::round_trip;
use crate::sim::corruption::Corrupted;
use crate::sim::disk::DiskError;
use crate::sim::node::{Item, run_at};
use crate::sim::plan::Fault;
use crate::sim::queue::{Event, Packet};
use crate::sim::state::State;
use crate::sim::stats::Met;
use crate::sim::world::{GROUP, World};

impl World {
    /// Takes the machine's outputs, and checks them.
    pub(super) fn drain(&mut self, node: usize) -> Result<(), Failure> {
        self.stats.met(Met::Step);
        let mut outputs = Vec::new();
        while let Some(output) = self.nodes[node].machine.poll_output() {
            outputs.push(output);
        }
        if let Some(transcript) = &mut self.transcript {
            outputs.iter().for_each(|output| transcript.output(node, output));
        }
        if self.traced {
            (node, format!("{outputs:?}")).hash(&mut self.trace);
        }
        let status = self.nodes[node].machine.status(Time(0));
        let machine = &mut self.nodes[node].machine;
        self.judge.applied(node, machine, &status, &mut self.stats)?;
        self.judge.outputs(node, &outputs, &mut self.stats)?;
        let now = self.nodes[node].clock.at(self.now_us);
        let lost_at = self.nodes[node].coordinator_lost_at.unwrap_or(now);
        self.nodes[node].coordinator_lost_at = status.coordinator.is_none().then_some(lost_at);
        self.note_snapshot(node, status.snapshot.unwrap_or_default(), &outputs);
        let mut truncated = false;
        for output in outputs {
            truncated |= matches!(output, Output::Event(Said::Truncated { .. }));
            self.tell(node, &output);
            self.note_step(&output);
            self.note_overtaken(node, &output);
            match output {
                Output::Send { to, stream, frame } => self.send(node, to, stream, frame)?,
                Output::Redial { peer } => self.redial_silent(node, peer),
                Output::CloseLink { peer, reason } => self.close_link(node, peer, &reason)?,
                Output::Event(event) => self.said(node, event)?,
                Output::Persist { ticket, records } => self.persist(node, ticket, records),
                Output::ReadResult { to, from, bytes_max } => self.read_result(node, to, from, bytes_max),
                Output::ReadSnapshot { to, id, offset, bytes_max } => {
                    self.read_snapshot(node, to, (id, offset), bytes_max);
                }
                Output::Approved(_) => {}
                Output::Deliver(ApprovedItem::Batch(entry)) => self.apply(node, &entry)?,
                Output::Deliver(ApprovedItem::View(_)) => {}
                Output::Resumed { after, view: _ } => self.resume(node, after),
                Output::Restore { index, state, view: _ } => self.restore(node, index, &state)?,
            }
        }
        if self.nodes[node].left {
            return self.gone(node);
        }
        if truncated {
            // There is nothing that it could do here.
            self.stats.met(Met::Truncated);
            self.takes(node);
            self.die(node)?;
            if self.healed {
                // The node that is asked runs once it notices that a link is gone.
                self.end_if_wanted();
            }
            return Ok(());
        }
        self.nodes[node].machine.validate();
        self.judge.asks_outcomes(node, &self.nodes[node].machine, &mut self.stats)?;
        // It need not confirm records that it does not know to be synced.
        let knows_disk = !self.nodes[node].inbox.iter().any(|item| matches!(item, Item::Synced(_)));
        let linked = |peer: usize| knows_disk && self.nodes[node].links[self.nodes[peer].home].told.is_some();
        self.judge.after_step(node, &self.nodes[node].machine, linked, &mut self.stats)
    }

    fn send(&mut self, from: usize, to: NodeId, stream: wire::Stream, frame: Frame) -> Result<(), Failure> {
        let to = self.judge.home_of(to);
        match frame {
            Frame::Tally(TallyFrame::Moved { .. }) => self.stats.met(Met::ProgressSaid),
            Frame::Control(ControlFrame::Fetched(Fetched::Entry { offset: 1.., .. })) => {
                self.stats.met(Met::EntryInParts);
            }
            Frame::Control(ControlFrame::Fetched(Fetched::Snapshot { offset: 1.., .. })) => {
                self.stats.met(Met::SnapshotInParts);
            }
            _ => {}
        }
        // A link that went down after the frame was put out.
        let Some(epoch) = self.nodes[from].links[to].told else { return Ok(()) };
        let incarnation = self.nodes[from].machine.incarnation();
        let mut packet = Packet { from: self.nodes[from].home, sender: from, to, epoch, stream, incarnation, frame };
        if self.network.encoded() {
            self.stats.met(Met::WireEncoded);
            let chunk_bytes = self.dice.pick(&[1, 7, 64, 1 << 20]);
            packet.frame = round_trip(GROUP, &packet, chunk_bytes)
                .map_err(|what| self.judge.failure("frames survive the wire", from, what))?;
        }
        self.alter(&mut packet);
        let leaves_us = self.now_us + self.plan.slowness.delay_us(packet.from, packet.to);
        if let Some(at) = self.network.send(leaves_us, &packet, &mut self.dice, &mut self.stats) {
            self.queue.at(at, Event::Arrive(packet));
        }
        Ok(())
    }

    /// Applies the plan's corruption to a frame, and notes who else may be altered by it.
    fn alter(&mut self, packet: &mut Packet) {
        if self.corrupter.frame(packet) {
            self.note_altered();
        }
        let is_own = matches!(packet.stream, wire::Stream::Lane { lane, .. } if self.judge.owns(packet.sender, lane));
        if !is_own && self.judge.is_tainted(packet.sender) && self.corrupter.passes_on(packet) {
            self.stats.met(Met::AlteredPassedOn);
            self.judge.taint(packet.to);
        }
    }

    pub(super) fn note_altered(&mut self) {
        let Some(corruption) = self.plan.corruption else { return };
        self.stats.met(corruption.what.met());
        if corruption.what != Corrupted::Snapshot {
            self.judge.taint(corruption.home);
        }
    }

    fn said(&mut self, node: usize, event: Said) -> Result<(), Failure> {
        match event {
            Said::Accepted { node: who } => {
                self.accepted.insert(self.judge.home_of(who));
                self.found_if_all_came();
            }
            Said::Send { .. } => self.nodes[node].app.open = true,
            Said::Grace => self.nodes[node].app.open = false,
            Said::Stop => self.nodes[node].app.open = false,
            Said::Final { result } => {
                let report = Bytes::from(result.index.0.to_le_bytes().to_vec());
                self.nodes[node].inbox.push_back(Item::Ask(Request::Report(report)));
                return self.rejects_the_rest(node);
            }
            Said::Suspended { node: who } if who == self.nodes[node].id => {
                self.stats.met(Met::Suspended);
                self.nodes[node].app.suspended = true;
                let (home, after_us) = (self.nodes[node].home, self.nodes[node].app.suspends.unwrap_or_default());
                self.queue.at(self.now_us, Event::Fault(Fault::Suspend { node: home, after_us, announced: true }));
            }
            Said::SlowDown { .. } => self.stats.met(Met::SlowedDown),
            Said::SlowDownEnded { end: SlowDownEnd::Joined, .. } => self.stats.met(Met::SlowDownJoined),
            Said::SlowDownEnded { end: SlowDownEnd::TimeExpired, .. } => self.stats.met(Met::SlowDownExpired),
            Said::FinalResultMissing { .. } => self.nodes[node].misses_final = true,
            Said::Closed => self.nodes[node].closed = true,
            Said::Left { node: who } if who == self.nodes[node].id => self.nodes[node].left = true,
            Said::Diverged { .. } | Said::UnreadableLog { .. } => {
                self.stats.met(Met::Corrupted);
                self.nodes[node].diverged = true;
            }
            Said::CoordinatorLost { .. } => {
                self.stats.met(Met::CoordinatorLost);
                let now = self.nodes[node].clock.at(self.now_us);
                let lost_for = self.nodes[node].coordinator_lost_at.map_or(Duration::ZERO, |since| now.since(since));
                if lost_for < self.plan.parameters.coordinator_timeout {
                    let what = format!("gave the coordinator up after {lost_for:?}");
                    return Err(self.judge.failure("a short outage is none", node, what));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A node has left: its process ends, and its approved messages are at others (`protocol.md` §6.8).
    fn gone(&mut self, node: usize) -> Result<(), Failure> {
        self.stats.met(Met::Left);
        let alive = |place: usize| self.goes_on(place);
        let others = |place: usize| place != node && alive(place);
        let lost = self.judge.is_lost(others) && !self.judge.is_lost(alive);
        if lost {
            return Err(self.judge.failure("who leaves takes nothing along", node, "nobody else is complete"));
        }
        if self.judge.view().is_some_and(|view| view.last) {
            // A node that leaves a group that ends need not leave a majority behind.
            self.takes(node);
        }
        self.die(node)
    }

    /// Counts a snapshot that the machine has kept, other than one that it was given.
    fn note_snapshot(&mut self, node: usize, kept: Index, outputs: &[Output]) {
        let given = outputs.iter().any(|output| matches!(output, Output::Restore { .. }));
        if core::mem::replace(&mut self.nodes[node].snapshot, kept) < kept && !given {
            self.stats.met(Met::SnapshotTaken);
        }
    }

    /// The application applies an entry of the result, and offers a snapshot sometimes.
    fn apply(&mut self, node: usize, entry: &Entry) -> Result<(), Failure> {
        let app = &mut self.nodes[node].app;
        app.state.apply(entry);
        let state = app.state;
        if self.plan.snapshot_every.is_some_and(|every| state.index >= app.said + every) {
            app.said = state.index;
            let (index, snapshot) = (Index(state.index), self.stored_state(node, state)?);
            self.nodes[node].inbox.push_back(Item::Ask(Request::Snapshot { index, state: snapshot }));
        }
        self.judge.is_state("applied messages make one state", node, state)
    }

    /// The state of a node's application for a snapshot: with `Disk` it is stored before.
    fn stored_state(&mut self, node: usize, state: State) -> Result<SnapshotState, Failure> {
        if !self.plan.on_disk() {
            return Ok(SnapshotState::Here(state.snapshot()));
        }
        // No process takes two snapshots of one index, and fetched ones have ids of a lower half.
        let id = 1 << 63 | run_at(node) | state.index;
        let stored = self.disks[self.nodes[node].home].store_state(id, &state.snapshot());
        let failure = |error: DiskError| self.judge.failure("a state can be stored", node, error.to_string());
        stored.map(SnapshotState::Parts).map_err(failure)
    }

    /// Entries that the application has not applied come from the disk.
    fn resume(&mut self, node: usize, after: Index) {
        self.stats.met(Met::ResumedLate);
        if let Some(state) = self.judge.state_at(after.0) {
            (self.nodes[node].app.state, self.nodes[node].app.said) = (state, state.index);
        }
    }

    /// The application takes the state of a snapshot in place of its own.
    fn restore(&mut self, node: usize, index: Index, snapshot: &SnapshotState) -> Result<(), Failure> {
        // A node that asks no other for admission has started from its disk.
        let from_disk = self.nodes[node].contact.is_none() && self.nodes[node].app.state.index == 0;
        self.stats.met(if from_disk { Met::RestoredFromDisk } else { Met::RestoredFromOther });
        let snapshot = match snapshot {
            SnapshotState::Here(bytes) => Some(bytes.clone()),
            SnapshotState::Parts(parts) => self.disks[self.nodes[node].home].state(*parts),
        };
        let Some(snapshot) = snapshot else {
            return Err(self.judge.failure("a restored snapshot is on the disk", node, format!("{index}")));
        };
        let state = State::restored(&snapshot).filter(|state| state.index == index.0);
        let Some(state) = state else {
            return Err(self.judge.failure("a snapshot knows the index that it is said to", node, format!("{index}")));
        };
        (self.nodes[node].app.state, self.nodes[node].app.said) = (state, state.index);
        self.judge.is_state("a snapshot is the state that the messages make", node, state)
    }

    /// Exactly the payloads that a member has handed over and that are not in the final result were rejected.
    fn rejects_the_rest(&self, node: usize) -> Result<(), Failure> {
        let approved = self.nodes[node].machine.last_approved();
        let rest = (self.nodes[node].app.handed_over > approved.0).then(|| approved.next());
        let told = self.judge.rejected_of(node);
        if rest != told {
            let what = format!("{told:?} instead of {rest:?}");
            return Err(self.judge.failure("what is in no result is rejected", node, what));
        }
        Ok(())
    }
}
