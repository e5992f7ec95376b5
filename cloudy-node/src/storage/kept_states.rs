//! Which states of an application are kept. A state has an id, which is never used again. It is deleted in bounded pieces
//! once it is neither the group's snapshot, nor being fetched, nor leased by a writer or a reader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Number of parts that a submission of the group deletes: a few milliseconds of work.
const DELETED_MAX: u64 = 32;

/// The states of a group that are being written or read here.
#[derive(Debug, Default)]
struct Leased {
    /// The number of holders of each state, and of its parts as far as they were written here.
    held: BTreeMap<u64, (usize, u64)>,
    /// States that are no longer held, with the number of their parts.
    released: Vec<(u64, u64)>,
}

/// Shared by the users of the states and by the task that deletes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<Leased>>);

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Leased> {
        // A panic under the lock leaves the maps valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, id: u64) -> Lease {
        self.lock().held.entry(id).or_default().0 += 1;
        Lease { leases: self.clone(), id }
    }
}

/// Keeps a state until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Leases,
    id: u64,
}

impl Lease {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Notes a part that is written.
    pub(super) fn on_written(&self) {
        if let Some((_, parts)) = self.leases.lock().held.get_mut(&self.id) {
            *parts += 1;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leased = self.leases.lock();
        if let Some((holders, parts)) = leased.held.get_mut(&self.id) {
            *holders -= 1;
            if *holders == 0 {
                let parts = *parts;
                leased.held.remove(&self.id);
                leased.released.push((self.id, parts));
            }
        }
    }
}

/// The states of a group in the store, with the number of the parts of each.
#[derive(Debug, Default)]
pub(super) struct KeptStates {
    known: BTreeMap<u64, u64>,
    /// The one of the group's snapshot.
    current: Option<u64>,
    /// The one that is being fetched, or was last.
    fetched: Option<u64>,
    leases: Leases,
}

impl KeptStates {
    /// The states that an earlier process left.
    pub(super) fn after(known: BTreeMap<u64, u64>, current: Option<u64>) -> Self {
        Self { known, current, ..Self::default() }
    }

    pub(super) fn leases(&self) -> Leases {
        self.leases.clone()
    }

    /// Notes a part of a fetched state.
    pub(super) fn on_part(&mut self, id: u64) {
        *self.known.entry(id).or_default() += 1;
        self.fetched = Some(id);
    }

    /// Notes the group's snapshot.
    pub(super) fn on_snapshot(&mut self, id: Option<u64>) {
        self.current = id;
    }

    /// A state that nothing needs, and the number of its parts to delete with the next operations.
    pub(super) fn next_deleted(&mut self) -> Option<(u64, usize)> {
        let (current, fetched) = (self.current, self.fetched);
        let mut leased = self.leases.lock();
        for (id, parts) in std::mem::take(&mut leased.released) {
            *self.known.entry(id).or_default() += parts;
        }
        let is_needed = |id: &u64| current == Some(*id) || fetched == Some(*id) || leased.held.contains_key(id);
        let (&id, parts) = self.known.iter_mut().find(|(id, _)| !is_needed(id))?;
        *parts = parts.saturating_sub(DELETED_MAX);
        if *parts == 0 {
            self.known.remove(&id);
        }
        Some((id, DELETED_MAX as usize))
    }
}
