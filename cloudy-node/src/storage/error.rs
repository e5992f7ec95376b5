//! Errors of a data directory and its store, with their remedies.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use cloudy_proto::{GroupId, StoredError};
use thiserror::Error;

use super::op::{KEY_BYTES_MAX, STORE_BACKLOG_BYTES_MAX, Table, VALUE_BYTES_MAX};
use crate::versions::data_formats;

/// The reason for which a store does not accept a submission. Nothing of it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[cfg_attr(not(feature = "fault"), expect(unreachable_pub, reason = "the fault disks give it out"))]
pub enum SubmitError {
    /// The disk is slower than the submissions.
    #[error(
        "{backlog_bytes} bytes wait for the disk, and {STORE_BACKLOG_BYTES_MAX} is the most: submit again after a completion"
    )]
    Overloaded {
        /// Bytes that wait.
        backlog_bytes: usize,
    },
    /// A key is too long.
    #[error("a key has {key_bytes} bytes, and {KEY_BYTES_MAX} is the most: use a shorter one")]
    KeyTooLong {
        /// Its length.
        key_bytes: usize,
    },
    /// A value is too large.
    #[error("a value has {value_bytes} bytes, and {VALUE_BYTES_MAX} is the most: store it in parts")]
    ValueTooLarge {
        /// Its size.
        value_bytes: usize,
    },
    /// The function that receives completions panicked.
    #[error("the store has ended because the receiver of its completions failed: start the node again")]
    Ended,
}

/// The reason for which records are not stored, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record differs from the stored one. The store continues; nothing of the range is returned.
    #[error(
        "the record {key} in table {table} of group {group} was altered on disk: check the disk, then restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    Damaged {
        /// The group of the record.
        group: GroupId,
        /// The table of the record.
        table: Table,
        /// Its key, in hexadecimal digits.
        key: String,
    },
    /// The database around the records is damaged.
    #[error(
        "the database was altered on disk ({cause}): check the disk, then restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    DatabaseDamaged {
        /// The fault.
        cause: String,
    },
    /// A write or sync failed. The store has stopped: nothing else is written, and completed records are there.
    #[error(
        "cannot store ({cause}), so nothing else is confirmed: free space, replace the disk, or raise the limit of file sizes (ulimit -f), then start the node again"
    )]
    Write {
        /// The disk's error.
        cause: String,
    },
    /// Stored records cannot be read from the disk.
    #[error("cannot read what is stored ({cause}): check the disk and the rights to it, then start the node again")]
    Read {
        /// The disk's error.
        cause: String,
    },
    /// The function that receives completions panicked.
    #[error("the store has ended because the receiver of its completions failed: start the node again")]
    Ended,
}

/// The reason for which a group cannot be read. Stored records are unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadGroupError {
    /// The store cannot read it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not of this version, although its checksum is right.
    #[error(
        "a record in table {table} of group {group} is none that this version of cloudy writes: use the version that wrote it, or start with a new data directory and let the node join again"
    )]
    Foreign {
        /// The group of the record.
        group: GroupId,
        /// The table of the record.
        table: Table,
    },
    /// The records contradict each other.
    #[error(
        "the records of group {group} contradict each other ({cause}): restore the data directory from a backup that is not older than its last run, or start with a new one and let the node join again"
    )]
    Contradiction {
        /// The group of the records.
        group: GroupId,
        /// The contradiction.
        cause: StoredError,
    },
    /// The application's snapshot is not what it was.
    #[error(
        "the snapshot of group {group} is damaged at offset {offset}: restore the data directory from a backup that is not older than its last run, or start with a new one and let the node join again"
    )]
    Snapshot {
        /// The group of the snapshot.
        group: GroupId,
        /// The end of the part that could be read.
        offset: u64,
    },
}

/// The reason for which a store cannot be opened. Stored records are unchanged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// A new store was requested in a place with stored records.
    #[error("there is something stored already, and it is not overwritten: open it, or name another place")]
    NotEmpty,
    /// There is no database, or one of another program.
    #[error(
        "there is no database of a cloudy node ({cause}): restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    NotAStore {
        /// The fault.
        cause: String,
    },
    /// Another process, or another store of this one, has it open.
    #[error("the database is in use: close the other store, or stop the process that has it open")]
    InUse,
    /// The database is damaged, or out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system has no thread.
    #[error("cannot start the thread that writes: {0}; end other processes, or raise the limit of threads")]
    Thread(io::Error),
}

