//! The moments of a group's life at which a fault is planned, and at which a node crashed.

use bytes::Bytes;
use cloudy_proto::wire::{ControlFrame, decode_command};
use cloudy_proto::{Command, Event as Said, Frame, Output, ViewId};

use crate::sim::plan::Step;
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::World;

impl World {
    /// A node puts something out that may be the first of a step.
    pub(super) fn note_step(&mut self, output: &Output) {
        match output {
            Output::Event(Said::ViewInstalled { view, .. }) => match view.id {
                ViewId(1) => self.step_taken(Step::Created, 1),
                ViewId(later) => self.step_taken(Step::Install, later - 1),
            },
            Output::Event(Said::Send { .. }) => self.step_taken(Step::Kickstart, 0),
            Output::Event(Said::Stop) => self.step_taken(Step::Stop, 0),
            Output::Event(Said::Final { .. }) => self.step_taken(Step::Final, 0),
            Output::Send { frame: Frame::Control(ControlFrame::Wedge { view, .. }), .. } => {
                self.step_taken(Step::Wedge, view.0);
            }
            Output::Send { frame: Frame::Control(ControlFrame::Consensus(message)), .. } => {
                let proposed = message.entries.iter().filter_map(|entry| view_before(&entry.command));
                let proposed: Vec<u64> = proposed.filter(|view| *view > 0).collect();
                proposed.into_iter().for_each(|view| self.step_taken(Step::Install, view));
            }
            _ => {}
        }
    }

    fn step_taken(&mut self, step: Step, of: u64) {
        if !self.steps.insert((step, of)) || self.healed {
            return;
        }
        if let Some(at) = self.plan.at_steps.iter().position(|(due, ..)| *due == step) {
            let (_, after_us, fault) = self.plan.at_steps.remove(at);
            self.queue.at(self.now_us + after_us, Event::Fault(fault));
        }
    }

    /// The moment of the group's life: counted when its coordinator dies.
    pub(super) fn moment(&self) -> Met {
        let Some(latest) = self.judge.view() else { return Met::CoordinatorKilledBeforeView };
        let took = |step, of| self.steps.contains(&(step, of));
        if took(Step::Final, 0) {
            return Met::CoordinatorKilledBeforeClose;
        }
        if took(Step::Stop, 0) {
            return Met::CoordinatorKilledAtStop;
        }
        if self.plan.session.is_some() && !self.judge.kicked_off() {
            return Met::CoordinatorKilledBeforeKickstart;
        }
        let behind = |view: u64| {
            let mut living = (0..self.nodes.len()).filter(|&node| self.nodes[node].alive);
            living.any(|node| self.judge.view_of(node).0.0 <= view)
        };
        let proposed = [latest.id.0, latest.id.0 - 1].into_iter().find(|&view| took(Step::Install, view));
        if proposed.is_some_and(behind) {
            return Met::CoordinatorKilledAtInstall;
        }
        if took(Step::Wedge, latest.id.0) { Met::CoordinatorKilledAtWedge } else { Met::CoordinatorKilledInSend }
    }
}

/// The view that a proposed one is to follow.
fn view_before(command: &Bytes) -> Option<u64> {
    if command.is_empty() {
        return None;
    }
    match decode_command(command) {
        Ok(Command::InstallView(install)) => Some(install.from.0),
        _ => None,
    }
}
