//! A state of the group: where each node is, what is under way on each stream, and what may still go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use cloudy_proto::wire::Stream;

use crate::explore::local::{LocalId, NODES, PacketId};

/// What an end of a link is about to learn of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// It is up.
    Up,
    /// It is gone.
    Down,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// By node: payloads that its application will broadcast.
    pub broadcasts: [u8; NODES],
    /// By node: it will ask to leave.
    pub leaves: [bool; NODES],
    /// By node: it may crash.
    pub may_crash: [bool; NODES],
    /// How many of those will.
    pub crashes: u8,
    /// How often a link is cut.
    pub cuts: u8,
    /// By node: how often it goes on for a while without being handed anything.
    pub spells: [u8; NODES],
    /// By node: how often its next deadline comes.
    pub timers: [u8; NODES],
}

/// A state of the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By node.
    pub locals: [LocalId; NODES],
    /// By node: it has not crashed.
    pub alive: [bool; NODES],
    /// By node and peer: its link is up, as far as it knows.
    pub told: [[bool; NODES]; NODES],
    /// By node and peer: their link is up.
    pub live: [[bool; NODES]; NODES],
    /// By node and peer: what it is about to learn of their link.
    pub notices: [[VecDeque<Notice>; NODES]; NODES],
    /// By sender, receiver and stream: frames under way, in their order.
    pub flights: BTreeMap<(usize, usize, Stream), VecDeque<PacketId>>,
    /// What may still happen.
    pub budget: Budget,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first frame of a stream arrives.
    Deliver {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// The stream.
        stream: Stream,
    },
    /// A node learns of what became of a link.
    Notice {
        /// Who learns it.
        node: usize,
        /// The other end.
        peer: usize,
    },
    /// An application broadcasts.
    Broadcast(usize),
    /// A node asks to leave.
    Leave(usize),
    /// A node's next deadline comes.
    Timer(usize),
    /// Time passes at a node that is handed nothing.
    Spell(usize),
    /// A process dies.
    Crash(usize),
    /// A link is cut.
    Cut(usize, usize),
    /// A link is made again.
    Restore(usize, usize),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver { from, to, stream } => write!(f, "{from} -> {to} on {stream:?}"),
            Self::Notice { node, peer } => write!(f, "{node} learns of its link to {peer}"),
            Self::Broadcast(node) => write!(f, "{node} broadcasts"),
            Self::Leave(node) => write!(f, "{node} asks to leave"),
            Self::Timer(node) => write!(f, "{node}: the next deadline"),
            Self::Spell(node) => write!(f, "{node}: 300 ms pass"),
            Self::Crash(node) => write!(f, "{node} dies"),
            Self::Cut(a, b) => write!(f, "the link {a} - {b} is cut"),
            Self::Restore(a, b) => write!(f, "the link {a} - {b} is made again"),
        }
    }
}

impl State {
    /// Every node as it begins, and all links about to come up.
    #[must_use]
    pub fn begin() -> Self {
        let others = |node: usize| std::array::from_fn(|peer| peer != node);
        let coming = |node: usize, peer: usize| if peer == node { VecDeque::new() } else { [Notice::Up].into() };
        Self {
            locals: std::array::from_fn(|node| node as LocalId),
            alive: [true; NODES],
            told: [[false; NODES]; NODES],
            live: std::array::from_fn(others),
            notices: std::array::from_fn(|node| std::array::from_fn(|peer| coming(node, peer))),
            flights: BTreeMap::new(),
            budget: Budget::default(),
        }
    }

    /// The nodes that have not crashed.
    pub fn living(&self) -> impl Iterator<Item = usize> + use<> {
        let alive = self.alive;
        (0..NODES).filter(move |&node| alive[node])
    }

    /// What may happen here, as far as can be told without asking a machine. Faults come last.
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = self.due();
        for node in self.living() {
            if self.budget.timers[node] > 0 {
                choices.push(Choice::Timer(node));
            }
            if self.budget.spells[node] > 0 {
                choices.push(Choice::Spell(node));
            }
            if self.budget.crashes > 0 && self.budget.may_crash[node] {
                choices.push(Choice::Crash(node));
            }
            if self.budget.cuts > 0 {
                choices.extend((0..node).filter(|&peer| self.live[node][peer]).map(|peer| Choice::Cut(peer, node)));
            }
        }
        choices
    }

    /// What has to happen sooner or later.
    #[must_use]
    pub fn due(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for node in self.living() {
            for peer in (0..NODES).filter(|&peer| !self.notices[node][peer].is_empty()) {
                choices.push(Choice::Notice { node, peer });
            }
            choices
                .extend((0..node).filter(|&peer| self.is_parted(node, peer)).map(|peer| Choice::Restore(peer, node)));
        }
        let told = self.flights.keys().filter(|(from, to, _)| self.told[*to][*from]);
        choices.extend(told.map(|&(from, to, stream)| Choice::Deliver { from, to, stream }));
        for node in self.living() {
            if self.budget.broadcasts[node] > 0 {
                choices.push(Choice::Broadcast(node));
            }
            if self.budget.leaves[node] {
                choices.push(Choice::Leave(node));
            }
        }
        choices
    }

    /// Both live, have no link, and know it.
    fn is_parted(&self, a: usize, b: usize) -> bool {
        let knows = |node: usize, peer: usize| self.alive[node] && self.notices[node][peer].is_empty();
        !self.live[a][b] && knows(a, b) && knows(b, a)
    }

    /// A link is gone; each end is still to learn of it, and until then takes what is under way.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if !self.live[a][b] {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            self.live[node][peer] = false;
            if self.alive[node] {
                self.notices[node][peer].push_back(Notice::Down);
            }
        }
    }

    /// A link is made; each end is still to learn of it.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            self.live[node][peer] = true;
            self.notices[node][peer].push_back(Notice::Up);
        }
    }

    /// A process dies, with all that is on its way to it. What it has sent may still arrive, or a last part of that may
    /// not.
    pub(super) fn crash(&mut self, node: usize) {
        self.alive[node] = false;
        (0..NODES).filter(|&peer| peer != node).for_each(|peer| self.cut(node, peer));
        self.flights.retain(|(_, to, _), _| *to != node);
        self.notices[node].iter_mut().for_each(VecDeque::clear);
    }
}
