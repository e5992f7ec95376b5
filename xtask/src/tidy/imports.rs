//! Which module of a crate takes names from which other, read from the text.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_word, line_of};

/// A module's path from the crate's root: `["wire", "codec"]`. The root's is empty.
pub(super) type Module = Vec<String>;

/// A re-export that leads back to itself does not compile; this bounds the walk all the same.
const REEXPORTS_MAX: usize = 16;

/// One module takes a name from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: Module,
    pub(super) to: Module,
    /// The file that imports.
    pub(super) path: String,
    pub(super) line: usize,
}

/// The imports between the modules of the crate whose sources are below `folder`, as `cloudy-node/src/`. Tests are left
/// out, and so is the root module, which re-exports.
pub(super) fn of_crate(sources: &[Source], folder: &str) -> Vec<Import> {
    let files: Vec<(Module, &Source)> = sources
        .iter()
        .filter_map(|source| Some((module_of(source.path.strip_prefix(folder)?), source)))
        .filter(|(_, source)| source.product_lines().next().is_some())
        .collect();
    let tree = Tree::new(&files);
    let mut found = Vec::new();
    for (module, source) in files.iter().filter(|(module, _)| !module.is_empty()) {
        for (line, names) in paths(source, &["crate::", "super::"]) {
            let to = tree.resolve(module, &names);
            found.push(Import { from: module.clone(), to, path: source.path.clone(), line });
        }
    }
    found
}

/// The module of a file: `wire/codec/mod.rs` and `wire/codec.rs` are `wire::codec`.
pub(super) fn module_of(inside: &str) -> Module {
    let path = inside.trim_end_matches(".rs");
    let path = path.strip_suffix("mod").filter(|path| path.is_empty() || path.ends_with('/')).unwrap_or(path);
    let names = path.split('/').filter(|name| !matches!(*name, "" | "lib" | "main"));
    names.map(String::from).collect()
}

/// All modules, and the re-exports and imports of each for its own modules.
struct Tree {
    modules: BTreeSet<Module>,
    names: BTreeMap<(Module, String), Vec<String>>,
}

impl Tree {
    fn new(files: &[(Module, &Source)]) -> Self {
        let modules = files.iter().map(|(module, _)| module.clone()).collect();
        let mut names = BTreeMap::new();
        for (module, source) in files {
            for (_, path) in paths(source, &["use "]) {
                if let Some(name) = path.last() {
                    names.insert((module.clone(), name.clone()), path.clone());
                }
            }
        }
        Self { modules, names }
    }

    /// The module that defines the item of a path in `module`.
    fn resolve(&self, module: &Module, path: &[String]) -> Module {
        let (mut at, mut path) = (module.clone(), path.to_vec());
        for _ in 0..REEXPORTS_MAX {
            let mut rest = path.iter();
            let mut last = None;
            for name in rest.by_ref() {
                let child = [at.as_slice(), std::slice::from_ref(name)].concat();
                match name.as_str() {
                    "crate" => at.clear(),
                    "super" => drop(at.pop()),
                    "self" | "" => {}
                    _ if self.modules.contains(&child) => at = child,
                    _ => {
                        last = Some(name.clone());
                        break;
                    }
                }
            }
            let Some(target) = last.and_then(|name| self.names.get(&(at.clone(), name))) else { break };
            let is_own = matches!(target[0].as_str(), "crate" | "super" | "self")
                || self.modules.contains(&[at.as_slice(), std::slice::from_ref(&target[0])].concat());
            if !is_own {
                break;
            }
            path = target.iter().chain(rest).cloned().collect();
        }
        at
    }
}

