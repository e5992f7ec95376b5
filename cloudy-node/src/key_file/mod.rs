//! The file that holds the cluster's keys: found, made once, changed as a whole, followed, and kept from other users.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::cluster_key::{ClusterKey, GenerateClusterKeyError};
use crate::cluster_keys::{self, ClusterKeys, ParseClusterKeysError, RevokedFullError, RotateError};
use crate::files::{self, FileSystem, WrongRights};

mod follow;

pub use follow::{FollowError, KeyFileEvent, LOOK_EVERY, follow};

/// The environment variable that names a key file; read by the caller and handed to [`choose`].
pub const CLUSTER_KEY_FILE_VARIABLE: &str = "CLOUDY_CLUSTER_KEY_FILE";
/// A key file has a line for each key and each revoked node; one longer than this is something else.
pub const KEY_FILE_BYTES_MAX: usize = 32 << 10;
const _: () = assert!(KEY_FILE_BYTES_MAX >= cluster_keys::TEXT_BYTES_MAX, "every file that is written can be read");

/// Why a key file could not be used. An error leaves every existing file as it was; directories may have been made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no home directory to look in.
    #[error("no home directory is known: set HOME, or name a key file with {CLUSTER_KEY_FILE_VARIABLE}")]
    NoHome,
    /// There is no such file.
    #[error("there is no key file {}: make one with `cloudy key new`, or copy it from another node", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A key is there already, and replacing it would cut this node off from its cluster.
    #[error("{} exists and is not overwritten: move it away first if it is no longer needed", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Other users may read or write the file.
    #[error(
        "other users have rights to {0} (mode {mode:04o}), so its key may be known to them: run `chmod 600 {0}`, or make another key if somebody may have read it; a group may read it only if this process is a member, and nobody else may",
        path.display()
    )]
    LooseRights {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns the file, so that user decides which nodes this one trusts.
    #[error(
        "user {owner} owns {0}, and a key file belongs to the user that runs the node, or to root: copy it to a file of your own, or run `chown` on it",
        path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// Every user may replace the file.
    #[error(
        "every user may replace files in the directory {0} (mode {mode:04o}), the key file among them: run `chmod o-w {0}`, or keep the key file in another directory",
        path.display()
    )]
    LooseDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user, and would not after the change.
    #[error(
        "cannot keep the owner, the group and the rights of the key file {}: {source}; it is as before: run this as root or as its owner",
        path.display()
    )]
    KeepOwner {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A directory, a device or the like.
    #[error("{} is no regular file: name the key file itself", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} holds no cluster key: {source}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParseClusterKeysError,
    },
    /// The file is longer than [`KEY_FILE_BYTES_MAX`] or is no text.
    #[error("{} holds no cluster key: a key file is a few lines of text; is this the right file?", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The directory for the file cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    MissingDirectory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot make the key file {}: {source}; name a place elsewhere with {CLUSTER_KEY_FILE_VARIABLE}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be changed.
    #[error("cannot change the key file {}: {source}; it is as before", path.display())]
    Change {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No key could be made.
    #[error(transparent)]
    Generate(#[from] GenerateClusterKeyError),
    /// It is not the time for this step.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// No more nodes can be revoked.
    #[error(transparent)]
    RevokedFull(#[from] RevokedFullError),
}

/// Which key file to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFileChoice {
    /// The file.
    pub path: PathBuf,
    /// Nobody named it: it is the default, made when it is first used.
    pub is_default: bool,
}

impl KeyFileChoice {
    /// The keys in the file. The default file is made if it is missing; one that somebody named must exist, for a
    /// misspelt name must not found another cluster.
    ///
    /// # Errors
    /// As [`load_keys`], and for the default as [`create`].
    pub fn open(&self) -> Result<ClusterKeys, KeyFileError> {
        if self.is_default { load_or_create(&self.path) } else { load_keys(&self.path) }
    }
}

/// The key file to use: the one named on the command line, else the one named by [`CLUSTER_KEY_FILE_VARIABLE`] (an empty
/// value names none), else [`default_path`].
///
/// # Errors
/// [`KeyFileError::NoHome`], when nothing is named and there is no default.
pub fn choose(explicit: Option<&Path>, variable: Option<&OsStr>) -> Result<KeyFileChoice, KeyFileError> {
    let named = explicit.or(variable.filter(|value| !value.is_empty()).map(Path::new));
    match named {
        Some(path) => Ok(KeyFileChoice { path: path.to_owned(), is_default: false }),
        None => Ok(KeyFileChoice { path: default_path()?, is_default: true }),
    }
}

/// `$XDG_CONFIG_HOME/cloudy/cluster.key`, or below that variable's default or the platform's like.
///
/// # Errors
/// [`KeyFileError::NoHome`].
pub fn default_path() -> Result<PathBuf, KeyFileError> {
    let base = etcetera::choose_base_strategy().map_err(|_| KeyFileError::NoHome)?;
    Ok(base.config_dir().join("cloudy").join("cluster.key"))
}

/// Reads the primary key alone from `path`, as [`load_keys`]: for what is never run while a cluster changes its key.
///
/// # Errors
/// As [`load_keys`].
pub fn load(path: &Path) -> Result<ClusterKey, KeyFileError> {
    Ok(load_keys(path)?.primary().clone())
}

/// Reads the keys and the revoked nodes from `path`. Only root and this process's user may own the file, and of others only
/// members of a group that the process is in may read it. Never waits for another program, whatever `path` is.
///
/// # Errors
/// Says what is wrong with the file, and the remedy.
pub fn load_keys(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    load_as(path, false).map(|(_, keys)| keys)
}

/// As [`load_keys`], and root may read the file of any user: to show or to change it, not to run a node by it.
///
/// # Errors
/// As [`load_keys`].
pub fn inspect(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    load_as(path, true).map(|(_, keys)| keys)
}

fn load_as(path: &Path, as_root_any_owner: bool) -> Result<(File, ClusterKeys), KeyFileError> {
    let read_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path.to_owned() },
        _ => KeyFileError::Read { path: path.to_owned(), source },
    };
    let opened = files::open_regular(path, OpenOptions::new().read(true)).map_err(read_error)?;
    let mut file = opened.ok_or_else(|| KeyFileError::NotAFile { path: path.to_owned() })?;
    match files::wrong_rights(&file, files::GROUP_READS, as_root_any_owner).map_err(read_error)? {
        Some(WrongRights::OtherOwner { owner }) => {
            return Err(KeyFileError::OtherOwner { path: path.to_owned(), owner });
        }
        Some(WrongRights::Loose { mode }) => return Err(KeyFileError::LooseRights { path: path.to_owned(), mode }),
        None => {}
    }
    for directory in files::directories_of(path) {
        if let Some(mode) = files::world_writable(&directory, true).map_err(read_error)? {
            return Err(KeyFileError::LooseDirectory { path: directory, mode });
        }
    }
    // One fixed buffer: a growing one would leave copies of the key behind.
    let mut buffer = Zeroizing::new(vec![0; KEY_FILE_BYTES_MAX + 1]);
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    let text = core::str::from_utf8(&buffer[..filled]).ok().filter(|text| text.len() <= KEY_FILE_BYTES_MAX);
    let text = text.ok_or_else(|| KeyFileError::NotAKey { path: path.to_owned() })?;
    let keys = text.parse().map_err(|source| KeyFileError::Contents { path: path.to_owned(), source })?;
    Ok((file, keys))
}

