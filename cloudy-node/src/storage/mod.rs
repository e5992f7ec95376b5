//! The disk of a node: its data directory with the records of its groups (`protocol.md` P7).
//!
//! ```text
//! DataDir::open ─► FORMAT      what this directory is, in two lines of text
//!                  LOCK        held while a process uses the directory
//!                  node.key    the node's private key, mode 0600: the same node after a restart
//!                  cloudy.redb every record of every group ─► DataDir::open_store ─► Store
//! ```
//!
//! A [`Store`] holds ordered records by group, [`Table`] and key. [`Store::submit`] queues a submission of operations
//! and returns at once. One writer thread takes the whole queue, writes it in one transaction, syncs once, and then
//! reports which tickets are on disk (group commit). A submission is on disk completely or not at all, and submissions
//! reach the disk in order. Large values of slots and results are stored in packs, one for each group in a transaction,
//! and their records have their positions.
//!
//! # What is promised
//!
//! - Records that were completed without an error survive a crash of the process and a power failure.
//! - After the first write or sync that failed nothing is written. An operating system may forget the data of a failed
//!   sync and report the next one as good, so a retry could report records that do not exist.
//! - Damage is detected and never repaired by guessing. Opening a store verifies the checksum of every page, which
//!   reads the whole database; reading verifies the checksum of every value. A store that fails to open is not changed.
//! - One kind of damage looks like a crash: when a process ended without closing the store, pages of its very last
//!   transaction that do not verify are taken as not synced, and that transaction is undone.
//!
//! Two processes never use one directory: the second gets [`DataDirError::InUse`].

mod bulk;
mod data_dir;
mod data_files;
mod error;
mod forgotten;
mod group_reads;
mod group_records;
mod kept_states;
mod node_key_file;
mod op;
mod overlay;
mod packs;
mod read_only;
mod record;
mod result_reads;
mod states;
mod store;
mod verify;
mod writer;

pub use data_dir::DataDir;
pub(crate) use data_dir::{DATA_FILES, DATABASE_FILE, DRAFT_FILE};
#[cfg(feature = "fault")]
pub use error::SubmitError;
pub use error::{DataDirError, OpenStoreError, ReadGroupError, StoreError};
pub(crate) use group_reads::read_group;
#[cfg(feature = "fault")]
pub(crate) use group_records::put_part;
pub(crate) use group_records::{GroupMeta, Recorder, is_of_log, meta_op};
pub use op::Table;
pub(crate) use op::{Op, STORE_BACKLOG_BYTES_MAX};
pub(crate) use read_only::ReadOnlyDir;
pub(crate) use result_reads::{Part, ResultReader, ResultReads, check_state, last_index, read_part, stored_states};
pub(crate) use states::{StateStore, StoredState};
pub use store::STORE_CACHE_BYTES;
pub(crate) use store::Store;
pub use verify::Damage;
pub(crate) use writer::Completion;

#[cfg(test)]
mod tests;
