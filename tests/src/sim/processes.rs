//! Processes start, die and start again; disks outlive them (`protocol.md` P7, §7).

use cloudy_node::fault::DiskFault;
use cloudy_proto::wire::ControlFrame;
use cloudy_proto::{
    ApprovedItem, Command, Event as Said, Frame, Index, Machine, MachineConfig, NodeId, Output, Position, Record,
    Request, Role, ViewId,
};

use crate::invariants::Failure;
use crate::sim::disk::{Disk, DiskError};
use crate::sim::node::{App, Clock, Item, LinkEnd, Node, run_at};
use crate::sim::plan::{Fault, Newcomer, Plan, Step, Who};
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::{GROUP, World, address};

/// The delay of a fault that the group could not survive at this time.
const SPARED_FOR_US: u64 = 20_000;

impl World {
    /// A node that the group begins with.
    pub(super) fn found_with(&mut self, home: usize) {
        let role = match home {
            Plan::CREATOR => {
                let member = self.plan.creator_is_member;
                Role::Creator { member, parameters: self.plan.parameters.clone() }
            }
            _ => Role::Invited { by: self.ids[Plan::CREATOR] },
        };
        let (machine, clock) = (Machine::new(self.config(home, role)), self.clock(home));
        self.add(home, machine, clock);
    }

    fn config(&self, home: usize, role: Role) -> MachineConfig {
        MachineConfig {
            me: self.ids[home],
            addresses: vec![address(home)],
            advertised: None,
            group: GROUP,
            name: "simulated".to_owned(),
            run: run_at(self.nodes.len()),
            role,
            durability: self.plan.parameters.durability,
            retain_bytes: self.plan.retain_bytes,
            retain_disk_bytes: self.plan.retain_disk_bytes,
            log_entries_max: self.plan.log_entries_max,
            level_max: cloudy_proto::wire::WIRE_VERSION,
            serves: self.plan.serves,
            rules: self.plan.rules,
        }
    }

    fn clock(&mut self, home: usize) -> Clock {
        Clock { start_us: self.dice.between(0, 1 << 40), drift_ppm: self.plan.drift_ppm[home] }
    }

    fn add(&mut self, home: usize, machine: Machine, clock: Clock) -> usize {
        let place = self.nodes.len();
        self.latest[home] = Some(place);
        self.judge.started(home);
        self.nodes.push(Node {
            id: self.ids[home],
            home,
            contact: None,
            machine,
            alive: true,
            asleep_until_us: 0,
            inbox: Default::default(),
            links: (0..self.plan.homes()).map(|_| LinkEnd::default()).collect(),
            snapshot: Index(0),
            app: App { open: self.plan.session.is_none(), ..App::default() },
            clock,
            wake_at_us: None,
            coordinator_lost_at: Some(clock.at(self.now_us)),
            left: false,
            misses_final: false,
            closed: false,
            diverged: false,
        });
        place
    }

    /// A node's process, if one runs.
    #[must_use]
    pub fn running(&self, home: usize) -> Option<usize> {
        self.latest[home].filter(|&place| self.nodes[place].alive)
    }

    pub(crate) fn has_view(&self, place: usize) -> bool {
        self.judge.view_of(place).0 > ViewId(0)
    }

    /// A process has a part of the result: all but a creator that takes no place on the ring.
    #[must_use]
    pub fn reads(&self, place: usize) -> bool {
        let home = self.nodes[place].home;
        self.plan.is_member(home) || home >= self.plan.nodes
    }

    /// A fault removes a process's state for ever.
    pub(super) fn takes(&mut self, place: usize) {
        if self.nodes[place].alive {
            self.takes_its_held_inputs(place);
        }
    }

    fn takes_its_held_inputs(&mut self, place: usize) {
        let alive = |other: usize| other != place && self.goes_on(other);
        let stuck = !self.judge.majorities_live(alive);
        // The next view may rely on its answer alone from the moment that it is proposed.
        let view = self.judge.view();
        let proposed = view.is_some_and(|view| self.steps.contains(&(Step::Install, view.id.0)));
        let decides = proposed && view.is_some_and(|view| view.rank_of(self.nodes[place].id).is_some());
        // The first view lists all who have accepted.
        let lost = self.judge.is_lost(alive) || decides || view.is_none();
        self.taken.extend(stuck.then_some(Met::Stuck));
        self.taken.extend(lost.then_some(Met::Lost));
    }

