//! A database file that is only read: changes by the database library stay in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

const PAGE_BYTES: u64 = 4_096;
/// The byte of the library's header with the marks of an unclean end, and these marks.
const MARKS_AT: u64 = 9;
const UNCLEAN_MARKS: u8 = 0b1010;

/// The file, and what was written since it was opened.
#[derive(Debug)]
pub(super) struct Overlay {
    state: Mutex<State>,
    /// The marks of an unclean end are not read, so that the library reads the file without a check.
    hides_unclean: bool,
}

#[derive(Debug)]
struct State {
    file: File,
    /// The length of the part of the file that counts.
    file_bytes: u64,
    bytes: u64,
    changed: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// # Errors
    /// The length of the file cannot be read.
    pub(super) fn on(file: File, hides_unclean: bool) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let state = State { file, file_bytes: bytes, bytes, changed: BTreeMap::new() };
        Ok(Self { state: Mutex::new(state), hides_unclean })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A page of the file, with zeroes behind its end.
    fn of_file(&mut self, page: u64) -> io::Result<Vec<u8>> {
        let from = page * PAGE_BYTES;
        let there = self.file_bytes.saturating_sub(from).min(PAGE_BYTES) as usize;
        let mut bytes = vec![0; PAGE_BYTES as usize];
        self.file.seek(SeekFrom::Start(from))?;
        self.file.read_exact(&mut bytes[..there])?;
        Ok(bytes)
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if self.changed.is_empty() && end <= self.file_bytes {
            self.file.seek(SeekFrom::Start(offset))?;
            return self.file.read_exact(out);
        }
        for page in pages(offset, end) {
            let (in_page, in_out) = overlap(page, offset, end);
            match self.changed.get(&page) {
                Some(changed) => out[in_out].copy_from_slice(&changed[in_page]),
                None => out[in_out].copy_from_slice(&self.of_file(page)?[in_page]),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for page in pages(offset, end) {
            let (in_page, in_data) = overlap(page, offset, end);
            if !self.changed.contains_key(&page) {
                let before = self.of_file(page)?;
                self.changed.insert(page, before);
            }
            if let Some(changed) = self.changed.get_mut(&page) {
                changed[in_page].copy_from_slice(&data[in_data]);
            }
        }
        self.bytes = self.bytes.max(end);
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.file_bytes = self.file_bytes.min(bytes);
            self.changed.split_off(&bytes.div_ceil(PAGE_BYTES));
            if let Some(cut) = self.changed.get_mut(&(bytes / PAGE_BYTES)) {
                cut[(bytes % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.bytes = bytes;
    }
}

fn pages(offset: u64, end: u64) -> core::ops::Range<u64> {
    offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)
}

type Bytes = core::ops::Range<usize>;

/// The part of a range of bytes that is in a page: its place in the page, and in the range.
fn overlap(page: u64, offset: u64, end: u64) -> (Bytes, Bytes) {
    let (first, last) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    let (from, to) = (offset.max(first), end.min(last));
    let range = |before: u64| (from - before) as usize..(to - before) as usize;
    (range(first), range(offset))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state().read(offset, out)?;
        if self.hides_unclean && (offset..offset + out.len() as u64).contains(&MARKS_AT) {
            out[(MARKS_AT - offset) as usize] &= !UNCLEAN_MARKS;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state().write(offset, data)
    }

    // The directory's own lock keeps other processes away.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn writes_are_read_back_and_never_reach_the_file() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[7; 10_000]).expect("written");
        let overlay = Overlay::on(file.try_clone().expect("cloned"), false).expect("opened");
        let read = |offset, count| {
            let mut out = vec![0; count];
            overlay.read(offset, &mut out).map(|()| out)
        };
        overlay.write(4_090, &[1; 10]).expect("written");
        assert_eq!(read(4_088, 14).expect("read"), [7, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7, 7]);
        overlay.write(9_999, &[2; 3]).expect("written");
        assert_eq!(read(9_998, 4).expect("read"), [7, 2, 2, 2]);
        assert!(read(9_999, 4).is_err(), "behind the end");
        overlay.set_len(4_092).expect("cut");
        overlay.set_len(9_000).expect("longer");
        assert_eq!(read(4_088, 6).expect("read"), [7, 7, 1, 1, 0, 0]);
        assert_eq!(read(8_000, 1_000).expect("read"), vec![0; 1_000], "what was cut is gone");
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read");
        assert_eq!(bytes, [7; 10_000]);
    }
}
