//! A node's data directory: detection, lock, creation.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloudy_proto::NodeId;
use redb::backends::FileBackend;

use super::data_files::{self, FORMAT_FILE, Format, io_error, open_regular, owner_only, sync_directory, write_small};
use super::error::{DataDirError, OpenStoreError, StoreError, open_error};
use super::node_key_file;
use super::store::{Store, create_database, open_database};
use super::writer::{Completion, Directory};
use crate::cluster_key::ClusterKey;
use crate::files;
use crate::identity::{Identity, IdentityError, NodeKey};
use crate::versions::data_formats;

/// An empty file, locked while a process uses the directory.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// The node's private key.
pub(crate) const NODE_KEY_FILE: &str = "node.key";
/// The records of the node's groups.
pub(crate) const DATABASE_FILE: &str = "cloudy.redb";

/// A database that is about to replace the present one.
pub(crate) const DRAFT_FILE: &str = "cloudy.redb.draft";

/// All files of a data directory; the one that marks it comes first.
pub(crate) const DATA_FILES: [&str; 4] = [FORMAT_FILE, NODE_KEY_FILE, DATABASE_FILE, LOCK_FILE];

/// A directory that file systems create at the root of a volume.
const LOST_AND_FOUND: &str = "lost+found";

/// A node's data directory, locked for this process until this and the store opened from it are dropped.
///
/// It holds the node's private key, so that a restarted process is the same node (`protocol.md` §2, *incarnation*), and
/// one database. Never copy it to a second node, and never restore an older copy while the group runs: the node would
/// forget what it confirmed.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    database: &'static str,
    node_key: NodeKey,
    lock: Arc<File>,
}

/// The state of a path for a data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The path is unused, or an empty directory.
    Nothing,
    /// An unfinished data directory; no node has run on it.
    Unfinished,
    /// A node's data directory.
    Finished,
}

impl DataDir {
    /// Opens the data directory at `path` and locks it. If the path is unused or an empty directory, and `create` is
    /// set, it is created with a fresh private key. Waits for the disk.
    ///
    /// # Errors
    /// The fault of the path or its content, with the remedy. Existing files are not changed.
    pub fn open(path: &Path, create: bool) -> Result<Self, DataDirError> {
        if let Some(target) = files::dangling(path) {
            return Err(DataDirError::Dangling { path: path.to_owned(), target });
        }
        // Checked before anything is created in it, because it may have another purpose.
        if look(path)? != Found::Finished {
            if !create {
                return Err(DataDirError::Missing { path: path.to_owned() });
            }
            data_files::make_directory(path)?;
        }
        if let Some(mode) = files::world_writable(path, false).map_err(io_error("read", path))? {
            return Err(DataDirError::LooseDirectory { path: path.to_owned(), mode });
        }
        let lock = lock(path)?;
        // Checked again, because another process may have created it meanwhile.
        if look(path)? != Found::Finished {
            make(path)?;
        }
        let node_key = node_key_file::load(&path.join(NODE_KEY_FILE))?;
        Ok(Self { path: path.to_owned(), database: DATABASE_FILE, node_key, lock: Arc::new(lock) })
    }

    /// Creates a data directory with a fresh private key at `path`, which is unused or an empty directory. Waits for the
    /// disk.
    ///
    /// # Errors
    /// [`DataDirError::NotEmpty`] if a node's data is there, else as [`open`](Self::open).
    pub fn create(path: &Path) -> Result<Self, DataDirError> {
        if look(path)? == Found::Finished {
            return Err(DataDirError::NotEmpty { path: path.to_owned() });
        }
        Self::open(path, true)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the node that owns the directory.
    pub fn node_id(&self) -> NodeId {
        self.node_key.node_id()
    }

    /// The same directory, with the draft in place of the database.
    ///
    /// # Errors
    /// The private key cannot be read.
    pub(crate) fn on_draft(&self) -> Result<Self, DataDirError> {
        let node_key = node_key_file::load(&self.path.join(NODE_KEY_FILE))?;
        Ok(Self { path: self.path.clone(), database: DRAFT_FILE, node_key, lock: self.lock.clone() })
    }

    /// Replaces the database by the draft, and keeps it under its name with this ending. Returns that path. If a step
    /// fails, the database is the former one.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn replace_database(&self, ending: &str) -> Result<PathBuf, DataDirError> {
        let (database, draft) = (self.path.join(DATABASE_FILE), self.path.join(DRAFT_FILE));
        let backup = self.path.join(format!("{DATABASE_FILE}.{ending}"));
        fs::hard_link(&database, &backup).map_err(io_error("keep the former database as", &backup))?;
        fs::rename(&draft, &database).map_err(io_error("replace", &database))?;
        sync_directory(&self.path)?;
        Ok(backup)
    }