    /// A coordinator changes the voters or the view, and the death of a member has overtaken that: the coordinator's link
    /// to it is still up, so it cannot know.
    pub(super) fn note_overtaken(&mut self, coordinator: usize, output: &Output) {
        let links = &self.nodes[coordinator].links;
        let alive = |place: usize| self.goes_on(place);
        let seems_alive = |place: usize| alive(place) || links[self.nodes[place].home].told.is_some();
        let (stuck, lost) = match output {
            Output::Send { frame: Frame::Control(ControlFrame::Consensus(message)), .. } => (
                self.judge
                    .leaves_no_majority(message, alive, seems_alive, |place| self.nodes[place].app.leaves.is_some()),
                self.judge.leaves_nobody(message, alive, seems_alive),
            ),
            // A single voter sends its proposals to no other node.
            Output::Event(Said::ViewInstalled { .. }) if self.judge.coordinator() == Some(coordinator) => {
                (false, self.judge.is_lost(alive) && !self.judge.is_lost(seems_alive))
            }
            _ => return,
        };
        self.taken.extend(stuck.then_some(Met::Stuck));
        self.taken.extend(lost.then_some(Met::Lost));
    }

    /// A process runs, or its node is about to restart and continues in the group from its disk.
    #[must_use]
    pub fn goes_on(&self, place: usize) -> bool {
        let home = self.nodes[place].home;
        self.nodes[place].alive
            || (self.plan.on_disk()
                && self.latest[home] == Some(place)
                && self.starting.contains(&home)
                && !self.diskless.contains(&home)
                // Otherwise the node starts as a joiner: it may have died before it stored view 1 (`protocol.md` §6).
                && self.disks[home].holds_group())
    }

    /// The other nodes that run, and those of them that a node may ask to join: before the first view a newcomer asks any,
    /// and that has nothing yet to admit it to.
    fn others_of(&mut self, home: usize) -> (Vec<usize>, Vec<usize>) {
        let others = (0..self.latest.len()).filter(|&other| other != home && self.running(other).is_some());
        let others: Vec<usize> = others.collect();
        if self.latest[home].is_none() && self.judge.view().is_none() && !others.is_empty() {
            self.stats.met(Met::JoinBeforeView);
            return (others.clone(), others);
        }
        let has_view = |other: &usize| self.running(*other).is_some_and(|place| self.has_view(place));
        let known = others.iter().copied().filter(has_view).collect();
        (others, known)
    }

