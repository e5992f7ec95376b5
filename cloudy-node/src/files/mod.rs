//! Opens files without waiting for other programs: regular files only, and secrets only if other users cannot reach
//! them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(unix)]
mod rights;

#[cfg(unix)]
pub(crate) use rights::{keep_owner, wrong_rights};

/// The right of a group to a secret file, if the process is a member: to read it, like a mounted secret.
pub(crate) const GROUP_READS: u32 = 0o4;
/// The right to read and to write: orchestrators give both to the group of a volume.
pub(crate) const GROUP_READS_AND_WRITES: u32 = 0o6;

/// The fault in the rights to a secret file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongRights {
    /// Another user owns the file, and can change it and its rights.
    OtherOwner {
        /// The user id of the owner.
        owner: u32,
    },
    /// Users other than the owner may read or write it.
    Loose {
        /// Its permission bits.
        mode: u32,
    },
}

/// Opens a regular file without waiting. None if the path is a pipe, a device, a directory or another file that is not
/// regular.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<Option<File>> {
    let kind = |metadata: fs::Metadata| metadata.is_file();
    match fs::metadata(path) {
        Ok(metadata) if !kind(metadata.clone()) => return Ok(None),
        Ok(_) => {}
        // It is created, if the options request it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The name may belong to another file since the check.
    let file = never_waiting(options).open(path)?;
    Ok(kind(file.metadata()?).then_some(file))
}

/// Makes an open that waits for no other program, with any path.
pub(crate) fn never_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options
}

/// Whether an open file still has this name. On systems other than Unix an open file keeps its name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let named = id(fs::metadata(path));
        named.is_some() && id(file.metadata()) == named
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// The target of a symbolic link, if no file is there.
pub(crate) fn dangling(path: &Path) -> Option<PathBuf> {
    let is_gone = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_gone { fs::read_link(path).ok() } else { None }
}

/// The number of names (hard links) of a file. Elsewhere than on Unix one is assumed.
pub(crate) fn names(file: &File) -> io::Result<u64> {
    #[cfg(unix)]
    {
        Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(1)
    }
}

/// The remedy for a file or directory that cannot be read or written, by the system's error.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied => "run this as a user with the rights to it and to its directory",
        Kind::ReadOnlyFilesystem => "its file system is read-only: use a writable one, or mount it for writing",
        Kind::StorageFull => "its disk is full: free space there",
        Kind::QuotaExceeded => "the disk quota is used up: delete files, or raise the quota",
        Kind::FileTooLarge => "raise the limit of file sizes (ulimit -f)",
        Kind::ResourceBusy => "it is in use or a mount point of its own: change it where it is mounted from",
        Kind::NotADirectory => "a part of its path is no directory: check the path",
        Kind::NotFound => "a directory of its path is missing: check the path",
        Kind::InvalidFilename => "its name is too long or not allowed on that file system: choose another",
        _ => "check its path, the rights to it and the space on its disk",
    }
}

/// On other systems rights are not checked.
#[cfg(not(unix))]
pub(crate) fn wrong_rights(_: &File, _: u32, _: bool) -> io::Result<Option<WrongRights>> {
    Ok(None)
}

/// On other systems the owner of a file is the user that creates it.
#[cfg(not(unix))]
pub(crate) fn keep_owner(_: &File, _: &File) -> io::Result<()> {
    Ok(())
}

/// The permission bits of a directory in which every user may replace files. The sticky bit, as on `/tmp`, protects
/// each file from users other than its owner.
pub(crate) fn world_writable(directory: &Path, sticky_is_enough: bool) -> io::Result<Option<u32>> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(directory)?) & 0o7777;
        let others_replace = mode & 0o002 != 0 && !(sticky_is_enough && mode & 0o1000 != 0);
        Ok(others_replace.then_some(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = (directory, sticky_is_enough);
        Ok(None)
    }
}

/// Removes all rights to a file of users other than its owner; false if its file system has no rights.
pub(crate) fn keep_to_owner(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A file system without rights may refuse the call, or accept and ignore it.
        let _ = file.set_permissions(PermissionsExt::from_mode(0o600));
        Ok(file.metadata()?.permissions().mode() & 0o077 == 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(true)
    }
}

/// The directory of a path.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The directory of a file's name and the directory of the file: two different ones if the name is a symbolic link.
pub(crate) fn directories_of(path: &Path) -> Vec<PathBuf> {
    let mut directories = vec![directory_of(path).to_owned()];
    if let Ok(file) = fs::canonicalize(path)
        && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
    {
        directories.push(directory_of(&file).to_owned());
    }
    directories
}

/// Operations that a file system may lack, so that tests can remove them.
pub(crate) struct FileSystem {
    pub(crate) hard_link: fn(&Path, &Path) -> io::Result<()>,
    pub(crate) rename_new: fn(&Path, &Path) -> io::Result<()>,
    pub(crate) sync_directory: fn(&Path) -> io::Result<()>,
}

/// The operations of the operating system.
pub(crate) const SYSTEM: FileSystem =
    FileSystem { hard_link: |from, to| fs::hard_link(from, to), rename_new, sync_directory: sync };

impl FileSystem {
    /// Gives a draft its name, unless a file of that name exists; the draft's own name may remain. False if the file
    /// system has no such operation.
    ///
    /// # Errors
    /// `AlreadyExists`, or the file system's error.
    pub(crate) fn publish(&self, draft: &Path, path: &Path) -> io::Result<bool> {
        for publish in [self.hard_link, self.rename_new] {
            match publish(draft, path) {
                Err(error) if is_unsupported(&error) => {}
                published => return published.map(|()| true),
            }
        }
        Ok(false)
    }

    /// Syncs the names in a directory, if the file system can.
    pub(crate) fn sync_names(&self, directory: &Path) -> io::Result<()> {
        match (self.sync_directory)(directory) {
            Err(error) if is_unsupported(&error) => Ok(()),
            synced => synced,
        }
    }
}

/// Whether the error means that the file system lacks the operation.
fn is_unsupported(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [Kind::Unsupported, Kind::InvalidInput, Kind::PermissionDenied, Kind::TooManyLinks];
    kinds.contains(&error.kind())
}

/// A rename that fails if the name is taken.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// On other systems a directory cannot be opened.
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
