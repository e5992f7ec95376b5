//! The disks hold everything that others were told is there, and enough for the group to restart (`protocol.md` P7,
//! §3.2, §6.2, §11).

use cloudy_proto::wire::Wedged;
use cloudy_proto::{ConsensusId, NodeId, Origin, Record, RingMember, StoredBody, ViewId};

use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// The content of a node's disk.
#[derive(Clone, Debug, Default)]
pub struct OnDisk {
    /// Entries of the control log.
    commands: usize,
    /// The number of committed entries of the log, as far as its voter knows.
    committed: usize,
    /// The latest view up to whose first index the result is there; zero for who was there before the first.
    complete: Option<ViewId>,
    /// The latest view that was frozen.
    wedged: Option<ViewId>,
    /// The length of the result.
    index: u64,
}

impl Judge {
    /// Records are synced on a disk, and stay there.
    ///
    /// # Errors
    /// If the rest of the group could not restart from the disks.
    pub fn synced(&mut self, place: usize, records: &[Record]) -> Result<(), Failure> {
        let home = self.home_of[place];
        let Some(kept) = self.disks.as_mut().map(|disks| &mut disks[home]) else { return Ok(()) };
        for record in records {
            match record {
                Record::Command { index, .. } => kept.commands = index.0 as usize,
                Record::Log { index, .. } => kept.commands = kept.commands.max(index.0 as usize),
                Record::Snapshot(snapshot) => kept.index = kept.index.max(snapshot.begins.index().0),
                Record::Complete { view, .. } => kept.complete = kept.complete.max(Some(*view)),
                Record::Wedged { view } => kept.wedged = kept.wedged.max(Some(*view)),
                #[cfg(feature = "next-version")]
                Record::Next => {}
                Record::Entry(entry) => kept.index = entry.first_index.0 + u64::from(entry.count) - 1,
                Record::Slot { view, lane, slot } => {
                    let Some(log) = self.views.get_mut(*view) else { continue };
                    log.lanes.synced(home, lane.at(), slot);
                    if log.rank_of(place) == Some(lane.at()) {
                        let synced = &mut self.nodes[place].synced_seq;
                        *synced = slot.batch.last_seq().0.max(*synced);
                    }
                }
                Record::Vote(vote) if vote.voter > ConsensusId(0) => kept.committed = vote.commit.0 as usize,
                Record::Vote(_) => kept.committed = 0,
                Record::Entries(_) | Record::Base { .. } => {}
                Record::Checkpoint { .. } | Record::Begin(_) | Record::View(_) | Record::SnapshotPart { .. } => {}
            }
        }
        self.disks_suffice(place)
    }

    /// A process hands out records to store: a member that is not complete walks nothing of its view, and it is
    /// complete once the entries that it fetched are synced (`protocol.md` §7.2).
    pub(super) fn persists(&self, place: usize, records: &[Record]) -> Result<(), Failure> {
        let seen = &self.nodes[place];
        let complete = self.disks.as_ref().is_none_or(|disks| disks[self.home_of[place]].complete >= Some(seen.view));
        let walked = |record: &&Record| match record {
            Record::Entry(entry) => entry.view == seen.view && matches!(entry.body, StoredBody::Slot { .. }),
            _ => false,
        };
        for record in records {
            let Record::Begin(base) = record else { continue };
            self.nobody_misses(place, base.index().0)?;
        }
        match records.iter().find(walked) {
            Some(record) if seen.active && seen.joined && !complete => {
                Err(self.failure("a fetched result counts once it is synced", place, format!("{record:?}")))
            }
            _ => Ok(()),
        }
    }

    /// A process deletes its stored result up to an index: each member of its view has that part, or would have it
    /// after a restart (`protocol.md` §7.4).
    fn nobody_misses(&self, place: usize, index: u64) -> Result<(), Failure> {
        let view = self.nodes[place].view;
        let (Some(log), Some(disks)) = (self.views.get(view), &self.disks) else { return Ok(()) };
        let misses = |(member, run): &(&RingMember, &usize)| {
            let home = self.homes[&member.node];
            let same_disk = self.disk_of[**run] == self.disk_now[home];
            same_disk && disks[home].index < index && !self.is_complete_on_disk(member.node, view)
        };
        match log.view.ring.iter().zip(&log.ring).find(misses) {
            Some((member, _)) => {
                let what = format!("{} up to {index}", member.node);
                Err(self.failure("nothing is deleted that a member misses", place, what))
            }
            None => Ok(()),
        }
    }

    /// A node has another disk, on which there is nothing.
    pub fn lost_disk(&mut self, home: usize) {
        self.disk_now[home] = self.disk_now.len() + self.nodes.len();
        if let Some(disks) = &mut self.disks {
            disks[home] = OnDisk::default();
        }
    }

    /// The content of a node's disk, if there are disks.
    #[must_use]
    pub fn on_disk(&self, home: usize) -> Option<OnDisk> {
        self.disks.as_ref().map(|disks| disks[home].clone())
    }

