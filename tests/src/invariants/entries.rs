//! What enters a result: after every confirmation, in the order of slots, and each own payload with its approval
//! (`protocol.md` P1, §3.4).

use cloudy_proto::{Approval, Entry, Rank};

use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// How an entry came into a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Walk,
    Cut,
    Fetch,
}

impl Judge {
    pub(super) fn approved_own(&mut self, node: usize, approval: &Approval, way: Way) -> Result<(), Failure> {
        let all = self.ring.len();
        if way == Way::Walk && approval.confirmed.len() != all {
            let what = format!("{} of {all} had confirmed", approval.confirmed.len());
            return Err(self.failure("every member has confirmed an approval", node, what));
        }
        if self.nodes[node].approval.replace(approval.clone()).is_some() {
            return Err(self.failure("an approval comes with its entry", node, "another came before the entry"));
        }
        Ok(())
    }

    pub(super) fn delivered(&mut self, node: usize, entry: &Entry, way: Way, stats: &mut Stats) -> Result<(), Failure> {
        let Some(&origin) = self.places.get(&entry.origin) else {
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
        let checked = self.enter(node, origin, entry, way);
        stats.add(Met::Approved, self.ghost.index() - before);
        match checked {
            Err(_) if self.tainted.contains(&node) => Ok(()),
            checked => checked.map_err(|(rule, what)| self.failure(rule, node, what)),
        }
    }

    fn enter(&mut self, node: usize, origin: usize, entry: &Entry, way: Way) -> Result<(), Broken> {
        let index = self.nodes[node].index;
        if entry.first_index.0 != index + 1 {
            return Err(("a result has no gaps", format!("index {} after {index}", entry.first_index)));
        }
        self.nodes[node].index = entry.last_index().0;
        let rank = self.rank_of(origin);
        let Some((view, rank)) = self.view.as_ref().zip(rank) else {
            return Err(("an entry has an origin", "it is no member".to_owned()));
        };
        let run = view.member(Rank(rank as u16)).incarnation;
        if (entry.view, entry.incarnation) != (view.id, run) {
            return Err(("an entry names its view and run", format!("{} and {}", entry.view, entry.incarnation)));
        }
        let place = self.lanes.place_of(rank, entry.batch.first_seq.0);
        let lonely = self.ring.len() == 1;
        if way == Way::Walk && !lonely {
            let Some((round, _)) = place else {
                return Err(("a slot is confirmed before it enters", "it was never sent".to_owned()));
            };
            self.lanes.all_confirmed(rank, &self.ring, round + 1)?;
        }
        if self.ghost.covers(entry) {
            return self.ghost.compare(origin, entry);
        }
        if way == Way::Fetch {
            return Err(("what is fetched is in a result", format!("index {}", entry.last_index())));
        }
        if way == Way::Walk && !lonely {
            let through = self.ghost.through(self.ring.len());
            self.lanes.nothing_before(place, &through)?;
            self.in_turn(place)?;
            self.walked = place;
        }
        self.ghost.extend(origin, rank, entry, place)
    }

    /// A `Token` session's result goes round the ring, without a gap (`protocol.md` §9).
    fn in_turn(&self, place: Option<(u64, usize)>) -> Result<(), Broken> {
        let expected = self.ghost.place().map_or((0, 0), |(round, rank)| {
            if rank + 1 == self.ring.len() { (round + 1, 0) } else { (round, rank + 1) }
        });
        if self.token_session && place != Some(expected) {
            return Err(("a token session's result goes round the ring", format!("{place:?} instead of {expected:?}")));
        }
        Ok(())
    }
}
