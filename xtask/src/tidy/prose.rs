//! Rules for pages, comments and strings: short lines, short sentences, no phrase that hides its subject.

use super::Violation;
use super::files::TextFile;
use super::links::prose;
use super::source::Source;

/// Columns of a line of a page; tables and lines that a link makes long are excepted.
const COLUMNS_MAX: usize = 100;

/// Lines that one sentence of a page may take.
const SENTENCE_LINES_MAX: usize = 3;

/// Phrases that pages, comments and strings do without, each with the reason.
const BANNED: &[(&str, &str)] = &[
    ("whoever", "it names no subject: write which node, member or caller"),
    ("under way", "write `in progress`, `in flight` or `running`"),
    ("of late", "write `recently`, or the time"),
    ("any more", "say what holds, not what held before"),
    ("refused in words", "write `rejected with the reason`"),
    ("comes near", "write `cannot reach`, or the bound"),
    ("goes on", "write `continues`"),
    ("everybody", "it names no subject: write every node, member or client"),
    ("somebody", "it names no subject: write a node, member or user"),
    ("has told", "write `has reported` or `has notified`"),
    ("is told", "write `is notified` or `receives`"),
];

pub(super) fn check_page(page: &TextFile) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line, rule, advice| found.push(Violation { file: page.path.clone(), line, rule, advice });
    for (number, line) in prose(&page.text) {
        if let Some(advice) = banned(line) {
            report(number, "phrase", advice);
        }
        let columns = line.chars().count();
        if columns > COLUMNS_MAX && !is_table(line) && !is_link(line) {
            report(number, "columns", format!("{columns} columns: wrap the line at {COLUMNS_MAX}"));
        }
    }
    for (number, lines) in sentences(&page.text).into_iter().filter(|(_, lines)| *lines > SENTENCE_LINES_MAX) {
        report(number, "sentence", format!("{lines} lines in one sentence: split it, or make it a list"));
    }
    found
}

/// Checks comments, and strings: help texts, errors, log lines.
pub(super) fn check_source(source: &Source) -> Vec<Violation> {
    // The phrases themselves.
    if source.path == file!() {
        return Vec::new();
    }
    let lines = source.raw.iter().zip(source.code.lines()).enumerate();
    let found = lines.filter_map(|(at, (raw, code))| {
        let text: String = raw.chars().zip(code.chars()).map(|(c, code)| if c == code { ' ' } else { c }).collect();
        Some(source.violation(at + 1, "phrase", banned(&text)?))
    });
    found.collect()
}

/// The advice about a banned phrase in a line, if it has one.
fn banned(line: &str) -> Option<String> {
    let words: Vec<String> = line
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let text = format!(" {} ", words.join(" "));
    let (phrase, why) = BANNED.iter().find(|(phrase, _)| text.contains(&format!(" {phrase} ")))?;
    Some(format!("`{phrase}`: {why}"))
}

fn is_table(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

/// A line that is long because of one link or one code span, which cannot be wrapped.
fn is_link(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches("- ");
    text.split_whitespace().any(|word| word.chars().count() > COLUMNS_MAX / 2)
}

/// Each sentence of a page: the line where it begins, and how many lines it takes.
fn sentences(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut begun: Option<usize> = None;
    let mut last = 0;
    for (number, line) in prose(text) {
        let line_text = line.trim();
        let first_word = line_text.split_whitespace().next().unwrap_or_default();
        let is_item = matches!(first_word, "-" | "*" | ">")
            || first_word.strip_suffix('.').is_some_and(|n| n.parse::<u32>().is_ok());
        let interrupts = line_text.is_empty() || is_table(line) || line_text.starts_with('#') || is_item;
        if (interrupts || number != last + 1)
            && let Some(from) = begun.take()
        {
            found.push((from, last + 1 - from));
        }
        last = number;
        if line_text.is_empty() || is_table(line) || line_text.starts_with('#') {
            continue;
        }
        begun = begun.or(Some(number));
        let words: Vec<&str> = line_text.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let ends = word.trim_end_matches(['`', '*', ')', '"']).ends_with(['.', '?', '!', ':', ';']);
            let is_number = at == 0 && is_item;
            if ends && !is_number {
                let from = begun.take().unwrap_or(number);
                found.push((from, number + 1 - from));
                begun = (at + 1 < words.len()).then_some(number);
            } else {
                begun = begun.or(Some(number));
            }
        }
    }
    if let Some(from) = begun {
        found.push((from, last + 1 - from));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(usize, &'static str)> {
        check_page(&TextFile::new("docs/a.md", text)).into_iter().map(|found| (found.line, found.rule)).collect()
    }

    #[test]
    fn a_long_line_of_a_page_is_found() {
        let long = "word ".repeat(21);
        assert_eq!(rules(&format!("short\n\n{long}.")), [(3, "columns")]);
        assert_eq!(rules(&format!("| {long} |\n|---|\n")), [], "a table");
        assert_eq!(rules(&format!("```\n{long}\n```")), [], "code");
        assert_eq!(rules(&format!("[here](https://example.org/{})", "a".repeat(90))), [], "a link");
    }

    #[test]
    fn a_sentence_of_more_than_three_lines_is_found() {
        assert_eq!(rules("One.\n\nThis\ngoes\nfar\nbeyond three.\n"), [(3, "sentence")]);
        assert_eq!(rules("This\nis\nshort. This\ntoo.\n"), []);
        assert_eq!(rules("- one\n- two\n- three\n- four\n"), [], "four items");
        assert_eq!(rules("1. one\n2. two\n3. three\n4. four\n"), [], "four steps");
    }

    #[test]
    fn a_banned_phrase_is_found_in_pages_comments_and_strings() {
        for (phrase, _) in BANNED {
            assert_eq!(rules(&format!("It is {phrase}, as said.")), [(1, "phrase")], "{phrase}");
            let code = format!("fn a() {{}}\n    // It is {phrase}.\n/// {phrase}\nlet text = \"{phrase}\";");
            let found = check_source(&Source::new("cloudy-node/src/a.rs", &code));
            let lines: Vec<usize> = found.iter().map(|violation| violation.line).collect();
            assert_eq!(lines, [2, 3, 4], "{phrase}");
        }
        assert_eq!(rules("A company more or less."), []);
    }
}
