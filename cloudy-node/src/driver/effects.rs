//! Carries out the outputs of the machines.

use cloudy_proto::wire::Stream;
use cloudy_proto::{Frame, GroupId, Incarnation, NodeId, Output};
use tracing::Level;

use crate::driver::Driver;
use crate::driver::run::Effect;
use crate::link_error::code;
use crate::repeats::Source;

/// The log text for a peer that breaks the protocol.
const BREACH: &str = "link closed: the peer broke the protocol";

impl Driver {
    pub(super) fn carry_out(&mut self, group: GroupId, effect: Effect) {
        match effect {
            Effect::Send(Output::Send { to, stream, frame }) => {
                let machine = self.groups.get(&group).map(|run| &run.machine).or_else(|| self.closed.machine(group));
                let incarnation = machine.map_or(Incarnation(0), cloudy_proto::Machine::incarnation);
                self.push(to, (group, incarnation, stream), &frame);
            }
            Effect::Send(Output::CloseLink { peer, reason }) => {
                let text = format_args!("{BREACH}: {reason}");
                self.links.repeats.say(Level::WARN, BREACH, Source::Node(peer), text);
                if let Some(link) = self.peers.get(&peer) {
                    link.close(code::BREACH, &reason);
                }
            }
            Effect::Send(Output::Redial { peer }) => {
                if let Some(link) = self.peers.get(&peer) {
                    link.close(code::SILENT, "silent for longer than the failure timeout: dialled again");
                }
            }
            Effect::Referred(node, addresses) => self.referred(node, &addresses),
            Effect::Persist(ticket, records) => {
                if let Some(disk) = &mut self.disk {
                    disk.persist(group, ticket, records);
                }
            }
            Effect::Read(to, from, bytes_max) => {
                if let Some(disk) = &self.disk {
                    disk.read_for(group, to, (from, bytes_max), &self.links.repeats);
                }
            }
            Effect::ReadSnapshot(to, from, bytes_max) => {
                if let Some(disk) = &self.disk {
                    disk.read_snapshot_for(group, to, (from, bytes_max), &self.links.repeats);
                }
            }
            Effect::Send(_) | Effect::Ended => {}
            Effect::Installed(view) => self.installed(group, &view),
        }
    }

    /// Collects a frame for this turn's write, if the peer is linked.
    pub(super) fn push(&mut self, to: NodeId, of: (GroupId, Incarnation, Stream), frame: &Frame) {
        let (group, incarnation, stream) = of;
        if let Some(link) = self.peers.get_mut(&to)
            && link.push(group, incarnation, stream, frame)
        {
            self.written_to.push(to);
        }
    }

    /// Writes each link once, in the order in which the machines first sent to their peers.
    pub(super) fn flush(&mut self) {
        for peer in self.written_to.drain(..) {
            if let Some(link) = self.peers.get_mut(&peer) {
                link.flush();
            }
        }
    }
}