/// The paths that begin with one of these prefixes in product code, each as a list of names, with its line. A list in
/// braces gives a path for each of its entries; after `use ` the prefix itself is no part of the path.
fn paths(source: &Source, prefixes: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for prefix in prefixes {
        for (start, _) in source.code.match_indices(prefix) {
            let longer = source.code[..start].chars().next_back().is_some_and(|c| is_word(c) || c == ':' || c == '$');
            let line = line_of(&source.code, start);
            if !longer && !source.is_test_line(line) {
                let start = if *prefix == "use " { start + prefix.len() } else { start };
                let mut text = Text { rest: &source.code[start..], line };
                text.tree(&mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Code that is read from its beginning.
struct Text<'a> {
    rest: &'a str,
    line: usize,
}

impl Text<'_> {
    /// Reads one path, or a list of them in braces, below those names.
    fn tree(&mut self, names: &mut Vec<String>, found: &mut Vec<(usize, Vec<String>)>) {
        let depth = names.len();
        loop {
            self.skip_blanks();
            let line = self.line;
            if self.takes("{") {
                self.list(names, found);
                break;
            }
            let name: String = self.rest.chars().take_while(|&c| is_word(c)).collect();
            self.skip(name.len());
            names.push(name);
            if !self.takes("::") || self.rest.starts_with('<') {
                found.push((line, names.clone()));
                break;
            }
        }
        names.truncate(depth);
    }

    fn list(&mut self, names: &mut Vec<String>, found: &mut Vec<(usize, Vec<String>)>) {
        loop {
            self.skip_blanks();
            if self.takes("}") || self.rest.is_empty() {
                return;
            }
            self.tree(names, found);
            // The text between an entry and the next: a comma, `as` and a name, a star.
            while !self.rest.is_empty() && !self.rest.starts_with(['}', ',']) {
                self.skip(self.rest.chars().next().map_or(0, char::len_utf8));
            }
            self.takes(",");
        }
    }

    fn takes(&mut self, text: &str) -> bool {
        let begins = self.rest.starts_with(text);
        if begins {
            self.skip(text.len());
        }
        begins
    }

    fn skip_blanks(&mut self) {
        self.skip(self.rest.len() - self.rest.trim_start().len());
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(files: &[(&str, &str)], of: &str) -> Vec<(usize, String)> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(&format!("a/src/{path}"), text)).collect();
        let found = of_crate(&sources, "a/src/");
        let own = found.into_iter().filter(|import| import.path == format!("a/src/{of}"));
        own.map(|import| (import.line, import.to.join("::"))).collect()
    }

    #[test]
    fn files_are_modules() {
        assert_eq!(module_of("lib.rs"), Module::new());
        assert_eq!(module_of("wire/mod.rs"), ["wire"]);
        assert_eq!(module_of("wire/codec.rs"), ["wire", "codec"]);
    }

    #[test]
    fn paths_lead_to_the_module_that_defines_the_name() {
        let files = [
            ("lib.rs", "mod id;\nmod wire;\nmod lane;\npub use id::{NodeId, Rank};\n"),
            ("id.rs", "pub struct NodeId;"),
            ("wire/mod.rs", "mod codec;\npub use codec::{decode as read, encode};\nuse crate::id::Rank;\n"),
            ("wire/codec.rs", "use super::super::lane::Lane;\nuse super::Rank;"),
            (
                "lane.rs",
                "use crate::{\n    id::{self, NodeId},\n    wire::{encode, codec::{Codec}},\n};\nfn f() { crate::wire::g::<u8>() }\nuse super::NodeId;",
            ),
        ];
        let lane = targets(&files, "lane.rs");
        let to = |line: usize, module: &str| (line, module.to_owned());
        assert_eq!(
            lane,
            [to(2, "id"), to(2, "id"), to(3, "wire::codec"), to(3, "wire::codec"), to(5, "wire"), to(6, "id")]
        );
        assert_eq!(targets(&files, "wire/codec.rs"), [to(1, "lane"), to(2, "id")]);
    }

    #[test]
    fn tests_and_comments_import_nothing() {
        let text = "//! See [`crate::id`].\n#[cfg(test)]\nmod tests {\n    use crate::id::NodeId;\n}\nfn f() {}";
        assert_eq!(targets(&[("id.rs", ""), ("lane.rs", text)], "lane.rs"), []);
    }
}
