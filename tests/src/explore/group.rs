//! One choice after another in a group of three, and the promises that hold between nodes.

use std::time::Duration;

use cloudy_proto::wire::{ConsensusKind, ControlFrame, TallyFrame};
use cloudy_proto::{Frame, Rank};

use crate::explore::facts::{Broken, Facts, Way};
use crate::explore::local::{Edge, LocalId, Locals, NODES, Stimulus};
use crate::explore::scenario::Scenario;
use crate::explore::state::{Channel, Choice, State};
use crate::invariants::{ONE_SEQUENCE, REAL_TIME};

/// Choices that a calm group may take until nothing is missing: far above the longest correct run.
const CALM_CHOICES_MAX: usize = 20_000;

/// Maximum time of a calm group: above the longest time for which an evicted node is excluded.
const CALM: Duration = Duration::from_secs(40);

/// Length of a spell: above the failure timeout, and above the longest election timeout.
const SPELL: Duration = Duration::from_millis(600);

/// Three nodes, and all that they were seen to do.
pub struct Group {
    /// The facts about single nodes.
    pub locals: Locals,
    /// Choices that were tried.
    pub transitions: u64,
    /// All consensus frames but heartbeats arrive in any order too.
    pub consensus_is_free: bool,
}

/// A choice that leads nowhere at this time, or to another state.
type Next = Result<Option<State>, Broken>;

