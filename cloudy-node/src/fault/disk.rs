//! A disk that keeps synced data, and other data at random.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use redb::StorageBackend;

/// A disk in memory for a node's store, with failures on request. Clones are the same disk.
///
/// After a power failure it has the synced data. Each later write is lost, complete, torn, or has one of its changed
/// bits flipped, independently of the others.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk(Arc<(Mutex<State>, Condvar)>);

/// A kind of failure of one operation of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// An input/output error (`EIO`): the operation has no effect.
    Io,
    /// The disk is full (`ENOSPC`): the operation has no effect.
    Full,
    /// A short write: the first half of the data is written, then the operation fails.
    Short,
}

/// Outcomes of the writes that were not synced at a power failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashCounters {
    /// The write has no effect.
    pub lost: u64,
    /// Only the first part is written.
    pub torn: u64,
    /// One bit is flipped.
    pub flipped: u64,
    /// The write is complete, and an earlier one is not.
    pub overtook: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The data that reads return.
    live: Vec<u8>,
    /// The data that certainly exists after a power failure.
    synced: Vec<u8>,
    /// Later operations, which may exist then.
    unsynced: Vec<Change>,
    /// Number of writes, changes of length and syncs.
    operations: u64,
    syncs: u64,
    /// The operation during which the power fails.
    power_ends_at: Option<u64>,
    /// An operation that fails, and those after it succeed.
    failing: Option<(u64, DiskFault)>,
    bytes_max: Option<usize>,
    /// A sync that fails: its data is lost, although reads still return it.
    failing_sync: Option<u64>,
    syncs_held: bool,
    sync_waits: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// The outcome of a write that was not synced.
#[derive(Clone, Copy)]
enum Treatment {
    Lost,
    Whole,
    Torn,
    Flipped,
}

impl FaultDisk {
    /// A disk with this content.
    #[must_use]
    pub fn with_image(image: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().synced = image.clone();
        disk.state().live = image;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        super::lock(&self.0.0)
    }

    /// Number of syncs.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Number of writes, changes of length and syncs.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The data that reads return.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// Sets the operation during which the power fails, counted from the first: it and all later ones fail.
    pub fn end_power_at(&self, operation: u64) {
        self.state().power_ends_at = Some(operation);
    }

    /// Sets one operation that fails, counted from the first; those after it succeed.
    ///
    /// A sync that fails loses its data, as [`fail_sync`](Self::fail_sync) describes.
    pub fn fail_operation(&self, operation: u64, how: DiskFault) {
        self.state().failing = Some((operation, how));
    }

    /// Limits the size of the file; none for no limit.
    pub fn limit_bytes(&self, bytes_max: Option<usize>) {
        self.state().bytes_max = bytes_max;
    }

    /// Sets a sync that fails, counted from the first.
    pub fn fail_sync(&self, sync: u64) {
        self.state().failing_sync = Some(sync);
    }

    /// Blocks syncs, like a disk that hangs.
    pub fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    /// Unblocks syncs.
    pub fn release_syncs(&self) {
        self.state().syncs_held = false;
        self.0.1.notify_all();
    }

    /// Blocks until a sync waits; false after the timeout.
    #[must_use]
    pub fn wait_for_held_sync(&self, limit: Duration) -> bool {
        let waited = self.0.1.wait_timeout_while(self.state(), limit, |state| !state.sync_waits);
        waited.is_ok_and(|(state, _)| state.sync_waits)
    }

