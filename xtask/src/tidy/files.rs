//! The project's text files, in a fixed order.

use std::io;
use std::path::Path;

/// Folders of builds and of git itself. In a linked worktree `.git` is a file.
const SKIPPED: &[&str] = &["target", ".git"];

/// Files written by cargo: long, and full of hosts. In a worktree `.git` is a file.
const SKIPPED_FILES: &[&str] = &["Cargo.lock", ".git"];

/// A file; its text is empty if it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextFile {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// All files below `root`, by path. Binary files have no text; symbolic links are not followed.
pub(super) fn collect(root: &Path) -> io::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !SKIPPED_FILES.contains(&name.as_str()) {
                // A picture has no text, and pages link to it.
                let text = String::from_utf8(std::fs::read(entry.path())?).unwrap_or_default();
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
impl TextFile {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_seen_and_built_ones_are_not() {
        let files = collect(&crate::root()).expect("the project can be read");
        let seen = |path: &str| files.iter().any(|file| file.path == path);
        assert!(seen("xtask/src/tidy/files.rs") && seen(".cargo/config.toml") && seen("README.md"));
        assert!(!seen("Cargo.lock"));
        assert!(
            !files
                .iter()
                .any(|file| file.path.starts_with("target/") || file.path == ".git" || file.path.starts_with(".git/"))
        );
    }
}
