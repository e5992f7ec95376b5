//! A process that returns with the stored data of an earlier incarnation (`protocol.md` §2, §6.2, §7).

use std::sync::Arc;

use crate::control::{Applied, Voter};
use crate::due::Cause;
use crate::id::{ConsensusId, Index, LogIndex};
use crate::io::Event;
use crate::limits::CONSENSUS_TICK;
use crate::machine::timers::Timer;
use crate::machine::{Machine, MachineConfig};
use crate::read_back::{Stored, StoredError};
use crate::rules::Rule;
use crate::time::Time;
use crate::view::View;

impl Machine {
    /// Restores a group that an earlier incarnation of this node left on its disk. It outputs the stored result again
    /// as far as it was read ([`Stored::begin_reading`]), votes under its old id, answers for its data in the view that
    /// it was in, and rejoins the group as a new incarnation: nothing that the earlier one broadcast is sent again.
    ///
    /// # Errors
    /// The stored data is not of one node in one group, or is damaged.
    pub fn restored(now: Time, config: MachineConfig, stored: Stored) -> Result<Self, StoredError> {
        let mut machine = Self::new(config);
        machine.timers.advance(now);
        machine.identity.is_restored = true;
        machine.plane.on_wedged(stored.wedged);
        machine.identity.was_there_first = stored.complete.1 > Index(0);
        machine.due.set(Cause::Outputs);
        machine.set_timer(Timer::Join, core::time::Duration::ZERO);
        machine.restoring().restore_result(&stored);
        machine.replay(&stored)?;
        machine.log.set_term(stored.log_term);
        if let Some(vote) = stored.vote.filter(|vote| vote.voter > ConsensusId(0)) {
            let (base, entries) = (stored.base.clone(), stored.entries.clone());
            let mut voter = Voter::restored(vote, base, entries, machine.identity.durability);
            // Applied entries are committed, even if that was not stored with the vote.
            voter.learn_committed(stored.log_last(), stored.log_term);
            machine.log.begin_voting(voter);
            machine.set_timer(Timer::Consensus, CONSENSUS_TICK);
        }
        machine.coordinator().on_lost();
        machine.run_consensus();
        Ok(machine)
    }

    /// A creator without a place on the ring takes none after a restart either. Its own log may be the first to show
    /// which kind it is.
    pub(in crate::machine) fn stay_off_ring(&mut self) {
        if self.identity.is_restored && self.only_creates() {
            self.arrival.finish();
            self.timers.stop(Timer::Join);
        }
    }

    /// Restores the state of the log, and this node's part in its latest view.
    fn replay(&mut self, stored: &Stored) -> Result<(), StoredError> {
        let before = stored.log_before();
        if let Some((index, encoded)) = &stored.log {
            let skipped = self.log.skip_to(*index, encoded.clone(), self.identity.rules);
            let supported = skipped.and_then(|_| self.log.check_level(&self.identity));
            supported.map_err(|error| StoredError::Command { index: *index, error })?;
            let (kickstarted, grace) = self.log.state().phases();
            kickstarted.into_iter().for_each(|plan| self.phases().on_kickstart(plan));
            if grace {
                self.phases().enter_grace();
            }
            self.tell_reports(&[]);
        }
        for (at, command) in stored.commands.iter().enumerate() {
            let index = LogIndex(before.0 + at as u64 + 1);
            let applied = self.log.replay(command.clone());
            match applied.map_err(|error| StoredError::Command { index, error })? {
                Applied::Kickstarted(plan) => self.phases().on_kickstart(plan),
                Applied::Grace => self.phases().enter_grace(),
                Applied::Reported { node, result, report } => self.event(Event::Reported { node, result, report }),
                Applied::Level => {
                    let supported = self.log.check_level(&self.identity);
                    supported.map_err(|error| StoredError::Command { index, error })?;
                }
                #[cfg(feature = "next-version")]
                Applied::Next => {}
                Applied::Incarnated { .. }
                | Applied::Installed { .. }
                | Applied::Outdated
                | Applied::Closed
                | Applied::Left { .. }
                | Applied::Nothing => {}
            }
        }
        self.stay_off_ring();
        if let Some(view) = self.log.state().view().cloned() {
            self.come_back_into(&view, stored)?;
        }
        if self.log.state().is_closed() {
            self.on_closed();
        }
        Ok(())
    }

    fn come_back_into(&mut self, view: &Arc<View>, stored: &Stored) -> Result<(), StoredError> {
        let first = stored.first_of(view);
        self.event(Event::ViewInstalled { view: Arc::clone(view), first: first.unwrap_or_default(), active: false });
        self.phases().on_view(view);
        if view.last {
            self.close().on_last_view();
        }
        if view.last && first.is_some() {
            self.on_final(None);
            return Ok(());
        }
        self.restoring().restore_place(view, stored)?;
        if self.identity.rules.holds(Rule::RestartedIsWedged) {
            if first.is_none() && self.arrival.is_joining() {
                self.fetch().start(view);
            }
        } else if let Some(mut member) = self.plane.take_former() {
            self.identity.incarnation = member.incarnation();
            member.unwedge();
            self.plane.enter(member);
            self.arrival.finish();
            self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
        }
        Ok(())
    }
}