    /// Starts a process: from the node's disk, or as a joiner.
    pub(super) fn start(&mut self, home: usize) -> Result<(), Failure> {
        if !self.starting.remove(&home) || self.running(home).is_some() {
            return Ok(());
        }
        self.diskless.remove(&home);
        let restarts = self.latest[home].is_some();
        let (others, known) = self.others_of(home);
        let stored = self.disks[home].stored();
        let clock = self.clock(home);
        let from_disk = restarts && stored.is_relied_on(self.plan.rules);
        if !from_disk && known.is_empty() {
            // No node is there to ask.
            if restarts && self.plan.on_disk() {
                self.diskless.insert(home);
            }
            self.starting.insert(home);
            self.queue.at(self.now_us + SPARED_FOR_US, Event::Start { home });
            return Ok(());
        }
        if restarts && !from_disk && !stored.is_empty() {
            self.forget_disk(home);
            self.diskless.remove(&home);
        }
        if restarts {
            self.stats.met(if from_disk { Met::RestartedFromDisk } else { Met::RestartedInMemory });
        }
        let named = self.plan.contact.filter(|named| known.contains(named));
        let contact = named.or_else(|| (!known.is_empty()).then(|| self.dice.pick(&known)));
        let mut from_index = None;
        let machine = if from_disk {
            let index = stored.index();
            let config = self.config(home, Role::Restored);
            let read = stored.newest(config.retain_bytes);
            let restored = read.and_then(|read| Machine::restored(clock.at(self.now_us), config, read));
            from_index = Some(index.0);
            restored.map_err(|error| self.judge.failure("what is stored can be read", home, error.to_string()))?
        } else {
            let contact = self.ids[contact.unwrap_or(Plan::CREATOR)];
            let role = if self.plan.is_member(home) {
                Role::Joiner { contact }
            } else {
                Role::Observer { contact, from: Some(Index(1)) }
            };
            Machine::new(self.config(home, role))
        };
        let place = self.add(home, machine, clock);
        self.tell(place, &format!("starts, node {home}, from disk: {from_disk}"));
        if let Some(index) = from_index {
            self.judge.restores(place, index);
            self.is_whole_on_disk(place, index)?;
        }
        self.nodes[place].contact = contact.filter(|_| !from_disk);
        match home.checked_sub(self.plan.nodes).filter(|_| !restarts).map(|at| self.plan.newcomers[at].1) {
            Some(Newcomer::Member) => self.stats.met(Met::NewcomerCame),
            Some(Newcomer::Observer) => self.stats.met(Met::ObserverCame),
            None => {}
        }
        if self.plan.is_member(home) && !self.plan.traffic.quiet.contains(&home) {
            self.queue.at(self.now_us + self.plan.traffic.gap_us, Event::Broadcast { node: place });
        }
        self.drain(place)?;
        self.judge.restored(place)?;
        others.into_iter().for_each(|other| self.redial(home, other));
        self.run(place)
    }

    /// The disk's part of the result equals the messages, from its beginning to its end.
    fn is_whole_on_disk(&mut self, place: usize, index: u64) -> Result<(), Failure> {
        let disk = &self.disks[self.nodes[place].home];
        let begins = disk.begins();
        let mut state = self.judge.state_at(begins.0).unwrap_or_default();
        let items = disk.part_from(Position::beginning_at(begins.next()), usize::MAX).unwrap_or_default();
        items.iter().filter_map(ApprovedItem::entry).for_each(|entry| state.apply(entry));
        if begins > Index(0) {
            self.stats.met(Met::RestartedTruncated);
        }
        if state.index != index {
            let what = format!("from {begins} to {}, and it ends with {index}", state.index);
            return Err(self.judge.failure("what a disk retains is whole", place, what));
        }
        self.judge.is_state("what a disk retains is the result", place, state)?;
        self.judge.are_items(place, &items)
    }

    /// Every process that is to be started again is started at once, also one that asked a dead node, to ask another.
    pub(super) fn start_all(&mut self) -> Result<(), Failure> {
        for place in 0..self.nodes.len() {
            let asked_dead = self.nodes[place].contact.is_some_and(|contact| self.running(contact).is_none());
            if self.nodes[place].alive && asked_dead && !self.has_view(place) {
                self.starting.insert(self.nodes[place].home);
                self.die(place)?;
            }
        }
        let starting: Vec<usize> = self.starting.iter().copied().collect();
        starting.into_iter().try_for_each(|home| self.start(home))
    }

    /// A process dies, and its node starts again later.
    pub(super) fn restart(&mut self, who: Who, after_us: u64) -> Result<(), Failure> {
        let place = self.resolve(who).filter(|&place| self.nodes[place].alive);
        let spared = |place: &usize| self.plan.on_disk() || self.plan.kills_anybody || self.can_do_without(*place);
        // The creator may crash from the moment that its own log has the first view.
        let created = |&place: &usize| {
            let home = self.nodes[place].home;
            self.judge.is_created() || (home == Plan::CREATOR && self.plan.on_disk() && self.disks[home].holds_group())
        };
        let Some(place) = place.filter(created).filter(spared) else {
            self.spare(Fault::Restart { who, after_us });
            return Ok(());
        };
        self.restart_process(place, after_us)
    }

