//! Files that a node opens: without waiting for anybody, regular ones only, and secrets out of other users' reach.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(unix)]
mod rights;

#[cfg(unix)]
pub(crate) use rights::{keep_owner, wrong_rights};

/// What group members may do with a secret file, where the process is one of them: read it, as a mounted secret.
pub(crate) const GROUP_READS: u32 = 0o4;
/// The same, and write it: orchestrators give a volume's files to a group with both.
pub(crate) const GROUP_READS_AND_WRITES: u32 = 0o6;

/// What is wrong with the rights to a secret file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongRights {
    /// Another user owns it, who can change it and its rights.
    OtherOwner {
        /// That user's number.
        owner: u32,
    },
    /// Others than its owner may read or write it.
    Loose {
        /// Its permission bits.
        mode: u32,
    },
}

/// Opens a regular file and never waits: a pipe's other end, a device or a directory is none, and is not waited for.
/// None for what is no regular file.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<Option<File>> {
    let kind = |metadata: fs::Metadata| metadata.is_file();
    match fs::metadata(path) {
        Ok(metadata) if !kind(metadata.clone()) => return Ok(None),
        Ok(_) => {}
        // To be created, if the options say so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Between the two looks another file may have got the name.
    let file = never_waiting(options).open(path)?;
    Ok(kind(file.metadata()?).then_some(file))
}

/// Opening waits for nothing, whatever has the name.
pub(crate) fn never_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options
}

/// An open file still has this name. Elsewhere than on Unix an open file keeps its name.
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

/// Elsewhere rights are not looked at.
#[cfg(not(unix))]
pub(crate) fn wrong_rights(_: &File, _: u32, _: bool) -> io::Result<Option<WrongRights>> {
    Ok(None)
}

/// Elsewhere a file's owner is the user that makes it.
#[cfg(not(unix))]
pub(crate) fn keep_owner(_: &File, _: &File) -> io::Result<()> {
    Ok(())
}

/// The permission bits of a directory in which every user may replace files. The sticky bit, as on `/tmp`, leaves each
/// file to its owner.
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

/// Takes all rights to a file from others than its owner; false where its file system keeps no rights.
pub(crate) fn keep_to_owner(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A file system that keeps none may say so, or take it and forget it.
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

/// The directories in which the name of a file and the file itself are: two, if the name is a link.
pub(crate) fn directories_of(path: &Path) -> Vec<PathBuf> {
    let mut directories = vec![directory_of(path).to_owned()];
    if let Ok(file) = fs::canonicalize(path)
        && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
    {
        directories.push(directory_of(&file).to_owned());
    }
    directories
}

/// What a file system may lack, so that tests can leave it out.
pub(crate) struct FileSystem {
    pub(crate) hard_link: fn(&Path, &Path) -> io::Result<()>,
    pub(crate) rename_new: fn(&Path, &Path) -> io::Result<()>,
    pub(crate) sync_directory: fn(&Path) -> io::Result<()>,
}

/// The operating system's.
pub(crate) const SYSTEM: FileSystem =
    FileSystem { hard_link: |from, to| fs::hard_link(from, to), rename_new, sync_directory: sync };

impl FileSystem {
    /// Gives a draft its name, unless there is a file of that name; the draft's own name may stay. False where the file
    /// system can do no such thing.
    ///
    /// # Errors
    /// `AlreadyExists`, and what the file system says.
    pub(crate) fn publish(&self, draft: &Path, path: &Path) -> io::Result<bool> {
        for publish in [self.hard_link, self.rename_new] {
            match publish(draft, path) {
                Err(error) if is_unsupported(&error) => {}
                published => return published.map(|()| true),
            }
        }
        Ok(false)
    }

    /// Makes the names in a directory last, where the file system can: some know no sync of a directory.
    pub(crate) fn sync_names(&self, directory: &Path) -> io::Result<()> {
        match (self.sync_directory)(directory) {
            Err(error) if is_unsupported(&error) => Ok(()),
            synced => synced,
        }
    }
}

/// What file systems say to an operation that they do not have.
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

/// Elsewhere a directory cannot be opened.
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