    /// What a store needs to know of its directory.
    fn directory(&self) -> Option<Directory> {
        Some(Directory {
            _lock: self.lock.clone(),
            #[cfg(feature = "next-version")]
            path: self.path.clone(),
        })
    }

    /// The node's identity in the cluster of `key`: the same at each start, and the same id under another key.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] if no certificate can be made.
    pub fn identity(&self, key: &ClusterKey) -> Result<Identity, IdentityError> {
        Identity::with_node_key(key, &self.node_key)
    }

    /// Opens the store as [`Self::open_store_guarded`], without a guard.
    #[cfg(test)]
    pub(crate) fn open_store(
        &self,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Store, DataDirError> {
        self.open_store_guarded(on_completion, |write| write())
    }

    /// Opens the database, once at a time, and verifies every page of it, which reads all of it. `on_completion` is
    /// called on the store's own thread, for each group after each sync. `guard` runs everything that this thread does,
    /// and handles its panics.
    ///
    /// # Errors
    /// [`DataDirError::Database`] with the cause: it is missing, damaged, in use or out of reach. It is not changed.
    pub(crate) fn open_store_guarded(
        &self,
        on_completion: impl FnMut(Completion) + Send + 'static,
        guard: impl FnOnce(&mut dyn FnMut()) + Send + 'static,
    ) -> Result<Store, DataDirError> {
        let path = self.path.join(self.database);
        let opened = || {
            let not_a_store = |cause: &str| OpenStoreError::NotAStore { cause: cause.to_owned() };
            let opened = files::open_regular(&path, File::options().read(true).write(true));
            let file = opened.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => not_a_store("the file is missing"),
                _ => StoreError::Read { cause: error.to_string() }.into(),
            })?;
            let file = file.ok_or_else(|| not_a_store("it is no regular file"))?;
            let backend = FileBackend::new(file).map_err(|error| open_error(error.into()))?;
            Store::start(open_database(backend)?, self.directory(), on_completion, guard)
        };
        opened().map_err(|source| DataDirError::Database { path: path.clone(), source })
    }
}

/// Detects the state of the directory, and changes nothing.
pub(super) fn look(path: &Path) -> Result<Found, DataDirError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(DataDirError::NotADirectory { path: path.to_owned() });
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let format_file = path.join(FORMAT_FILE);
    let format_draft = data_files::draft_of(Path::new(FORMAT_FILE));
    let mut foreign = None;
    for entry in entries {
        let name = entry.map_err(io_error("read", path))?.file_name();
        if name == FORMAT_FILE {
            return Ok(match Format::load(path, &format_file)? {
                (_, Format::Unfinished) => Found::Unfinished,
                (_, Format::Finished) => Found::Finished,
            });
        }
        // Files that exist before FORMAT does, if the creation was interrupted at once.
        if name != LOCK_FILE && name != format_draft.as_os_str() && name != LOST_AND_FOUND {
            foreign = Some(name);
        }
    }
    match foreign {
        Some(entry) => {
            Err(DataDirError::Foreign { path: path.to_owned(), entry: entry.to_string_lossy().into_owned() })
        }
        None => Ok(Found::Nothing),
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join(LOCK_FILE);
    let lock = open_regular(&file, owner_only().truncate(false), "open")?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
        // ENOLCK and similar: a file system with locks has this one.
        Err(TryLockError::Error(source)) => Err(DataDirError::NoLocks { path: path.to_owned(), source }),
    }
}

/// Creates the files of an empty or unfinished directory, which this process has locked.
fn make(path: &Path) -> Result<(), DataDirError> {
    let format_file = path.join(FORMAT_FILE);
    let format = *data_formats().start();
    write_small(path, &format_file, Format::Unfinished.text(format).as_bytes())?;
    node_key_file::store(path, &path.join(NODE_KEY_FILE), &NodeKey::generate()?)?;
    make_database(&path.join(DATABASE_FILE))?;
    sync_directory(path)?;
    write_small(path, &format_file, Format::Finished.text(format).as_bytes())
}

fn make_database(path: &Path) -> Result<(), DataDirError> {
    // An existing file belongs to the interrupted attempt, and is empty.
    let file = open_regular(path, owner_only().truncate(true), "create")?;
    let made = || {
        let backend = FileBackend::new(file).map_err(|error| open_error(error.into()))?;
        let closed = create_database(backend)?.close();
        closed.map_err(|error| OpenStoreError::Store(super::error::write_error(error.into())))
    };
    made().map_err(|source| DataDirError::Database { path: path.to_owned(), source })
}
