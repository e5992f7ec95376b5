//! Fetching the missing part of the result, from one source at a time (`protocol.md` §7.7): requests, sources and timers.

use core::time::Duration;

use crate::config::Durability;
use crate::id::{NodeId, ViewId};
use crate::io::Event;
use crate::limits::{FETCH_BURST_BYTES, UNSYNCED_FETCH_BYTES_MAX};
use crate::machine::arrival::Arrival;
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::fetching::{Fetches, Fetching, Transfer};
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timers::{Timer, Timers};
use crate::outputs::Outputs;
use crate::path::Path;
use crate::result_log::ResultLog;
use crate::view::View;
use crate::wire::{ControlFrame, Fetch};

/// The number of steps in which the window is granted again …
const GRANTS_PER_WINDOW: u64 = 4;
/// … and the maximum of one: each request brings more than it takes to make the next one.
const GRANT_BYTES_MAX: u64 = FETCH_BURST_BYTES / 2;
/// The number of coordinator timeouts without any part of the final result after which that is reported.
const FINAL_PATIENCE: u32 = 5;

/// Fetches the missing part of the result. [`on_fetched`](Self::on_fetched) handles what sources send.
pub(super) struct FetchHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) arrival: &'a Arrival,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) fetches: &'a mut Fetches,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

