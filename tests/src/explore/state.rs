//! A state of the group: the state of each node, the frames in flight on each stream, and the faults that may still
//! happen.

use std::fmt;

use cloudy_proto::ViewId;
use cloudy_proto::wire::Stream;

use crate::explore::local::{LocalId, NODES, PacketId};

/// The pending notices of one end of a link, oldest first: two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notices(u8);

impl Notices {
    fn push(&mut self, up: bool) {
        let places = (8 - self.0.leading_zeros()).div_ceil(2) * 2;
        assert!(places < 8, "a link is made only once both ends know that the last one is gone");
        self.0 |= (2 | u8::from(up)) << places;
    }

    /// The oldest: true if the link is up.
    pub(super) fn pop(&mut self) -> Option<bool> {
        let first = self.0 & 3;
        self.0 >>= 2;
        (first > 0).then_some(first == 3)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A stream from one node to another, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u16);

impl Channel {
    /// Streams of one view: its tally stream and its lanes.
    const PER_VIEW: u16 = 1 + NODES as u16;
    const PAIRS: u16 = (NODES * NODES) as u16;

    pub(super) fn of(from: usize, to: usize, stream: Stream) -> Self {
        let in_view = |view: ViewId, at: u16| 2 + view.0 as u16 * Self::PER_VIEW + at;
        let number = match stream {
            Stream::Node | Stream::Control => 0,
            Stream::Result => 1,
            Stream::Tally { view } => in_view(view, 0),
            Stream::Lane { view, lane } => in_view(view, 1 + lane.0),
        };
        Self(number * Self::PAIRS + (from * NODES + to) as u16)
    }

    /// The sender.
    #[must_use]
    pub fn from(self) -> usize {
        usize::from(self.0 % Self::PAIRS) / NODES
    }

    /// The receiver.
    #[must_use]
    pub fn to(self) -> usize {
        usize::from(self.0) % NODES
    }
}

/// The events that may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// By node: payloads that its application will broadcast.
    pub broadcasts: [u8; NODES],
    /// By node: it will ask to leave.
    pub leaves: [bool; NODES],
    /// The creator will close the group.
    pub end: bool,
    /// By node: it may crash.
    pub may_crash: [bool; NODES],
    /// The number of those that will crash.
    pub crashes: u8,
    /// The number of cuts of links.
    pub cuts: u8,
    /// By node: how often it continues for a while without being handed anything.
    pub spells: [u8; NODES],
    /// By node: how often its next deadline comes.
    pub timers: [u8; NODES],
}

/// Payloads of one node for which it is remembered what was known before.
const PAYLOADS_MAX: usize = 4;

/// By node and payload that is in no result yet: the length of the longest result when its broadcast began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KnownBefore([[u8; PAYLOADS_MAX]; NODES]);

impl KnownBefore {
    /// A node broadcasts its payload of a number.
    pub(super) fn broadcast(&mut self, node: usize, seq: u64, known: usize) {
        self.0[node][seq as usize - 1] = known as u8;
    }

    /// A payload is in a result. Gives what was known before its broadcast; from here on it is compared as a part of results.
    pub(super) fn take(&mut self, node: usize, seq: u64) -> usize {
        self.0[node].get_mut(seq as usize - 1).map_or(0, |known| usize::from(core::mem::take(known)))
    }
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
    /// By node and peer: pending notices of their link.
    pub notices: [[Notices; NODES]; NODES],
    /// Frames in flight, by channel, and in their order on each.
    pub flights: Vec<(Channel, PacketId)>,
    /// What was known when the payloads on their way were broadcast.
    pub known_before: KnownBefore,
    /// The events that may still happen.
    pub budget: Budget,
}

