//! One value of one node is altered, as by a fault of its memory or disk: the node must report it, and no other node's
//! result may differ (`protocol.md` §6, §8).

use bytes::{Bytes, BytesMut};
use cloudy_proto::slot::{Batch, Payloads, push_payload};
use cloudy_proto::wire::{ControlFrame, Fetched, LaneFrame, decode_command, encode_command};
use cloudy_proto::{Command, Digest, Frame, Index, InstallView, Record, Round, StoredBody, ViewId};

use crate::sim::queue::Packet;
use crate::sim::stats::Met;

/// The altered value, and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The node.
    pub home: usize,
    /// The value.
    pub what: Corrupted,
}

/// The value to alter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupted {
    /// A payload byte of the first slot that it receives.
    Slot,
    /// The last payload of the first slot that it receives: it is missing.
    ShortSlot,
    /// A payload byte of the first entry that it fetches.
    Fetched,
    /// A payload byte of the first message that its disk stores.
    Stored,
    /// The log entry that installs view 2, wherever the node meets it: its lanes end before their last round.
    Cut,
    /// The log entry that installs view 2: it is no command of this version.
    Command,
    /// The state that replaces older log entries: it does not decode.
    LogState,
    /// The first index and digest in its answer to `Wedge`.
    Answer,
    /// A byte of the state in the first snapshot that it fetches: the node has to notice that before it uses it.
    Snapshot,
}

impl Corrupted {
    /// The event that it is altered.
    #[must_use]
    pub fn met(self) -> Met {
        match self {
            Self::Slot | Self::ShortSlot => Met::SlotAltered,
            Self::Fetched => Met::FetchedAltered,
            Self::Stored => Met::StoredAltered,
            Self::Cut | Self::Command => Met::CommandAltered,
            Self::LogState => Met::LogStateAltered,
            Self::Answer => Met::AnswerAltered,
            Self::Snapshot => Met::SnapshotAltered,
        }
    }

    /// An entry of the log may be one that is altered.
    #[must_use]
    pub fn may_alter(entry: &Bytes) -> bool {
        !entry.is_empty() && decode_command(entry).map_or(true, |command| installs_view_2(&command))
    }

    /// It is in the control log.
    #[must_use]
    pub fn is_of_the_log(self) -> bool {
        matches!(self, Self::Cut | Self::Command | Self::LogState)
    }
}

/// Applies the corruption of a plan.
#[derive(Debug)]
pub(super) struct Corrupter {
    plan: Option<Corruption>,
    /// It is done; of the log, every copy of an entry is altered.
    done: bool,
}

impl Corrupter {
    pub(super) fn new(plan: Option<Corruption>) -> Self {
        Self { plan, done: false }
    }

    /// A snapshot for this node was altered: the node refuses it.
    pub(super) fn has_altered_snapshot_of(&self, home: usize) -> bool {
        self.done && self.plan == Some(Corruption { home, what: Corrupted::Snapshot })
    }

    /// A frame is on its way. True if it is altered.
    pub(super) fn frame(&mut self, packet: &mut Packet) -> bool {
        let Some(Corruption { home, what }) = self.plan else { return false };
        let altered = match (what, &mut packet.frame) {
            (Corrupted::Answer, Frame::Control(ControlFrame::Wedged(wedged))) if packet.from == home => {
                (wedged.first, wedged.digest) = (Index(wedged.first.0 + 7), Digest(!wedged.digest.0));
                true
            }
            _ if packet.to != home => false,
            (Corrupted::Slot, Frame::Lane(LaneFrame::Slot(slot))) => self.flip(&mut slot.batch.body),
            (Corrupted::ShortSlot, Frame::Lane(LaneFrame::Slot(slot))) if !self.done => {
                slot.batch = without_last(&slot.batch);
                true
            }
            (Corrupted::Fetched, Frame::Control(ControlFrame::Fetched(Fetched::Entry { part, .. }))) => self.flip(part),
            (
                Corrupted::Snapshot,
                Frame::Control(ControlFrame::Fetched(Fetched::Snapshot { base_length, offset, part, .. })),
            ) if *offset >= *base_length => self.flip(part),
            (Corrupted::Cut | Corrupted::Command, Frame::Control(ControlFrame::Log { entries, .. })) => {
                entries.iter_mut().fold(false, |altered, entry| alter_install(what, entry) | altered)
            }
            (Corrupted::Cut | Corrupted::Command, Frame::Control(ControlFrame::Consensus(message))) => {
                let entries = message.entries.iter_mut();
                entries.fold(false, |altered, entry| alter_install(what, &mut entry.command) | altered)
            }
            (Corrupted::LogState, Frame::Control(ControlFrame::LogState { state, .. })) => {
                *state = unreadable();
                true
            }
            (Corrupted::LogState, Frame::Control(ControlFrame::Consensus(message))) if !message.snapshot.is_empty() => {
                message.snapshot = unreadable();
                true
            }
            _ => false,
        };
        self.done |= altered;
        altered
    }