/// Makes a fresh key and writes it to `path`, readable and writable by its owner only, in a directory that is made if
/// need be. The file appears whole or not at all, and an existing one is never touched.
///
/// # Errors
/// [`KeyFileError::Exists`] when there is one; else why it could not be written.
pub fn create(path: &Path) -> Result<ClusterKey, KeyFileError> {
    create_on(&files::SYSTEM, path)
}

fn create_on(system: &FileSystem, path: &Path) -> Result<ClusterKey, KeyFileError> {
    let key = ClusterKey::generate()?;
    let (directory, draft) = draft_beside(path)?;
    make_directory(directory)
        .map_err(|source| KeyFileError::MissingDirectory { path: directory.to_owned(), source })?;
    let looked = files::world_writable(directory, true);
    if let Some(mode) = looked.map_err(|source| KeyFileError::Write { path: path.to_owned(), source })? {
        return Err(KeyFileError::LooseDirectory { path: directory.to_owned(), mode });
    }
    publish(system, &key, &draft, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Write { path: path.to_owned(), source },
    })?;
    Ok(key)
}

/// The keys in `path`, made if it is missing. Of several that make it at once, all get the same key.
///
/// # Errors
/// As [`load_keys`] and [`create`].
pub fn load_or_create(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    match load_keys(path) {
        Err(KeyFileError::Missing { .. }) => match create(path) {
            // Another was faster, and its key is the one.
            Err(KeyFileError::Exists { .. }) => load_keys(path),
            created => created.map(ClusterKeys::from),
        },
        loaded => loaded,
    }
}