impl FetchHandler<'_> {
    /// Starts to fetch: the result does not reach the beginning of the view in force, or this node is not on its ring.
    pub(super) fn start(&mut self, view: &View) {
        let ring = view.ring.iter().map(|member| member.node).filter(|&node| node != self.identity.me);
        let elsewhere = self.closing.told_by().filter(|node| view.rank_of(*node).is_none());
        let sources: Vec<NodeId> = ring.chain(elsewhere).collect();
        let before = self.fetches.missing.take();
        let fetching = self.fetches.missing.insert(Fetching::of(view.id, sources, before));
        if fetching.transfer.is_some() {
            // Entries on their way are not requested again.
            self.send_fetch();
            self.await_source();
        } else {
            self.fetch();
        }
    }

    /// Starts a transfer from the next source.
    pub(super) fn fetch(&mut self) {
        self.check_final();
        let Some(fetching) = &mut self.fetches.missing else { return };
        fetching.transfer = None;
        match fetching.next_source(|node| self.peers.is_linked(node)) {
            Some(source) => self.start_transfer(source),
            None => self.await_source(),
        }
    }

    /// Starts another transfer from the source of the one that is over.
    pub(super) fn fetch_on(&mut self) {
        let Some(fetching) = &mut self.fetches.missing else { return };
        match fetching.transfer.take().map(|transfer| transfer.source).filter(|node| self.peers.is_linked(*node)) {
            Some(source) => self.start_transfer(source),
            None => self.fetch(),
        }
    }

    pub(super) fn start_transfer(&mut self, source: NodeId) {
        if self.waits_for_snapshot() {
            return self.await_source();
        }
        let number = self.fetches.next_number();
        let Some(fetching) = &mut self.fetches.missing else { return };
        fetching.last = Some((source, false));
        fetching.transfer = Some(Transfer { source, number, granted: 0, received: 0 });
        self.fetches.pace.start(self.timers.now());
        self.await_source();
        self.grant();
    }

    /// Lets the source send more, as far as the window and the own disk allow.
    pub(super) fn grant(&mut self) {
        let window = self.fetches.pace.window_bytes();
        let Some(transfer) = self.fetches.transfer() else { return };
        let (granted, received) = (transfer.granted, transfer.received);
        let step = (window / GRANTS_PER_WINDOW).min(GRANT_BYTES_MAX);
        if received + window < granted + step {
            return;
        }
        let wanted = received + window.min(self.unsynced_left());
        // The last part of a grant may exceed it: less than one is not worth a request.
        let is_idle = received >= granted;
        if wanted >= granted + step || (is_idle && wanted > granted) {
            if let Some(transfer) = self.fetches.transfer_mut() {
                transfer.granted = wanted;
            }
            self.fetches.pace.request(wanted, received, self.timers.now());
            self.send_fetch();
        } else if is_idle {
            // The source waits for this node's disk.
            self.timers.stop(Timer::Fetch);
        }
    }

    /// Bytes that may be fetched without exceeding the maximum that waits for the disk.
    fn unsynced_left(&self) -> u64 {
        match self.identity.durability {
            Durability::Memory => u64::MAX,
            Durability::Disk => UNSYNCED_FETCH_BYTES_MAX.saturating_sub(self.storage.unsynced_fetch_bytes()),
        }
    }

    /// A snapshot is received, and its parts are not all synced: the next transfer begins after it.
    fn waits_for_snapshot(&self) -> bool {
        self.fetches.missing.as_ref().is_some_and(|fetching| fetching.held.is_complete_snapshot())
    }

    /// Continues a transfer that waits for the disk, which has synced more.
    pub(super) fn on_synced(&mut self) {
        self.finish_synced();
        if self.fetches.transfer().is_some_and(|transfer| transfer.received >= transfer.granted) {
            self.await_source();
            self.grant();
        }
    }

    /// Sends the request of the transfer to its source.
    fn send_fetch(&mut self) {
        let (from, view) = (self.result.state().index().next(), self.result.state().view_id());
        let Some(fetching) = &self.fetches.missing else { return };
        let Some(Transfer { source, number, granted, .. }) = fetching.transfer else { return };
        let before = if self.plane.is_member() { fetching.view } else { ViewId(0) };
        let held = fetching.held.part(from);
        self.send(source, ControlFrame::Fetch(Fetch { number, from, view, credit: granted, before, held }));
    }

    /// Ends a transfer that brings nothing that is still missing.
    pub(super) fn stop_transfer(&mut self, source: NodeId) {
        let number = self.fetches.next_number();
        self.send(source, ControlFrame::Fetch(Fetch { number, ..Fetch::default() }));
    }

    /// Ends fetching.
    pub(super) fn stop(&mut self) {
        self.timers.stop(Timer::Fetch);
        if let Some(transfer) = self.fetches.missing.take().and_then(|fetching| fetching.transfer) {
            self.stop_transfer(transfer.source);
        }
    }

    /// Sets the time after which the source counts as silent.
    pub(super) fn await_source(&mut self) {
        let wedge_timeout =
            self.log.state().view().map_or(Duration::from_millis(100), |view| view.parameters.wedge_timeout);
        let silences = self.fetches.missing.as_ref().map_or(0, |fetching| fetching.silences);
        let transfer = self.fetches.missing.as_ref().and_then(|fetching| fetching.transfer.as_ref());
        let path = transfer.and_then(|transfer| self.peers.path(transfer.source));
        let round_trip = path.and_then(Path::round_trip_max);
        let silence = self.fetches.pace.silence_after(wedge_timeout, round_trip, silences);
        self.timers.set(Timer::Fetch, self.timers.now() + silence);
    }

    /// Handles a silent source, or requests new entries.
    pub(super) fn on_timeout(&mut self) {
        if self.waits_for_snapshot() {
            return self.await_source();
        }
        let Some(fetching) = &mut self.fetches.missing else { return };
        let Some(transfer) = &fetching.transfer else { return self.fetch() };
        let source = transfer.source;
        fetching.silences += 1;
        let others = fetching.sources.iter().any(|node| *node != source && self.peers.is_linked(*node));
        if others || !self.peers.is_linked(source) {
            fetching.silent = fetching.transfer.take();
            fetching.last = Some((source, false));
            self.fetch();
        } else {
            // It is the only source: entries on their way are not requested again.
            self.check_final();
            self.send_fetch();
            self.await_source();
        }
    }

    /// Starts a transfer if none is in progress.
    pub(super) fn fetch_if_idle(&mut self) {
        if self.fetches.missing.as_ref().is_some_and(|fetching| fetching.transfer.is_none()) {
            self.fetch();
        }
    }

    /// Fetches from another node that has the final result as well.
    pub(super) fn on_source(&mut self, node: NodeId) {
        if let Some(fetching) = &mut self.fetches.missing {
            fetching.add_source(node);
            self.fetch_if_idle();
        }
    }

    pub(super) fn on_link_up(&mut self, peer: NodeId) {
        let Some(fetching) = &mut self.fetches.missing else { return };
        fetching.silent.take_if(|transfer| transfer.source == peer);
        if Transfer::is_from(fetching.transfer.as_ref(), peer) {
            // Frames on their way are lost.
            return self.fetch_on();
        }
        self.fetch_if_idle();
    }

    pub(super) fn on_link_down(&mut self, peer: NodeId) {
        let Some(fetching) = &mut self.fetches.missing else { return };
        fetching.silent.take_if(|transfer| transfer.source == peer);
        if Transfer::is_from(fetching.transfer.as_ref(), peer) {
            fetching.last = Some((peer, false));
            self.fetch();
        }
    }

    /// Reports once that the group is closed, and no linked node has the missing part of the final result.
    fn check_final(&mut self) {
        let Some(view) = self.log.state().view().filter(|_| self.log.state().is_closed()) else { return };
        let patience = view.parameters.coordinator_timeout * FINAL_PATIENCE;
        let now = self.timers.now();
        let Some(fetching) = self.fetches.missing.as_mut() else { return };
        if fetching.stands_for(patience, now) {
            let sources = fetching.sources.clone();
            self.outputs.event(Event::FinalResultMissing { sources });
        }
    }

    fn send(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(self.peers, self.outputs, to, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::{Frame, Output};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, JOINER, drain, pair};

    /// A member that lacks the beginning of its view, of a group of two.
    fn incomplete() -> Machine {
        let (_, mut member) = pair(Parameters::default());
        let view = member.log.state().view().cloned().expect("it is a member");
        member.fetch().start(&view);
        member
    }

    /// The requests among the outputs.
    fn requests(machine: &mut Machine) -> Vec<(NodeId, Fetch)> {
        let request = |output| match output {
            Output::Send { to, frame: Frame::Control(ControlFrame::Fetch(fetch)), .. } => Some((to, fetch)),
            _ => None,
        };
        drain(machine).into_iter().filter_map(request).collect()
    }

    #[test]
    fn a_node_requests_within_its_window_and_repeats_that_to_its_only_source() {
        let mut member = incomplete();
        let sent = requests(&mut member);
        let [(COORDINATOR, first)] = &sent[..] else { panic!("{sent:?}") };
        assert!(first.credit > 0 && first.before == ViewId(1));
        member.fetch().on_timeout();
        assert_eq!(requests(&mut member), [(COORDINATOR, first.clone())], "the same transfer");
        member.fetch().grant();
        assert_eq!(requests(&mut member), [], "the window is granted already");
    }

    #[test]
    fn a_lost_link_ends_a_transfer_and_a_new_link_starts_another() {
        let mut member = incomplete();
        let first = requests(&mut member).remove(0).1;
        member.peers.on_link_down(COORDINATOR, true);
        member.fetch().on_link_down(JOINER);
        assert!(member.catch_up.fetches.transfer().is_some(), "another node's link");
        member.fetch().on_link_down(COORDINATOR);
        assert!(member.catch_up.fetches.transfer().is_none() && requests(&mut member).is_empty());
        let now = member.timers.now();
        member.peers.on_link_up(COORDINATOR, Default::default(), now);
        member.fetch().on_link_up(COORDINATOR);
        let sent = requests(&mut member);
        assert!(matches!(&sent[..], [(COORDINATOR, fetch)] if fetch.number != first.number), "{sent:?}");
    }

    #[test]
    fn a_node_that_has_the_final_result_is_a_source() {
        let mut member = incomplete();
        requests(&mut member);
        member.fetch().on_source(JOINER);
        let sources = member.catch_up.fetches.missing.as_ref().map(|fetching| fetching.sources.clone());
        assert_eq!(sources, Some(vec![COORDINATOR, JOINER]));
        member.fetch().stop();
        let sent = requests(&mut member);
        assert!(matches!(&sent[..], [(COORDINATOR, fetch)] if fetch.credit == 0), "{sent:?}");
        member.fetch().on_source(JOINER);
        assert!(!member.catch_up.fetches.is_fetching(), "nothing is missing");
    }
}