    /// A process that has announced that it stops does so, as soon as the group can do without it.
    pub(super) fn stop(&mut self, home: usize, after_us: u64) -> Result<(), Failure> {
        let Some(place) = self.running(home).filter(|&place| self.nodes[place].app.suspends.is_some()) else {
            return Ok(());
        };
        let may_stop = self.plan.on_disk() || self.plan.kills_anybody || self.can_do_without(place);
        // The last copy of a group in memory is lost where its only member is stopped.
        if may_stop || self.nodes[place].app.suspended || self.healed {
            return self.restart_process(place, after_us);
        }
        self.spare(Fault::Suspend { node: home, after_us, announced: true });
        Ok(())
    }

    fn restart_process(&mut self, place: usize, after_us: u64) -> Result<(), Failure> {
        if !self.plan.on_disk() {
            self.takes(place);
        }
        self.stats.met(Met::ProcessRestarted);
        if self.judge.coordinator() == Some(place) {
            self.stats.met(Met::CoordinatorRestarted);
        }
        let home = self.nodes[place].home;
        self.starting.insert(home);
        self.queue.at(self.now_us + after_us, Event::Start { home });
        self.die(place)
    }

    /// A process dies and its node's disk is lost, if the group can do without.
    pub(super) fn lose_disk(&mut self, who: Who, after_us: u64) -> Result<(), Failure> {
        let place = self.resolve(who).filter(|&place| self.nodes[place].alive && self.judge.is_created());
        // The next view may rely on this disk alone from the moment that its node answered for it.
        let changes = self.judge.view().is_some_and(|view| self.steps.contains(&(Step::Wedge, view.id.0)));
        let spared = |place: usize| !self.plan.kills_anybody && (changes || !self.can_do_without(place));
        let Some(place) = place.filter(|&place| !spared(place)) else {
            self.spare(Fault::LoseDisk { who, after_us });
            return Ok(());
        };
        self.stats.met(Met::DiskLost);
        self.takes(place);
        let home = self.nodes[place].home;
        self.starting.insert(home);
        self.queue.at(self.now_us + after_us, Event::Start { home });
        self.die(place)?;
        self.forget_disk(home);
        Ok(())
    }

    /// An operation of a disk fails while records are stored: the process ends before it relies on any of them.
    pub(super) fn fail_disk(&mut self, who: Who, how: DiskFault, after_us: u64) -> Result<(), Failure> {
        let created = self.judge.is_created();
        let place = self.resolve(who).filter(|&place| self.nodes[place].alive && created);
        let Some(place) = place.filter(|&place| self.disks[self.nodes[place].home].unsynced() > 0) else {
            self.spare(Fault::FailDisk { who, how, after_us });
            return Ok(());
        };
        self.stats.met(match how {
            DiskFault::Io => Met::DiskFailed,
            DiskFault::Full => Met::DiskFull,
            DiskFault::Short => Met::DiskWroteShort,
        });
        let home = self.nodes[place].home;
        self.starting.insert(home);
        self.queue.at(self.now_us + after_us, Event::Start { home });
        self.end_process(place);
        let found = self.disks[home].fail(how, &mut self.dice).map(|(found, store_failed)| {
            self.stats.add(Met::StoreFailed, u64::from(store_failed));
            found
        });
        self.on_disk(place, found)?;
        if !self.disks[home].stored().is_relied_on(self.plan.rules) {
            // Nothing of the group is stored yet: its node starts again without any of it.
            self.takes_its_held_inputs(place);
        }
        self.cut_off(place)
    }

    fn forget_disk(&mut self, home: usize) {
        self.diskless.insert(home);
        self.older.forget(home);
        self.disks[home] = Disk::of(&self.plan.disk);
        self.judge.lost_disk(home);
    }

    /// All processes die at once, and all are started again.
    pub(super) fn cut_power(&mut self, within_us: u64) -> Result<(), Failure> {
        if !self.judge.is_created() {
            self.spare(Fault::PowerCut { within_us });
            return Ok(());
        }
        self.stats.met(Met::PowerCut);
        if !self.plan.on_disk() {
            self.taken.extend([Met::Stuck, Met::Lost]);
        }
        for home in 0..self.latest.len() {
            let Some(place) = self.running(home) else { continue };
            self.starting.insert(home);
            let after_us = self.dice.between(0, within_us);
            self.queue.at(self.now_us + after_us, Event::Start { home });
            self.die(place)?;
            if home >= self.plan.nodes && !self.plan.is_member(home) {
                // An observer reads anew.
                self.forget_disk(home);
            }
        }
        Ok(())
    }

