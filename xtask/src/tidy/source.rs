//! A Rust file with comments and literals blanked out, so that rules see code only.

use super::Violation;

/// A Rust file, as text and as code.
pub(super) struct Source {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    /// The lines as written.
    pub(super) raw: Vec<String>,
    /// The text with every character of a comment or literal replaced by a blank; line breaks stay.
    pub(super) code: String,
    /// For each line: is it compiled for tests only?
    in_test: Vec<bool>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let raw: Vec<String> = text.lines().map(String::from).collect();
        let whole = is_test_file(path);
        let mut in_test = vec![whole; code.lines().count()];
        for (start, _) in code.match_indices("#[cfg(test)]") {
            let first = line_of(&code, start) - 1;
            let last = line_of(&code, item_end(&code, start)) - 1;
            in_test.iter_mut().take(last + 1).skip(first).for_each(|test| *test = true);
        }
        Self { path: path.into(), raw, code, in_test }
    }

    /// Line numbers from 1 and code of all lines that are not for tests only.
    pub(super) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().filter(|(at, _)| !self.in_test[*at]).map(|(at, line)| (at + 1, line))
    }

    /// True if the line (from 1) is for tests only.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.in_test.get(line - 1).copied().unwrap_or(false)
    }

    pub(super) fn violation(&self, line: usize, rule: &'static str, advice: String) -> Violation {
        Violation { file: self.path.clone(), line, rule, advice }
    }
}

/// Test code by place: the tests crate, a `tests` folder, a `tests.rs`, benches.
pub(super) fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

/// The line, from 1, of a byte position.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The end of the item that begins at `start`: its closing brace, or the semicolon that comes before any brace.
pub(super) fn item_end(code: &str, start: usize) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (offset, character) in code[start..].char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return start + offset;
                }
            }
            ';' if braces == 0 && brackets == 0 => return start + offset,
            _ => {}
        }
    }
    code.len()
}

/// True if the character may be part of an identifier.
pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Replaces comments, strings and character literals by blanks.
fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let length = literal_length(&characters, at);
        if length == 0 {
            code.push(characters[at]);
            at += 1;
        } else {
            let end = (at + length).min(characters.len());
            code.extend(characters[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// The number of characters of the comment or literal at `at`; 0 if there is none. An unclosed one runs to the end.
fn literal_length(text: &[char], at: usize) -> usize {
    let rest = &text[at..];
    match rest {
        ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment_length(rest),
        ['"', ..] => quoted_length(rest),
        ['\'', '\\', ..] => 2 + rest[3.min(rest.len())..].iter().position(|&c| c == '\'').map_or(rest.len(), |n| n + 2),
        ['\'', _, '\'', ..] => 3,
        ['r', '"' | '#', ..] if begins_literal(text, at) => raw_length(rest),
        _ => 0,
    }
}

/// An `r` begins a raw string unless it ends an identifier; `br` and `cr` are prefixes.
fn begins_literal(text: &[char], at: usize) -> bool {
    let word: Vec<char> = text[..at].iter().rev().take_while(|&&c| is_word(c)).copied().collect();
    matches!(word.as_slice(), [] | ['b' | 'c'])
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let start = hashes + 2;
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    rest[start..]
        .windows(closing.len())
        .position(|window| window == closing)
        .map_or(rest.len(), |n| start + n + closing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        let bare = |text: &str| blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(bare("a // tokio\nb /* x /* y */ z */ c"), "a b c");
        assert_eq!(bare(r#"f("tokio \" x", b"y") + g"#), "f( , b ) + g");
        assert_eq!(bare("f(r#\"a \" b\"#, br\"c\", for_r\"\")"), "f( , b , for_r )");
        assert_eq!(bare("g('{', '\\'', '\\u{7b}', 'é') + h::<'a>(r#type)"), "g( , , , ) + h::<'a>(r#type)");
        assert_eq!(bare("\"never closed {"), "");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = blank("a\n/* 1\n2 */\n\"x\ny\"\nb");
        assert_eq!(code.lines().position(|line| line == "b"), Some(5));
    }

    #[test]
    fn lines_under_cfg_test_are_test_lines() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { \"}\"; }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n";
        let source = Source::new("x/src/a.rs", text);
        let lines: Vec<usize> = source.product_lines().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 6, 9]);
        assert!(source.is_test_line(4) && !source.is_test_line(6));
    }

    #[test]
    fn test_files_are_recognized_by_their_path() {
        assert!(is_test_file("tests/src/sim.rs") && is_test_file("cloudy-proto/src/lane/tests.rs"));
        assert!(is_test_file("cloudy-node/tests/hello.rs") && is_test_file("cloudy-proto/benches/walk.rs"));
        assert!(!is_test_file("cloudy-node/src/contests.rs"));
    }
}
