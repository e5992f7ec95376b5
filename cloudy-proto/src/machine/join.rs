//! Coming into a running group, and onto its ring: newcomers, restarted processes, evicted nodes and observers
//! (`protocol.md` §6.5, §7).

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use crate::command::Command;
use crate::digest::Checkpoint;
use crate::id::{Incarnation, Index, NodeId, ViewId};
use crate::io::Event;
use crate::limits::{MEMBERS_MAX, OBSERVERS_MAX, RUNS_ADMITTED_MAX};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::wire::{ControlFrame, Refusal};
use crate::words::harmless;

/// Between two questions to be let in.
const JOIN_EVERY: Duration = Duration::from_millis(100);

/// What a node that comes into a running group wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A place on the ring.
    Member,
    /// To see what happens, and the result from an index on, if it wants any of that.
    Observer { from: Option<Index> },
}

/// A node on its way into a running group; an observer remains on it.
#[derive(Debug)]
pub(super) struct Joining {
    contact: NodeId,
    aim: Aim,
    /// The node that was asked last.
    asked: Option<NodeId>,
    /// The coordinator, as a node that was asked has said since the last tick.
    referred: Option<NodeId>,
    /// Observer: the linked nodes that know of it, and say how far they are.
    known_to: BTreeSet<NodeId>,
}

impl Joining {
    pub(super) fn new(contact: NodeId, aim: Aim) -> Self {
        Self { contact, aim, asked: None, referred: None, known_to: BTreeSet::new() }
    }

    /// It follows the result.
    pub(super) fn reads(&self) -> bool {
        !matches!(self.aim, Aim::Observer { from: None })
    }

    pub(super) fn observes(&self) -> bool {
        self.aim != Aim::Member
    }
}

impl Machine {
    /// This node reads along, and takes no place on the ring.
    pub(super) fn observes(&self) -> bool {
        self.arrival.joining.as_ref().is_some_and(Joining::observes)
    }

    /// A node that this one asked to be let in, or that is or was of the group: others have no say in it.
    #[must_use]
    pub fn is_of_group(&self, node: NodeId) -> bool {
        let asked = self.arrival.joining.as_ref().is_some_and(|joining| {
            joining.contact == node || joining.asked == Some(node) || joining.referred == Some(node)
        });
        asked || self.log.state().was_member(node) || self.log.state().founder() == Some(node)
    }

    /// Asks to be let in: the coordinator, or one after the other of the nodes that may know it.
    pub(super) fn ask_to_join(&mut self) {
        let Some(joining) = self.arrival.joining.as_mut().filter(|_| !self.log.state().is_closed()) else { return };
        let referred = joining.referred.take();
        self.set_timer(Timer::Join, JOIN_EVERY);
        if self.is_let_in() {
            return self.tell_members();
        }
        let candidates = self.candidates();
        let Some(joining) = &self.arrival.joining else { return };
        let after = joining.asked.and_then(|asked| candidates.iter().position(|&node| node == asked));
        let next = candidates.iter().cycle().nth(after.map_or(0, |at| at + 1)).copied();
        let referred = referred.filter(|node| joining.asked != Some(*node) && candidates.contains(node));
        if let Some(node) = referred.or(next) {
            self.ask(node);
        }
    }

    /// The log lists this run, or need not, and who coordinates the group is known and in reach.
    fn is_let_in(&self) -> bool {
        let listed = self.observes() || self.identity.incarnation > Incarnation(0);
        listed && self.log.state().view().is_some() && self.tracking.knows_term() && self.has_coordinator()
    }

    /// Linked nodes that are of the group, as far as known.
    fn candidates(&self) -> Vec<NodeId> {
        let Some(joining) = &self.arrival.joining else { return Vec::new() };
        let ring = self.log.state().view().into_iter().flat_map(|view| view.ring.iter().map(|member| member.node));
        let known = [Some(self.tracking.node()), joining.referred, Some(joining.contact)];
        let all: BTreeSet<NodeId> = known.into_iter().flatten().chain(ring).collect();
        all.into_iter().filter(|node| *node != self.identity.me && self.peers.is_linked(*node)).collect()
    }

