//! The layers of the product crates: a module imports only from itself and from lower layers, and modules beside each
//! other never import in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::files::TextFile;
use super::imports::{Import, Module, module_of, of_crate};
use super::source::Source;

/// The page that lists each crate's modules, lowest layer first.
const PAGE: &str = "ARCHITECTURE.md";

/// The crates whose modules have an order.
const CRATES: &[&str] = &["cloudy-proto", "cloudy-node", "cloudy-cli"];

pub(super) fn check(sources: &[Source], files: &[TextFile]) -> Vec<Violation> {
    let page = files.iter().find(|file| file.path == PAGE).map_or("", |file| &file.text);
    CRATES.iter().flat_map(|name| check_crate(sources, name, &listing(page, name))).collect()
}

/// The modules that the page lists for a crate, lowest layer first.
fn listing<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let section = page.split_once(&format!("\n### Modules of `{name}`\n")).map_or("", |(_, section)| section);
    let section = section.split("\n#").next().unwrap_or_default();
    let block = section.split_once("```text\n").and_then(|(_, block)| block.split_once("\n```"));
    let lines = block.map_or("", |(block, _)| block).lines().filter(|line| !line.starts_with(' '));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.map(|name| name.trim_end_matches('/').trim_end_matches(".rs")).collect()
}

fn check_crate(sources: &[Source], name: &str, order: &[&str]) -> Vec<Violation> {
    let folder = format!("{name}/src/");
    let layer = |module: &str| order.iter().position(|known| *known == module);
    let (mut found, mut without_layer) = (Vec::new(), BTreeSet::new());
    for source in sources.iter().filter(|source| source.product_lines().next().is_some()) {
        let Some(module) = source.path.strip_prefix(&folder).and_then(|inside| module_of(inside).into_iter().next())
        else {
            continue;
        };
        if layer(&module).is_none() && without_layer.insert(module.clone()) {
            let advice = format!("`{module}` has no layer: put it into the order of `{name}` in {PAGE}");
            found.push(source.violation(1, "layers", advice));
        }
    }
    let imports = of_crate(sources, &folder);
    for import in &imports {
        let (Some(from), Some(to)) = (import.from.first(), import.to.first()) else { continue };
        if let (Some(own), Some(target)) = (layer(from), layer(to))
            && target > own
        {
            let advice = format!("`{from}` imports from `{to}`, a layer above it: move what both need down");
            found.push(violation(import, advice));
        }
    }
    found.extend(cycles(&imports));
    found
}

fn violation(import: &Import, advice: String) -> Violation {
    Violation { file: import.path.clone(), line: import.line, rule: "layers", advice }
}

