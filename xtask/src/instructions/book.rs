//! The expected counts, and the differences from them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The maximum rise of a count, in percent. Equal programs have equal counts but for effects of the allocator.
const RISE_PERCENT_MAX: f64 = 3.0;
/// The same where another compiler made the program: it optimises otherwise.
const RISE_PERCENT_MAX_OTHER_COMPILER: f64 = 15.0;
/// The rise that a small operation may have in any case: a few branches.
const RISE_MAX: u64 = 20;

/// Instructions for each operation, by name, as one compiler made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) compiler: String,
    pub(super) instructions: BTreeMap<String, u64>,
}

/// The differences, as text.
pub(super) struct Comparison {
    pub(super) passes: bool,
    pub(super) text: String,
}

impl Book {
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(super) fn text(&self) -> String {
        // Numbers and text only: this cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Compares counts with the expected ones.
    pub(super) fn against(&self, found: &Self) -> Comparison {
        let mut comparison = Comparison { passes: true, text: String::new() };
        let mut percent_max = RISE_PERCENT_MAX;
        if found.compiler != self.compiler {
            percent_max = RISE_PERCENT_MAX_OTHER_COMPILER;
            let words = format!(
                "note: {} made this, {} what is expected: up to +{percent_max} % pass",
                found.compiler, self.compiler
            );
            comparison.line(true, &words);
        }
        for (name, &count) in &found.instructions {
            match self.instructions.get(name) {
                Some(&expected) => comparison.operation(name, count, expected, percent_max),
                None => comparison.line(false, &format!("{name}: {count} instructions, and none are expected")),
            }
        }
        for name in self.instructions.keys().filter(|name| !found.instructions.contains_key(*name)) {
            comparison.line(false, &format!("{name}: expected, and missing"));
        }
        comparison
    }
}

impl Comparison {
    fn line(&mut self, passes: bool, words: &str) {
        self.passes &= passes;
        let mark = if passes { "" } else { "FAILED " };
        // Writing to text cannot fail.
        let _ = writeln!(self.text, "{mark}{words}");
    }

    fn operation(&mut self, name: &str, count: u64, expected: u64, percent_max: f64) {
        let change = (count as f64 / expected.max(1) as f64 - 1.0) * 100.0;
        let passes = count as f64 * 100.0 <= expected as f64 * (100.0 + percent_max) || count <= expected + RISE_MAX;
        let advice = match change {
            _ if !passes => format!(", at most +{percent_max} % pass"),
            _ if change < -percent_max => format!("; so that it stays so: {}", super::ACCEPT),
            _ => String::new(),
        };
        self.line(passes, &format!("{name}: {count} instructions, {expected} expected ({change:+.1} %{advice})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(compiler: &str, counts: &[(&str, u64)]) -> Book {
        let instructions = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Book { compiler: compiler.to_owned(), instructions }
    }

    fn compared(compiler: &str, counts: &[(&str, u64)]) -> (bool, String) {
        let expected = book("rustc 1", &[("walk", 1_000), ("tally", 100)]);
        let Comparison { passes, text } = expected.against(&book(compiler, counts));
        (passes, text)
    }

    #[test]
    fn a_rise_fails_and_noise_does_not() {
        assert!(compared("rustc 1", &[("walk", 1_030), ("tally", 120)]).0, "3 %, and a few branches");
        let (passes, text) = compared("rustc 1", &[("walk", 1_031), ("tally", 100)]);
        assert!(!passes && text.contains("FAILED walk: 1031 instructions, 1000 expected (+3.1 %, at most"), "{text}");
        assert!(!compared("rustc 1", &[("walk", 1_000), ("tally", 121)]).0);
    }

    #[test]
    fn another_compiler_may_do_otherwise_within_bounds() {
        let (passes, text) = compared("rustc 2", &[("walk", 1_150), ("tally", 100)]);
        assert!(passes && text.contains("rustc 2 made this, rustc 1 what is expected"), "{text}");
        assert!(!compared("rustc 2", &[("walk", 1_151), ("tally", 100)]).0);
    }

    #[test]
    fn a_gain_passes_and_is_to_be_kept() {
        let (passes, text) = compared("rustc 1", &[("walk", 500), ("tally", 100)]);
        assert!(passes && text.contains("-50.0 %; so that it stays so: cargo xtask instructions --accept"), "{text}");
    }

    #[test]
    fn every_operation_is_expected_and_every_expected_one_is_there() {
        let (passes, text) = compared("rustc 1", &[("walk", 1_000), ("new", 1)]);
        assert!(!passes && text.contains("FAILED new: 1 instructions, and none"), "{text}");
        assert!(text.contains("FAILED tally: expected, and missing"), "{text}");
    }

    #[test]
    fn written_state_reads_back() {
        let book = book("rustc 1", &[("walk", 1_000)]);
        assert_eq!(Book::parse(&book.text()).ok(), Some(book));
        assert!(Book::parse("{}").is_err());
    }
}
