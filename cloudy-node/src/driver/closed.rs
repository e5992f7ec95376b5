//! Closed groups: their machines stay for a while and answer nodes that were away (`protocol.md` §6.9).

use std::collections::VecDeque;

use cloudy_proto::wire::ControlFrame;
use cloudy_proto::{Durability, Frame, GroupId, Input, Machine, NodeId, Output, Time};

use crate::driver::Driver;
use crate::driver::run::{Effect, GroupRun};

/// Maximum of closed groups that the driver keeps.
const CLOSED_GROUPS_MAX: usize = 64;
/// Maximum memory of all closed groups for the results that they serve, in bytes.
const CLOSED_BYTES_MAX: u64 = 64 << 20;

/// A group whose log ends with its close.
pub(crate) struct ClosedGroup {
    id: GroupId,
    name: String,
    pub(super) machine: Machine,
}

/// The groups that closed here last, oldest first.
#[derive(Default)]
pub(crate) struct ClosedGroups(VecDeque<ClosedGroup>);

impl ClosedGroups {
    /// Keeps a closed group. If there are too many, the oldest is dropped; if results take too much memory, the oldest
    /// results are dropped.
    fn add(&mut self, id: GroupId, run: GroupRun) {
        let GroupRun { mut machine, shared, .. } = run;
        if machine.durability() == Durability::Disk {
            // It serves the part on its disk.
            machine.forget_retained();
        }
        self.0.push_back(ClosedGroup { id, name: shared.name.clone(), machine });
        if self.0.len() > CLOSED_GROUPS_MAX {
            self.0.pop_front();
        }
        let mut bytes: u64 = self.0.iter().map(|group| group.machine.retained_bytes()).sum();
        for group in &mut self.0 {
            if bytes <= CLOSED_BYTES_MAX {
                break;
            }
            bytes -= group.machine.retained_bytes();
            group.machine.forget_retained();
        }
    }

    pub(super) fn machine(&self, id: GroupId) -> Option<&Machine> {
        self.0.iter().find(|group| group.id == id).map(|group| &group.machine)
    }

    fn machine_mut(&mut self, id: GroupId) -> Option<&mut Machine> {
        self.0.iter_mut().find(|group| group.id == id).map(|group| &mut group.machine)
    }

    /// The last closed group of that name.
    pub(super) fn named(&self, name: &str) -> Option<(GroupId, &Machine)> {
        self.0.iter().rev().find(|group| group.name == name).map(|group| (group.id, &group.machine))
    }

    pub(super) fn forget(&mut self, id: GroupId) {
        self.0.retain(|group| group.id != id);
    }

    /// Drops groups on disk: they have nothing to serve after a failure of the disk.
    pub(super) fn forget_stored(&mut self) {
        self.0.retain(|group| group.machine.durability() == Durability::Memory);
    }

    /// Passes an input of a link to all closed groups.
    pub(super) fn handle_all(&mut self, now: Time, input: &Input) {
        self.0.iter_mut().for_each(|group| group.machine.handle(now, input.clone()));
    }
}

impl Driver {
    /// Removes a group that does not continue here. If it is closed, its machine continues to answer.
    pub(super) fn keep_closed(&mut self, id: GroupId, run: GroupRun) {
        if run.closed {
            self.closed.add(id, run);
        }
    }

    /// Passes an input to a closed group; false if there is none.
    pub(super) fn handle_closed(&mut self, id: GroupId, input: Input) -> bool {
        let now = self.now();
        let machine = self.closed.machine_mut(id);
        machine.map(|machine| machine.handle(now, input)).is_some()
    }

    /// Carries out the outputs of closed groups: they only answer.
    pub(super) fn turn_closed(&mut self) {
        let mut effects = Vec::new();
        for group in &mut self.closed.0 {
            while let Some(output) = group.machine.poll_output() {
                let effect = match output {
                    Output::Send { .. } | Output::CloseLink { .. } => Effect::Send(output),
                    Output::ReadResult { to, from, bytes_max } => Effect::Read(to, from, bytes_max),
                    Output::ReadSnapshot { to, id, offset, bytes_max } => {
                        Effect::ReadSnapshot(to, (id, offset), bytes_max)
                    }
                    Output::Persist { ticket, records } => Effect::Persist(ticket, records),
                    _ => continue,
                };
                effects.push((group.id, effect));
            }
        }
        effects.into_iter().for_each(|(id, effect)| self.carry_out(id, effect));
    }

    /// Answers a frame of a group that is not here and is no invitation.
    pub(super) fn say_absent(&mut self, to: NodeId, group: GroupId, frame: &Frame) {
        let seeks = matches!(
            frame,
            Frame::Control(ControlFrame::Follow { .. } | ControlFrame::Join { .. } | ControlFrame::Consensus(_))
        );
        if seeks {
            self.answer_of(to, group, ControlFrame::Absent);
        }
    }
}
