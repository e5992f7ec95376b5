//! Data directories of nodes that do not run: inspect, verify, read and recover them, create one from messages, and
//! delete a group.
//!
//! [`StoredNode`] only reads. It holds the directory's lock, so no node starts on it meanwhile; a directory that a node
//! uses is refused. Unfinished work of a killed node is completed in memory only. All methods of this module
//! that are not async wait for the disk: in async code they belong on a thread for blocking work.
//!
//! ```no_run
//! # fn main() -> Result<(), cloudy_node::data::DataError> {
//! use cloudy_node::data::StoredNode;
//!
//! let node = StoredNode::open("/var/lib/orders".as_ref())?;
//! for group in node.groups()? {
//!     println!("{:?} has the indices {} to {}", group.name, group.first, group.last);
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod forget;
mod import;
mod recover;
mod stored;

use std::path::Path;

use cloudy_proto::{GroupId, NodeId};

pub use crate::storage::Damage;
pub use error::DataError;
pub use forget::forget_group;
pub use import::{Imported, Importer};
pub use recover::{AskedMembers, MEMBER_ANSWER_TIMEOUT, Recovered, ask_members};
pub use stored::{StoredGroup, StoredNode, StoredResult, TableSize};

use crate::storage::{ReadOnlyDir, Table};

/// Checks whether a node of this version can use the data directory at `path`: its kind, its version, and the rights to
/// it and to its private key. It may be in use, and its database is not read.
///
/// # Errors
/// The fault, with the remedy.
pub fn check_directory(path: &Path) -> Result<(), DataError> {
    Ok(ReadOnlyDir::check(path)?)
}

/// The outcome of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The node that owns the directory.
    pub node: NodeId,
    /// The size of each table of each group, as far as it can be read.
    pub tables: Vec<(GroupId, TableSize)>,
    /// The damaged records; at most 1,000.
    pub damage: Vec<Damage>,
}

/// Verifies every record of the data directory at `path`: its checksum, its content, and that the records of each group
/// follow each other. Damaged records are named, also where the database itself refuses to open the file.
///
/// # Errors
/// The directory is in use, belongs to another version, or cannot be read.
pub fn verify(path: &Path) -> Result<Verification, DataError> {
    let dir = ReadOnlyDir::open(path)?;
    let node = dir.node_id();
    let verified = dir.verify()?;
    let size = |(table, (records, bytes)): (Table, (u64, u64))| TableSize { table, records, bytes };
    let tables = verified.tables.iter().map(|((group, table), counted)| (*group, size((*table, *counted)))).collect();
    let mut damage = verified.damage;
    if damage.is_empty() {
        damage = StoredNode::of(dir)?.contradictions();
    }
    Ok(Verification { node, tables, damage })
}

#[cfg(test)]
mod tests;