    /// The content after a power failure at this moment. Seed 0 keeps no unsynced data, seed 1 all.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Vec<u8> {
        self.crash(seed).0
    }

    /// Like [`crash_image`](Self::crash_image), with the outcomes of the unsynced writes.
    #[must_use]
    pub fn crash(&self, seed: u64) -> (Vec<u8>, CrashCounters) {
        let state = self.state();
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut image = state.synced.clone();
        let mut met = CrashCounters::default();
        for change in &state.unsynced {
            let treatment = match seed {
                0 => Treatment::Lost,
                1 => Treatment::Whole,
                _ => [Treatment::Lost, Treatment::Whole, Treatment::Torn, Treatment::Flipped][dice.random_range(0..4)],
            };
            match (treatment, change) {
                (Treatment::Lost, _) => met.lost += 1,
                (Treatment::Torn, Change::Write { offset, data }) if !data.is_empty() => {
                    let torn = dice.random_range(0..data.len());
                    apply(&mut image, &Change::Write { offset: *offset, data: data[..torn].to_vec() });
                    met.torn += 1;
                }
                (Treatment::Flipped, Change::Write { offset, data }) => {
                    let altered = flipped(&state.synced, *offset, data.clone(), &mut dice);
                    met.flipped += u64::from(altered != *data);
                    apply(&mut image, &Change::Write { offset: *offset, data: altered });
                }
                _ => {
                    met.overtook += u64::from(met.lost > 0);
                    apply(&mut image, change);
                }
            }
        }
        (image, met)
    }
}

/// A write with one of its changed bits flipped: a store may rely on the unchanged bits of a byte.
fn flipped(synced: &[u8], offset: usize, mut data: Vec<u8>, dice: &mut ChaCha8Rng) -> Vec<u8> {
    let changes = |at: usize| synced.get(offset + at).map_or(u8::MAX, |before| before ^ data[at]);
    let bits = |at: usize| (0..8).map(move |bit| (at, 1_u8 << bit));
    let changed: Vec<(usize, u8)> =
        (0..data.len()).flat_map(bits).filter(|(at, bit)| changes(*at) & bit != 0).collect();
    if !changed.is_empty() {
        let (at, bit) = changed[dice.random_range(0..changed.len())];
        data[at] ^= bit;
    }
    data
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.power_ends_at {
            Some(end) if self.operations > end => Err(io::Error::other("there is no power")),
            _ => Ok(()),
        }
    }

    /// The failure of the operation that has begun, if there is one.
    fn failure(&self) -> Option<DiskFault> {
        self.failing.filter(|(operation, _)| *operation == self.operations).map(|(_, error)| error)
    }

    fn change(&mut self, mut change: Change) -> io::Result<()> {
        self.begin()?;
        let failure = self.failure();
        match (failure, &mut change) {
            (Some(DiskFault::Short), Change::Write { data, .. }) => data.truncate(data.len() / 2),
            (Some(error), _) => return Err(error.into()),
            (None, _) => {}
        }
        let end = match &change {
            Change::Write { offset, data } => offset + data.len(),
            Change::Length(length) => *length,
        };
        if self.bytes_max.is_some_and(|max| end > max.max(self.live.len())) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut self.live, &change);
        self.unsynced.push(change);
        // The operation during which the power fails may be partly done.
        if self.power_ends_at == Some(self.operations) {
            return Err(io::Error::other("the power went"));
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl From<DiskFault> for io::Error {
    fn from(error: DiskFault) -> Self {
        match error {
            DiskFault::Io => Self::other("input/output error"),
            DiskFault::Full => io::ErrorKind::StorageFull.into(),
            DiskFault::Short => io::ErrorKind::WriteZero.into(),
        }
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        // An empty write does not make a file longer.
        Change::Write { data, .. } if data.is_empty() => {}
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if end > image.len() {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
        Change::Length(length) => image.resize(*length, 0),
    }
}

impl StorageBackend for FaultDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let found = state.live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().change(Change::Length(len as usize))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state().change(Change::Write { offset: offset as usize, data: data.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.syncs_held {
            state.sync_waits = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sync_waits = false;
        state.begin()?;
        if state.power_ends_at == Some(state.operations) {
            return Err(io::Error::other("the power went"));
        }
        state.syncs += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        if let Some(error) = state.failure() {
            return Err(error.into());
        }
        if state.failing_sync == Some(state.syncs) {
            return Err(io::Error::other("the sync failed"));
        }
        let State { synced, .. } = &mut *state;
        unsynced.iter().for_each(|change| apply(synced, change));
        Ok(())
    }
}
