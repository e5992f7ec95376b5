//! The file of the cluster's keys: its place, creation, atomic change and access rights.

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

/// The environment variable that names a key file; the caller reads it and passes it to [`choose`].
pub const CLUSTER_KEY_FILE_VARIABLE: &str = "CLOUDY_CLUSTER_KEY_FILE";
/// Maximum size of a key file, which has a line for each key and each revoked node.
pub const KEY_FILE_BYTES_MAX: usize = 32 << 10;
const _: () = assert!(KEY_FILE_BYTES_MAX >= cluster_keys::TEXT_BYTES_MAX, "every file that is written can be read");

/// The reason for which a key file cannot be used. After an error every existing file is unchanged; directories may
/// have been created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no home directory.
    #[error("no home directory is known: set HOME, or name a key file with {CLUSTER_KEY_FILE_VARIABLE}")]
    NoHome,
    /// There is no such file.
    #[error("there is no key file {}: create one with `cloudy key new`, or copy it from another node", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A key file exists, and replacing it would disconnect this node from its cluster.
    #[error("{} exists and is not overwritten: move it first if it is not needed", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Other users may read or write the file.
    #[error(
        "other users have rights to {0} (mode {mode:04o}), so they may know its key: run `chmod 600 {0}`, or create another key if another user may have read it; only a group of this process may read it",
        path.display()
    )]
    LooseRights {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns the file, and so decides which nodes this one trusts.
    #[error(
        "user {owner} owns {0}, and a key file belongs to the user that runs the node, or to root: copy it to a file of your own, or run `chown` on it",
        path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Every user may replace the file.
    #[error(
        "every user may replace files in the directory {0} (mode {mode:04o}), including the key file: run `chmod o-w {0}`, or keep the key file in another directory",
        path.display()
    )]
    LooseDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user, and a change would not keep that.
    #[error(
        "cannot keep the owner, the group and the rights of the key file {}: {cause}; it is as before: run this as root or as its owner",
        path.display()
    )]
    KeepOwner {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The path is a directory, a device or another file that is not regular.
    #[error("{} is not a regular file: name the key file itself", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link to no file.
    #[error(
        "{} is a symbolic link to {}, where no file is: put the key file there, or remove the link",
        path.display(), target.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// The target of the link.
        target: PathBuf,
    },
    /// The file has other names (hard links), which would keep the former keys.
    #[error(
        "the key file {} has {names} names (hard links), and a change would reach only this one; it is as before: replace \
         the other names by symbolic links or remove them, then try again",
        path.display()
    )]
    OtherNames {
        /// The file.
        path: PathBuf,
        /// The number of all its names.
        names: u64,
    },
    /// The content is not a set of cluster keys.
    #[error("{} has no cluster key: {cause}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: ParseClusterKeysError,
    },
    /// The file is longer than [`KEY_FILE_BYTES_MAX`], or is not text.
    #[error("{} has no cluster key: a key file is a few lines of text; is this the right file?", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The directory for the file cannot be created.
    #[error("cannot create the directory {} for the key file: {cause}; {}", path.display(), files::remedy(cause))]
    MissingDirectory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the key file {}: {cause}; {}", path.display(), files::remedy(cause))]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error(
        "cannot create the key file {}: {cause}; {}, or name another path with {CLUSTER_KEY_FILE_VARIABLE}",
        path.display(), files::remedy(cause)
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The file cannot be changed.
    #[error("cannot change the key file {}: {cause}; it is as before: {}", path.display(), files::remedy(cause))]
    Change {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// No key could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateClusterKeyError),
    /// The file is at another step of the rotation.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// The maximum number of nodes is revoked.
    #[error(transparent)]
    RevokedFull(#[from] RevokedFullError),
}

/// The key file to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFileChoice {
    /// The path of the file.
    pub path: PathBuf,
    /// Whether it is the default file, which is created on first use.
    pub is_default: bool,
}

