//! The rooms of `cloudy-proto`: a file imports only from its own room and from those above it.

use std::collections::BTreeMap;

use super::Violation;
use super::source::{Source, is_word, line_of};

/// The rooms, ground floor first. `ARCHITECTURE.md`, "Rooms inside", shows the same order; a test compares them.
const ROOMS: &[&str] = &[
    "id",
    "time",
    "limits",
    "words",
    "rules",
    "config",
    "view",
    "slot",
    "digest",
    "command",
    "wire",
    "stored",
    "io",
    "path",
    "outbox",
    "lane",
    "pending",
    "walk",
    "read_back",
    "catch_up",
    "delivery",
    "ring",
    "view_change",
    "member",
    "control",
    "machine",
];

const FOLDER: &str = "cloudy-proto/src/";

/// Where the list is kept.
const LIST: &str = "xtask/src/tidy/layers.rs and ARCHITECTURE.md";

pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let exports =
        sources.iter().find(|source| source.path == format!("{FOLDER}lib.rs")).map(exports).unwrap_or_default();
    let mut found = Vec::new();
    for source in sources {
        let Some(inside) = source.path.strip_prefix(FOLDER).filter(|path| *path != "lib.rs") else {
            continue;
        };
        let room = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
        let Some(own) = floor(room) else {
            found.push(source.violation(
                1,
                "layers",
                format!("`{room}` has no floor: put it into the order in {LIST}"),
            ));
            continue;
        };
        for (line, name) in imports(source, depth(inside)) {
            let target = exports.get(&name).unwrap_or(&name);
            if floor(target) > Some(own) {
                let advice = format!("`{room}` imports from `{target}`, which comes after it: move what both need up");
                found.push(source.violation(line, "layers", advice));
            }
        }
    }
    found
}

/// A room's place in the order; none for a macro, or for a file that is reported itself.
fn floor(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// How many `super` lead from a file to the crate's root.
fn depth(inside: &str) -> usize {
    let parts = inside.split('/').count();
    if inside.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// Names that `lib.rs` re-exports, and the room of each.
fn exports(lib: &Source) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    for statement in lib.code.split(';') {
        let Some((_, path)) = statement.rsplit_once("pub use ") else {
            continue;
        };
        let mut names = path.split(|c| !is_word(c)).filter(|name| !matches!(*name, "" | "crate" | "self" | "as"));
        if let Some(room) = names.next() {
            rooms.extend(names.map(|name| (name.to_string(), room.to_string())));
        }
    }
    rooms
}

/// The names that product code takes from the crate's root, each with its line.
fn imports(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", to_root.as_str()] {
        for (start, _) in source.code.match_indices(prefix) {
            let before = &source.code[..start];
            let line = line_of(&source.code, start);
            let longer = before.chars().next_back().is_some_and(|c| is_word(c) || c == ':' || c == '$');
            if !longer && !source.is_test_line(line) {
                let names = first_names(&source.code[start + prefix.len()..]);
                found.extend(names.into_iter().map(|(offset, name)| (line + offset, name)));
            }
        }
    }
    found
}

/// The first name of a path, or of each path in a `{...}` list, with its distance in lines.
fn first_names(rest: &str) -> Vec<(usize, String)> {
    let Some(list) = rest.strip_prefix('{') else {
        return vec![(0, rest.chars().take_while(|&c| is_word(c)).collect())];
    };
    let (mut names, mut depth, mut line, mut expected) = (Vec::new(), 1_usize, 0, true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expected = true,
            '\n' => line += 1,
            _ if expected && is_word(character) => {
                names.push((line, list[at..].chars().take_while(|&c| is_word(c)).collect()));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let lib =
            Source::new("cloudy-proto/src/lib.rs", "mod id;\npub use id::{NodeId, Rank};\npub use machine::Machine;\n");
        let sources = [lib, Source::new(path, text)];
        check(&sources).into_iter().map(|violation| (violation.line, violation.advice)).collect()
    }

    #[test]
    fn imports_from_rooms_above_are_fine() {
        assert_eq!(found("cloudy-proto/src/lane.rs", "use crate::id::Rank;\nuse crate::{slot::Slot, NodeId};"), []);
        assert_eq!(found("cloudy-proto/src/wire/codec.rs", "use super::frame::Frame;\nuse crate::wire::Frame;"), []);
        assert_eq!(found("cloudy-node/src/lane.rs", "use crate::machine::Machine;"), []);
    }

    #[test]
    fn imports_from_rooms_below_are_found_however_they_are_written() {
        for text in [
            "use crate::machine::Machine;",
            "use crate::Machine;",
            "use crate::{id::{NodeId, Rank}, machine::Machine};",
            "fn f(machine: &crate::machine::Machine) {}",
            "pub(crate) use super::machine;",
        ] {
            let violations = found("cloudy-proto/src/lane.rs", text);
            assert!(
                matches!(violations.as_slice(), [(1, advice)] if advice.contains("`machine`")),
                "{text}: {violations:?}"
            );
        }
        let nested = found("cloudy-proto/src/wire/codec.rs", "\nuse super::super::lane::Lane;");
        assert!(matches!(nested.as_slice(), [(2, _)]), "{nested:?}");
        let module = found("cloudy-proto/src/wire/mod.rs", "use super::lane::Lane;");
        assert!(matches!(module.as_slice(), [(1, _)]), "{module:?}");
        let list = found("cloudy-proto/src/lane.rs", "use crate::{\n    id::Rank,\n    walk::Walk,\n};");
        assert!(matches!(list.as_slice(), [(3, _)]), "{list:?}");
    }

    #[test]
    fn tests_and_comments_may_name_any_room() {
        let text = "//! See [`crate::machine`].\n#[cfg(test)]\nmod tests {\n    use crate::machine::Machine;\n}";
        assert_eq!(found("cloudy-proto/src/lane.rs", text), []);
    }

    #[test]
    fn a_room_without_a_floor_is_found() {
        let violations = found("cloudy-proto/src/attic.rs", "");
        assert!(matches!(violations.as_slice(), [(1, advice)] if advice.contains("attic")), "{violations:?}");
    }

    #[test]
    fn the_order_is_the_one_in_the_architecture() {
        let page = std::fs::read_to_string(crate::root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md can be read");
        let (_, section) = page.split_once("## Rooms inside").expect("the section exists");
        let (_, listing) = section.split_once("```text\n").expect("the listing exists");
        let (listing, _) = listing.split_once("```").expect("the listing ends");
        let rooms: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(|name| name.trim_end_matches('/').trim_end_matches(".rs"))
            .collect();
        assert_eq!(rooms, ROOMS);
    }
}
