//! The result of a session as JSON lines, written while the session runs, so that another program can follow it.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Entry, Index};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::numbers;
use super::sum::Summary;
use crate::files;

/// Maximum bytes of payloads that wait for the file; above it the reader of the result waits for the disk.
pub const RESULT_PENDING_BYTES_MAX: usize = 1 << 20;
/// Maximum time for which a line waits before it is written to the system.
pub const RESULT_WRITE_EVERY: Duration = Duration::from_millis(50);

/// The reason for which a result cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultFileError {
    /// The file cannot be opened for writing. No group was joined.
    #[error("cannot write the result to {} ({source}): {}", path.display(), files::remedy(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path is a pipe, a directory or another file that is not regular, which would not accept lines, or would
    /// block the node.
    #[error("{} is not a regular file, so no result is written to it: name a file, or a device such as /dev/null", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// Another process writes its result to the file.
    #[error("another process writes its result to {}: name another file, or end that process first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file accepted no more data. It ends with a line without a count.
    #[error("writing the result to {} failed ({source}), and the file is incomplete: {}", path.display(), files::remedy(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another program truncated or extended the file, moved or deleted it, or put another in its place.
    #[error(
        "{} was {how} by another program while the session ran, so it does not hold the result; keep other programs from \
         it, and run the session again",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The change.
        how: FileChange,
    },
    /// The session was over, and the slave requested to stop, before the file accepted the rest.
    #[error(
        "{} is incomplete: the slave was stopped while the file accepted no data; check its file system", path.display()
    )]
    Interrupted {
        /// The file.
        path: PathBuf,
    },
    /// The disk is slower than the session: the next entries are not retained.
    #[error(
        "{} is incomplete: the disk is too slow for this session, and message {resume_from} is the first that is retained; write to a faster disk, or broadcast less",
        path.display()
    )]
    Lagged {
        /// The file.
        path: PathBuf,
        /// The first retained index.
        resume_from: Index,
    },
}

/// The change that another program made to a result file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileChange {
    /// It is not as long as what was written to it.
    Resized,
    /// Its name is gone: it was moved or deleted.
    Removed,
    /// Another file has its name.
    Replaced,
}

impl std::fmt::Display for FileChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resized => "truncated or extended",
            Self::Removed => "moved or deleted",
            Self::Replaced => "replaced",
        })
    }
}

/// A file with a line per approved message, and a last line.
///
/// ```text
/// {"index":1,"origin":"<node id>","seq":1,"view":1,"value":0.123}
/// {"count":1,"sum":0.123,"digest":"<32 hexadecimal digits>"}
/// ```
///
/// Numbers are the shortest text that gives the same f64 back. The text is made and written on a thread for blocking
/// work, one write at a time, so a slow disk slows down the writer, and never the group.
#[derive(Debug)]
pub struct ResultFile {
    path: PathBuf,
    /// None while a write is in progress.
    file: Option<File>,
    writing: Option<JoinHandle<(File, Result<(), WriteError>)>>,
    pending: Vec<Entry>,
    pending_bytes: usize,
    last_write_at: Instant,
    /// Whether it was created and no session has begun: then it is deleted with this.
    made_in_vain: bool,
}

