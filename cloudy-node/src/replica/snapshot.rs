//! The bytes of a snapshot: a header of the replica, then what the application writes.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use bytes::Bytes;
use cloudy_proto::limits::SNAPSHOT_BYTES_MAX;
use cloudy_proto::{Digest, Index, NodeId, View};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Core, StateMachine};

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
    /// The bytes, or why they are not kept.
    pub(super) bytes: Result<Bytes, String>,
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

/// Writes the state after an index. A state above the bound has a digest and no bytes.
///
/// # Errors
/// The application could not write it.
pub(super) fn take<S: StateMachine>(core: &Core<S>, bytes_max: usize) -> io::Result<Taken> {
    let mut sink = Sink { hasher: Xxh3::new(), kept: Vec::new(), length: 0, bytes_max };
    let header = postcard::to_stdvec(&core.header).map_err(io::Error::other)?;
    sink.write_all(MAGIC)?;
    sink.write_all(&(header.len() as u32).to_le_bytes())?;
    sink.write_all(&header)?;
    core.state.snapshot(&mut sink)?;
    let digest = Digest(sink.hasher.digest128());
    let bytes = if sink.length <= bytes_max as u64 {
        Ok(Bytes::from(sink.kept))
    } else {
        Err(format!(
            "the snapshot has {} bytes and at most {bytes_max} are kept: keep the bulk in a store of the application's own, and its names in the state",
            sink.length
        ))
    };
    Ok(Taken { index: core.index, digest, bytes })
}

/// The bound of a snapshot's bytes.
pub(super) const BYTES_MAX: usize = SNAPSHOT_BYTES_MAX;

/// The state that a snapshot holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn restore<S: StateMachine>(index: Index, snapshot: &[u8]) -> io::Result<Core<S>> {
    let mut from = snapshot;
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::other("it was not written by a replica of this version of the library"));
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let (header, rest) = from
        .split_at_checked(u32::from_le_bytes(length) as usize)
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let header = postcard::from_bytes(header).map_err(io::Error::other)?;
    let mut from = rest;
    let state = S::restore(&mut from)?;
    if !from.is_empty() {
        return Err(io::Error::other(format!("the application left {} bytes unread", from.len())));
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
        let taken = take(&core(), 1_000).unwrap();
        let bytes = taken.bytes.unwrap();
        let restored = restore::<Log>(Index(9), &bytes).unwrap();
        assert_eq!((restored.state.0, restored.header), (core().state.0, core().header));
        assert!(restore::<Log>(Index(9), &bytes[..20]).is_err());
        assert!(restore::<Log>(Index(9), b"something else, long enough").is_err());
    }

    #[test]
    fn a_state_above_the_bound_has_the_same_digest_and_no_bytes() {
        let (large, small) = (take(&core(), 1_000).unwrap(), take(&core(), 99).unwrap());
        assert_eq!(large.digest, small.digest);
        assert!(small.bytes.unwrap_err().contains("at most 99 are kept"));
    }
}
