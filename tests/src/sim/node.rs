//! A node of the simulated world: its machine, its mailbox, its links and its application.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::wire::Stream;
use cloudy_proto::{ApprovedItem, Index, Machine, NodeId, Parameters, Request, Seq, Time};

use crate::sim::queue::{Packet, Part};
use crate::sim::state::State;

/// An input that waits for the machine.
#[derive(Clone, Debug)]
pub enum Item {
    /// A link is up.
    Up {
        /// The other end.
        peer: usize,
        /// The connection.
        epoch: u64,
    },
    /// A link is gone.
    Down {
        /// The other end.
        peer: usize,
        /// The connection.
        epoch: u64,
    },
    /// A frame came.
    Frame(Packet),
    /// A part of a frame came.
    Part(Part),
    /// All records up to this ticket are synced.
    Synced(u64),
    /// The disk has read a part of the result for a peer.
    Read {
        /// The peer that lacks the part.
        to: NodeId,
        /// The stored part; none if it is not kept.
        items: Option<Vec<ApprovedItem>>,
    },
    /// The disk has read a part of a state for a peer.
    SnapshotRead {
        /// The peer that lacks the snapshot.
        to: NodeId,
        /// The id of the state's parts.
        id: u64,
        /// The offset in the state.
        offset: u64,
        /// The stored bytes; none if there are none.
        part: Option<Bytes>,
    },
    /// The application or the operator wants something.
    Ask(Request),
}

/// One end of a link.
#[derive(Debug, Default)]
pub struct LinkEnd {
    /// The connection that the machine was told of.
    pub told: Option<u64>,
    /// The newest connection that this end has seen, alive or gone.
    pub seen: u64,
    /// Frames of connections that this end has not seen yet.
    pub early: VecDeque<Packet>,
    /// Streams that are not read yet.
    pub parked: BTreeMap<Stream, VecDeque<Packet>>,
    /// Streams that were stopped.
    pub stopped: BTreeSet<Stream>,
}

impl LinkEnd {
    /// A newer connection, or none: nothing of the old one is left.
    pub fn replace(&mut self, told: Option<u64>, seen: u64) {
        self.told = told;
        self.seen = seen;
        self.parked.clear();
        self.stopped.clear();
    }
}

/// The broadcasts of an application that are not handed over yet.
#[derive(Debug, Default)]
pub struct App {
    /// May broadcast: from the start, or in a session between SEND and GRACE.
    pub open: bool,
    /// Payloads that wait for the machine to want them.
    pub queue: VecDeque<Bytes>,
    /// The number of its broadcasts.
    pub broadcast: u64,
    /// The number of broadcasts that the machine has taken.
    pub handed_over: u64,
    /// The last of them that the machine promised to put into a slot at once.
    pub at_once: Option<Seq>,
    /// The cost of the payloads that wait for a slot, as the machine knows it.
    pub waits: Option<u64>,
    /// The state that the result has made so far.
    pub state: State,
    /// The last index that it has said a snapshot of.
    pub said: u64,
    /// It wants to leave, and whether the machine knows that.
    pub leaves: Option<bool>,
    /// The time after which it starts again, once it has announced that it stops.
    pub suspends: Option<u64>,
    /// Whether its node has reported that it may stop.
    pub suspended: bool,
}

impl App {
    /// The next slot's payloads, within the limits of a slot. They wait until [`Self::hand_over`].
    pub fn next_batch(&self, parameters: &Parameters) -> Option<Batch> {
        let mut body = BytesMut::new();
        let mut count = 0;
        for payload in self.queue.iter().take(parameters.slot_payloads_max as usize) {
            if body.len() >= parameters.slot_bytes_max as usize {
                break;
            }
            push_payload(&mut body, payload);
            count += 1;
        }
        let first_seq = Seq(self.handed_over + 1);
        (count > 0).then(|| Batch { first_seq, count, body: body.freeze() })
    }

    /// The machine gets a batch.
    pub fn hand_over(&mut self, batch: &Batch) {
        self.queue.drain(..batch.count as usize);
        self.handed_over += u64::from(batch.count);
    }
}

/// A clock that runs too fast, from its own start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time that it showed at the beginning.
    pub start_us: u64,
    /// Its drift against true time, in parts per million.
    pub drift_ppm: u64,
}

impl Clock {
    const MILLION: u64 = 1_000_000;

    /// The time that it shows at a true time.
    #[must_use]
    pub fn at(&self, true_us: u64) -> Time {
        Time(self.start_us + true_us + true_us * self.drift_ppm / Self::MILLION)
    }

    /// The first true time at which it shows that.
    #[must_use]
    pub fn when(&self, shown: Time) -> u64 {
        let run = shown.0.saturating_sub(self.start_us);
        let mut true_us =
            (u128::from(run) * u128::from(Self::MILLION) / u128::from(Self::MILLION + self.drift_ppm)) as u64;
        while self.at(true_us) < shown {
            true_us += 1;
        }
        true_us
    }
}

/// The names of two processes are as far apart as random ones: a machine counts from its own on.
const RUN_BITS: u32 = 32;

/// The name of a process.
#[must_use]
pub fn run_at(place: usize) -> u64 {
    (place as u64) << RUN_BITS
}

/// The process of a name.
#[must_use]
pub fn place_of_run(run: u64) -> usize {
    (run >> RUN_BITS) as usize
}

/// One process of a node: each start is a new one.
pub struct Node {
    /// Its node's name.
    pub id: NodeId,
    /// Its node: the place of the node's first process, if it was there from the beginning.
    pub home: usize,
    /// The node that it asked to be let in.
    pub contact: Option<usize>,
    /// The machine under test.
    pub machine: Machine,
    /// Its process runs.
    pub alive: bool,
    /// It does not run before.
    pub asleep_until_us: u64,
    /// The inputs that wait for the machine.
    pub inbox: VecDeque<Item>,
    /// By the node at the other end.
    pub links: Vec<LinkEnd>,
    /// The last index that the newest snapshot knows, as its machine keeps it.
    pub snapshot: Index,
    /// Its application.
    pub app: App,
    /// Its clock.
    pub clock: Clock,
    /// When it is to be woken next.
    pub wake_at_us: Option<u64>,
    /// Since when it has no coordinator in reach.
    pub coordinator_lost_at: Option<Time>,
    /// It has left the group.
    pub left: bool,
    /// It has reported that no reachable node has the rest of the final result.
    pub misses_final: bool,
    /// It was told that the group is over.
    pub closed: bool,
    /// It stopped because its result differs from the others', or because it cannot read the control log.
    pub diverged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_first_shows_a_time_at_its_instant() {
        for drift_ppm in [0, 200, 100_000] {
            let clock = Clock { start_us: 77, drift_ppm };
            for shown in 77..2_000 {
                let when = clock.when(Time(shown));
                assert!(clock.at(when) >= Time(shown));
                assert!(when == 0 || clock.at(when - 1) < Time(shown), "{drift_ppm} {shown}");
            }
        }
    }
}