/// Why a write did not take place.
#[derive(Debug)]
enum WriteError {
    System(io::Error),
    Changed(FileChange),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl ResultFile {
    /// Opens the file, creates it if it is missing, and prevents other processes from writing their results to it, if
    /// the file system has locks. Its content stays until a session begins. It never waits for another program: only
    /// regular files are accepted, and devices that answer at once, such as `/dev/null`.
    ///
    /// Cancel safe: dropped, it may leave an empty file.
    ///
    /// # Errors
    /// The file cannot be opened, is not regular, or is in use. It is not changed.
    pub async fn create(path: &Path) -> Result<Self, ResultFileError> {
        let opening = path.to_owned();
        // A disk may be slow.
        let opened = spawn_blocking(move || open(&opening)).await;
        let failed = |source| ResultFileError::Open { path: path.to_owned(), source };
        let (file, made_in_vain) = opened.map_err(|error| failed(io::Error::other(error)))??;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            writing: None,
            pending: Vec::new(),
            pending_bytes: 0,
            last_write_at: Instant::now(),
            made_in_vain,
        })
    }

    /// Lets the file accept no data from this call on, like one on a file system that hangs.
    #[cfg(test)]
    pub(super) fn get_stuck(&mut self) {
        self.writing = Some(tokio::spawn(std::future::pending()));
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes the file's content for a new session, if it can be deleted. A file that was moved or deleted is not
    /// changed, and another one is created at the path.
    pub(super) async fn begin(&mut self) -> Result<(), ResultFileError> {
        self.written().await?;
        let moved = self.file.as_ref().is_some_and(|file| !files::is_at(file, &self.path));
        if moved {
            let path = self.path.clone();
            let opened = spawn_blocking(move || open(&path)).await;
            let failed = |source| ResultFileError::Open { path: self.path.clone(), source };
            self.file = Some(opened.map_err(|error| failed(io::Error::other(error)))??.0);
        }
        self.pending.clear();
        self.pending_bytes = 0;
        self.made_in_vain = false;
        if let Some(file) = &mut self.file
            && let Err(source) = emptied(file)
        {
            return Err(ResultFileError::Write { path: self.path.clone(), source });
        }
        Ok(())
    }

    /// Adds new entries of the result; waits for the disk while too much is pending. The payloads are numbers: the
    /// writer has checked them.
    pub(super) async fn append(&mut self, entry: Entry) -> Result<(), ResultFileError> {
        self.pending_bytes += entry.batch.body.len();
        self.pending.push(entry);
        while self.pending_bytes >= RESULT_PENDING_BYTES_MAX {
            self.written().await?;
            self.write_pending(Vec::new());
        }
        Ok(())
    }

    /// Writes pending lines whenever they are due. Returns only with an error. Cancel safe.
    pub(super) async fn keep_writing(&mut self) -> ResultFileError {
        loop {
            if let Err(error) = self.written().await {
                return error;
            }
            if self.pending.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep_until(self.last_write_at + RESULT_WRITE_EVERY).await;
            self.write_pending(Vec::new());
        }
    }

    /// Writes the rest and the last line.
    pub(super) async fn finish(&mut self, summary: &Summary) -> Result<(), ResultFileError> {
        self.written().await?;
        self.write_pending(last_line(summary));
        self.written().await?;
        let (path, file) = (self.path.clone(), self.file.take());
        let Some(file) = file else { return Ok(()) };
        // A disk may be slow.
        let (file, checked) = spawn_blocking(move || {
            let checked = unchanged(&file, &path);
            (file, checked)
        })
        .await
        .map_err(|error| self.failed(io::Error::other(error).into()))?;
        self.file = Some(file);
        checked.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: WriteError) -> ResultFileError {
        let path = self.path.clone();
        match error {
            WriteError::System(source) => ResultFileError::Write { path, source },
            WriteError::Changed(how) => ResultFileError::Changed { path, how },
        }
    }

    /// Writes the rest without a last line, because the result is not complete.
    pub(super) async fn abandon(&mut self) -> Result<(), ResultFileError> {
        self.written().await?;
        self.write_pending(Vec::new());
        self.written().await
    }

    /// Waits for the write in progress.
    async fn written(&mut self) -> Result<(), ResultFileError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let ended = writing.await;
        self.writing = None;
        let result = match ended {
            Ok((file, result)) => {
                self.file = Some(file);
                result
            }
            Err(error) => Err(io::Error::other(error).into()),
        };
        result.map_err(|error| self.failed(error))
    }

    fn write_pending(&mut self, last: Vec<u8>) {
        let Some(mut file) = self.file.take() else { return };
        let entries = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.last_write_at = Instant::now();
        self.writing = Some(spawn_blocking(move || {
            let mut text = lines(&entries);
            text.extend_from_slice(&last);
            let result = as_long_as_written(&file).and_then(|()| Ok(file.write_all(&text)?));
            (file, result)
        }));
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        if self.made_in_vain {
            // An empty file that remains contains no error.
            let _ = fs::canonicalize(&self.path).and_then(fs::remove_file);
        }
    }
}

