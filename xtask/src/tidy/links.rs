//! Every relative link in a page leads to a file that exists, and to a heading that does.

use super::Violation;
use super::files::TextFile;

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let mut found = Vec::new();
    for page in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if let Some(advice) = broken(files, page, &target) {
                found.push(Violation { file: page.path.clone(), line, rule: "link", advice });
            }
        }
    }
    found
}

/// Why a relative link leads nowhere, if so.
fn broken(files: &[TextFile], page: &TextFile, target: &str) -> Option<String> {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { page.path.clone() } else { joined(&page.path, path) };
    let within = format!("{}/", path.trim_end_matches('/'));
    let Some(file) = files.iter().find(|file| file.path == path) else {
        let folder = files.iter().any(|file| file.path.starts_with(&within));
        return (!folder).then(|| format!("`{target}` leads to `{path}`, which does not exist: correct the link"));
    };
    let known = heading.is_empty() || headings(&file.text).iter().any(|name| name == heading);
    (!known).then(|| format!("`{path}` has no heading `{heading}`: correct the link"))
}

/// `target`, seen from the folder of `page`.
fn joined(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Lines outside fenced code, with their numbers from 1.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

/// The targets of `[text](target)`, each with its line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for piece in outside_code.split("](").skip(1) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.to_string()));
        }
    }
    found
}

/// The anchors that a page's headings get.
fn headings(text: &str) -> Vec<String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let files = [
            TextFile::new("docs/a.md", text),
            TextFile::new("docs/b.md", "# B\n\n## 1. What is promised\n"),
            TextFile::new("README.md", "# Read\n"),
        ];
        check(&files).into_iter().map(|violation| (violation.line, violation.advice)).collect()
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        let good = "[b](b.md) [r](../README.md) [h](b.md#1-what-is-promised) [d](../docs/) [w](https://example.org/x) [o](#own)\n# Own";
        assert_eq!(found(good), []);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for bad in ["[x](c.md)", "[x](README.md)", "[x](b.md#gone)", "[x](#gone)", "[`x`](c.md)", "![x](c.png)"] {
            let violations = found(&format!("\n{bad}\n"));
            assert!(matches!(violations.as_slice(), [(2, _)]), "{bad}: {violations:?}");
        }
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(found("`[x](c.md)`\n```text\n[x](c.md)\n```\n"), []);
    }
}
