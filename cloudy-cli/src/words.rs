//! The library's errors and events name its own functions and fields. Their readers here know options and commands.

/// A phrase of the library, and the same for an operator; a phrase that contains another one precedes it.
const PHRASES: [(&str, &str); 19] = [
    ("start it with NodeBuilder::data_dir", "start it with --data DIR"),
    ("raise retain_bytes in NodeBuilder::join_config", "use a larger --retain"),
    ("raise retain_bytes (on disk: retain_disk_bytes)", "use a larger --retain"),
    ("open it with Durability::Memory", "open it with --durability memory"),
    ("bootstrap_expect", "--expect"),
    ("delete it (Node::forget_group)", "delete it (`cloudy data forget DIR ID`)"),
    ("delete it by Node::forget_group, and open", "delete it by `cloudy data forget DIR ID`, and open"),
    (
        "read it by Node::resumed_groups after a restart, or delete it by Node::forget_group",
        "read it by `cloudy data export DIR`, or delete it by `cloudy data forget DIR NAME`",
    ),
    (
        "try again when Group::leave has returned, or delete its data at this node by Node::forget_group",
        "try again when it has left, or end this node and delete its data by `cloudy data forget DIR NAME`",
    ),
    ("call Group::leave first; once that was called it", "let it leave first; then it"),
    ("; call leave() again to wait longer, or shut the node down to leave without handing over", ""),
    ("broadcast before leave()", "send it before this node leaves"),
    ("; await broadcast() instead, or raise outbox_bytes_max", ""),
    ("; await broadcast() instead", ""),
    ("query Group::outcome later", "ask another member"),
    ("use the identity that DataDir::identity returns", "give each node a directory of its own"),
    ("query Group::status for the present state", "see `cloudy status` for the present state"),
    (
        "recover the group from this node's data directory as a new group",
        "end this node, and make a new group of its data directory by `cloudy data recover DIR`",
    ),
    ("Group::status", "`cloudy status`"),
];

/// A text of the library in the words of options and commands.
pub(crate) fn for_operators(text: &str) -> String {
    PHRASES.iter().fold(text.to_owned(), |text, (library, operator)| text.replace(library, operator))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Modules that no command uses, and what only tests use.
    const UNUSED: [&str; 7] = ["replica", "recipes", "fault", "tests", "typed.rs", "tests.rs", "expiring.rs"];
    /// Fields that appear in errors, besides names with `::` or `()`.
    const FIELDS: [&str; 5] =
        ["retain_bytes", "retain_disk_bytes", "outbox_bytes_max", "bootstrap_expect", "join_config"];

    fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().and_then(|name| name.to_str()).expect("a name");
            match UNUSED.contains(&name) {
                true => {}
                false if entry.is_dir() => sources(&entry, into),
                false => into.push(entry),
            }
        }
    }

    /// The string literals of a source outside its tests and comments, each on one line.
    fn literals(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let lines =
            code.lines().filter(|line| !["//", "#[must_use"].iter().any(|start| line.trim_start().starts_with(start)));
        let code = lines.collect::<Vec<_>>().join("\n").replace("\\\"", "'").replace("'\"'", "quote");
        let literals = code.split('"').skip(1).step_by(2);
        literals.map(|literal| literal.replace('\\', "").split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// The first name of the library in a text.
    fn name_in(text: &str) -> Option<&str> {
        let is_name = |word: &&str| {
            let word = word.trim_matches(|char: char| !char.is_alphanumeric() && !"_:(".contains(char));
            let path = word.split_once("::").is_some_and(|(kind, item)| {
                kind.starts_with(char::is_uppercase) && item.starts_with(char::is_alphabetic)
            });
            let call = word.split_once("()").or(word.split_once('(').filter(|(_, rest)| rest.is_empty()));
            let called = call.is_some_and(|(name, _)| {
                !name.is_empty() && name.chars().all(|char| char.is_ascii_lowercase() || char == '_')
            });
            path || called && text.contains(&format!("{}()", word.trim_end_matches('('))) || FIELDS.contains(&word)
        };
        // A name stands among words.
        text.split(' ').filter(|_| text.contains(' ')).find(is_name)
    }

    #[test]
    fn no_text_of_the_library_names_its_parts_to_an_operator() {
        let mut files = Vec::new();
        for of in ["cloudy-node/src", "cloudy-proto/src"] {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of), &mut files);
        }
        let mut named = 0;
        for file in files {
            for literal in literals(&fs::read_to_string(&file).expect("a source")) {
                named += u32::from(name_in(&literal).is_some());
                let shown = for_operators(&literal);
                assert_eq!(name_in(&shown), None, "{}: {shown:?}", file.display());
            }
        }
        assert!(named >= 15, "the search finds names: {named}");
    }

    #[test]
    fn a_name_is_recognized_among_words() {
        for (text, name) in [
            ("start it with NodeBuilder::data_dir, please", Some("NodeBuilder::data_dir,")),
            ("call leave() again", Some("leave()")),
            ("raise retain_bytes", Some("retain_bytes")),
            ("listen on `::`, or on [::1]:7400", None),
            ("two groups (one here)", None),
        ] {
            assert_eq!(name_in(text), name, "{text}");
        }
    }
}