    fn ask(&mut self, node: NodeId) {
        self.say_follow(node);
        self.say_join(node);
        if let Some(joining) = &mut self.arrival.joining {
            joining.asked = Some(node);
        }
    }

    fn say_join(&mut self, to: NodeId) {
        let Some(joining) = &mut self.arrival.joining else { return };
        let observer = joining.observes();
        if observer && self.peers.is_linked(to) {
            joining.known_to.insert(to);
        }
        let (run, result) = (self.identity.run, self.result.state().latest_checkpoint());
        // An observer from a later index has no digest that others could compare.
        let result = if self.identity.reads_all { result } else { Checkpoint::default() };
        self.send_control(to, ControlFrame::Join { run, observer, result });
    }

    /// Observer: tells the linked members that it is there, so that they say how far they are.
    fn tell_members(&mut self) {
        if !self.observes() {
            return;
        }
        let candidates = self.candidates();
        let Some(joining) = &self.arrival.joining else { return };
        let untold: Vec<NodeId> = candidates.into_iter().filter(|node| !joining.known_to.contains(node)).collect();
        untold.into_iter().for_each(|node| self.say_join(node));
    }

    /// A link is up: a node that comes asks who is there, and a node of the group tells a former member of it.
    pub(super) fn greet(&mut self, peer: NodeId) {
        if let Some(joining) = &mut self.arrival.joining {
            joining.known_to.remove(&peer);
            if joining.contact == peer || joining.referred == Some(peer) {
                self.ask_to_join();
            }
        }
        if self.log.state().is_closed() && self.knows(peer) {
            return self.say_ended(peer);
        }
        let runs = self.log.state().view().is_some() && !self.closing.is_final();
        if let Some(running) = self.running().filter(|_| runs && self.log.state().was_member(peer)) {
            self.send_control(peer, running);
        }
    }

