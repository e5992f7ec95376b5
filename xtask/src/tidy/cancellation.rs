//! The page on cancel safety names every public future, so that it stays complete.

use super::Violation;
use super::files::TextFile;

const PAGE: &str = "docs/reference/cancel-safety.md";
const SURFACE: &str = "cloudy-node/public-surface.txt";

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let page = text(PAGE);
    let missing = text(SURFACE).lines().filter_map(future).filter(|name| !page.contains(&format!("`{name}`")));
    let report = |name: &str| {
        let advice = format!("`{name}` is a public future: list it with what dropping it leaves behind");
        Violation { file: PAGE.into(), line: 1, rule: "cancel-safety", advice }
    };
    missing.map(report).collect()
}

/// The name of an async function, of a function that returns a `Wait`, or of a future or stream.
fn future(line: &str) -> Option<&str> {
    let function =
        line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ").filter(|_| line.contains("-> Wait<")));
    let name = function.map(|text| text.split(['(', '<']).next().unwrap_or(text));
    name.or_else(|| line.strip_prefix("impl Future for ")).or_else(|| line.strip_prefix("impl Stream for "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_the_page_leaves_out_is_found() {
        let surface = "async fn Node::a(&self)\nfn Node::b<T>(&self) -> Wait<'_, ()>\nfn Node::c()\nimpl Future for Wait\nimpl Stream for Events\n";
        let missing = |page: &str| -> Vec<String> {
            let files = [TextFile::new(PAGE, page), TextFile::new(SURFACE, surface)];
            check(&files).into_iter().map(|found| found.advice.split('`').nth(1).unwrap_or_default().into()).collect()
        };
        assert_eq!(missing(""), ["Node::a", "Node::b", "Wait", "Events"]);
        assert_eq!(missing("`Node::a`, `Node::b`, `Wait`"), ["Events"]);
        assert_eq!(missing("`Node::a`, `Node::b`, `Wait`, `Events`"), Vec::<String>::new());
    }
}
