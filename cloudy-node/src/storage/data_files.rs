//! The small files of a data directory: written completely or not at all, read with a maximum.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::DataDirError;
use crate::files;
use crate::versions::data_formats;

const SMALL_FILE_BYTES_MAX: usize = 1 << 10;
/// The file that identifies a data directory.
pub(crate) const FORMAT_FILE: &str = "FORMAT";
const FORMAT_TITLE: &str = "cloudy data directory";
const FORMAT_UNFINISHED: &str = "unfinished: nothing has been stored in it";

/// The content of a `FORMAT` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// In creation: no node has ever run on it, so it may be created again.
    Unfinished,
    /// In use.
    Finished,
}

impl Format {
    /// The text for a directory of a format.
    pub(super) fn text(self, version: u64) -> String {
        let unfinished = match self {
            Self::Unfinished => format!("{FORMAT_UNFINISHED}\n"),
            Self::Finished => String::new(),
        };
        format!("{FORMAT_TITLE}\nformat {version}\n{unfinished}")
    }

    /// The format of a directory, and the state.
    pub(super) fn load(directory: &Path, file: &Path) -> Result<(u64, Self), DataDirError> {
        let damaged = || DataDirError::FormatDamaged { path: file.to_owned() };
        let bytes = read_small(file)?.ok_or_else(damaged)?;
        let text = core::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let of = |version| {
            let known = [Self::Finished, Self::Unfinished].into_iter().find(|format| format.text(version) == text)?;
            Some((version, known))
        };
        if let Some(known) = data_formats().find_map(of) {
            return Ok(known);
        }
        // Other versions may add lines after the first two.
        let mut lines = text.lines();
        let title = lines.next();
        let version = lines.next().and_then(|line| line.strip_prefix("format ")).and_then(|digits| digits.parse().ok());
        match version {
            Some(found) if title == Some(FORMAT_TITLE) && !data_formats().contains(&found) => {
                Err(DataDirError::OtherFormat { path: directory.to_owned(), found })
            }
            _ => Err(damaged()),
        }
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { action, path: path.to_owned(), source }
}

/// The file's bytes; none if it is longer than any of the small files. Overwritten when dropped.
pub(super) fn read_small(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
    let file = open_regular(path, OpenOptions::new().read(true), "read")?;
    read_opened(path, file)
}

/// The same of an open file.
pub(super) fn read_opened(path: &Path, file: File) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
    // Allocated in full size: growing would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SMALL_FILE_BYTES_MAX + 1));
    file.take(SMALL_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok((bytes.len() <= SMALL_FILE_BYTES_MAX).then_some(bytes))
}

/// Opens a file of the directory, without waiting: the name may belong to another kind of file.
pub(super) fn open_regular(path: &Path, options: &mut OpenOptions, action: &'static str) -> Result<File, DataDirError> {
    let opened = files::open_regular(path, options).map_err(io_error(action, path))?;
    opened.ok_or_else(|| DataDirError::NotRegular { path: path.to_owned() })
}

/// Writes a file in the directory, completely, synced and for its owner only, in place of one of the same name.
pub(super) fn write_small(directory: &Path, path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let draft = draft_of(path);
    let mut file = open_regular(&draft, owner_only().truncate(true), "create")?;
    if !files::keep_to_owner(&file).map_err(io_error("create", &draft))? {
        return Err(DataDirError::NoRights { path: directory.to_owned() });
    }
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", &draft))?;
    fs::rename(&draft, path).map_err(io_error("create", path))?;
    sync_directory(directory)
}

/// The path at which a file is written before it gets its name.
pub(super) fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    PathBuf::from(draft)
}

/// Options to open or create a file without rights for other users.
pub(super) fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a directory and those above it, and syncs each entry.
pub(super) fn make_directory(path: &Path) -> Result<(), DataDirError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(io_error("create", path))?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent)?,
            Some(_) => sync_directory(Path::new("."))?,
            None => {}
        }
    }
    Ok(())
}

/// Syncs the names in a directory, if its file system can.
pub(super) fn sync_directory(path: &Path) -> Result<(), DataDirError> {
    files::SYSTEM.sync_names(path).map_err(io_error("sync", path))
}

/// Replaces the format of a directory in use.
#[cfg(feature = "next-version")]
pub(super) fn raise_format(path: &Path, format: u64) -> Result<(), DataDirError> {
    write_small(path, &path.join(FORMAT_FILE), Format::Finished.text(format).as_bytes())
}