    pub(super) fn part(&mut self, peer: NodeId) {
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_observer_gone(peer);
        }
        if let Some(joining) = &mut self.arrival.joining {
            joining.known_to.remove(&peer);
        }
    }

    /// Somebody asks to be let in. The coordinator decides; all others tell who that is.
    pub(super) fn take_join(&mut self, from: NodeId, run: u64, observer: bool, result: Checkpoint) {
        if self.log.state().view().is_none() {
            // Before the first view there is nothing to come into; it asks again.
            return;
        }
        self.comes_in_another_run(from, run);
        if let Some((view, ours)) = self.contradicts(result) {
            let node = self.identity.me;
            return self.send_control(from, ControlFrame::Diverged { view, node, theirs: ours, ours: result });
        }
        let is_new = !observer && !self.log.state().is_latest_run(from, run);
        let refused = if is_new { self.may_add_run() } else { Ok(()) };
        let refused = refused.and_then(|()| self.may_come(from, observer)).map_err(|reason| (reason, Refusal::Final));
        if let Err((reason, refusal)) = self.is_not_gone(observer).and(refused) {
            let reason = harmless(reason.as_bytes());
            return self.send_control(from, ControlFrame::Refuse { reason, refusal });
        }
        if observer {
            self.peers.on_observer(from);
        }
        if let Some(coordinating) = &mut self.coordinating {
            let term = coordinating.term();
            if is_new && coordinating.propose_run(from, run) {
                self.propose(&Command::Incarnate { node: from, run });
            }
            self.send_control(from, ControlFrame::Coordinates { term });
        }
        self.refer(from);
    }

    /// Coordinator: a restarted process that leads the voters before it has a place on the ring.
    pub(super) fn incarnate_itself(&mut self) {
        let comes = self.arrival.joining.as_ref().is_some_and(|joining| !joining.observes());
        if comes && !self.log.state().is_latest_run(self.identity.me, self.identity.run) {
            self.propose(&Command::Incarnate { node: self.identity.me, run: self.identity.run });
        }
    }

    fn refer(&mut self, to: NodeId) {
        if !self.has_coordinator() {
            return;
        }
        let coordinator = self.tracking.node();
        let known = if coordinator == self.identity.me {
            Some(&self.identity.addresses)
        } else {
            self.peers.addresses(coordinator)
        };
        let addresses = known.cloned().unwrap_or_default();
        let left = self.timers.left(Timer::Period, self.timers.now()).unwrap_or_default();
        self.send_control(to, ControlFrame::Refer { coordinator, addresses, left });
    }

    /// The view in force, and the digest here where it differs from a checkpoint that a node remembers.
    fn contradicts(&self, theirs: Checkpoint) -> Option<(ViewId, Checkpoint)> {
        let view = self.log.state().view().filter(|_| self.identity.reads_all)?.id;
        let ours = self.result.state().digest_at(theirs.index)?;
        (ours != theirs.digest).then_some((view, Checkpoint { index: theirs.index, digest: ours }))
    }

    /// This node has asked that one last to let it in.
    pub(super) fn has_asked(&self, node: NodeId) -> bool {
        self.arrival.joining.as_ref().is_some_and(|joining| joining.asked == Some(node))
    }

    /// Coordinator: says in words why no incarnation may be added. The result knows the last sequence number of each that
    /// is in it, for good: so it can say what became of any message.
    fn may_add_run(&self) -> Result<(), String> {
        let runs = self.result.state().last_seqs().len();
        if self.is_coordinator() && runs >= RUNS_ADMITTED_MAX {
            let name = &self.identity.name;
            return Err(format!(
                "the result of group {name:?} has messages of {runs} process starts, and {RUNS_ADMITTED_MAX} is the limit of one group; create another group"
            ));
        }
        Ok(())
    }

    /// Says in words that the group has stopped for good, to whom that matters.
    fn is_not_gone(&self, observer: bool) -> Result<(), (String, Refusal)> {
        let lost = self.votes_lost().filter(|_| self.tracking.is_loss_reported() && !observer);
        lost.map_or(Ok(()), |lost| Err((lost.to_string(), Refusal::Gone)))
    }

    /// Says in words why a node cannot come.
    fn may_come(&self, from: NodeId, observer: bool) -> Result<(), String> {
        let (name, me) = (&self.identity.name, self.identity.me.short());
        let known = self.peers.observers();
        if observer && known.len() >= OBSERVERS_MAX && !known.contains(&from) {
            return Err(format!(
                "node {me} has {OBSERVERS_MAX} observers of group {name:?} already; ask another member"
            ));
        }
        if observer || !self.is_coordinator() || self.log.state().was_member(from) {
            return Ok(());
        }
        let Some(view) = self.log.state().view() else { return Ok(()) };
        if !view.parameters.open {
            return Err(format!("group {name:?} takes no newcomers: only nodes that were on its ring may come back"));
        }
        if view.last || self.closing.is_stopping() {
            return Err(format!("group {name:?} ends"));
        }
        if view.members() >= MEMBERS_MAX {
            return Err(format!("the ring of group {name:?} is full: it has {MEMBERS_MAX} members"));
        }
        Ok(())
    }

    /// A node that was asked names the coordinator.
    pub(super) fn take_refer(&mut self, node: NodeId, addresses: Vec<SocketAddr>, left: Duration) {
        let Some(joining) = &mut self.arrival.joining else { return };
        if left > Duration::ZERO && self.timers.left(Timer::Period, self.timers.now()).is_some_and(|own| own > left) {
            // The phase began before this node came.
            self.timers.set(Timer::Period, self.timers.now() + left);
        }
        let asked = joining.asked == Some(node) || joining.referred.is_some();
        joining.referred = Some(node);
        if node == self.identity.me || self.is_let_in() {
            return;
        }
        if !self.peers.is_linked(node) {
            self.event(Event::Referred { node, addresses });
        } else if !asked {
            // At most one such question between two ticks, whatever the others say.
            self.ask(node);
        }
    }

    /// This run of the node takes part from here on: in a session it broadcasts, unless that is over.
    pub(super) fn arrive(&mut self) {
        if self.arrival.joining.as_ref().is_some_and(|joining| !joining.observes()) {
            self.arrival.joining = None;
            self.timers.stop(Timer::Join);
        }
        let stream = self.log.state().stream(self.identity.me, self.identity.incarnation);
        if let Some(event) = self.session.as_mut().and_then(|session| session.on_ring(stream)) {
            self.event(event);
        }
    }
}

/// Between two signs of life of an evicted node.
const REJOIN_EVERY: Duration = Duration::from_millis(100);

