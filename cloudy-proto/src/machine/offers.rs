//! Snapshots for nodes that fetch (`protocol.md` §7.8). A transfer takes time, and a newer snapshot must not end it:
//! the transferred one is pinned.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::Durability;
use crate::digest::Digest;
use crate::id::{Index, ViewId};
use crate::io::Position;
use crate::limits::{SNAPSHOT_PIN_BYTES_PER_SECOND, SNAPSHOT_PIN_IDLE, SNAPSHOT_PIN_MAX, SNAPSHOTS_PINNED_MAX};
use crate::machine::incoming::snapshot_digest;
use crate::stored::{SnapshotState, StoredSnapshot};
use crate::time::Time;
use crate::view::InstalledView;
use crate::wire::{Fetched, HeldPart, encode_base};

/// A snapshot in its transferred form.
#[derive(Debug)]
struct Offer {
    index: Index,
    /// What a node with it misses begins here.
    needed: Position,
    digest: Digest,
    base: Bytes,
    state: SnapshotState,
}

impl Offer {
    fn of(snapshot: &StoredSnapshot) -> Self {
        let base = encode_base(&snapshot.begins.base, snapshot.view.as_ref()).freeze();
        let digest = snapshot_digest(&base, (snapshot.state.digest(), snapshot.state.length()));
        let view = snapshot.begins.base.view.as_ref().map_or(ViewId(0), InstalledView::id);
        let needed = Position { next: snapshot.begins.index().next(), view };
        Self { index: snapshot.index, needed, digest, base, state: snapshot.state.clone() }
    }

    fn length(&self) -> u64 {
        self.base.len() as u64 + self.state.length()
    }

    /// The time for which it is kept for transfers.
    fn pin_max(&self) -> Duration {
        SNAPSHOT_PIN_MAX + Duration::from_secs(self.length() / SNAPSHOT_PIN_BYTES_PER_SECOND)
    }
}

/// A snapshot for one node, and the sent part of it.
#[derive(Debug)]
pub(super) struct Offering {
    offer: Arc<Offer>,
    offset: u64,
}

impl Offering {
    /// What a node with the snapshot misses begins here.
    pub(super) fn needed(&self) -> Position {
        self.offer.needed
    }

    /// Bytes of the snapshot that are not sent yet.
    pub(super) fn left(&self) -> u64 {
        self.offer.length() - self.offset
    }

    /// The parts of the state, and the offset in it, if the next bytes are there.
    pub(super) fn stored(&self) -> Option<(u64, u64)> {
        match &self.offer.state {
            SnapshotState::Parts(parts) if parts.length > 0 => {
                self.offset.checked_sub(self.offer.base.len() as u64).map(|offset| (parts.id, offset))
            }
            _ => None,
        }
    }

    /// The next bytes, up to this number; none if they are stored and are not in what was read from there.
    pub(super) fn next_bytes(&self, bytes_max: usize, read: Option<&StateRead>) -> Option<Bytes> {
        let base = &self.offer.base;
        if let Some((id, offset)) = self.stored() {
            return read?.bytes_at(id, offset, bytes_max);
        }
        let (piece, start) = match (self.offset.checked_sub(base.len() as u64), &self.offer.state) {
            (Some(start), SnapshotState::Here(state)) => (state, start as usize),
            (Some(_), SnapshotState::Parts(_)) => return Some(Bytes::new()),
            (None, _) => (base, self.offset as usize),
        };
        Some(piece.slice(start..piece.len().min(start + bytes_max)))
    }

    /// The frame with the next bytes, and the rest if there is any.
    pub(super) fn part_of(self, part: Bytes) -> (Fetched, Option<Self>) {
        let Offer { index, digest, ref base, .. } = *self.offer;
        let (base_length, length) = (base.len() as u64, self.offer.length());
        let next = self.offset + part.len() as u64;
        let rest = (next < length).then(|| Self { offer: Arc::clone(&self.offer), offset: next });
        (Fetched::Snapshot { index, digest, base_length, length, offset: self.offset, part }, rest)
    }
}

/// Bytes of a state that the disk has read.
#[derive(Debug)]
pub(super) struct StateRead {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl StateRead {
    fn bytes_at(&self, id: u64, offset: u64, bytes_max: usize) -> Option<Bytes> {
        let start = offset.checked_sub(self.offset).filter(|_| id == self.id)?;
        let start = usize::try_from(start).ok().filter(|start| *start < self.bytes.len())?;
        Some(self.bytes.slice(start..self.bytes.len().min(start + bytes_max)))
    }
}

/// The recently sent snapshots.
#[derive(Debug, Default)]
pub(crate) struct Offers(Vec<Pinned>);

#[derive(Debug)]
struct Pinned {
    offer: Arc<Offer>,
    since: Time,
    used_at: Time,
}

impl Offers {
    /// Drops snapshots that no transfer has used for a while, or that are pinned for too long.
    pub(super) fn purge(&mut self, now: Time) {
        let is_used = |pinned: &Pinned| {
            now.since(pinned.used_at) <= SNAPSHOT_PIN_IDLE && now.since(pinned.since) <= pinned.offer.pin_max()
        };
        self.0.retain(is_used);
    }