impl KeyFileChoice {
    /// Loads the keys of the file. The default file is created if it is missing. A file that the user named must exist,
    /// because a misspelt name must not create another cluster.
    ///
    /// # Errors
    /// The errors of [`load_keys`], and for the default file those of [`create`].
    pub fn open(&self) -> Result<ClusterKeys, KeyFileError> {
        if self.is_default { load_or_create(&self.path) } else { load_keys(&self.path) }
    }
}

/// Chooses the key file: the one of the command line, else the one of [`CLUSTER_KEY_FILE_VARIABLE`] (an empty value
/// counts as none), else [`default_path`].
///
/// # Errors
/// [`KeyFileError::NoHome`], if no file is named and there is no default.
pub fn choose(explicit: Option<&Path>, variable: Option<&OsStr>) -> Result<KeyFileChoice, KeyFileError> {
    let named = explicit.or(variable.filter(|value| !value.is_empty()).map(Path::new));
    match named {
        Some(path) => Ok(KeyFileChoice { path: path.to_owned(), is_default: false }),
        None => Ok(KeyFileChoice { path: default_path()?, is_default: true }),
    }
}

/// The default path: `$XDG_CONFIG_HOME/cloudy/cluster.key`, or the same below the platform's default.
///
/// # Errors
/// [`KeyFileError::NoHome`].
pub fn default_path() -> Result<PathBuf, KeyFileError> {
    let base = etcetera::choose_base_strategy().map_err(|_| KeyFileError::NoHome)?;
    Ok(base.config_dir().join("cloudy").join("cluster.key"))
}

/// Loads the primary key from `path`, for a program that does not run while a cluster changes its key.
///
/// # Errors
/// The errors of [`load_keys`].
pub fn load(path: &Path) -> Result<ClusterKey, KeyFileError> {
    Ok(load_keys(path)?.primary().clone())
}

/// Loads the keys and the revoked nodes from `path`. Root or this process's user must own the file, and only members of
/// a group of this process may read it besides. It never waits for another program, with any `path`.
///
/// # Errors
/// The cause, with the remedy.
pub fn load_keys(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    load_as(path, false).map(|(_, keys)| keys)
}

/// Loads keys as [`load_keys`]; for root it also loads the file of any user. Use it to show or change a file, and not
/// to run a node.
///
/// # Errors
/// The errors of [`load_keys`].
pub fn inspect(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    load_as(path, true).map(|(_, keys)| keys)
}

fn load_as(path: &Path, as_root_any_owner: bool) -> Result<(File, ClusterKeys), KeyFileError> {
    let read_error = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => KeyFileError::Read { path: path.to_owned(), cause },
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
    // A buffer of fixed size: a growing one would leave copies of the key in memory.
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
    let keys = text.parse().map_err(|cause| KeyFileError::Contents { path: path.to_owned(), cause })?;
    Ok((file, keys))
}

fn missing(path: &Path) -> KeyFileError {
    let path = path.to_owned();
    match files::dangling(&path) {
        Some(target) => KeyFileError::Dangling { path, target },
        None => KeyFileError::Missing { path },
    }
}

/// Generates a key and writes it to `path`, readable and writable by its owner only. Missing directories are created.
/// The file appears complete or not at all, and an existing file is not changed.
///
/// # Errors
/// [`KeyFileError::Exists`] if the file exists; else the reason for which it could not be written.
pub fn create(path: &Path) -> Result<ClusterKey, KeyFileError> {
    create_on(&files::SYSTEM, path)
}

fn create_on(system: &FileSystem, path: &Path) -> Result<ClusterKey, KeyFileError> {
    let key = ClusterKey::generate()?;
    let (directory, draft) = draft_beside(path)?;
    make_directory(directory).map_err(|cause| KeyFileError::MissingDirectory { path: directory.to_owned(), cause })?;
    let looked = files::world_writable(directory, true);
    if let Some(mode) = looked.map_err(|cause| KeyFileError::Write { path: path.to_owned(), cause })? {
        return Err(KeyFileError::LooseDirectory { path: directory.to_owned(), mode });
    }
    publish(system, &key, &draft, path).map_err(|cause| match (cause.kind(), files::dangling(path)) {
        (_, Some(target)) => KeyFileError::Dangling { path: path.to_owned(), target },
        (io::ErrorKind::AlreadyExists, None) => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Write { path: path.to_owned(), cause },
    })?;
    Ok(key)
}

