//! Files and functions fit in a head: a bound on the lines of each.

use super::Violation;
use super::source::{Source, is_word, item_end, line_of};

/// Lines of a file, tests left out.
const FILE_LINES_MAX: usize = 600;

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut found = functions(source);
    // A unit test module does not count; a file of scenarios, where every line is a test's, does.
    let lines = match source.product_lines().count() {
        0 if !source.path.ends_with("/tests.rs") => source.raw.len(),
        lines => lines,
    };
    if lines > FILE_LINES_MAX {
        let advice = format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split the file by topic");
        found.push(source.violation(1, "file-size", advice));
    }
    found
}

fn functions(source: &Source) -> Vec<Violation> {
    let code = &source.code;
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let before = code[..start].chars().next_back();
        let name: String = code[start + 3..].trim_start().chars().take_while(|&c| is_word(c)).collect();
        if before.is_some_and(is_word) || name.is_empty() {
            continue;
        }
        let first = line_of(code, start);
        let lines = line_of(code, item_end(code, start)) - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let advice =
                format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: name its steps as functions");
            found.push(source.violation(first, "function-size", advice));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        check(&Source::new(path, text)).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_file_over_the_bound_is_found_and_one_at_the_bound_is_not() {
        assert_eq!(rules("a/src/a.rs", &"use a;\n".repeat(600)), []);
        assert_eq!(rules("a/src/a.rs", &"use a;\n".repeat(601)), [(1, "file-size")]);
    }

    #[test]
    fn unit_tests_do_not_count_and_scenarios_do() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(300));
        assert_eq!(rules("a/src/a.rs", &("use a;\n".repeat(600) + &tests)), []);
        assert_eq!(rules("a/src/a/tests.rs", &"use a;\n".repeat(601)), []);
        assert_eq!(rules("tests/src/sim.rs", &"use a;\n".repeat(601)), [(1, "file-size")]);
    }

    #[test]
    fn a_long_function_is_found_where_it_begins() {
        let function =
            |lines: usize| format!("\npub fn f(a: [u8; 2]) {{\n{}}}\nfn g() {{}}\n", "    a;\n".repeat(lines));
        assert_eq!(rules("a/src/a.rs", &function(68)), []);
        assert_eq!(rules("a/src/a.rs", &function(69)), [(2, "function-size")]);
    }

    #[test]
    fn types_and_declarations_are_not_functions_with_bodies() {
        let text = format!("trait T {{\n    fn f(&self, g: fn (u8));\n{}}}\n", "    type A;\n".repeat(80));
        assert_eq!(rules("a/src/a.rs", &text), []);
    }
}
