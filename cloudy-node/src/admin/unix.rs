//! Unix sockets: one process at a path, access for one user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::address::AdminAddress;
use super::error::AdminError;

/// The rights of a socket file.
const MODE: u32 = 0o600;

/// A listening unix socket. The file is removed when this is dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// The device and the number of the file.
    file: (u64, u64),
}

impl UnixSocket {
    pub(super) fn bind(path: &Path) -> Result<Self, AdminError> {
        let address = || AdminAddress::Unix(path.to_owned());
        let other = |cause| AdminError::Other { address: address(), cause };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(AdminError::NoSocket { address: address() }),
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) => return Err(AdminError::SocketInUse { address: address() }),
                Err(error) => return Err(other(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(other(error)),
        }
        Self::create(path).map_err(other)
    }

    /// Creates the socket beside its path, and renames it once its rights are set.
    fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // A draft of an earlier process with this number.
            _ => {}
        }
        let listener = UnixListener::bind(&draft)?;
        let prepared =
            listener.set_nonblocking(true).and_then(|()| fs::set_permissions(&draft, Permissions::from_mode(MODE)));
        if let Err(error) = prepared.and_then(|()| fs::rename(&draft, path)) {
            // The error above is the one to report.
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        let file = fs::symlink_metadata(path)?;
        Ok(Self { listener, path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_own = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_own {
            // Without it the next process replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}