impl Group {
    /// A group that does not exist yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let locals = Locals::new(scenario.parameters(), scenario.off, scenario.reversed);
        Self { locals, transitions: 0, consensus_is_free: scenario.consensus_is_free }
    }

    /// The facts about a node.
    #[must_use]
    pub fn facts(&self, state: &State, node: usize) -> &Facts {
        self.locals.facts(state.locals[node])
    }

    /// Creates the group of three, and runs until all nodes vote.
    ///
    /// # Errors
    /// If a promise does not hold, or the group does not reach that state.
    pub fn create(&mut self) -> Result<State, Broken> {
        let begun = State::begin();
        let mut state = self.calm(&begun, &|_, _| true)?;
        for peer in 1..NODES {
            state = self.must(&state, 0, Stimulus::Invite(peer))?;
        }
        state = self.calm(&state, &|group, state| group.facts(state, 0).accepted.len() == NODES - 1)?;
        state = self.must(&state, 0, Stimulus::Create)?;
        self.calm(&state, &|group, state| {
            (0..NODES).all(|node| group.facts(state, node).active && group.facts(state, node).voters == NODES)
        })
    }

    /// Members broadcast, and nothing of that has arrived.
    ///
    /// # Errors
    /// If a promise does not hold, or one cannot broadcast.
    pub fn begin(&mut self, state: &State, payloads: [u8; NODES]) -> Result<State, Broken> {
        let mut state = state.clone();
        for (node, payloads) in payloads.into_iter().enumerate() {
            for _ in 0..payloads {
                state = self.must(&state, node, Stimulus::Broadcast)?;
            }
        }
        Ok(state)
    }

    /// Members broadcast, and all of that is in every result.
    ///
    /// # Errors
    /// If a promise does not hold, or it does not come to that.
    pub fn approve(&mut self, state: &State, payloads: [u8; NODES]) -> Result<State, Broken> {
        let all = payloads.iter().map(|&payloads| usize::from(payloads)).sum::<usize>();
        if all == 0 {
            return Ok(state.clone());
        }
        let state = self.begin(state, payloads)?;
        self.calm(&state, &|group, state| (0..NODES).all(|node| group.facts(state, node).result.len() == all))
    }

    fn must(&mut self, state: &State, node: usize, stimulus: Stimulus) -> Result<State, Broken> {
        let mut next = state.clone();
        if self.hand(&mut next, node, stimulus)? {
            return Ok(next);
        }
        Err(Broken::new("a group can be created", stimulus))
    }

    /// Faults are over, everything arrives, and clocks go alike: until something holds.
    ///
    /// # Errors
    /// If a promise does not hold, or it does not come to that.
    pub fn calm(&mut self, state: &State, settled: &dyn Fn(&Self, &State) -> bool) -> Result<State, Broken> {
        let mut state = state.clone();
        let mut waited = [Duration::ZERO; NODES];
        for _ in 0..CALM_CHOICES_MAX {
            if let Some(next) = self.next_due(&state)? {
                state = next;
                continue;
            }
            if settled(self, &state) {
                return Ok(state);
            }
            let deadline = |node: usize| Some((waited[node] + self.locals.deadline(state.locals[node])?, node));
            let Some((at, node)) = state.living().filter_map(deadline).min() else { break };
            if at > CALM {
                break;
            }
            waited[node] = at;
            if !self.hand(&mut state, node, Stimulus::Timer)? {
                break;
            }
        }
        let known: Vec<_> = state.living().map(|node| self.facts(&state, node).clone()).collect();
        Err(Broken::new("a calm group settles", known))
    }

    fn next_due(&mut self, state: &State) -> Next {
        for choice in state.due() {
            if let Some(next) = self.next(state, choice)? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// The nodes that wanted to leave are gone. All other live nodes are members of one view, and have one result with
    /// all their broadcasts; or all live nodes have a final result.
    #[must_use]
    pub fn is_settled(&self, state: &State) -> bool {
        let stays = |node: &usize| {
            let known = self.facts(state, *node);
            known.view().is_none_or(|view| view.ring.iter().any(|member| super::local::id_of(*node) == member.node))
        };
        let ended = |node: usize| self.facts(state, node).final_result.is_some();
        if (0..NODES).any(|node| self.facts(state, node).view().is_some_and(|view| view.last)) {
            return state.living().all(ended);
        }
        let longest = (0..NODES).map(|node| self.facts(state, node).result.len()).max();
        let view = (0..NODES).filter_map(|node| self.facts(state, node).views.keys().next_back()).max();
        state.living().filter(stays).all(|node| {
            let known = self.facts(state, node);
            known.broadcast == known.approved
                && Some(known.result.len()) == longest
                && known.views.keys().next_back() == view
                && known.view_items.last().map(|item| item.id()).as_ref() == view
                && !known.left
        }) && state.living().filter(|node| !stays(node)).all(|node| self.facts(state, node).left)
    }

    /// The state after a choice; none if it is not possible at this time.
    ///
    /// # Errors
    /// The promise that does not hold.
    pub fn next(&mut self, state: &State, choice: Choice) -> Next {
        let mut next = state.clone();
        let taken = match choice {
            Choice::Deliver(channel) => {
                let Some((at, packet)) = state.first(channel) else { return Ok(None) };
                next.flights.remove(at);
                self.hand(&mut next, channel.to(), Stimulus::Packet(packet))?
            }
            Choice::Notice { node, peer } => self.notice(&mut next, node, peer)?,
            Choice::Broadcast(node) => {
                next.budget.broadcasts[node] -= 1;
                self.hand(&mut next, node, Stimulus::Broadcast)?
            }
            Choice::Leave(node) => {
                next.budget.leaves[node] = false;
                self.hand(&mut next, node, Stimulus::Leave)?
            }
            Choice::End => {
                next.budget.end = false;
                self.hand(&mut next, 0, Stimulus::End)?
            }
            Choice::Timer(node) => {
                next.budget.timers[node] -= 1;
                self.hand(&mut next, node, Stimulus::Timer)?
            }
            Choice::Spell(node) => {
                next.budget.spells[node] -= 1;
                self.pass(&mut next, node)?
            }
            Choice::Crash(node) => {
                next.budget.crashes -= 1;
                next.crash(node);
                true
            }
            Choice::Cut(a, b) => {
                next.budget.cuts -= 1;
                next.cut(a, b);
                true
            }
            Choice::Restore(a, b) => {
                next.connect(a, b);
                true
            }
        };
        if !taken {
            return Ok(None);
        }
        self.hurry(&mut next)?;
        self.transitions += 1;
        Ok(Some(next))
    }

    /// A node notices a change of a link.
    fn notice(&mut self, state: &mut State, node: usize, peer: usize) -> Result<bool, Broken> {
        let Some(up) = state.notices[node][peer].pop() else { return Ok(false) };
        state.told[node][peer] = up;
        if up {
            return self.hand(state, node, Stimulus::Up(peer));
        }
        state.flights.retain(|(channel, _)| (channel.from(), channel.to()) != (peer, node));
        self.hand(state, node, Stimulus::Down(peer))
    }

    /// A node continues for a while, at each of its deadlines, and is handed nothing.
    fn pass(&mut self, state: &mut State, node: usize) -> Result<bool, Broken> {
        let mut passed = Duration::ZERO;
        while let Some(after) = self.locals.deadline(state.locals[node]).filter(|after| passed + *after <= SPELL) {
            passed += after;
            self.hand(state, node, Stimulus::Timer)?;
        }
        Ok(passed > Duration::ZERO)
    }

    /// Hands something to a node; false if it cannot take it at this time.
    fn hand(&mut self, state: &mut State, node: usize, stimulus: Stimulus) -> Result<bool, Broken> {
        let before = state.locals[node];
        if stimulus == Stimulus::Broadcast {
            let known = (0..NODES).map(|node| self.facts(state, node).result.len()).max().unwrap_or_default();
            state.known_before.broadcast(node, self.locals.facts(before).broadcast + 1, known);
        }
        let (to, sent, given_up) = match self.locals.step(before, stimulus) {
            Edge::Goes { to, sent, given_up } => (to, sent, given_up),
            Edge::Waits => return Ok(false),
            Edge::Stops => return Ok(true),
            Edge::Breaks(broken) => return Err(broken),
        };
        state.locals[node] = to;
        let live = state.live[node];
        for &(peer, packet) in sent.iter().filter(|(peer, _)| live[*peer]) {
            let stream = self.locals.packet(packet).stream;
            state.send(Channel::of(node, peer, stream), packet);
        }
        given_up.iter().for_each(|&peer| state.cut(node, peer));
        self.follows_what_was_known(state, node)?;
        self.check(state, node, before)?;
        Ok(true)
    }

    /// What is in a node's result comes after all that any result had when its broadcast began.
    fn follows_what_was_known(&self, state: &mut State, node: usize) -> Result<(), Broken> {
        for (at, placed) in self.facts(state, node).result.iter().enumerate() {
            let known = state.known_before.take(placed.origin, placed.seq);
            if at < known {
                return Err(Broken::new(REAL_TIME, (placed, at + 1, known)));
            }
        }
        Ok(())
    }

    /// Lets signs of life arrive at once: in which order they come changes no result.
    fn hurry(&mut self, state: &mut State) -> Result<(), Broken> {
        loop {
            let due = state.flights.iter().enumerate().position(|(at, (channel, packet))| {
                let first = at == 0 || state.flights[at - 1].0 != *channel;
                let told = state.told[channel.to()][channel.from()];
                first && told && self.is_hurried(&self.locals.packet(*packet).frame)
            });
            let Some(at) = due else { return Ok(()) };
            let mut next = state.clone();
            let (channel, packet) = next.flights.remove(at);
            if !self.hand(&mut next, channel.to(), Stimulus::Packet(packet))? {
                // A view that is not there yet: it waits with its stream.
                return Ok(());
            }
            *state = next;
        }
    }

    fn is_hurried(&self, frame: &Frame) -> bool {
        match frame {
            Frame::Tally(TallyFrame::Heartbeat(_)) => true,
            Frame::Control(ControlFrame::Consensus(message)) => {
                let beats = [ConsensusKind::Heartbeat, ConsensusKind::HeartbeatResponse];
                !self.consensus_is_free || beats.contains(&message.kind)
            }
            _ => false,
        }
    }

    /// Checks a node that has just made a step, from another state, against all others, also those that crashed.
    fn check(&self, state: &State, node: usize, before: LocalId) -> Result<(), Broken> {
        let (own, known) = (self.facts(state, node), self.locals.facts(before));
        let sizes = |facts: &Facts| {
            (facts.result.len(), facts.view_items.len(), facts.views.len(), facts.terms.len(), facts.final_result)
        };
        if sizes(own) == sizes(known) {
            return Ok(());
        }
        let before = known.result.len();
        for other in (0..NODES).filter(|&other| other != node) {
            let theirs = self.facts(state, other);
            let both = own.result.len().min(theirs.result.len());
            let from = before.min(both);
            if own.result[from..both] != theirs.result[from..both] {
                let what = (node, &own.result, other, &theirs.result);
                return Err(Broken::new("all results are prefixes of one", what));
            }
            let both = own.view_items.len().min(theirs.view_items.len());
            if own.view_items[..both] != theirs.view_items[..both] {
                return Err(Broken::new(ONE_SEQUENCE, (&own.view_items, &theirs.view_items)));
            }
            for (id, view) in own.views.iter().rev().take(2) {
                if theirs.views.get(id).is_some_and(|other| other != view) {
                    return Err(Broken::new("all have one view", (view, theirs.views.get(id))));
                }
            }
            if own.final_result.zip(theirs.final_result).is_some_and(|(own, theirs)| own != theirs) {
                let what = (own.final_result, theirs.final_result);
                return Err(Broken::new("all final results are one", what));
            }
            if let Some(term) = own.terms.intersection(&theirs.terms).next() {
                return Err(Broken::new("a term has one coordinator", (term, node, other)));
            }
        }
        for (placed, way) in own.result.iter().zip(&own.ways).skip(before) {
            if placed.seq > self.facts(state, placed.origin).broadcast {
                return Err(Broken::new("what enters was broadcast", placed));
            }
            if *way == Way::Walk {
                self.is_confirmed(state, own, placed.origin, (placed.view, placed.seq))?;
            }
        }
        Ok(())
    }

    /// P1: every member of the view but the origin has confirmed a payload that entered a result by the walk.
    fn is_confirmed(
        &self,
        state: &State,
        own: &Facts,
        origin: usize,
        (view, seq): (cloudy_proto::ViewId, u64),
    ) -> Result<(), Broken> {
        let Some(ring) = own.views.get(&view).map(|view| &view.ring).filter(|ring| ring.len() > 1) else {
            return Ok(());
        };
        let lane = ring.iter().position(|member| member.node == super::local::id_of(origin));
        let sent = |lane: usize| self.facts(state, origin).rounds.get(&(view, Rank(lane as u16), seq));
        let Some(&round) = lane.and_then(sent) else {
            return Err(Broken::new("a slot is sent before it enters", (view, origin, seq)));
        };
        let members = (0..NODES).filter(|&node| ring.iter().any(|member| member.node == super::local::id_of(node)));
        for member in members.filter(|&member| member != origin) {
            let confirmed = self.facts(state, member).confirmed.get(&(view, origin)).copied().unwrap_or_default();
            if confirmed <= round {
                let what = format!("payload {seq} of {origin}, round {round}: {member} only up to {confirmed}");
                return Err(Broken { rule: "every member confirms before approval", what });
            }
        }
        Ok(())
    }
}
