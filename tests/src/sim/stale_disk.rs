//! A disk is reset to an older state: operators must never do that, and the group tolerates it while others run on
//! (`protocol.md` §6.3, §6.6).

use cloudy_proto::{NodeId, Rules, Stored, Time};

use crate::invariants::{Failure, OnDisk};
use crate::sim::plan::{Fault, Step, Who};
use crate::sim::queue::Event;
use crate::sim::stats::Met;
use crate::sim::world::World;

/// Older disks of a run.
#[derive(Debug, Default)]
pub(super) struct OlderDisks {
    copies: Vec<Copy>,
    /// The node that was taken back last.
    pending: Option<usize>,
}

impl OlderDisks {
    /// A disk is lost: how its node voted after a copy was made is written nowhere.
    pub(super) fn forget(&mut self, home: usize) {
        self.copies.retain(|copy| copy.home != home);
    }
}

/// A disk as it was.
#[derive(Debug)]
struct Copy {
    home: usize,
    stored: Stored,
    /// The checkers' record of it at that time.
    known: OnDisk,
    /// The voters, as far as the node knew.
    voters: Vec<NodeId>,
}

impl World {
    /// A copy is made of a disk, to be put back later.
    pub(super) fn copy_disk(&mut self, who: Who, age_us: u64, after_us: u64) {
        let place = self.resolve(who).filter(|&place| self.nodes[place].alive && self.judge.is_created());
        let copy = place.and_then(|place| {
            let home = self.nodes[place].home;
            let voters = self.nodes[place].machine.status(Time(0)).voters;
            Some(Copy { home, stored: self.disks[home].stored(), known: self.judge.on_disk(home)?, voters })
        });
        let Some(copy) = copy.filter(|copy| copy.stored.is_relied_on(Rules::default())) else {
            return self.spare(Fault::StaleDisk { who, age_us, after_us });
        };
        let home = copy.home;
        self.older.copies.retain(|other| other.home != home);
        self.older.copies.push(copy);
        self.queue.at(self.now_us + age_us, Event::Fault(Fault::PutBack { home, after_us }));
    }

    /// The copy takes the disk's place, and its process starts with that.
    pub(super) fn put_back(&mut self, home: usize, after_us: u64) -> Result<(), Failure> {
        let Some(at) = self.older.copies.iter().position(|copy| copy.home == home) else { return Ok(()) };
        let Some(place) =
            self.running(home).filter(|&place| self.others_hold_all(place, &self.older.copies[at].voters))
        else {
            self.spare(Fault::PutBack { home, after_us });
            return Ok(());
        };
        let Copy { stored, known, .. } = self.older.copies.remove(at);
        if stored == self.disks[home].stored() {
            return Ok(());
        }
        self.stats.met(Met::StaleDisk);
        self.tell(place, &"its disk is taken back");
        self.starting.insert(home);
        self.queue.at(self.now_us + after_us, Event::Start { home });
        self.die(place)?;
        self.disks[home].put_back(stored);
        self.judge.took_back(home, known);
        self.older.pending = Some(home);
        Ok(())
    }

    /// Some node came back with an older disk, and the group has not gone on from there yet.
    pub(super) fn has_stale_disk(&self) -> bool {
        let Some(home) = self.older.pending else { return false };
        let Some(view) = self.judge.view() else { return false };
        let now = self.running(home);
        let run = now.map(|place| self.nodes[place].machine.incarnation());
        let listed = view.ring.iter().find(|member| member.node == self.ids[home]);
        let earlier = listed.is_some_and(|member| run != Some(member.incarnation));
        let follows = now.is_some_and(|place| self.judge.view_of(place).0 == view.id);
        !view.last && (earlier || !follows)
    }

    /// A view changes, and of those who have all that was approved no other runs on: a restarted node has it again
    /// once it has fetched it (`protocol.md` §6.3).
    pub(super) fn alone_decides(&self, place: usize) -> bool {
        let Some(view) = self.judge.view().filter(|_| self.plan.on_disk()) else { return false };
        let runs_on = |member: &cloudy_proto::RingMember| {
            let other = self.running(self.judge.home_of(member.node)).filter(|other| *other != place);
            let active = other.is_some_and(|other| self.judge.view_of(other) == (view.id, true));
            active && self.judge.is_complete_on_disk(member.node, view.id)
        };
        view.rank_of(self.nodes[place].id).is_some() && !view.ring.iter().any(runs_on)
    }

    /// Without a process and its disk nothing is missing: the others run and reach each other, one of them has all that
    /// was approved, and every other voter knows all of the log and of the votes that it does.
    /// `voted`: who voted when the copy was made, as it says.
    fn others_hold_all(&self, place: usize, voted: &[NodeId]) -> bool {
        let home = self.nodes[place].home;
        let Some(view) = self.judge.view().filter(|view| !view.last) else { return false };
        let others: Vec<usize> = (0..self.latest.len()).filter(|&other| other != home).collect();
        let well = |other: usize| {
            let awake = |place: usize| self.nodes[place].asleep_until_us <= self.now_us;
            let held_us = self.disk_held_us.get(&other).copied().unwrap_or_default();
            self.running(other).is_some_and(awake) && held_us <= self.now_us
        };
        let reach = |a: usize, b: usize| {
            let blocked = self.network.blocked_until(a, b) > self.now_us || self.pipes.is_narrow(a, b);
            self.network.live(a, b).is_some() && !blocked
        };
        let started = others.iter().copied().filter(|&other| self.latest[other].is_some());
        let started: Vec<usize> = started.collect();
        let apart = |a: &usize| started.iter().any(|b| a != b && !reach(*a, *b));
        let active = |member: &cloudy_proto::RingMember| {
            let home = self.judge.home_of(member.node);
            self.running(home).is_some_and(|place| self.judge.view_of(place) == (view.id, true))
        };
        // From the moment that its node answered, the next view may rely on this disk alone.
        let changes = self.steps.contains(&(Step::Wedge, view.id.0));
        let mut on_ring = view.ring.iter().filter(|member| member.node != self.ids[home]);
        let complete = view.ring.iter().any(|member| {
            member.node != self.ids[home] && self.judge.is_complete_on_disk(member.node, view.id) && active(member)
        });
        let knows = self.disks[home].stored().voted_up_to();
        let behind = |other: &usize| {
            let (term, log_term, last) = self.disks[*other].stored().voted_up_to();
            term < knows.0 || (log_term, last) < (knows.1, knows.2)
        };
        let voters = self.nodes[place].machine.status(Time(0)).voters;
        let votes = |id: NodeId| voters.contains(&id) || voted.contains(&id);
        let mut voting = others.iter().filter(|other| votes(self.ids[**other]));
        // It would continue alone, and no node could tell it.
        let alone = *voted == [self.ids[home]];
        !self.has_stale_disk()
            && !self.starting.iter().any(|start| *start < self.plan.nodes)
            && started.iter().copied().all(well)
            && !started.iter().any(apart)
            && on_ring.all(active)
            && complete
            && !alone
            && !changes
            && !voting.any(behind)
            && self.can_do_without(place)
    }
}
