//! The bytes of a snapshot: a header of the replica, then what the application writes.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use bytes::Bytes;
use cloudy_proto::limits::MEMORY_SNAPSHOT_BYTES_MAX;
use cloudy_proto::{Digest, Index, NodeId, View};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Core, StateMachine};
use crate::group::saved::Saved;
use crate::storage::StateStore;

/// The first bytes of a snapshot: a name and a version.
const MAGIC: &[u8; 8] = b"replica1";

/// The members of a view, by node id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Members {
    /// Zero before the first.
    pub(super) view: u64,
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Members {
    pub(super) fn of(view: &View) -> Self {
        Self { view: view.id.0, nodes: view.ring.iter().map(|member| member.node).collect() }
    }
}

/// The replica's own part of a snapshot, beside the application's state. It follows from the messages alone, as the
/// state does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) members: Members,
    pub(super) skipped: u64,
}

/// A snapshot that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) index: Index,
    pub(super) digest: Digest,
    /// The snapshot, or why it is not kept.
    pub(super) saved: Result<Saved, String>,
}

/// Where a snapshot is written.
pub(super) enum Target<'a> {
    /// Memory, up to a number of bytes.
    Memory { bytes_max: usize },
    /// The disk.
    Disk(&'a StateStore),
}

/// Takes the digest of all bytes, and keeps them up to a bound.
struct Sink {
    hasher: Xxh3,
    kept: Vec<u8>,
    length: u64,
    bytes_max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if self.length <= self.bytes_max as u64 {
            self.kept.extend_from_slice(bytes);
        } else {
            self.kept = Vec::new();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the state after an index. In memory, a state above the bound has a digest and is not kept. On disk, it waits
/// until the state is stored.
///
/// # Errors
/// The application could not write it, or the disk could not store it.
pub(super) fn take<S: StateMachine>(core: &Core<S>, target: Target<'_>) -> io::Result<Taken> {
    let index = core.index;
    match target {
        Target::Memory { bytes_max } => {
            let mut sink = Sink { hasher: Xxh3::new(), kept: Vec::new(), length: 0, bytes_max };
            write(core, &mut sink)?;
            let digest = Digest(sink.hasher.digest128());
            let saved = if sink.length <= bytes_max as u64 {
                Ok(Saved::Here(Bytes::from(sink.kept)))
            } else {
                Err(format!(
                    "the snapshot has {} bytes and at most {bytes_max} are kept in memory: use a group with `Durability::Disk`, or keep the bulk in a store of the application's own, and its names in the state",
                    sink.length
                ))
            };
            Ok(Taken { index, digest, saved })
        }
        Target::Disk(states) => {
            let mut writer = states.writer();
            write(core, &mut writer)?;
            let stored = writer.finish()?;
            Ok(Taken { index, digest: stored.parts().digest, saved: Ok(Saved::Stored(stored)) })
        }
    }
}

fn write<S: StateMachine>(core: &Core<S>, to: &mut dyn Write) -> io::Result<()> {
    let header = postcard::to_stdvec(&core.header).map_err(io::Error::other)?;
    to.write_all(MAGIC)?;
    to.write_all(&(header.len() as u32).to_le_bytes())?;
    to.write_all(&header)?;
    core.state.snapshot(to)
}

/// The bound of a snapshot's bytes in memory.
pub(super) const MEMORY_BYTES_MAX: usize = MEMORY_SNAPSHOT_BYTES_MAX;
/// The bound of the replica's own part: 64 members have 2 KiB.
const HEADER_BYTES_MAX: u32 = 1 << 20;

/// The state that a snapshot holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn restore<S: StateMachine>(index: Index, mut from: impl Read) -> io::Result<Core<S>> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::other("it was not written by a replica of this version of the library"));
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return Err(io::Error::other(format!("its header has {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    from.read_exact(&mut header)?;
    let header = postcard::from_bytes(&header).map_err(io::Error::other)?;
    let state = S::restore(&mut from)?;
    let unread = io::copy(&mut from, &mut io::sink())?;
    if unread > 0 {
        return Err(io::Error::other(format!("the application left {unread} bytes unread")));
    }
    Ok(Core { state, header, index })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Log;
    use super::*;

    fn core() -> Core<Log> {
        let members = Members { view: 4, nodes: [NodeId([1; 32])].into() };
        Core { state: Log(vec![7; 100]), header: Header { members, skipped: 2 }, index: Index(9) }
    }

    #[test]
    fn a_snapshot_restores_state_and_header_and_nothing_else_does() {
        let taken = take(&core(), Target::Memory { bytes_max: 1_000 }).unwrap();
        let mut bytes = Vec::new();
        taken.saved.unwrap().reader().read_to_end(&mut bytes).unwrap();
        let restored = restore::<Log>(Index(9), &bytes[..]).unwrap();
        assert_eq!((restored.state.0, restored.header), (core().state.0, core().header));
        assert!(restore::<Log>(Index(9), &bytes[..20]).is_err());
        assert!(restore::<Log>(Index(9), &b"something else, long enough"[..]).is_err());
    }

    #[test]
    fn a_state_above_the_bound_has_the_same_digest_and_no_bytes() {
        let taken = |bytes_max| take(&core(), Target::Memory { bytes_max }).unwrap();
        let (large, small) = (taken(1_000), taken(99));
        assert_eq!(large.digest, small.digest);
        assert!(small.saved.unwrap_err().contains("at most 99 are kept"));
    }
}
