//! A bounded pool of unfinished handshakes: a new one replaces the oldest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

/// Unfinished handshakes, by origin.
#[derive(Debug)]
pub(super) struct Pool<K> {
    max: usize,
    /// By age. Dropping a sender aborts the handshake.
    open: BTreeMap<u64, (K, oneshot::Sender<()>)>,
    per_origin: BTreeMap<K, BTreeSet<u64>>,
}

impl<K: Copy + Ord> Pool<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: BTreeMap::new(), per_origin: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Adds a handshake with an `id` above all earlier ones. The receiver resolves once the handshake is replaced. In a
    /// full pool the oldest one is, of the origin with the most, so that an origin with many handshakes cannot displace
    /// one with few.
    pub(super) fn insert(&mut self, id: u64, origin: K) -> oneshot::Receiver<()> {
        if self.open.len() >= self.max {
            let largest = self.per_origin.values().max_by_key(|ids| (ids.len(), Reverse(ids.first().copied())));
            if let Some(oldest) = largest.and_then(|ids| ids.first().copied()) {
                self.remove(oldest);
            }
        }
        let (ends, ended) = oneshot::channel();
        self.open.insert(id, (origin, ends));
        self.per_origin.entry(origin).or_default().insert(id);
        ended
    }

    /// Removes a handshake that is finished or replaced.
    pub(super) fn remove(&mut self, id: u64) {
        let Some((origin, _)) = self.open.remove(&id) else { return };
        if let Some(ids) = self.per_origin.get_mut(&origin) {
            ids.remove(&id);
            if ids.is_empty() {
                self.per_origin.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_origin_with_the_most_gives_way() {
        let mut pool = Pool::new(3);
        let mut honest = pool.insert(1, "honest");
        let mut first = pool.insert(2, "flood");
        let mut second = pool.insert(3, "flood");
        let mut third = pool.insert(4, "flood");
        assert!(first.try_recv() == Err(oneshot::error::TryRecvError::Closed), "the flood's oldest");
        for open in [&mut honest, &mut second, &mut third] {
            assert_eq!(open.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        pool.remove(2);
        assert_eq!((pool.len(), pool.per_origin.len()), (3, 2));
        [1, 3, 4].into_iter().for_each(|id| pool.remove(id));
        assert!(pool.open.is_empty() && pool.per_origin.is_empty());
    }
}
