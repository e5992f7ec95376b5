//! A data directory that is read and not changed, while no node uses it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloudy_proto::NodeId;

use super::data_dir::{DATABASE_FILE, Found, LOCK_FILE, NODE_KEY_FILE, look};
use super::data_files::{FORMAT_FILE, Format, io_error, open_regular};
use super::error::{DataDirError, OpenStoreError, StoreError, open_error};
use super::node_key_file;
use super::overlay::Overlay;
use super::store::{Store, open_database};
use super::verify::{Verified, verify};
use super::writer::Directory;
use crate::files;

/// A data directory of which this process only reads. It is locked meanwhile, so no node starts on it.
#[derive(Debug)]
pub(crate) struct ReadOnlyDir {
    path: PathBuf,
    node_id: NodeId,
    format: u64,
    /// None if the file is missing: then no process uses the directory.
    lock: Option<Arc<File>>,
}

impl ReadOnlyDir {
    /// Opens and locks the directory. Root may read those of other users.
    ///
    /// # Errors
    /// It is no data directory of this version, or is in use.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        if let Some(target) = files::dangling(path) {
            return Err(DataDirError::Dangling { path: path.to_owned(), target });
        }
        if look(path)? != Found::Finished {
            return Err(DataDirError::Missing { path: path.to_owned() });
        }
        let lock = lock(path)?;
        let node_id = node_key_file::load_as(&path.join(NODE_KEY_FILE), true)?.node_id();
        let (format, _) = Format::load(path, &path.join(FORMAT_FILE))?;
        Ok(Self { path: path.to_owned(), node_id, format, lock })
    }

    /// Checks the directory and the rights to it, without its lock.
    ///
    /// # Errors
    /// The fault.
    pub(crate) fn check(path: &Path) -> Result<(), DataDirError> {
        if look(path)? == Found::Finished {
            if let Some(mode) = files::world_writable(path, false).map_err(io_error("read", path))? {
                return Err(DataDirError::LooseDirectory { path: path.to_owned(), mode });
            }
            node_key_file::load(&path.join(NODE_KEY_FILE))?;
        }
        Ok(())
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the node that owns the directory.
    pub(crate) fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The format of the directory.
    pub(crate) fn format(&self) -> u64 {
        self.format
    }

    fn database_file(&self) -> Result<File, OpenStoreError> {
        let not_a_store = |cause: &str| OpenStoreError::NotAStore { cause: cause.to_owned() };
        let opened = files::open_regular(&self.path.join(DATABASE_FILE), File::options().read(true));
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_a_store("the file is missing"),
            _ => StoreError::Read { cause: error.to_string() }.into(),
        })?;
        file.ok_or_else(|| not_a_store("it is no regular file"))
    }

    fn of_database(&self, source: OpenStoreError) -> DataDirError {
        DataDirError::Database { path: self.path.join(DATABASE_FILE), source }
    }

    /// Opens the database, and verifies every page of it. What an unclean end left undone is done in memory only.
    ///
    /// # Errors
    /// It is missing, damaged or out of reach.
    pub(crate) fn open_store(&self) -> Result<Store, DataDirError> {
        let opened = || {
            let overlay = Overlay::on(self.database_file()?, false).map_err(|error| open_error(error.into()))?;
            let directory = self.lock.clone().map(|lock| Directory {
                _lock: lock,
                #[cfg(feature = "next-version")]
                path: self.path.clone(),
            });
            Store::start(open_database(overlay)?, directory, |_| {}, |write| write())
        };
        opened().map_err(|source| self.of_database(source))
    }

    /// Verifies every record, and names the damaged ones.
    ///
    /// # Errors
    /// The database is missing, of another program, or out of reach.
    pub(crate) fn verify(&self) -> Result<Verified, DataDirError> {
        verify(|| self.database_file()).map_err(|source| self.of_database(source))
    }
}

fn lock(path: &Path) -> Result<Option<Arc<File>>, DataDirError> {
    let file = path.join(LOCK_FILE);
    let opened = match open_regular(&file, File::options().read(true), "open") {
        Ok(opened) => opened,
        Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match opened.try_lock() {
        Ok(()) => Ok(Some(Arc::new(opened))),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &file)(source)),
    }
}
