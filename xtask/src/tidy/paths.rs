//! Nothing names a folder of one machine.

use super::Violation;
use super::files::TextFile;

/// Folders of one machine or user, spelt in two parts so that this file does not name them.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/", "root/"),
    concat!("/", "home/"),
    concat!("/", "work/"),
    concat!("/", "tmp/"),
    concat!("/", "Users/"),
    concat!(".cargo/", "registry"),
];

pub(super) fn check(file: &TextFile) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS.iter().filter(|folder| names(line, folder)) {
            found.push(Violation {
                file: file.path.clone(),
                line: at + 1,
                rule: "machine-path",
                advice: format!(
                    "`{folder}` is one machine's: use a relative path, or a temporary folder made by `tempfile`"
                ),
            });
        }
    }
    found
}

/// True if `folder` stands in `line` as the start of a path, not as a later part of one.
fn names(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !folder.starts_with('/')
            || !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '}'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_folder_is_found() {
        for folder in MACHINE_FOLDERS {
            let file = TextFile::new("README.md", &format!("a\nsee `{folder}x`\n"));
            let found = check(&file);
            assert!(matches!(found.as_slice(), [one] if one.line == 2), "{folder}: {found:?}");
        }
    }

    #[test]
    fn relative_paths_and_addresses_are_fine() {
        let folder = MACHINE_FOLDERS[2];
        let file = TextFile::new("README.md", &format!("https://example.org{folder} ..{folder} $HOME/.config"));
        assert_eq!(check(&file), []);
    }
}