    /// The number of committed entries of the control log that a process on this node's disk starts with, if there are
    /// disks.
    pub(super) fn kept_entries(&self, place: usize) -> Option<usize> {
        let kept = self.disks.as_ref().map(|disks| &disks[self.home_of[place]]);
        kept.map(|kept| kept.commands.max(kept.committed))
    }

    /// A node's disk is reset to this state: it counts as another disk, since later records are lost.
    pub fn took_back(&mut self, home: usize, known: OnDisk) {
        self.lost_disk(home);
        self.taken_back.insert(home);
        if let Some(disks) = &mut self.disks {
            disks[home] = known;
        }
    }

    /// A process has begun with a stored result of this length.
    pub fn restores(&mut self, place: usize, index: u64) {
        self.nodes[place].restored = Some(index);
    }

    /// A restarted process has handed out its result again.
    ///
    /// # Errors
    /// If it differs from what the disk held.
    pub fn restored(&self, place: usize) -> Result<(), Failure> {
        let Some(stored) = self.nodes[place].restored.filter(|_| !self.is_tainted(place)) else { return Ok(()) };
        let synced = self.disks.as_ref().map_or(0, |disks| disks[self.home_of[place]].index);
        let index = self.nodes[place].index;
        if index < stored || stored != synced {
            let what = format!("index {index}, stored {stored}, synced {synced}");
            return Err(self.failure("a result comes back as it was stored", place, what));
        }
        self.disks_suffice(place)
    }

    /// A node could say from its disk how a view ends: it has the result up to its first index, or all that a cut took of
    /// the view before.
    #[must_use]
    pub fn is_complete_on_disk(&self, node: NodeId, view: ViewId) -> bool {
        let Some(kept) = self.disks.as_ref().map(|disks| &disks[self.homes[&node]]) else { return false };
        let lists = |view: ViewId, counts: &dyn Fn(Origin) -> bool| {
            let install = self.control.install_of(view);
            install.is_some_and(|install| install.ring.iter().any(|it| it.node == node && counts(it.origin)))
        };
        let before = ViewId(view.0 - 1);
        let installed = self.control.view_at(kept.commands);
        // Its answer decided the cut, and it knows that it gave one.
        let answered = kept.wedged >= Some(before) && lists(view, &|origin| origin != Origin::Joiner);
        let is_first = view == ViewId(1) && lists(view, &|_| true);
        let takes_cut = installed == before && (is_first || (answered && lists(before, &|_| true)));
        kept.complete >= Some(view) || (takes_cut && kept.complete >= Some(before))
    }

    /// The group will persist: a member has stored its first view, if there is a disk.
    #[must_use]
    pub fn is_created(&self) -> bool {
        let kept = |disks: &Vec<OnDisk>| disks.iter().any(|kept| kept.complete > Some(ViewId(0)));
        self.view().is_some() && self.disks.as_ref().is_none_or(kept)
    }

    /// Of the members of the latest view, one that came back from its disk would be complete.
    pub(super) fn disks_suffice(&self, node: usize) -> Result<(), Failure> {
        let latest = self.control.latest_view();
        let Some(install) = self.disks.as_ref().and_then(|_| self.control.install_of(latest)) else { return Ok(()) };
        // The last view's result is final, and may go with the last node that has it; a node that may be killed may be lost too.
        let may_be_gone = self.disk_now.iter().enumerate().any(|(home, disk)| home != *disk);
        let excused = may_be_gone && (install.last || self.kills_anybody);
        if excused
            || !self.is_created()
            || install.ring.iter().any(|member| self.is_complete_on_disk(member.node, latest))
        {
            return Ok(());
        }
        Err(self.failure("the disks have all that was approved", node, format!("nobody's for view {latest}")))
    }

    /// A member answers `Wedge`, or a later run of its node does so from the disk.
    pub(super) fn answered(&mut self, node: usize, wedged: &Wedged, stats: &mut Stats) -> Result<(), Broken> {
        let home = self.home_of[node];
        let kept = self.disks.as_ref().map(|disks| disks[home].complete);
        let Some(log) = self.views.get_mut(wedged.view) else { return Ok(()) };
        let rank = log.view.ring.iter().position(|member| self.homes[&member.node] == home);
        let Some(rank) = rank else { return Ok(()) };
        if wedged.complete && kept.is_some_and(|kept| kept < Some(wedged.view)) {
            return Err(("complete is who is on the disk", format!("{kept:?} for {}", wedged.view)));
        }
        if kept.is_some() {
            for (lane, frontier) in wedged.frontiers.iter().enumerate() {
                log.lanes.is_synced("an answer names what is synced", lane, home, frontier.0)?;
            }
        }
        let run = log.ring[rank];
        if run != node {
            stats.met(Met::WedgedFromDisk);
        }
        let same_disk = self.disk_of[run] == self.disk_of[node];
        log.wedges.answered((rank, run, same_disk), node, wedged, &log.lanes)
    }
}