/// Opens and locks the file. Returns whether it was created here.
fn open(path: &Path) -> Result<(File, bool), ResultFileError> {
    let failed = |source| ResultFileError::Open { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|metadata| !takes_lines(&metadata)) {
        return Err(ResultFileError::NotRegular { path: path.to_owned() });
    }
    let made = files::never_waiting(File::options().write(true).create_new(true)).open(path);
    let (file, made) = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // A symbolic link may lead to a missing file: that one is created.
            let dangles = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            let opened = files::never_waiting(File::options().write(true).create(dangles)).open(path);
            (opened.map_err(failed)?, dangles)
        }
        made => (made.map_err(failed)?, true),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !takes_lines(&metadata) {
        return Err(ResultFileError::NotRegular { path: path.to_owned() });
    }
    // A file system without locks has no other process that waits for one.
    if metadata.is_file() && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(ResultFileError::InUse { path: path.to_owned() });
    }
    Ok((file, made))
}

/// Whether a file accepts lines: regular files, and the devices of the system's memory (`/dev/null`, `/dev/full`),
/// which answer at once.
fn takes_lines(metadata: &Metadata) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        const MEMORY_DEVICES: u32 = 1;
        let is_memory = metadata.file_type().is_char_device() && rustix::fs::major(metadata.rdev()) == MEMORY_DEVICES;
        is_memory || metadata.is_file()
    }
    #[cfg(not(target_os = "linux"))]
    metadata.is_file()
}

/// The file ends where the last write ended: a write behind a truncation would leave a gap.
fn as_long_as_written(mut file: &File) -> Result<(), WriteError> {
    let metadata = file.metadata()?;
    let is_as_written = !metadata.is_file() || metadata.len() == file.stream_position()?;
    if is_as_written { Ok(()) } else { Err(WriteError::Changed(FileChange::Resized)) }
}

/// The file has its name, and holds as much as was written to it.
fn unchanged(file: &File, path: &Path) -> Result<(), WriteError> {
    if file.metadata()?.is_file() && !files::is_at(file, path) {
        let is_gone = fs::metadata(path).is_err();
        return Err(WriteError::Changed(if is_gone { FileChange::Removed } else { FileChange::Replaced }));
    }
    as_long_as_written(file)
}

/// Deletes the content of a regular file; a device has none.
fn emptied(file: &mut File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    Ok(())
}

fn lines(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in entries {
        let Entry { first_index, view, origin, batch, .. } = entry;
        let origin = origin.to_string();
        for (at, payload) in (0..).zip(payload_slices(&batch.body)) {
            let (index, seq) = (first_index.0 + at, batch.first_seq.0 + at);
            let value = numbers::decode(payload).unwrap_or(f64::NAN);
            // Writing to memory cannot fail.
            let _ =
                write!(text, "{{\"index\":{index},\"origin\":\"{origin}\",\"seq\":{seq},\"view\":{view},\"value\":");
            push_json(&mut text, value);
            text.extend_from_slice(b"}\n");
        }
    }
    text
}

fn last_line(summary: &Summary) -> Vec<u8> {
    let mut text = format!("{{\"count\":{},\"sum\":", summary.count).into_bytes();
    push_json(&mut text, summary.sum);
    text.extend_from_slice(format!(",\"digest\":\"{}\"}}\n", summary.digest).as_bytes());
    text
}

/// Appends the shortest JSON number that parses to the same f64; `null` if there is none.
fn push_json(text: &mut Vec<u8>, number: f64) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(text, &number);
}

#[cfg(test)]
mod tests;
