//! Rules about the project's text that neither the compiler nor clippy knows: layering, sizes, words, prose, links, pages.
//!
//! Each rule is a function from text to violations, with a test that shows it a bad snippet.

mod book;
mod cancellation;
mod files;
mod imports;
mod layers;
mod links;
mod paths;
mod prose;
mod sizes;
mod source;
mod words;

use std::fmt;
use std::io;
use std::path::Path;

use source::Source;

/// One thing to repair, printed as `file:line: rule: advice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

/// Applies every rule to every file below `root`; returns the number of files, and the violations.
///
/// # Errors
/// A folder or file cannot be read.
pub(crate) fn check(root: &Path) -> io::Result<(usize, Vec<Violation>)> {
    let files = files::collect(root)?;
    let sources: Vec<Source> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .map(|file| Source::new(&file.path, &file.text))
        .collect();
    let mut found = layers::check(&sources, &files);
    for source in &sources {
        found.extend(sizes::check(source));
        found.extend(words::check(source));
        found.extend(prose::check_source(source));
    }
    for file in &files {
        found.extend(paths::check(file));
        if file.path.ends_with(".md") {
            found.extend(prose::check_page(file));
        }
    }
    found.extend(links::check(&files));
    found.extend(book::check(&files));
    found.extend(cancellation::check(&files));
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok((files.len(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let (files, found) = check(&crate::root()).expect("the project can be read");
        assert!(files > 20, "only {files} files seen: the walk is broken");
        let lines: Vec<String> = found.iter().map(Violation::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn a_violation_names_file_line_rule_and_remedy() {
        let violation =
            Violation { file: "a.rs".into(), line: 3, rule: "sleep", advice: "wait for a condition".into() };
        assert_eq!(violation.to_string(), "a.rs:3: sleep: wait for a condition");
    }
}