/// Loads the keys from `path`, and creates the file if it is missing. If several processes create it at once, all get
/// the same key.
///
/// # Errors
/// The errors of [`load_keys`] and [`create`].
pub fn load_or_create(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    match load_keys(path) {
        Err(KeyFileError::Missing { .. }) => match create(path) {
            // Another process created the file first, and its key counts.
            Err(KeyFileError::Exists { .. }) => load_keys(path),
            created => created.map(ClusterKeys::from),
        },
        loaded => loaded,
    }
}

/// Changes the keys in `path`. The file is replaced atomically and keeps its owner, group and rights. Concurrent
/// changes follow one after the other, if the file system has locks. Returns the new keys, and the value that `change`
/// returned.
///
/// # Errors
/// The errors of [`load_keys`] and of `change`; else the reason for which the file could not be written. The file is
/// then unchanged.
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
    let failed = |cause| KeyFileError::Change { path: path.to_owned(), cause };
    // A symbolic link to the file is kept.
    let file = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(path)),
        found => found.map_err(failed)?,
    };
    let (directory, draft) = draft_beside(&file)?;
    let lock = File::open(directory);
    if let Ok(lock) = &lock {
        // Without locks, one of two concurrent changes may be lost, but a half change never appears.
        let _ = lock.lock();
    }
    let (old, mut keys) = load_as(&file, true)?;
    let changed = change(&mut keys)?;
    // A new file takes the place of this name alone.
    let names = files::names(&old).map_err(failed)?;
    if names > 1 {
        return Err(KeyFileError::OtherNames { path: file.clone(), names });
    }
    let new = write_draft(&draft.0, keys.to_text().as_bytes()).map_err(failed)?;
    files::keep_owner(&old, &new).map_err(|cause| KeyFileError::KeepOwner { path: file.clone(), cause })?;
    new.sync_all().and_then(|()| fs::rename(&draft.0, &file)).map_err(failed)?;
    // The change is complete: without this sync, only a power failure could undo it.
    let _ = system.sync_names(directory);
    Ok((keys, changed))
}

/// The directory of a file, and an unused name in it.
fn draft_beside(path: &Path) -> Result<(&Path, Draft), KeyFileError> {
    let name = path.file_name().ok_or_else(|| KeyFileError::NotAFile { path: path.to_owned() })?;
    let directory = files::directory_of(path);
    let draft = directory.join(format!(".{}.{:016x}", name.to_string_lossy(), rand::random::<u64>()));
    Ok((directory, Draft(draft)))
}

/// A file that is deleted when this is dropped.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // A remaining draft holds a key that no node uses.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes the draft and gives it its name, which must be unused. Once the file has its name, the key exists: a later
/// failure could matter only after a power failure, and is no error.
fn publish(system: &FileSystem, key: &ClusterKey, draft: &Draft, path: &Path) -> io::Result<()> {
    let text = ClusterKeys::from(key.clone()).to_text();
    write_draft(&draft.0, text.as_bytes())?;
    if !system.publish(&draft.0, path)? {
        // Here the file is not complete from its first moment on, but never replaces another.
        write_new(path, text.as_bytes())?;
    }
    let _ = system.sync_names(files::directory_of(path));
    Ok(())
}

/// Writes a new file that only its owner can read and write.
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

/// Writes a new file in the same way, and deletes a file that could not be written completely.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let Err(error) = write_draft(path, text) else { return Ok(()) };
    if error.kind() != io::ErrorKind::AlreadyExists {
        // The rest of it is no key, as the error reports.
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