    /// A fault waits.
    pub(super) fn spare(&mut self, fault: Fault) {
        self.queue.at(self.now_us + SPARED_FOR_US, Event::Fault(fault));
    }

    /// Unless the plan kills any node, a kill waits until the group can do without its victim.
    pub(super) fn kill(&mut self, who: Who) -> Result<(), Failure> {
        let needed = |place: usize| !self.can_do_without(place) || self.alone_decides(place);
        let spared = |place: usize| !self.plan.kills_anybody && needed(place);
        let Some(place) = self.resolve(who).filter(|&place| !spared(place)) else {
            self.stats.met(Met::KillSpared);
            self.spare(Fault::Kill { who });
            return Ok(());
        };
        if !self.nodes[place].alive {
            return Ok(());
        }
        self.stats.met(Met::MemberKilled);
        self.takes(place);
        if place == Plan::CREATOR {
            self.stats.met(Met::CreatorKilled);
        }
        if self.judge.coordinator() == Some(place) {
            self.stats.met(self.moment());
        }
        self.die(place)
    }

    /// A process is gone, at once.
    pub(super) fn die(&mut self, place: usize) -> Result<(), Failure> {
        let home = self.nodes[place].home;
        self.end_process(place);
        let unsynced = self.disks[home].unsynced();
        if unsynced > 0 {
            self.stats.met(Met::KilledUnsynced);
        }
        let found = self.disks[home].crash(&mut self.dice).map(|(found, met)| {
            for (what, times) in [
                (Met::WriteLost, met.lost),
                (Met::WriteTorn, met.torn),
                (Met::WriteFlipped, met.flipped),
                (Met::WriteOvertook, met.overtook),
            ] {
                self.stats.add(what, times);
            }
            found
        });
        self.on_disk(place, found)?;
        self.cut_off(place)
    }

    /// A process runs no more, and its disk has not settled yet.
    fn end_process(&mut self, place: usize) {
        self.nodes[place].alive = false;
        self.judge.died(place);
        self.nodes[place].inbox.clear();
    }

    /// The links of a process that has ended go down.
    fn cut_off(&mut self, place: usize) -> Result<(), Failure> {
        let home = self.nodes[place].home;
        for peer in (0..self.latest.len()).filter(|&peer| peer != home) {
            self.cut(home, peer);
        }
        if !self.created && place != Plan::CREATOR && !self.accepted.contains(&home) {
            self.give(Plan::CREATOR, Item::Ask(Request::Uninvite { node: self.ids[home] }))?;
            self.found_if_all_came();
            self.run(Plan::CREATOR)?;
        }
        Ok(())
    }

    /// Without a process a majority of the voters is left, and a node that has the result, also in a view that was
    /// proposed.
    pub(super) fn can_do_without(&self, place: usize) -> bool {
        let alive = |other: usize| other != place && self.goes_on(other);
        self.judge.majorities_live(alive) && !self.judge.is_lost(alive) && self.next_views_live(&alive)
    }

    /// Of each view that a voter's log holds and that has not taken effect, a survivor with the whole result continues.
    fn next_views_live(&self, alive: &dyn Fn(usize) -> bool) -> bool {
        let machines = self.nodes.iter().filter(|node| node.alive).map(|node| &node.machine);
        machines.flat_map(Machine::proposed).all(|command| match command {
            Command::InstallView(install) if self.judge.view().is_some_and(|view| view.id == install.from) => {
                self.judge.has_survivor(&install, alive)
            }
            _ => true,
        })
    }