/// Circles among the modules that one module holds. A module and those inside it are one thing: no arrow joins them.
fn cycles(imports: &[Import]) -> Vec<Violation> {
    let mut arrows: BTreeMap<(Module, Module), &Import> = BTreeMap::new();
    for import in imports {
        let common = import.from.iter().zip(&import.to).take_while(|(from, to)| from == to).count();
        if common < import.from.len() && common < import.to.len() {
            arrows.entry((import.from[..=common].to_vec(), import.to[..=common].to_vec())).or_insert(import);
        }
    }
    let reach = |start: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(at) = open.pop() {
            let next = arrows.keys().filter(|(from, _)| *from == at).map(|(_, to)| to.clone());
            open.extend(next.filter(|to| seen.insert(to.clone())));
        }
        seen
    };
    let from: BTreeSet<&Module> = arrows.keys().map(|(from, _)| from).collect();
    let reached: BTreeMap<&Module, BTreeSet<Module>> = from.into_iter().map(|module| (module, reach(module))).collect();
    let mut found = Vec::new();
    for ((from, to), import) in &arrows {
        if reached.get(to).is_some_and(|reached| reached.contains(from)) {
            let (from, to) = (from.join("::"), to.join("::"));
            let advice = format!("`{from}` imports from `{to}`, which leads back to it: move what both need down");
            found.push(violation(import, advice));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTINGS: &str = "# A\n\n### Modules of `cloudy-proto`\n\nWords.\n\n```text\nid.rs    ids\nwire/    frames,\n         \
                            versions\nlane.rs  lanes\n```\n\n### Modules of `cloudy-node`\n\n```text\nlink/\nnode\n```\n";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let page = TextFile::new(PAGE, LISTINGS);
        check(&sources, &[page]).iter().map(Violation::to_string).collect()
    }

    /// One file beside a library that re-exports.
    fn of_file(path: &str, text: &str) -> Vec<String> {
        let lib = "mod id;\npub use id::Rank;\npub use lane::Lane;\n";
        let others =
            [("cloudy-proto/src/lib.rs", lib), ("cloudy-proto/src/id.rs", "x"), ("cloudy-proto/src/lane.rs", "x")];
        let others = others.into_iter().filter(|(other, _)| *other != path);
        found(&others.chain([(path, text)]).collect::<Vec<_>>())
    }

    #[test]
    fn the_order_is_read_from_the_page() {
        assert_eq!(listing(LISTINGS, "cloudy-proto"), ["id", "wire", "lane"]);
        assert_eq!(listing(LISTINGS, "cloudy-node"), ["link", "node"]);
        assert!(listing(LISTINGS, "cloudy-cli").is_empty());
    }

    #[test]
    fn every_product_crate_has_an_order() {
        let page = std::fs::read_to_string(crate::root().join(PAGE)).expect("the page can be read");
        for name in CRATES {
            assert!(listing(&page, name).len() > 10, "{name}");
        }
    }

    #[test]
    fn imports_from_layers_below_are_fine() {
        assert!(
            of_file("cloudy-proto/src/lane.rs", "use crate::id::Rank;\nuse crate::{wire::Frame, Rank};").is_empty()
        );
        assert!(of_file("cloudy-proto/src/wire/codec.rs", "use super::Frame;\nuse crate::wire::Frame;").is_empty());
        assert!(of_file("tests/src/sim.rs", "use crate::lane::Lane;").is_empty());
    }

    #[test]
    fn an_arrow_against_the_layers_is_found_however_it_is_written() {
        for text in [
            "use crate::lane::Lane;",
            "use crate::Lane;",
            "use crate::{id::{NodeId, Rank}, lane::Lane};",
            "fn f(lane: &crate::lane::Lane) {}",
            "pub(crate) use super::super::lane;",
        ] {
            let violations = of_file("cloudy-proto/src/wire/codec.rs", text);
            let [violation] = violations.as_slice() else { panic!("{text}: {violations:?}") };
            assert!(
                violation.starts_with("cloudy-proto/src/wire/codec.rs:1: layers: `wire` imports from `lane`"),
                "{violation}"
            );
        }
        let node = [("cloudy-node/src/link/mod.rs", "\nuse crate::node::Node;"), ("cloudy-node/src/node.rs", "x")];
        assert!(
            matches!(found(&node).as_slice(), [one] if one.contains("mod.rs:2: layers: `link` imports from `node`"))
        );
    }

    #[test]
    fn a_cycle_is_found_at_each_of_its_arrows() {
        let between = [
            ("cloudy-node/src/link/mod.rs", "use crate::node::Node;"),
            ("cloudy-node/src/node.rs", "use crate::link::Link;"),
        ];
        let violations = found(&between);
        // The arrow against the layers, and both arrows of the cycle.
        assert_eq!(violations.len(), 3, "{violations:?}");
        let inside = [
            ("cloudy-node/src/link/mod.rs", "mod a; mod b; mod c; use a::A; pub use c::C;"),
            ("cloudy-node/src/link/a.rs", "use super::b::B;"),
            ("cloudy-node/src/link/b.rs", "use super::C;"),
            ("cloudy-node/src/link/c.rs", "use crate::link::a::A;"),
        ];
        let violations = found(&inside);
        assert_eq!(violations.len(), 3, "{violations:?}");
        assert!(violations[0].contains("`link::a` imports from `link::b`, which leads back to it"), "{violations:?}");
    }

    #[test]
    fn a_module_and_those_inside_it_are_no_cycle() {
        let files = [
            ("cloudy-node/src/link/mod.rs", "mod a; use a::A; struct Link;"),
            ("cloudy-node/src/link/a.rs", "use super::Link;"),
        ];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_module_without_a_layer_is_found() {
        let violations = of_file("cloudy-proto/src/attic.rs", "x");
        assert!(matches!(violations.as_slice(), [one] if one.contains("`attic` has no layer")), "{violations:?}");
    }
}
