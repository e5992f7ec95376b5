//! The pending events, in the order of virtual time.

use std::collections::BTreeMap;

use cloudy_proto::{Frame, Incarnation, NodeId, Position, wire};

use crate::sim::plan::Fault;

/// A frame in flight.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The sending node.
    pub from: usize,
    /// The sending process.
    pub sender: usize,
    /// The receiving node.
    pub to: usize,
    /// The connection that it travels on.
    pub epoch: u64,
    /// The stream.
    pub stream: wire::Stream,
    /// The sender's run, as the stream's header says.
    pub incarnation: Incarnation,
    /// The frame.
    pub frame: Frame,
}

/// A part of a frame that is not complete.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// The connection that it travels on.
    pub epoch: u64,
    /// The stream.
    pub stream: wire::Stream,
    /// The sender's run, as the stream's header says.
    pub incarnation: Incarnation,
    /// The number of bytes.
    pub bytes: u64,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame arrives.
    Arrive(Packet),
    /// A part of a frame arrives on a narrow link.
    PartArrives(Part),
    /// A process learns that a link is up.
    Up {
        /// Which.
        node: usize,
        /// The node at the other end.
        peer: usize,
        /// The connection.
        epoch: u64,
    },
    /// A process learns that a link is gone.
    Down {
        /// Which.
        node: usize,
        /// The node at the other end.
        peer: usize,
        /// The connection.
        epoch: u64,
    },
    /// A pair dials again.
    Redial {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Frames from one node to another arrive again.
    Release {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// Frames are through a narrow link, or the link is as wide as before.
    Through {
        /// The sender.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// A node's timer, or the end of its sleep.
    Wake {
        /// Whose.
        node: usize,
    },
    /// A process is started at a node.
    Start {
        /// Which node.
        home: usize,
    },
    /// A sync is done.
    Synced {
        /// Which process gave the records out.
        node: usize,
        /// Up to this ticket.
        ticket: u64,
    },
    /// A disk has read a part of the result.
    Read {
        /// Which process asked for it.
        node: usize,
        /// The peer that lacks the part.
        to: NodeId,
        /// From which position on.
        from: Position,
        /// The maximum number of bytes.
        bytes_max: usize,
    },
    /// A disk has read a part of a state.
    ReadSnapshot {
        /// Which process asked for it.
        node: usize,
        /// The peer that lacks the snapshot.
        to: NodeId,
        /// The id of the state's parts, and the offset.
        place: (u64, u64),
        /// The maximum number of bytes.
        bytes_max: usize,
    },
    /// An application broadcasts.
    Broadcast {
        /// Whose.
        node: usize,
    },
    /// A fault.
    Fault(Fault),
    /// Faults and broadcasts end.
    Heal,
}

/// Events by time, and in the order of their making within one.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
}

impl Queue {
    /// Puts an event at a time.
    pub fn at(&mut self, time_us: u64, event: Event) {
        self.made += 1;
        self.events.insert((time_us, self.made), event);
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.events.keys().next().map(|(time_us, _)| *time_us)
    }

    /// Takes the next event and its time.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((time_us, _), event)| (time_us, event))
    }
}
