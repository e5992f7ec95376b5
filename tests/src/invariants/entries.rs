//! Entries of a result: after every confirmation, in the order of slots, and each own payload with its approval
//! (`protocol.md` P1, §3.4).

use cloudy_proto::{Approval, Entry, Rank, ViewId};

use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// The way in which an entry came into a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Walk,
    Cut,
    Fetch,
}

impl Judge {
    pub(super) fn approved_own(&mut self, node: usize, approval: &Approval, way: Way) -> Result<(), Failure> {
        let seqs = (approval.first_seq, approval.count);
        let in_time = self.ghost.follows_what_was_known(node, seqs, approval.first_index);
        in_time.map_err(|(rule, what)| self.failure(rule, node, what))?;
        let all = self.views.get(approval.view).map_or(0, |log| log.ring.len());
        let last = approval.first_index.0 + u64::from(approval.count) - 1;
        // A joiner also fetches some.
        let fetched = self.nodes[node].joined && last <= self.ghost.index();
        if way == Way::Walk && !fetched && approval.confirmed.len() != all {
            let what = format!("{} of {all} had confirmed", approval.confirmed.len());
            return Err(self.failure("every member has confirmed an approval", node, what));
        }
        let Some(approval) = self.beyond_snapshot(node, approval) else { return Ok(()) };
        if self.nodes[node].approval.replace(approval).is_some() {
            return Err(self.failure("an approval comes with its entry", node, "another came before the entry"));
        }
        Ok(())
    }

    pub(super) fn delivered(&mut self, node: usize, entry: &Entry, way: Way, stats: &mut Stats) -> Result<(), Failure> {
        let Some(origin) = self.control.run_of(entry.origin, entry.incarnation) else {
            return Err(self.failure("an entry has an origin", node, format!("{:?}", entry.origin)));
        };
        let expected =
            (origin == node).then_some((entry.batch.first_seq, entry.batch.count, entry.first_index, entry.view));
        let told = self.nodes[node].approval.take();
        let told = told.map(|told| (told.first_seq, told.count, told.first_index, told.view));
        if expected != told {
            let what = format!("entry {expected:?}, approval {told:?}");
            return Err(self.failure("an approval comes with its entry", node, what));
        }
        stats.met(if way == Way::Walk { Met::Walked } else { Met::TakenByCut });
        let before = self.ghost.index();
        let seqs = (entry.batch.first_seq, entry.batch.count);
        let in_time = self.ghost.follows_what_was_known(origin, seqs, entry.first_index);
        let checked = in_time.and_then(|()| self.enter(node, origin, entry, way));
        if !self.is_tainted(node) {
            self.ghost.is_known(entry.last_index().0);
        }
        stats.add(Met::Approved, self.ghost.index() - before);
        match checked {
            Err(_) if self.is_tainted(node) => Ok(()),
            checked => checked.map_err(|(rule, what)| self.failure(rule, node, what)),
        }
    }

    fn enter(&mut self, node: usize, origin: usize, entry: &Entry, way: Way) -> Result<(), Broken> {
        let index = self.nodes[node].index;
        if entry.first_index.0 != index + 1 {
            return Err(("a result has no gaps", format!("index {} after {index}", entry.first_index)));
        }
        self.nodes[node].index = entry.last_index().0;
        self.follows_its_view(node, entry.view)?;
        let log = self.views.get(entry.view);
        let Some((log, rank)) = log.and_then(|log| Some((log, log.rank_of(origin)?))) else {
            return Err(("an entry has an origin", "it is no member".to_owned()));
        };
        if entry.incarnation != log.view.member(Rank(rank as u16)).incarnation {
            return Err(("an entry names its view and run", format!("{} and {}", entry.view, entry.incarnation)));
        }
        let covered = self.ghost.covers(entry);
        if !covered && self.is_tainted(node) {
            // Its first entry may be wrong.
            return Ok(());
        }
        if covered && (way == Way::Fetch || self.nodes[node].joined) {
            return self.ghost.compare(origin, entry);
        }
        if way == Way::Fetch {
            return Err(("what is fetched is in a result", format!("index {}", entry.last_index())));
        }
        if entry.view > self.nodes[node].view || (way == Way::Walk && entry.view != self.nodes[node].view) {
            return Err(("an entry names its view and run", format!("{}", entry.view)));
        }
        if log.first.is_some_and(|first| entry.first_index.0 < first) {
            return Err(("a view begins where the last one ended", format!("view {} has {index}", entry.view)));
        }
        if way == Way::Walk
            && origin == node
            && self.disks.is_some()
            && entry.batch.last_seq().0 > self.nodes[node].synced_seq
        {
            return Err(("an own payload that enters is synced", format!("number {}", entry.batch.last_seq())));
        }
        let place = log.lanes.place_of(rank, entry.batch.first_seq.0);
        let lonely = log.ring.len() == 1;
        if way == Way::Walk && !lonely {
            let Some((round, _)) = place else {
                return Err(("a slot is confirmed before it enters", "it was never sent".to_owned()));
            };
            log.lanes.all_confirmed(rank, &log.ring, round + 1)?;
        }
        if covered {
            return self.ghost.compare(origin, entry);
        }
        if way == Way::Walk && !lonely {
            let through = self.ghost.through(&log.ring);
            log.lanes.nothing_before(place, &through)?;
            self.in_turn(entry.view, place, log.ring.len())?;
            if let Some(log) = self.views.get_mut(entry.view) {
                log.walked = place;
            }
        }
        self.verdicts.may_enter(origin, entry.batch.last_seq().0)?;
        self.ghost.extend(origin, entry, place)
    }

    /// A `Token` session's result goes round the first view's ring, without a gap (`protocol.md` §9).
    fn in_turn(&self, view: ViewId, place: Option<(u64, usize)>, members: usize) -> Result<(), Broken> {
        let expected = self
            .ghost
            .place(view)
            .map_or((0, 0), |(round, rank)| if rank + 1 == members { (round + 1, 0) } else { (round, rank + 1) });
        if self.token_session && view == ViewId(1) && place != Some(expected) {
            return Err(("a token session's result goes round the ring", format!("{place:?} instead of {expected:?}")));
        }
        Ok(())
    }
}