    /// A machine gives records out.
    pub(super) fn persist(&mut self, place: usize, ticket: u64, mut records: Vec<Record>) {
        self.stats.met(Met::Persisted);
        if records.iter().any(|record| matches!(record, Record::Begin(_))) {
            self.stats.met(Met::StoredTruncated);
        }
        let home = self.nodes[place].home;
        if self.corrupter.records(home, &mut records) {
            self.note_altered();
        }
        let mut takes_us = self.dice.between(0, self.plan.disk.sync_us);
        takes_us += self.plan.slowness.sync_us(home, self.now_us);
        if !self.healed && self.dice.chance(self.plan.disk.slow_per_mille) {
            takes_us += self.dice.between(0, self.plan.disk.slow_us);
        }
        let held_us = self.disk_held_us.get(&home).copied().filter(|_| !self.healed).unwrap_or_default();
        let disk = &mut self.disks[home];
        disk.put(ticket, records);
        disk.busy_until_us = disk.busy_until_us.max(self.now_us + takes_us).max(held_us);
        self.queue.at(disk.busy_until_us, Event::Synced { node: place, ticket });
    }

    /// A sync is done.
    pub(super) fn synced(&mut self, place: usize, ticket: u64) -> Result<(), Failure> {
        if !self.nodes[place].alive {
            return Ok(());
        }
        let synced = self.disks[self.nodes[place].home].sync(ticket);
        self.on_disk(place, synced)?;
        self.give(place, Item::Synced(ticket))
    }

    /// A machine reads a part of the result on its disk.
    pub(super) fn read_result(&mut self, node: usize, to: NodeId, from: Position, bytes_max: usize) {
        self.stats.met(Met::ResultRead);
        let takes_us = self.read_takes_us();
        self.queue.at(self.now_us + takes_us, Event::Read { node, to, from, bytes_max });
    }

    /// A machine reads a part of a state on its disk, given by its id and an offset.
    pub(super) fn read_snapshot(&mut self, node: usize, to: NodeId, place: (u64, u64), bytes_max: usize) {
        let takes_us = self.read_takes_us();
        self.queue.at(self.now_us + takes_us, Event::ReadSnapshot { node, to, place, bytes_max });
    }

    fn read_takes_us(&mut self) -> u64 {
        let mut takes_us = self.dice.between(0, self.plan.disk.sync_us);
        if !self.healed && self.dice.chance(self.plan.disk.slow_per_mille) {
            takes_us += self.dice.between(0, self.plan.disk.slow_us);
        }
        takes_us
    }

    /// It was read.
    pub(super) fn read_state(
        &mut self,
        node: usize,
        to: NodeId,
        (id, offset): (u64, u64),
        bytes_max: usize,
    ) -> Result<(), Failure> {
        if !self.nodes[node].alive {
            return Ok(());
        }
        let part = self.disks[self.nodes[node].home].state_part(id, offset, bytes_max);
        self.stats.met(if part.is_some() { Met::SnapshotRead } else { Met::SnapshotGone });
        self.give(node, Item::SnapshotRead { to, id, offset, part })
    }

    /// It was read.
    pub(super) fn read(&mut self, node: usize, to: NodeId, from: Position, bytes_max: usize) -> Result<(), Failure> {
        if !self.nodes[node].alive {
            self.stats.met(Met::KilledReading);
            return Ok(());
        }
        let items = self.disks[self.nodes[node].home].part_from(from, bytes_max);
        if items.as_ref().is_some_and(|items| !items.is_empty()) {
            self.stats.met(Met::ServedFromDisk);
        }
        self.give(node, Item::Read { to, items })
    }

    fn on_disk(&mut self, place: usize, records: Result<Vec<Record>, DiskError>) -> Result<(), Failure> {
        match records {
            Ok(records) => self.judge.synced(place, &records),
            Err(error) => Err(self.judge.failure("what is stored can be read", place, error.to_string())),
        }
    }

    /// Disks that hung go on.
    pub(super) fn free_disks(&mut self) -> Result<(), Failure> {
        for home in 0..self.latest.len() {
            let Some(place) = self.running(home).filter(|_| self.disks[home].unsynced() > 0) else { continue };
            self.disks[home].busy_until_us = self.now_us;
            let all = self.disks[home].last_ticket();
            self.synced(place, all)?;
        }
        Ok(())
    }
}
