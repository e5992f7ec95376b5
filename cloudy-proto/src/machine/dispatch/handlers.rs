//! The handlers of the control plane, each with the owners that it borrows.

use crate::id::Index;
use crate::machine::Machine;
use crate::machine::admission::AdmissionHandler;
use crate::machine::change::ViewChangeHandler;
use crate::machine::closing::CloseHandler;
use crate::machine::complete::CompleteHandler;
use crate::machine::consensus::ConsensusHandler;
use crate::machine::coordinating::Coordinating;
use crate::machine::coordinator::CoordinatorHandler;
use crate::machine::creation::CreationHandler;
use crate::machine::divergence::DivergenceHandler;
use crate::machine::durable::DurableHandler;
use crate::machine::electorate::ElectorateHandler;
use crate::machine::fetch::FetchHandler;
use crate::machine::install::InstallHandler;
use crate::machine::join::JoinHandler;
use crate::machine::leave::LeaveHandler;
use crate::machine::level::LevelHandler;
use crate::machine::links::LinkHandler;
use crate::machine::phases::PhaseHandler;
use crate::machine::rejoin::RejoinHandler;
use crate::machine::restore::RestoreHandler;
use crate::machine::serve::ServeHandler;
use crate::machine::slow_down::SlowDownHandler;
use crate::machine::snapshot::SnapshotHandler;
use crate::machine::status::StatusView;
use crate::machine::wedge::WedgeHandler;
use crate::stored::SnapshotState;
use crate::time::Time;

