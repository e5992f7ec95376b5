//! What can go wrong with a data directory and its store, and what to do about it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use cloudy_proto::{GroupId, StoredError};
use thiserror::Error;

use super::FORMAT_VERSION;
use super::op::{KEY_BYTES_MAX, STORE_BACKLOG_BYTES_MAX, Table, VALUE_BYTES_MAX};

/// Why a store does not take a submission. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[cfg_attr(not(feature = "fault"), expect(unreachable_pub, reason = "the fault disks give it out"))]
pub enum SubmitError {
    /// The disk is slower than what is to be stored.
    #[error(
        "{backlog_bytes} bytes wait for the disk, and {STORE_BACKLOG_BYTES_MAX} is the most: submit again after a completion"
    )]
    Overloaded {
        /// What waits.
        backlog_bytes: usize,
    },
    /// A key is too long.
    #[error("a key has {key_bytes} bytes, and {KEY_BYTES_MAX} is the most: use a shorter one")]
    KeyTooLong {
        /// How long.
        key_bytes: usize,
    },
    /// A value is too large.
    #[error("a value has {value_bytes} bytes, and {VALUE_BYTES_MAX} is the most: store it in parts")]
    ValueTooLarge {
        /// How large.
        value_bytes: usize,
    },
    /// The function that takes completions panicked.
    #[error("the store has ended because the receiver of its completions failed: start the node again")]
    Ended,
}

/// Why something is not stored, or cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record is not what was stored. The store goes on; nothing of the range that was read is given out.
    #[error(
        "the record {key} in table {table} of group {group} was altered on disk: check the disk, then restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    Damaged {
        /// Whose record.
        group: GroupId,
        /// In which table.
        table: Table,
        /// Its key, in hexadecimal digits.
        key: String,
    },
    /// The database around the records is damaged.
    #[error(
        "the database was altered on disk ({cause}): check the disk, then restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    DatabaseDamaged {
        /// What was found.
        cause: String,
    },
    /// A write or sync failed. The store is dead: nothing is written, and what was completed before is there.
    #[error(
        "cannot store ({cause}), so nothing else is confirmed: free space, replace the disk, or raise the limit of file sizes (ulimit -f), then start the node again"
    )]
    Write {
        /// What the disk said.
        cause: String,
    },
    /// The disk does not give what was stored.
    #[error("cannot read what is stored ({cause}): check the disk and the rights to it, then start the node again")]
    Read {
        /// What the disk said.
        cause: String,
    },
    /// The function that takes completions panicked.
    #[error("the store has ended because the receiver of its completions failed: start the node again")]
    Ended,
}

/// Why a group cannot be read back. What is stored is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadGroupError {
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is none of this version's, though its checksum is right.
    #[error(
        "a record in table {table} of group {group} is none that this version of cloudy writes: use the version that wrote it, or start with a new data directory and let the node join again"
    )]
    Foreign {
        /// Whose record.
        group: GroupId,
        /// In which table.
        table: Table,
    },
    /// The records contradict each other.
    #[error(
        "the records of group {group} contradict each other ({cause}): restore the data directory from a backup that is not older than its last run, or start with a new one and let the node join again"
    )]
    Contradiction {
        /// Whose records.
        group: GroupId,
        /// How.
        cause: StoredError,
    },
}

/// Why a store cannot be opened. What was stored is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// A new store was asked for where something is stored.
    #[error("there is something stored already, and it is not overwritten: open it, or name another place")]
    NotEmpty,
    /// There is no database, or not one of this program.
    #[error(
        "there is no database of a cloudy node ({cause}): restore the data directory from a backup made since its last run, or start with a new one and let the node join again"
    )]
    NotAStore {
        /// What was found.
        cause: String,
    },
    /// Another process, or another store of this one, has it open.
    #[error("the database is in use: close the other store, or stop the process that has it open")]
    InUse,
    /// Damaged, or out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gives no thread.
    #[error("cannot start the thread that writes: {0}; end other processes, or raise the limit of threads")]
    Thread(io::Error),
}

/// Why a data directory cannot be used. An error leaves everything in it as it was, except that a new one may be
/// unfinished; opening it again finishes it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is none, and none is to be made.
    #[error("there is no data directory {}: check the name, or allow it to be created", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Something else has that name.
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
        /// Where it leads.
        target: PathBuf,
    },
    /// The directory is somebody else's, or lost its file `FORMAT`.
    #[error(
        "{} holds \"{entry}\" and no FORMAT file, so it is no node's data directory, or lost a part: name a new or empty directory, or restore this one from a backup",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One thing that is in it.
        entry: String,
    },
    /// Another version of the program wrote it.
    #[error(
        "{} was written in format {found}, and this program knows format {FORMAT_VERSION}: use the version of cloudy that wrote it, or name a new directory and let the node join again",
        path.display()
    )]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The file that says what the directory is says nothing that is known.
    #[error("{} is damaged or somebody else's: restore the data directory from a backup made since its last run, or name another", path.display())]
    FormatDamaged {
        /// The file.
        path: PathBuf,
    },
    /// A pipe, a directory or the like has the name of one of its files.
    #[error("{} is no regular file, so it is not this node's: restore the data directory from a backup made since its last run, or name another", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// Every user may replace what is in the directory.
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
    /// The file system of the directory keeps no rights, so the private key could not be kept from others.
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
        /// The number of its owner.
        owner: u32,
    },
    /// Another process has it.
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
        "other users have rights to {0} (mode {mode:04o}), so the node's private key may be known to them: run `chmod 600 {0}`, or start with a new data directory if somebody may have read it",
        path.display()
    )]
    LooseRights {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The private key is missing or is not the node's.
    #[error(
        "the node's private key {} is {what}: restore the data directory from a backup made since its last run, or start with a new one and let the node join as another",
        path.display()
    )]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in words.
        what: &'static str,
    },
    /// No private key could be made.
    #[error(transparent)]
    Generate(#[from] crate::identity::NodeKeyError),
    /// The database cannot be used.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OpenStoreError,
    },
    /// The file system refuses.
    #[error("cannot {action} {}: {source}; {}", path.display(), crate::files::remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
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
        // Opening marks the database as in use.
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
