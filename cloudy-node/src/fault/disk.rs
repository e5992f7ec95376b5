//! A disk that keeps what was synced, and of the rest what a seed says.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use redb::StorageBackend;

/// A disk in memory for a node's store, which fails when it is told to. Copies of it are one disk.
///
/// When its power goes it has what was synced; each write since is lost, whole, torn, or has a bit flipped among those
/// that it was to change, whatever became of the others.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk(Arc<(Mutex<State>, Condvar)>);

/// How one operation of a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// An input/output error (`EIO`): nothing of the operation is done.
    Io,
    /// The disk is full (`ENOSPC`): nothing of the operation is done.
    Full,
    /// A short write: the first half of the data is written, then the operation fails.
    Short,
}

/// What became of the writes that were not synced when the power went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashCounters {
    /// Nothing of them is there.
    pub lost: u64,
    /// Only their first part is.
    pub torn: u64,
    /// A bit of them is another.
    pub flipped: u64,
    /// They are there, and one before them is not.
    pub overtook: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What reads give.
    live: Vec<u8>,
    /// What is there for certain when the power goes.
    synced: Vec<u8>,
    /// What was done since, and may be there.
    unsynced: Vec<Change>,
    /// Writes, changes of length and syncs.
    operations: u64,
    syncs: u64,
    /// The power goes during this operation.
    power_ends_at: Option<u64>,
    /// This operation fails, and those after it succeed.
    failing: Option<(u64, DiskFault)>,
    bytes_max: Option<usize>,
    /// This sync fails, and what it should have synced is forgotten although reads still give it.
    failing_sync: Option<u64>,
    syncs_held: bool,
    sync_waits: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// What becomes of a write that was not synced.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Whole,
    Torn,
    Flipped,
}

impl FaultDisk {
    /// One on which that is already.
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

    /// Syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Writes, changes of length and syncs so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// What reads give.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// The power goes during this operation, counted from the first: it and all that follow fail.
    pub fn end_power_at(&self, operation: u64) {
        self.state().power_ends_at = Some(operation);
    }

    /// One operation fails, counted from the first; those after it succeed.
    ///
    /// A sync that fails forgets what it should have synced, as [`fail_sync`](Self::fail_sync) says.
    pub fn fail_operation(&self, operation: u64, how: DiskFault) {
        self.state().failing = Some((operation, how));
    }

    /// Lets the file grow to this size and no further; none: as far as it wants.
    pub fn limit_bytes(&self, bytes_max: Option<usize>) {
        self.state().bytes_max = bytes_max;
    }

    /// This sync fails, counted from the first.
    pub fn fail_sync(&self, sync: u64) {
        self.state().failing_sync = Some(sync);
    }

    /// Syncs wait from here on, as on a disk that hangs.
    pub fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    /// They do not.
    pub fn release_syncs(&self) {
        self.state().syncs_held = false;
        self.0.1.notify_all();
    }

    /// Blocks until a sync waits; false if none did within the limit.
    #[must_use]
    pub fn wait_for_held_sync(&self, limit: Duration) -> bool {
        let waited = self.0.1.wait_timeout_while(self.state(), limit, |state| !state.sync_waits);
        waited.is_ok_and(|(state, _)| state.sync_waits)
    }

    /// What is on the disk after the power went now. Of what was not synced seed 0 keeps nothing, seed 1 all.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Vec<u8> {
        self.crash(seed).0
    }

    /// As [`crash_image`](Self::crash_image), and what became of the writes that were not synced.
    #[must_use]
    pub fn crash(&self, seed: u64) -> (Vec<u8>, CrashCounters) {
        let state = self.state();
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut image = state.synced.clone();
        let mut met = CrashCounters::default();
        for change in &state.unsynced {
            let fate = match seed {
                0 => Fate::Lost,
                1 => Fate::Whole,
                _ => [Fate::Lost, Fate::Whole, Fate::Torn, Fate::Flipped][dice.random_range(0..4)],
            };
            match (fate, change) {
                (Fate::Lost, _) => met.lost += 1,
                (Fate::Torn, Change::Write { offset, data }) if !data.is_empty() => {
                    let torn = dice.random_range(0..data.len());
                    apply(&mut image, &Change::Write { offset: *offset, data: data[..torn].to_vec() });
                    met.torn += 1;
                }
                (Fate::Flipped, Change::Write { offset, data }) => {
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

/// A write with another bit among those that it changes: a store may count on it that the rest of a byte stays as it is.
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

    /// How the operation that has begun fails, if it does.
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
        // The operation during which the power goes may have been done in part.
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
        // A write of nothing does not make a file longer.
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
