//! States of applications, of any size: written and read in parts, by threads that may wait.
//!
//! A lease keeps a state while it is written or read (`kept_states.rs`).

use core::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, mpsc};

use bytes::{Buf, Bytes, BytesMut};
use cloudy_proto::{Digest, GroupId, StateParts};
use xxhash_rust::xxh3::Xxh3;

use super::bulk::BulkWriter;
use super::group_records::put_part;
use super::kept_states::{Lease, Leases};
use super::result_reads::ResultReader;

/// The size of a part that is written, and of one that is read at once.
const PART_BYTES: usize = 256 << 10;

/// The states of one group, for threads that may wait.
#[derive(Clone)]
pub(crate) struct StateStore {
    group: GroupId,
    writer: BulkWriter,
    reader: ResultReader,
    leases: Leases,
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("group", &self.group).finish_non_exhaustive()
    }
}

impl StateStore {
    pub(crate) fn new(group: GroupId, (writer, reader): (BulkWriter, ResultReader), leases: Leases) -> Self {
        Self { group, writer, reader, leases }
    }

    /// Starts to write a state.
    pub(crate) fn writer(&self) -> StateWriter {
        let id = rand::random();
        StateWriter {
            lease: self.leases.hold(id),
            store: self.clone(),
            part: BytesMut::new(),
            length: 0,
            digest: Xxh3::new(),
        }
    }

    /// A stored state, which is kept as long as this handle.
    pub(crate) fn open(&self, parts: StateParts) -> StoredState {
        StoredState { lease: Arc::new(self.leases.hold(parts.id)), store: self.clone(), parts }
    }
}

/// A state that is being written. Each call may wait for the disk.
pub(crate) struct StateWriter {
    lease: Lease,
    store: StateStore,
    part: BytesMut,
    /// Of the parts before.
    length: u64,
    digest: Xxh3,
}

impl StateWriter {
    /// Returns once the state is on disk.
    ///
    /// # Errors
    /// The disk has failed, or the group or the node ends.
    pub(crate) fn finish(mut self) -> io::Result<StoredState> {
        self.put_part()?;
        self.store.writer.flush().map_err(io::Error::other)?;
        let Self { lease, store, length, digest, .. } = self;
        let parts = StateParts { id: lease.id(), length, digest: Digest(digest.digest128()) };
        Ok(StoredState { lease: Arc::new(lease), store, parts })
    }

    fn put_part(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = self.part.split().freeze();
        self.digest.update(&part);
        let (offset, bytes) = (self.length, part.len() as u64);
        let op = put_part(self.lease.id(), offset, part);
        self.lease.on_written();
        self.store.writer.put(self.store.group, vec![op]).map_err(io::Error::other)?;
        self.length += bytes;
        Ok(())
    }
}

impl Write for StateWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == PART_BYTES {
            self.put_part()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A state on disk. It is kept until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct StoredState {
    #[expect(dead_code, reason = "it keeps the state")]
    lease: Arc<Lease>,
    store: StateStore,
    parts: StateParts,
}

impl StoredState {
    pub(crate) fn parts(&self) -> StateParts {
        self.parts
    }

    /// Reads it from its beginning. Each call may wait for the disk.
    pub(crate) fn reader(&self) -> StateReader {
        StateReader { state: self.clone(), offset: 0, part: Bytes::new(), digest: Xxh3::new() }
    }
}

/// Reads a state, and verifies its digest at the end.
pub(crate) struct StateReader {
    state: StoredState,
    /// Behind the part.
    offset: u64,
    part: Bytes,
    digest: Xxh3,
}

impl StateReader {
    fn next_part(&mut self) -> io::Result<Bytes> {
        let StoredState { store, parts, .. } = &self.state;
        let (answer, answered) = mpsc::channel();
        store.reader.read_state(store.group, (parts.id, self.offset), PART_BYTES, move |read| {
            // The caller waits.
            let _ = answer.send(read);
        });
        let read = answered.recv().map_err(|_| io::Error::other("the node was shut down"))?;
        let part = read.map_err(io::Error::other)?;
        let left = self.state.parts.length - self.offset;
        let part = part.slice(..part.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        if part.is_empty() {
            let (offset, length) = (self.offset, self.state.parts.length);
            return Err(io::Error::other(format!("of its {length} bytes only {offset} are stored")));
        }
        Ok(part)
    }
}

impl Read for StateReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() && self.offset < self.state.parts.length && !to.is_empty() {
            self.part = self.next_part()?;
            self.offset += self.part.len() as u64;
            self.digest.update(&self.part);
            if self.offset == self.state.parts.length && self.digest.digest128() != self.state.parts.digest.0 {
                return Err(io::Error::other("its stored bytes have another digest"));
            }
        }
        let count = to.len().min(self.part.len());
        self.part.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}
