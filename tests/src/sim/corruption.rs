//! One value of one node is altered, as by a fault of its memory or disk: the node must report it, and no other node's
//! result may differ (`protocol.md` §6, §8).

use bytes::{Bytes, BytesMut};
use cloudy_proto::slot::{Batch, Payloads, push_payload};
use cloudy_proto::wire::{ControlFrame, Fetched, LaneFrame, decode_command, encode_command};
use cloudy_proto::{Command, Digest, Frame, Index, InstallView, Record, Round, StoredBody, ViewId};

use crate::sim::queue::Packet;

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
}

impl Corrupted {
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

    /// A frame is on its way.
    pub(super) fn frame(&mut self, packet: &mut Packet) {
        let Some(Corruption { home, what }) = self.plan else { return };
        if let (Corrupted::Answer, Frame::Control(ControlFrame::Wedged(wedged))) = (what, &mut packet.frame)
            && packet.from == home
        {
            (wedged.first, wedged.digest) = (Index(wedged.first.0 + 7), Digest(!wedged.digest.0));
        }
        if packet.to != home {
            return;
        }
        match (what, &mut packet.frame) {
            (Corrupted::Slot, Frame::Lane(LaneFrame::Slot(slot))) => self.flip(&mut slot.batch.body),
            (Corrupted::ShortSlot, Frame::Lane(LaneFrame::Slot(slot))) if !self.done => {
                slot.batch = without_last(&slot.batch);
                self.done = true;
            }
            (Corrupted::Fetched, Frame::Control(ControlFrame::Fetched(Fetched::Entry { part, .. }))) => self.flip(part),
            (Corrupted::Cut | Corrupted::Command, Frame::Control(ControlFrame::Log { entries, .. })) => {
                entries.iter_mut().for_each(|entry| alter_install(what, entry));
            }
            (Corrupted::Cut | Corrupted::Command, Frame::Control(ControlFrame::Consensus(message))) => {
                message.entries.iter_mut().for_each(|entry| alter_install(what, &mut entry.command));
            }
            (Corrupted::LogState, Frame::Control(ControlFrame::LogState { state, .. })) => *state = unreadable(),
            (Corrupted::LogState, Frame::Control(ControlFrame::Consensus(message))) if !message.snapshot.is_empty() => {
                message.snapshot = unreadable();
            }
            _ => {}
        }
    }

    /// Records are on their way to a node's disk.
    pub(super) fn records(&mut self, home: usize, records: &mut [Record]) {
        if self.plan != Some(Corruption { home, what: Corrupted::Stored }) {
            return;
        }
        for record in records {
            match record {
                Record::Slot { slot, .. } => self.flip(&mut slot.batch.body),
                Record::Entry(entry) => {
                    if let StoredBody::Here(body) = &mut entry.body {
                        self.flip(body);
                    }
                }
                _ => {}
            }
        }
    }

    fn flip(&mut self, body: &mut Bytes) {
        let mut altered = body.to_vec();
        if let Some(last) = altered.last_mut().filter(|_| !self.done) {
            *last ^= 1;
            *body = altered.into();
            self.done = true;
        }
    }
}

fn without_last(batch: &Batch) -> Batch {
    let mut body = BytesMut::new();
    let payloads = Payloads::of(batch.body.clone()).take(batch.count as usize - 1);
    payloads.for_each(|payload| push_payload(&mut body, &payload));
    Batch { count: batch.count - 1, body: body.freeze(), ..batch.clone() }
}

fn alter_install(what: Corrupted, entry: &mut Bytes) {
    let Ok(Command::InstallView(install)) = decode_command(entry) else { return };
    if install.from == ViewId(1) {
        let cut = install.cut.iter().map(|round| Round(round.0.saturating_sub(1))).collect();
        let shorter = Command::InstallView(InstallView { cut, ..install });
        *entry = if what == Corrupted::Cut { encode_command(&shorter) } else { unreadable() };
    }
}

/// A frame that no version has written so far.
fn unreadable() -> Bytes {
    Bytes::from_static(&[0x7f, 1, 2, 3])
}
