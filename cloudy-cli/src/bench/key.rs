//! The cluster key of a bench.

use std::path::{Path, PathBuf};

use cloudy_node::key_file;
use miette::{IntoDiagnostic, Report};
use tempfile::TempDir;

use crate::output::failure;

/// A cluster key that lives as long as a bench does.
pub(crate) struct Key {
    file: PathBuf,
    _directory: TempDir,
}

impl Key {
    /// Creates a key.
    ///
    /// # Errors
    /// There is no directory for it.
    pub(crate) fn new() -> Result<Self, Report> {
        let directory = tempfile::Builder::new().prefix("cloudy-bench-").tempdir().map_err(|error| {
            failure(
                format_args!("cannot make a directory for the bench's cluster key ({error})"),
                "set TMPDIR to a directory that you may write to",
            )
        })?;
        let file = directory.path().join("cluster.key");
        key_file::create(&file).into_diagnostic()?;
        Ok(Self { file, _directory: directory })
    }

    /// Its file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}
