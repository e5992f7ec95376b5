//! Every page is in the book, and its code is compiled.

use super::Violation;
use super::files::TextFile;

const CONTENTS: &str = "docs/SUMMARY.md";
const DOCTESTS: &str = "tests/src/book.rs";
const DOCTESTS_CRATE: &str = "tests/src/lib.rs";

/// Pages outside `docs` whose code is compiled too.
const OTHER_PAGES: &[&str] = &["README.md", "ARCHITECTURE.md"];

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let (contents, doctests) = (text(CONTENTS), text(DOCTESTS));
    let mut found = Vec::new();
    if !text(DOCTESTS_CRATE).contains("mod book;") {
        let advice = "no page's code is compiled: add `#[cfg(doctest)] mod book;`".into();
        found.push(Violation { file: DOCTESTS_CRATE.into(), line: 1, rule: "book", advice });
    }
    for file in files.iter().filter(|file| file.path != CONTENTS) {
        let page = file.path.strip_prefix("docs/").filter(|name| name.ends_with(".md"));
        let mut report = |advice| found.push(Violation { file: file.path.clone(), line: 1, rule: "book", advice });
        if page.is_some_and(|name| !contents.contains(&format!("({name})"))) {
            report(format!("not in the book: link it in {CONTENTS}"));
        }
        let compiled = page.is_some() || OTHER_PAGES.contains(&file.path.as_str());
        if compiled && !doctests.contains(&format!("include_str!(\"../../{}\")", file.path)) {
            report(format!("its code is not compiled: include the page in {DOCTESTS}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(contents: &str, doctests: &str) -> Vec<String> {
        let files = [
            TextFile::new(CONTENTS, contents),
            TextFile::new(DOCTESTS, doctests),
            TextFile::new(DOCTESTS_CRATE, "#[cfg(doctest)]\nmod book;"),
            TextFile::new("docs/a.md", ""),
            TextFile::new("docs/book.toml", ""),
        ];
        check(&files).into_iter().map(|violation| violation.advice).collect()
    }

    #[test]
    fn a_page_in_contents_and_doctests_is_fine() {
        assert_eq!(found("[A](a.md)", "#[doc = include_str!(\"../../docs/a.md\")]"), Vec::<String>::new());
    }

    #[test]
    fn a_page_left_out_is_found() {
        assert!(matches!(found("", "include_str!(\"../../docs/a.md\")").as_slice(), [one] if one.contains(CONTENTS)));
        assert!(matches!(found("[A](a.md)", "").as_slice(), [one] if one.contains(DOCTESTS)));
    }

    #[test]
    fn a_book_left_out_of_the_crate_is_found() {
        assert!(matches!(check(&[]).as_slice(), [one] if one.file == DOCTESTS_CRATE));
    }
}