/// The reason for which a data directory cannot be used. After an error everything in it is unchanged, except that a
/// new one may be unfinished; opening it again finishes it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is none, and none may be created.
    #[error("there is no data directory {}: check the name, or allow it to be created", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A new one was requested where a node's data is.
    #[error("{} holds the data of a node, and is not overwritten: name a new or empty directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The path is not a directory.
    #[error("{} is no directory: name a directory for the node's data", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link to no directory.
    #[error(
        "{} is a symbolic link to {}, where no directory is: make that directory, or remove the link",
        path.display(), target.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// The target of the link.
        target: PathBuf,
    },
    /// The directory has another purpose, or has lost its file `FORMAT`.
    #[error(
        "{} holds \"{entry}\" and no FORMAT file, so it is no node's data directory, or lost a part: name a new or empty directory, or restore this one from a backup",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One entry of it.
        entry: String,
    },
    /// It has a format that this program does not know.
    #[error(
        "{} has data format {found}, and this program knows {}: use the version of cloudy that wrote it, or name a new directory and let the node join again",
        path.display(), known_formats()
    )]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The content of the file that identifies the directory is unknown.
    #[error("{} is damaged or of another program: restore the data directory from a backup made since its last run, or name another", path.display())]
    FormatDamaged {
        /// The file.
        path: PathBuf,
    },
    /// A pipe, a directory or another kind of file has the name of one of its files.
    #[error("{} is no regular file, so it is not this node's: restore the data directory from a backup made since its last run, or name another", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// Every user may replace files in the directory.
    #[error(
        "every user may replace files in the data directory {0} (mode {mode:04o}): run `chmod o-w {0}`, or name a directory below it, which is made for this node alone",
        path.display()
    )]
    LooseDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system of the directory has no rights, so the private key could not be protected.
    #[error("the file system of {} keeps no rights of files, so every user could read the node's private key: name a directory on another one", path.display())]
    NoRights {
        /// The directory.
        path: PathBuf,
    },
    /// The file system of the directory has no locks.
    #[error("the file system of {} has no locks, so two processes could use the data directory at once ({source}): name a directory on a local disk", path.display())]
    NoLocks {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another user owns the private key.
    #[error(
        "user {owner} owns the node's private key {0}: run the node as that user, or run `chown` on its data directory",
        path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by another process: stop that one, or give this node a directory of its own",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Other users may read or write the private key.
    #[error(
        "other users have rights to {0} (mode {mode:04o}), so the node's private key may be known to them: run `chmod 600 {0}`, or start with a new data directory if another user may have read it",
        path.display()
    )]
    LooseRights {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The private key is missing, or belongs to another node.
    #[error(
        "the node's private key {} is {what}: restore the data directory from a backup made since its last run, or start with a new one and let the node join as another",
        path.display()
    )]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// The fault, as text.
        what: &'static str,
    },
    /// No private key could be generated.
    #[error(transparent)]
    Generate(#[from] crate::identity::NodeKeyError),
    /// The database cannot be used.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: OpenStoreError,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}; {}", path.display(), crate::files::remedy(source))]
    Io {
        /// The operation.
        action: &'static str,
        /// The file of the operation.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Runs database code, whose own checks may panic on a damaged file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let unwound = |_| Err(redb::Error::Corrupted("a check inside the database failed".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(unwound)
}

pub(super) fn write_error(error: redb::Error) -> StoreError {
    damage(&error).unwrap_or_else(|| StoreError::Write { cause: error.to_string() })
}

pub(super) fn read_error(error: redb::Error) -> StoreError {
    damage(&error).unwrap_or_else(|| StoreError::Read { cause: error.to_string() })
}

pub(super) fn open_error(error: redb::Error) -> OpenStoreError {
    use redb::Error as E;
    match &error {
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => OpenStoreError::InUse,
        E::Io(source) if matches!(source.kind(), io::ErrorKind::InvalidData) => {
            OpenStoreError::NotAStore { cause: error.to_string() }
        }
        E::UpgradeRequired(_) | E::TableDoesNotExist(_) | E::TableTypeMismatch { .. } | E::TableIsMultimap(_) => {
            OpenStoreError::NotAStore { cause: error.to_string() }
        }
        // Opening marks the database as in use, which writes.
        E::Io(source) if source.kind() == io::ErrorKind::StorageFull => OpenStoreError::Store(write_error(error)),
        _ => OpenStoreError::Store(read_error(error)),
    }
}

fn damage(error: &redb::Error) -> Option<StoreError> {
    let damaged = match error {
        redb::Error::Corrupted(_) => true,
        redb::Error::Io(source) => source.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    };
    damaged.then(|| StoreError::DatabaseDamaged { cause: error.to_string() })
}

/// The formats that this program knows, as text.
fn known_formats() -> String {
    let (oldest, newest) = data_formats().into_inner();
    if oldest == newest { format!("format {newest}") } else { format!("formats {oldest} to {newest}") }
}