/// The next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first frame of a channel arrives.
    Deliver(Channel),
    /// A node notices a change of a link.
    Notice {
        /// The node.
        node: usize,
        /// The other end.
        peer: usize,
    },
    /// An application broadcasts.
    Broadcast(usize),
    /// A node asks to leave.
    Leave(usize),
    /// The creator closes the group.
    End,
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
            Self::Deliver(channel) => write!(f, "{} -> {}", channel.from(), channel.to()),
            Self::Notice { node, peer } => write!(f, "{node} learns of its link to {peer}"),
            Self::Broadcast(node) => write!(f, "{node} broadcasts"),
            Self::Leave(node) => write!(f, "{node} asks to leave"),
            Self::End => write!(f, "0 ends the group"),
            Self::Timer(node) => write!(f, "{node}: the next deadline"),
            Self::Spell(node) => write!(f, "{node}: 600 ms pass"),
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
        let mut begun = Self {
            locals: std::array::from_fn(|node| node as LocalId),
            alive: [true; NODES],
            told: [[false; NODES]; NODES],
            live: [[false; NODES]; NODES],
            notices: [[Notices::default(); NODES]; NODES],
            flights: Vec::new(),
            known_before: KnownBefore::default(),
            budget: Budget::default(),
        };
        for node in 0..NODES {
            (0..node).for_each(|peer| begun.connect(peer, node));
        }
        begun
    }

    /// The nodes that have not crashed.
    pub fn living(&self) -> impl Iterator<Item = usize> + use<> {
        let alive = self.alive;
        (0..NODES).filter(move |&node| alive[node])
    }

    /// The possible events in this state, as far as they are known without asking a machine. Faults come last.
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

    /// The events that must happen at some time.
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
        for (at, &(channel, _)) in self.flights.iter().enumerate() {
            let first = at == 0 || self.flights[at - 1].0 != channel;
            if first && self.told[channel.to()][channel.from()] {
                choices.push(Choice::Deliver(channel));
            }
        }
        if self.budget.end && self.alive[0] {
            choices.push(Choice::End);
        }
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

    /// Puts a frame in flight.
    pub(super) fn send(&mut self, channel: Channel, packet: PacketId) {
        let at = self.flights.partition_point(|(other, _)| *other <= channel);
        self.flights.insert(at, (channel, packet));
    }

    /// The first frame of a channel.
    #[must_use]
    pub fn first(&self, channel: Channel) -> Option<(usize, PacketId)> {
        let at = self.flights.partition_point(|(other, _)| *other < channel);
        self.flights.get(at).filter(|(other, _)| *other == channel).map(|(_, packet)| (at, *packet))
    }

    /// Cuts a link; each end has yet to notice it, and until then receives frames in flight.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if !self.live[a][b] {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            self.live[node][peer] = false;
            if self.alive[node] {
                self.notices[node][peer].push(false);
            }
        }
    }

    /// A link is made; each end is still to learn of it.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            self.live[node][peer] = true;
            self.notices[node][peer].push(true);
        }
    }

    /// A process crashes, and frames on their way to it are lost. Frames that it has sent may still arrive, without a
    /// last part.
    pub(super) fn crash(&mut self, node: usize) {
        self.alive[node] = false;
        (0..NODES).filter(|&peer| peer != node).for_each(|peer| self.cut(node, peer));
        self.flights.retain(|(channel, _)| channel.to() != node);
        self.notices[node] = [Notices::default(); NODES];
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::Rank;

    use super::*;

    #[test]
    fn notices_come_in_their_order() {
        let mut notices = Notices::default();
        [true, false, true].into_iter().for_each(|up| notices.push(up));
        assert_eq!(
            [notices.pop(), notices.pop(), notices.pop(), notices.pop()],
            [Some(true), Some(false), Some(true), None]
        );
        assert!(notices.is_empty());
    }

    #[test]
    fn every_stream_of_every_pair_has_a_channel_of_its_own() {
        let in_view = |view: u64| {
            let view = ViewId(view);
            let lane = move |lane| Stream::Lane { view, lane: Rank(lane) };
            [Stream::Tally { view }, lane(0), lane(1), lane(2)]
        };
        let streams: Vec<Stream> =
            [Stream::Control, Stream::Result].into_iter().chain((0..9).flat_map(in_view)).collect();
        let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
        let all = pairs.flat_map(|(from, to)| streams.iter().map(move |stream| (from, to, *stream)));
        let channels: Vec<(Channel, usize, usize)> =
            all.map(|(from, to, stream)| (Channel::of(from, to, stream), from, to)).collect();
        let different: std::collections::BTreeSet<Channel> = channels.iter().map(|(channel, ..)| *channel).collect();
        assert_eq!(different.len(), channels.len());
        assert!(channels.iter().all(|(channel, from, to)| (channel.from(), channel.to()) == (*from, *to)));
    }
}
