//! Words that have no place in some code.

use super::Violation;
use super::source::{Source, is_word};

/// Names that the protocol crate must not use (`ARCHITECTURE.md`, invariant 1). Its `clippy.toml` finds calls under
/// other names; this finds the crates and modules.
const PROTOCOL_WORDS: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "async",
    "await",
    "dashmap",
    "getrandom",
    "quinn",
    "rand",
    "rustls",
    "tokio",
    "tracing",
];

/// A call that waits for a time to pass, by any path.
const SLEEP: &str = "sleep(";

/// The beginning of the line that must precede a sleep.
const SLEEP_REASON: &str = "// sleep:";

/// Code that is not there.
const HOLES: &[&str] = &["todo!", "unimplemented!"];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        for hole in HOLES.iter().filter(|hole| has_word(line, hole)) {
            found.push(source.violation(at + 1, "hole", format!("`{hole}`: write the code or return an error")));
        }
    }
    for (number, line) in source.product_lines() {
        if has_word(line, SLEEP) && !has_reason(source, number) {
            let advice = format!("wait for a condition, or give the reason in a `{SLEEP_REASON}` comment above");
            found.push(source.violation(number, "sleep", advice));
        }
        if source.path.starts_with("cloudy-proto/src/") {
            for word in PROTOCOL_WORDS.iter().filter(|word| has_word(line, word)) {
                let advice =
                    format!("`{word}` does not belong in the protocol crate: take it as an argument or an input");
                found.push(source.violation(number, "protocol-words", advice));
            }
        }
    }
    found
}

/// True if the comment lines right above `number` give a reason.
fn has_reason(source: &Source, number: usize) -> bool {
    let above = source.raw[..number - 1].iter().rev().map(|line| line.trim());
    above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with(SLEEP_REASON))
}

/// True if `word` stands in `line` on its own and not inside a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + word.len()..].chars().next().is_some_and(is_word);
        !before && (!after || word.ends_with('('))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        check(&Source::new(path, text)).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_sleep_in_product_code_needs_a_reason() {
        for call in ["std::thread::sleep(d);", "tokio::time::sleep(d).await;", "sleep(d).await;"] {
            assert_eq!(rules("cloudy-node/src/a.rs", call), [(1, "sleep")], "{call}");
            assert_eq!(rules("cloudy-node/src/a.rs", &format!("// sleep: paces the log\n{call}")), [], "{call}");
            assert_eq!(rules("cloudy-node/src/a.rs", &format!("// sleep: far\n\n{call}")), [(3, "sleep")], "{call}");
        }
        assert_eq!(rules("tests/src/a.rs", "sleep(d);"), []);
        assert_eq!(
            rules("cloudy-node/src/a.rs", "use tokio::time::sleep; sleep_until(t); oversleep(d); // sleep(d)"),
            []
        );
    }

    #[test]
    fn holes_are_found_in_tests_too() {
        assert_eq!(rules("tests/src/a.rs", "fn a() {\n    todo!()\n}"), [(2, "hole")]);
        assert_eq!(rules("cloudy-cli/src/a.rs", "unimplemented!(\"later\")"), [(1, "hole")]);
        assert_eq!(rules("cloudy-cli/src/a.rs", "// todo!"), []);
    }

    #[test]
    fn the_protocol_crate_knows_no_outside_world() {
        for word in PROTOCOL_WORDS {
            assert_eq!(rules("cloudy-proto/src/a.rs", &format!("use {word};")), [(1, "protocol-words")], "{word}");
            assert_eq!(rules("cloudy-node/src/a.rs", &format!("use {word};")), [], "{word}");
        }
        assert_eq!(rules("cloudy-proto/src/a.rs", "let operand = grand; // tokio, Instant"), []);
        assert_eq!(
            rules("cloudy-proto/src/a.rs", "#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}"),
            []
        );
    }
}
