//! The control log at the coordinator, and those who follow it.

use bytes::Bytes;

use crate::command::Command;
use crate::control::{Applied, ControlLog};
use crate::id::{LogIndex, NodeId};
use crate::io::Output;
use crate::limits::LOG_ENTRIES_PER_FRAME_MAX;
use crate::machine::Machine;
use crate::wire::{ControlFrame, decode_command, encode_command};

impl Machine {
    pub(super) fn propose(&mut self, command: &Command) {
        if let Some(log) = &mut self.log {
            log.propose(encode_command(command));
        }
    }

    /// Coordinator: applies what was committed.
    pub(super) fn apply_committed(&mut self) {
        while let Some((_, entry)) = self.log.as_mut().and_then(ControlLog::next_committed) {
            match decode_command(&entry) {
                Ok(command) => self.apply(command),
                Err(error) => debug_assert!(false, "an own entry of the log does not decode: {error}"),
            }
        }
    }

    /// A node wants the log from an entry on.
    pub(super) fn follow(&mut self, from: NodeId, next: LogIndex) {
        if self.is_coordinator() {
            self.followers.insert(from, next);
            self.flush_log();
            self.say_wedge(from);
        }
    }

    /// Tells each follower what it does not have.
    pub(super) fn flush_log(&mut self) {
        let Some(log) = &self.log else { return };
        let mut frames = Vec::new();
        for (&node, next) in &mut self.followers {
            for entries in log.tail(*next).chunks(LOG_ENTRIES_PER_FRAME_MAX) {
                frames.push((node, ControlFrame::Log { first: *next, entries: entries.to_vec() }));
                next.0 += entries.len() as u64;
            }
        }
        frames.into_iter().for_each(|(node, frame)| self.send_control(node, frame));
    }

    /// Follower: entries of the log, which may be known in part.
    pub(super) fn take_log(&mut self, from: NodeId, first: LogIndex, entries: &[Bytes]) {
        if from != self.coordinator || self.is_coordinator() {
            return self.breach(from, "it sends a control log that is not its to keep".to_owned());
        }
        for (at, entry) in entries.iter().enumerate() {
            let index = LogIndex(first.0 + at as u64);
            if index > self.state.next() {
                return self.breach(from, format!("the control log has a gap before entry {index}"));
            }
            if index == self.state.next() {
                match decode_command(entry) {
                    Ok(command) => self.apply(command),
                    Err(error) => return self.breach(from, format!("entry {index} of the control log: {error}")),
                }
            }
        }
    }

    fn apply(&mut self, command: Command) {
        match self.state.apply(command) {
            Applied::Incarnated { node, incarnation } => {
                if node == self.me {
                    self.delivery.incarnation = incarnation;
                }
            }
            Applied::Installed { view, before, cut } => self.install(view, before.as_deref(), &cut),
            Applied::Kickstarted(plan) => self.kickstarted(plan),
            Applied::Grace => self.enter_grace(),
            Applied::Closed => self.closed(),
            Applied::Nothing => {}
        }
    }

    pub(super) fn breach(&mut self, peer: NodeId, reason: String) {
        self.delivery.outputs.push_back(Output::CloseLink { peer, reason });
    }
}