    fn add(&mut self, offer: Offer, now: Time) -> Arc<Offer> {
        if self.0.len() >= SNAPSHOTS_PINNED_MAX {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, pinned)| pinned.used_at).map(|(at, _)| at);
            oldest.map(|at| self.0.swap_remove(at));
        }
        let offer = Arc::new(offer);
        self.0.push(Pinned { offer: Arc::clone(&offer), since: now, used_at: now });
        offer
    }

    /// Notes that a part of a snapshot is sent.
    pub(super) fn touch(&mut self, offering: &Offering, now: Time) {
        let pinned = self.0.iter_mut().find(|pinned| Arc::ptr_eq(&pinned.offer, &offering.offer));
        pinned.into_iter().for_each(|pinned| pinned.used_at = now);
    }

    /// Drops a snapshot whose state cannot be read.
    pub(super) fn drop_unreadable(&mut self, id: u64) {
        self.0.retain(|pinned| !matches!(pinned.offer.state, SnapshotState::Parts(parts) if parts.id == id));
    }

    /// The snapshot for a node that has received this part of one: the same again if it is pinned and the entries after
    /// it are kept, or else the newest one. `follows` says whether the entries from an index on are kept.
    pub(super) fn offer(
        &mut self,
        held: HeldPart,
        newest: Option<&StoredSnapshot>,
        follows: impl Fn(Index) -> bool,
        now: Time,
    ) -> Option<Offering> {
        self.purge(now);
        if let HeldPart::Snapshot { index, digest, offset } = held {
            let same = |pinned: &&Pinned| (pinned.offer.index, pinned.offer.digest) == (index, digest);
            self.offer_newest(newest, now);
            let found = self.0.iter().find(same).filter(|pinned| follows(pinned.offer.needed.next));
            if let Some(pinned) = found.filter(|pinned| offset < pinned.offer.length()) {
                return Some(Offering { offer: Arc::clone(&pinned.offer), offset });
            }
        }
        self.offer_newest(newest, now).map(|offer| Offering { offer, offset: 0 })
    }

    fn offer_newest(&mut self, newest: Option<&StoredSnapshot>, now: Time) -> Option<Arc<Offer>> {
        let snapshot = newest?;
        let known = self.0.iter().find(|pinned| pinned.offer.index == snapshot.index);
        if let Some(known) = known.map(|pinned| Arc::clone(&pinned.offer)) {
            return Some(known);
        }
        Some(self.add(Offer::of(snapshot), now))
    }

    /// `Disk`: whether a snapshot is transferred. The entries after it are deleted when a newer one is stored, so none
    /// is stored meanwhile. In memory nothing depends on it.
    pub(super) fn pins_snapshot(&mut self, durability: Durability, now: Time) -> bool {
        self.purge(now);
        durability == Durability::Disk && !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(index: u64) -> StoredSnapshot {
        let mut begins = crate::stored::StoredBase::default();
        begins.base.checkpoint.index = Index(index);
        let state = SnapshotState::Here(Bytes::from_static(b"state"));
        StoredSnapshot { index: Index(index), begins, view: None, state }
    }

    fn index(offering: Option<Offering>) -> Option<(Index, u64)> {
        offering.map(|offering| (offering.offer.index, offering.offset))
    }

    #[test]
    fn a_node_continues_with_its_snapshot_while_that_is_pinned_and_begins_with_the_newest() {
        let (mut offers, all) = (Offers::default(), |_| true);
        let first = offers.offer(HeldPart::Nothing, Some(&snapshot(5)), all, Time(1)).expect("it is kept");
        let held = HeldPart::Snapshot { index: Index(5), digest: first.offer.digest, offset: 3 };
        let newest = snapshot(9);
        assert_eq!(index(offers.offer(held, Some(&newest), all, Time(2))), Some((Index(5), 3)));
        assert_eq!(index(offers.offer(HeldPart::Nothing, Some(&newest), all, Time(2))), Some((Index(9), 0)));
        let later = |index| index > Index(6);
        assert_eq!(index(offers.offer(held, Some(&newest), later, Time(2))), Some((Index(9), 0)), "a gap behind it");
        let idle = Time(2) + SNAPSHOT_PIN_IDLE + Duration::from_micros(1);
        assert_eq!(
            index(offers.offer(held, Some(&newest), all, idle)),
            Some((Index(9), 0)),
            "it was idle for too long"
        );
        assert_eq!(index(offers.offer(HeldPart::Nothing, None, all, idle)), None);
    }

    #[test]
    fn a_transferred_snapshot_pins_the_disk_and_not_memory() {
        let mut offers = Offers::default();
        assert!(!offers.pins_snapshot(Durability::Disk, Time(1)));
        offers.offer(HeldPart::Nothing, Some(&snapshot(5)), |_| true, Time(1));
        assert!(offers.pins_snapshot(Durability::Disk, Time(1)) && !offers.pins_snapshot(Durability::Memory, Time(1)));
        let idle = Time(1) + SNAPSHOT_PIN_IDLE + Duration::from_micros(1);
        assert!(!offers.pins_snapshot(Durability::Disk, idle));
    }
}