    /// Records are on their way to a node's disk. True if one is altered.
    pub(super) fn records(&mut self, home: usize, records: &mut [Record]) -> bool {
        if self.plan != Some(Corruption { home, what: Corrupted::Stored }) {
            return false;
        }
        let mut altered = false;
        for record in records {
            altered |= match record {
                Record::Slot { slot, .. } => self.flip(&mut slot.batch.body),
                Record::Entry(entry) => match &mut entry.body {
                    StoredBody::Here(body) => self.flip(body),
                    StoredBody::Slot { .. } => false,
                },
                _ => false,
            };
        }
        altered
    }

    /// A node that receives this frame from one that is altered may be altered too: the frame has a part of the result,
    /// of a snapshot or of the control log, a slot of a third member (`Relay`), or the end of the result, which an altered
    /// cut has moved.
    pub(super) fn passes_on(&self, packet: &Packet) -> bool {
        let forwarded = matches!(packet.frame, Frame::Lane(LaneFrame::Slot(_)));
        let of_result = matches!(
            packet.frame,
            Frame::Control(ControlFrame::Fetched(Fetched::Entry { .. } | Fetched::Snapshot { .. }))
        );
        let of_log = match &packet.frame {
            Frame::Control(ControlFrame::Log { .. } | ControlFrame::LogState { .. }) => true,
            Frame::Control(ControlFrame::Consensus(message)) => {
                !message.entries.is_empty() || !message.snapshot.is_empty()
            }
            Frame::Control(ControlFrame::Fetched(Fetched::End { .. })) => true,
            _ => false,
        };
        let is_of_the_log = self.plan.is_some_and(|plan| plan.what.is_of_the_log());
        self.done && (forwarded || of_result || (is_of_the_log && of_log))
    }

    /// Alters the last byte of the first body. True if it does.
    fn flip(&mut self, body: &mut Bytes) -> bool {
        let mut altered = body.to_vec();
        let Some(last) = altered.last_mut().filter(|_| !self.done) else { return false };
        *last ^= 1;
        *body = altered.into();
        self.done = true;
        true
    }
}

fn without_last(batch: &Batch) -> Batch {
    let mut body = BytesMut::new();
    let payloads = Payloads::of(batch.body.clone()).take(batch.count as usize - 1);
    payloads.for_each(|payload| push_payload(&mut body, &payload));
    Batch { count: batch.count - 1, body: body.freeze(), ..batch.clone() }
}

fn installs_view_2(command: &Command) -> bool {
    matches!(command, Command::InstallView(install) if install.from == ViewId(1))
}

/// True if the entry installs view 2: it is altered.
fn alter_install(what: Corrupted, entry: &mut Bytes) -> bool {
    let Ok(Command::InstallView(install)) = decode_command(entry) else { return false };
    if install.from != ViewId(1) {
        return false;
    }
    let cut = install.cut.iter().map(|round| Round(round.0.saturating_sub(1))).collect();
    let shorter = Command::InstallView(InstallView { cut, ..install });
    *entry = if what == Corrupted::Cut { encode_command(&shorter) } else { unreadable() };
    true
}

/// A frame that no version has written so far.
fn unreadable() -> Bytes {
    Bytes::from_static(&[0x7f, 1, 2, 3])
}