/// Changes the keys in `path`, which is replaced as a whole and keeps its owner, its group and their rights. Of several that change
/// it at once, each finds what the one before left, where the file system knows locks. Returns the keys as they are from
/// here on, and what `change` returned.
///
/// # Errors
/// As [`load_keys`] and as `change`; else why the file could not be written. It is as before then.
pub fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut ClusterKeys) -> Result<T, KeyFileError>,
) -> Result<(ClusterKeys, T), KeyFileError> {
    change_on(&files::SYSTEM, path, change)
}

fn change_on<T>(
    system: &FileSystem,
    path: &Path,
    change: impl FnOnce(&mut ClusterKeys) -> Result<T, KeyFileError>,
) -> Result<(ClusterKeys, T), KeyFileError> {
    let failed = |source| KeyFileError::Change { path: path.to_owned(), source };
    // A link to the file stays one.
    let file = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyFileError::Missing { path: path.to_owned() });
        }
        found => found.map_err(failed)?,
    };
    let (directory, draft) = draft_beside(&file)?;
    let lock = File::open(directory);
    if let Ok(lock) = &lock {
        // Without locks, one of two changes at a time may be lost, and never half of one be there.
        let _ = lock.lock();
    }
    let (old, mut keys) = load_as(&file, true)?;
    let changed = change(&mut keys)?;
    let new = write_draft(&draft.0, keys.to_text().as_bytes()).map_err(failed)?;
    files::keep_owner(&old, &new).map_err(|source| KeyFileError::KeepOwner { path: file.clone(), source })?;
    new.sync_all().and_then(|()| fs::rename(&draft.0, &file)).map_err(failed)?;
    // The change is made: without this, only a power failure could undo it.
    let _ = system.sync_names(directory);
    Ok((keys, changed))
}

/// The directory of a file, and a name there that nobody else uses.
fn draft_beside(path: &Path) -> Result<(&Path, Draft), KeyFileError> {
    let name = path.file_name().ok_or_else(|| KeyFileError::NotAFile { path: path.to_owned() })?;
    let directory = files::directory_of(path);
    let draft = directory.join(format!(".{}.{:016x}", name.to_string_lossy(), rand::random::<u64>()));
    Ok((directory, Draft(draft)))
}

/// A file that is gone when this is dropped.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // A draft left over holds a key that nobody uses.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes the draft and gives it its name, which must be free. Once the file has it, the key is there: what comes after
/// could be undone by a power failure only, and is no error.
fn publish(system: &FileSystem, key: &ClusterKey, draft: &Draft, path: &Path) -> io::Result<()> {
    let text = ClusterKeys::from(key.clone()).to_text();
    write_draft(&draft.0, text.as_bytes())?;
    if !system.publish(&draft.0, path)? {
        // Not whole from its first moment on, and never in place of another.
        write_new(path, text.as_bytes())?;
    }
    let _ = system.sync_names(files::directory_of(path));
    Ok(())
}

/// Writes a file that is for its owner alone, and that is not there yet.
fn write_draft(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if !files::keep_to_owner(&file)? {
        return Err(io::Error::other("the file system keeps no rights of files, so every user could read the key"));
    }
    file.write_all(text)?;
    file.sync_all()?;
    Ok(file)
}

/// The same, and a file that could not be written whole is gone.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let Err(error) = write_draft(path, text) else { return Ok(()) };
    if error.kind() != io::ErrorKind::AlreadyExists {
        // What is left of it is no key, as the error says of the file.
        let _ = fs::remove_file(path);
    }
    Err(error)
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests;
