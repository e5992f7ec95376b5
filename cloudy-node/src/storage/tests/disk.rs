//! A disk that keeps what was synced, and of the rest what a seed says: nothing, all, or any part of any write.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

use super::PATIENCE;

#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<(Mutex<State>, Condvar)>);

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

impl SimDisk {
    pub(super) fn with_image(image: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().synced = image.clone();
        disk.state().live = image;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    pub(super) fn end_power_at(&self, operation: u64) {
        self.state().power_ends_at = Some(operation);
    }

    /// Lets the file grow to this size and no further; none: as far as it wants.
    pub(super) fn limit_bytes(&self, bytes_max: Option<usize>) {
        self.state().bytes_max = bytes_max;
    }

    pub(super) fn fail_sync(&self, sync: u64) {
        self.state().failing_sync = Some(sync);
    }

    pub(super) fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    pub(super) fn release_syncs(&self) {
        self.state().syncs_held = false;
        self.0.1.notify_all();
    }

    pub(super) fn wait_for_held_sync(&self) {
        let (state, result) = self.0.1.wait_timeout_while(self.state(), PATIENCE, |state| !state.sync_waits).unwrap();
        assert!(state.sync_waits && !result.timed_out(), "no sync came");
    }

    /// What is on the disk after the power went now. Seed 0 keeps nothing that was not synced, seed 1 all.
    pub(super) fn crash_image(&self, seed: u64) -> Vec<u8> {
        let state = self.state();
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut image = state.synced.clone();
        for change in &state.unsynced {
            let fate = if seed < 2 { seed } else { dice.random_range(0..3) };
            match (fate, change) {
                (0, _) => {}
                (2, Change::Write { offset, data }) => {
                    let torn = dice.random_range(0..=data.len());
                    apply(&mut image, &Change::Write { offset: *offset, data: data[..torn].to_vec() });
                }
                _ => apply(&mut image, change),
            }
        }
        image
    }
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.power_ends_at {
            Some(end) if self.operations > end => Err(io::Error::other("there is no power")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.begin()?;
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
        if self.power_ends_at == Some(self.operations) { Err(io::Error::other("the power went")) } else { Ok(()) }
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

impl StorageBackend for SimDisk {
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
        if state.syncs_held {
            state.sync_waits = true;
            self.0.1.notify_all();
            state = self.0.1.wait_while(state, |state| state.syncs_held).unwrap();
            state.sync_waits = false;
        }
        state.begin()?;
        if state.power_ends_at == Some(state.operations) {
            return Err(io::Error::other("the power went"));
        }
        state.syncs += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        if state.failing_sync == Some(state.syncs) {
            return Err(io::Error::other("the sync failed"));
        }
        for change in &unsynced {
            apply(&mut state.synced, change);
        }
        Ok(())
    }
}