impl Machine {
    pub(in crate::machine) fn view_change(&mut self) -> ViewChangeHandler<'_> {
        ViewChangeHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            tracking: &self.tracking,
            peers: &mut self.peers,
            plane: &mut self.plane,
            result: &mut self.result,
            storage: &mut self.storage,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
            due: &self.due,
        }
    }

    pub(in crate::machine) fn electorate(&mut self) -> Option<ElectorateHandler<'_>> {
        let coordinating = self.coordinating.as_ref()?;
        Some(ElectorateHandler { identity: &self.identity, log: &mut self.log, coordinating, peers: &self.peers })
    }

    /// None at a node that does not create the group.
    pub(in crate::machine) fn creation(&mut self) -> Option<CreationHandler<'_>> {
        Some(CreationHandler {
            identity: &self.identity,
            log: &mut self.log,
            term: self.coordinating.as_ref().map(Coordinating::term),
            creation: self.arrival.creation_mut()?,
            peers: &self.peers,
            outputs: &mut self.outputs,
        })
    }

    /// None at a node that does not join.
    pub(in crate::machine) fn join(&mut self) -> Option<JoinHandler<'_>> {
        Some(JoinHandler {
            identity: &self.identity,
            log: &self.log,
            coordinates: self.coordinating.is_some(),
            tracking: &self.tracking,
            joining: self.arrival.joining_mut()?,
            peers: &self.peers,
            result: &self.result,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        })
    }

    pub(in crate::machine) fn admission(&mut self) -> AdmissionHandler<'_> {
        AdmissionHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            tracking: &self.tracking,
            peers: &mut self.peers,
            result: &self.result,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &self.timers,
        }
    }

    pub(in crate::machine) fn coordinator(&mut self) -> CoordinatorHandler<'_> {
        CoordinatorHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinates: self.coordinating.is_some(),
            tracking: &mut self.tracking,
            arrival: &self.arrival,
            peers: &self.peers,
            storage: &self.storage,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn wedge(&mut self) -> WedgeHandler<'_> {
        WedgeHandler {
            identity: &self.identity,
            log: &self.log,
            peers: &self.peers,
            plane: &mut self.plane,
            result: &self.result,
            storage: &mut self.storage,
            now: self.timers.now(),
        }
    }

    pub(in crate::machine) fn divergence(&mut self) -> DivergenceHandler<'_> {
        DivergenceHandler {
            identity: &self.identity,
            log: &self.log,
            tracking: &self.tracking,
            peers: &mut self.peers,
            plane: &mut self.plane,
            result: &mut self.result,
            storage: &self.storage,
            closing: &self.closing,
            outputs: &mut self.outputs,
            due: &self.due,
            now: self.timers.now(),
        }
    }

    pub(in crate::machine) fn leaving(&mut self) -> LeaveHandler<'_> {
        LeaveHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            tracking: &self.tracking,
            arrival: &self.arrival,
            peers: &self.peers,
            plane: &self.plane,
            storage: &self.storage,
            closing: &mut self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn consensus(&mut self) -> ConsensusHandler<'_> {
        ConsensusHandler {
            identity: &self.identity,
            log: &mut self.log,
            peers: &self.peers,
            storage: &mut self.storage,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn completeness(&mut self) -> CompleteHandler<'_> {
        CompleteHandler {
            identity: &self.identity,
            log: &self.log,
            coordinating: &mut self.coordinating,
            tracking: &mut self.tracking,
            peers: &self.peers,
            plane: &self.plane,
            storage: &self.storage,
            closing: &self.closing,
            outputs: &mut self.outputs,
            now: self.timers.now(),
        }
    }
    pub(in crate::machine) fn fetch(&mut self) -> FetchHandler<'_> {
        FetchHandler {
            identity: &self.identity,
            log: &self.log,
            arrival: &self.arrival,
            peers: &self.peers,
            plane: &self.plane,
            result: &mut self.result,
            storage: &mut self.storage,
            fetches: &mut self.catch_up.fetches,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn serve(&mut self) -> ServeHandler<'_> {
        ServeHandler {
            identity: &self.identity,
            log: &self.log,
            plane: &self.plane,
            result: &mut self.result,
            storage: &self.storage,
            transfers: &mut self.catch_up.transfers,
            closing: &self.closing,
            outputs: &mut self.outputs,
            now: self.timers.now(),
        }
    }

    pub(in crate::machine) fn durable(&mut self) -> DurableHandler<'_> {
        DurableHandler {
            identity: &self.identity,
            log: &mut self.log,
            peers: &self.peers,
            plane: &mut self.plane,
            result: &self.result,
            storage: &mut self.storage,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
            due: &mut self.due,
        }
    }

    /// The application's state after an index.
    pub(in crate::machine) fn on_snapshot(&mut self, index: Index, state: SnapshotState) {
        let mut snapshots = SnapshotHandler {
            identity: &self.identity,
            plane: &self.plane,
            result: &mut self.result,
            storage: &mut self.storage,
            outputs: &mut self.outputs,
        };
        snapshots.on_taken(index, state, &mut self.catch_up.transfers.offers, self.timers.now());
    }
    pub(in crate::machine) fn links(&mut self) -> LinkHandler<'_> {
        LinkHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            tracking: &self.tracking,
            peers: &mut self.peers,
            plane: &mut self.plane,
            result: &self.result,
            storage: &self.storage,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
            due: &self.due,
        }
    }

    pub(in crate::machine) fn rejoin(&mut self) -> RejoinHandler<'_> {
        RejoinHandler {
            identity: &self.identity,
            log: &self.log,
            coordinates: self.coordinating.is_some(),
            tracking: &self.tracking,
            arrival: &self.arrival,
            peers: &mut self.peers,
            plane: &self.plane,
            fetches: &self.catch_up.fetches,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn slow_down(&mut self) -> SlowDownHandler<'_> {
        SlowDownHandler {
            identity: &self.identity,
            log: &self.log,
            coordinating: &mut self.coordinating,
            tracking: &self.tracking,
            peers: &self.peers,
            plane: &mut self.plane,
            closing: &self.closing,
            outputs: &mut self.outputs,
            now: self.timers.now(),
        }
    }

    /// This node's knowledge of its group at one time.
    pub(in crate::machine) fn status_view(&self, now: Time) -> StatusView<'_> {
        StatusView {
            identity: &self.identity,
            log: &self.log,
            coordinating: self.coordinating.as_ref(),
            tracking: &self.tracking,
            peers: &self.peers,
            plane: &self.plane,
            result: &self.result,
            storage: &self.storage,
            session: self.session.as_ref(),
            fetches: &self.catch_up.fetches,
            closing: &self.closing,
            is_halted: self.outputs.is_halted(),
            now,
        }
    }
    pub(in crate::machine) fn close(&mut self) -> CloseHandler<'_> {
        CloseHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            tracking: &mut self.tracking,
            arrival: &self.arrival,
            peers: &self.peers,
            plane: &self.plane,
            result: &mut self.result,
            storage: &self.storage,
            session: &mut self.session,
            closing: &mut self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn phases(&mut self) -> PhaseHandler<'_> {
        PhaseHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            plane: &mut self.plane,
            session: &mut self.session,
            closing: &self.closing,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
        }
    }

    pub(in crate::machine) fn installing(&mut self) -> InstallHandler<'_> {
        InstallHandler {
            identity: &self.identity,
            log: &self.log,
            arrival: &mut self.arrival,
            peers: &mut self.peers,
            plane: &mut self.plane,
            result: &mut self.result,
            storage: &mut self.storage,
            session: &mut self.session,
            outputs: &mut self.outputs,
            timers: &mut self.timers,
            due: &mut self.due,
        }
    }

    pub(in crate::machine) fn restoring(&mut self) -> RestoreHandler<'_> {
        RestoreHandler {
            identity: &self.identity,
            plane: &mut self.plane,
            result: &mut self.result,
            storage: &mut self.storage,
            outputs: &mut self.outputs,
            now: self.timers.now(),
        }
    }
    pub(in crate::machine) fn level(&mut self) -> LevelHandler<'_> {
        LevelHandler {
            identity: &self.identity,
            log: &mut self.log,
            coordinating: &mut self.coordinating,
            now: self.timers.now(),
        }
    }
}