impl Machine {
    /// An evicted node says that it lives, and whether it could come back.
    pub(super) fn say_rejoin(&mut self) {
        let Some(view) = self.log.state().view().filter(|_| self.is_evicted()).cloned() else { return };
        let reaches = |node: NodeId| node == self.identity.me || self.peers.is_linked(node);
        let linked = self.has_coordinator() && view.ring.iter().all(|member| reaches(member.node));
        let ready = linked && self.is_near();
        self.set_timer(Timer::Rejoin, REJOIN_EVERY);
        if self.is_coordinator() {
            self.would_rejoin(self.identity.me, view.id, ready);
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), ControlFrame::Rejoin { view: view.id, ready });
        }
    }

    /// The log does not remember this node's incarnation: the coordinator would not accept it as a joiner.
    pub(super) fn notice_forgotten(&mut self) {
        let was_listed =
            self.identity.incarnation > Incarnation(0) && self.log.state().incarnation(self.identity.me).is_none();
        if was_listed && self.closing.final_result().is_none() && self.peers.evictions.on_forgotten() {
            self.event(Event::Forgotten);
        }
    }

    fn is_evicted(&self) -> bool {
        let listed = self.identity.incarnation > Incarnation(0) && !self.observes();
        let ended = self.closing.final_result().is_some() || self.log.state().is_closed();
        let follows = self.catch_up.fetching.is_some() && !self.plane.is_member() && !ended;
        listed && follows && !self.departure.is_wanted()
    }

    /// Coordinator: an evicted node lives, and may be ready to come back.
    pub(super) fn would_rejoin(&mut self, from: NodeId, of: ViewId, ready: bool) {
        if self.log.state().incarnation(from).is_none() {
            return;
        }
        self.peers.on_sign_of_life(from, self.timers.now());
        let in_force = self.log.state().view().is_some_and(|view| view.id == of && view.rank_of(from).is_none());
        if !ready || !in_force {
            self.peers.evictions.on_not_ready(from);
            return;
        }
        self.peers.evictions.on_ready(from, self.timers.now());
        let kept_out = self.peers.evictions.keeps_out(from, self.timers.now()) || self.is_leaving(from);
        if !kept_out && !self.closing.is_stopping() {
            self.view_change().start(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::digest::ResultBase;
    use crate::id::Seq;
    use crate::io::{Frame, Input, Output};
    use crate::machine::tests::alone;
    use crate::stored::StoredBase;
    use crate::wire::Stream;

    const NEWCOMER: NodeId = NodeId([9; 32]);

    /// What a group answers to a newcomer whose result has messages of so many incarnations.
    fn answer(runs: usize) -> Vec<ControlFrame> {
        let mut machine = alone(Parameters::default());
        let last_numbers = (0..runs as u64).map(|run| ((NodeId([8; 32]), Incarnation(run)), Seq(1))).collect();
        let base = StoredBase { base: ResultBase { last_numbers, ..ResultBase::default() }, ..StoredBase::default() };
        machine.result.resume_at(&base);
        machine.link_up(NEWCOMER, Vec::new());
        let join = ControlFrame::Join { run: 7, observer: false, result: Checkpoint::default() };
        let (incarnation, frame) = (Incarnation(0), Frame::Control(join));
        machine
            .handle(machine.timers.now(), Input::Frame { from: NEWCOMER, incarnation, stream: Stream::Control, frame });
        let outputs = core::iter::from_fn(|| machine.poll_output());
        let said = outputs.filter_map(|output| match output {
            Output::Send { to: NEWCOMER, frame: Frame::Control(frame), .. } => Some(frame),
            _ => None,
        });
        said.collect()
    }

    #[test]
    fn a_newcomer_is_refused_with_the_limit_once_a_result_knows_too_many_incarnations() {
        let refused = |said: &[ControlFrame]| said.iter().any(|frame| matches!(frame, ControlFrame::Refuse { .. }));
        assert!(!refused(&answer(RUNS_ADMITTED_MAX - 1)));
        let said = answer(RUNS_ADMITTED_MAX);
        let reason = said.iter().find_map(|frame| match frame {
            ControlFrame::Refuse { reason, .. } => Some(reason),
            _ => None,
        });
        assert!(reason.is_some_and(|reason| reason.contains("63488 is the limit")), "{said:?}");
    }
}
