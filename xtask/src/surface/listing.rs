//! The public surface of a crate, a line for each item: read from its source, as far as names and types are written
//! there.
//!
//! Items of other crates that it re-exports are named and not listed. Items hidden from the documentation are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use quote::{ToTokens, quote};
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, UseTree, Visibility};

type Module = Vec<String>;

/// The items of a crate by module, and its `impl` blocks by the name of the type.
struct Source {
    modules: BTreeMap<Module, Vec<Item>>,
    impls: BTreeMap<String, Vec<ItemImpl>>,
}

/// The public items of the crate whose sources are in `folder`.
///
/// # Errors
/// A file cannot be read, or is no Rust.
pub(super) fn of_crate(folder: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    Source::of_crate(folder)?.list(&Module::new(), "", &mut found, &mut BTreeSet::new());
    Ok(found)
}

/// Public async functions, and those that return a `Wait`, whose documentation does not state the effect of dropping
/// the future.
///
/// # Errors
/// A file cannot be read, or is no Rust.
pub(super) fn without_cancellation(folder: &Path) -> Result<Vec<String>, String> {
    let source = Source::of_crate(folder)?;
    let methods = source.impls.values().flatten().filter(|block| block.trait_.is_none()).flat_map(|block| &block.items);
    let methods = methods.filter_map(|item| match item {
        ImplItem::Fn(method) => Some((&method.vis, &method.attrs, &method.sig)),
        _ => None,
    });
    let functions = source.modules.values().flatten().filter_map(|item| match item {
        Item::Fn(function) => Some((&function.vis, &function.attrs, &function.sig)),
        _ => None,
    });
    let lacking = methods.chain(functions).filter(|(visibility, attributes, signature)| {
        let waits = signature.asyncness.is_some() || text(&signature.output).contains("-> Wait<");
        let documentation: String = attributes.iter().map(|attribute| text(&attribute.meta)).collect();
        let says = ["ancel safe", "Dropped", "Dropping", "dropped"].iter().any(|words| documentation.contains(words));
        is_public(visibility) && waits && !says
    });
    Ok(lacking.map(|(_, _, signature)| signature.ident.to_string()).collect())
}

fn read(path: &Path) -> Result<Vec<Item>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?.items)
}

impl Source {
    fn of_crate(folder: &Path) -> Result<Self, String> {
        let mut source = Self { modules: BTreeMap::new(), impls: BTreeMap::new() };
        let root = read(&folder.join("lib.rs"))?;
        source.add(folder, &Module::new(), root)?;
        Ok(source)
    }

    /// Takes a module's items and all modules in it. `folder` has the files of the modules in it.
    fn add(&mut self, folder: &Path, module: &Module, items: Vec<Item>) -> Result<(), String> {
        let mut own = Vec::new();
        for item in items {
            match item {
                item if is_test(attributes(&item)) => {}
                Item::Mod(mut inner) => {
                    let name = inner.ident.to_string();
                    let (path, inside) =
                        ([module.as_slice(), std::slice::from_ref(&name)].concat(), folder.join(&name));
                    let (file, folder_file) = (folder.join(format!("{name}.rs")), inside.join("mod.rs"));
                    let items = match inner.content.take() {
                        Some((_, items)) => items,
                        None if file.is_file() => read(&file)?,
                        None => read(&folder_file)?,
                    };
                    own.push(Item::Mod(inner));
                    self.add(&inside, &path, items)?;
                }
                Item::Impl(block) => {
                    if let Type::Path(of) = &*block.self_ty
                        && let Some(last) = of.path.segments.last()
                    {
                        self.impls.entry(last.ident.to_string()).or_default().push(block);
                    }
                }
                item => own.push(item),
            }
        }
        self.modules.insert(module.clone(), own);
        Ok(())
    }

    /// Lists the items of a module under a prefix.
    fn list(&self, module: &Module, prefix: &str, found: &mut Vec<String>, seen: &mut BTreeSet<(Module, String)>) {
        for item in self.modules.get(module).into_iter().flatten() {
            if is_hidden(attributes(item)) {
                continue;
            }
            match item {
                Item::Use(import) if is_public(&import.vis) => {
                    for (path, name) in paths(&import.tree, &mut Vec::new()) {
                        self.re_exported(module, &path, (prefix, &name), found, seen);
                    }
                }
                Item::Mod(inner) if is_public(&inner.vis) => {
                    let name = inner.ident.to_string();
                    found.push(format!("mod {prefix}{name}"));
                    let path = [module.as_slice(), std::slice::from_ref(&name)].concat();
                    self.list(&path, &format!("{prefix}{name}::"), found, seen);
                }
                item => self.item(item, prefix, found),
            }
        }
    }

    fn re_exported(
        &self,
        module: &Module,
        path: &[String],
        (prefix, name): (&str, &str),
        found: &mut Vec<String>,
        seen: &mut BTreeSet<(Module, String)>,
    ) {
        let relative = path
            .first()
            .is_some_and(|first| self.modules.contains_key(&[module.as_slice(), std::slice::from_ref(first)].concat()));
        let (start, rest) = match path.first().map(String::as_str) {
            Some("crate") => (Module::new(), &path[1..]),
            Some("self") => (module.clone(), &path[1..]),
            _ if relative => (module.clone(), path),
            _ => return found.push(format!("use {prefix}{name} = {}", path.join("::"))),
        };
        let Some((last, folders)) = rest.split_last() else { return };
        let target = [start.as_slice(), folders].concat();
        if !seen.insert((target.clone(), format!("{prefix}{last}"))) {
            return;
        }
        for item in self.modules.get(&target).into_iter().flatten() {
            match item {
                Item::Use(import) => {
                    for (path, _) in paths(&import.tree, &mut Vec::new()).into_iter().filter(|(_, other)| other == last)
                    {
                        self.re_exported(&target, &path, (prefix, name), found, seen);
                    }
                }
                item if name_of(item).as_deref() == Some(last) => self.item(item, prefix, found),
                _ => {}
            }
        }
    }

    fn item(&self, item: &Item, prefix: &str, found: &mut Vec<String>) {
        match item {
            Item::Const(item) if is_public(&item.vis) => {
                found.push(format!("const {prefix}{}: {}", item.ident, text(&item.ty)));
            }
            Item::Fn(item) if is_public(&item.vis) => found.push(signature(prefix, &item.sig)),
            Item::Type(item) if is_public(&item.vis) => {
                found.push(format!("type {prefix}{} = {}", item.ident, text(&item.ty)));
            }
            Item::Trait(item) if is_public(&item.vis) => {
                let name = format!("{prefix}{}", item.ident);
                found.push(format!("trait {name}{}", bounds(&item.supertraits)));
                for member in &item.items {
                    if let TraitItem::Fn(member) = member {
                        found.push(signature(&format!("{name}::"), &member.sig));
                    }
                }
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let name = format!("{prefix}{}", item.ident);
                found.push(format!("struct {name}{}{}", text(&item.generics), notes(&item.attrs)));
                fields(&format!("{name}."), &item.fields, true, found);
                self.of_type(&item.ident.to_string(), &name, found);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                let name = format!("{prefix}{}", item.ident);
                found.push(format!("enum {name}{}{}", text(&item.generics), notes(&item.attrs)));
                for variant in &item.variants {
                    found.push(format!("variant {name}::{}", variant.ident));
                    fields(&format!("{name}::{}.", variant.ident), &variant.fields, false, found);
                }
                self.of_type(&item.ident.to_string(), &name, found);
            }
            _ => {}
        }
    }

    /// Public methods of a type, and the traits that it implements by hand.
    fn of_type(&self, ident: &str, name: &str, found: &mut Vec<String>) {
        for block in self.impls.get(ident).into_iter().flatten() {
            if let Some((_, of, _)) = &block.trait_ {
                found.push(format!("impl {} for {name}", text(of)));
                continue;
            }
            for member in &block.items {
                match member {
                    ImplItem::Fn(member) if is_public(&member.vis) && !is_hidden(&member.attrs) => {
                        found.push(signature(&format!("{name}::"), &member.sig));
                    }
                    // `setters!` makes a method of each of its fields.
                    ImplItem::Macro(member)
                        if member.mac.path.segments.last().is_some_and(|last| last.ident == "setters") =>
                    {
                        let tokens = text(&member.mac.tokens);
                        let fields = tokens
                            .split(", ")
                            .map(|field| field.trim_end_matches(','))
                            .filter_map(|field| field.split_once(": "));
                        found.extend(
                            fields.map(|(field, of)| format!("fn {name}::{field}(self, {field}: {of}) -> Self")),
                        );
                    }
                    ImplItem::Const(member) if is_public(&member.vis) => {
                        found.push(format!("const {name}::{}: {}", member.ident, text(&member.ty)));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The paths of a `use`, each with the name that it gives.
fn paths(tree: &UseTree, before: &mut Vec<String>) -> Vec<(Vec<String>, String)> {
    let whole = |last: &syn::Ident| [before.as_slice(), &[last.to_string()]].concat();
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            let found = paths(&path.tree, before);
            before.pop();
            found
        }
        UseTree::Name(name) => vec![(whole(&name.ident), name.ident.to_string())],
        UseTree::Rename(rename) => vec![(whole(&rename.ident), rename.rename.to_string())],
        UseTree::Glob(_) => vec![(before.clone(), "*".to_owned())],
        UseTree::Group(group) => group.items.iter().flat_map(|tree| paths(tree, before)).collect(),
    }
}

fn fields(prefix: &str, fields: &Fields, only_public: bool, found: &mut Vec<String>) {
    for (at, field) in fields.iter().enumerate().filter(|(_, field)| !only_public || is_public(&field.vis)) {
        let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
        found.push(format!("field {prefix}{name}: {}", text(&field.ty)));
    }
}

fn signature(prefix: &str, signature: &syn::Signature) -> String {
    let (is_async, ident, generics) = (&signature.asyncness, &signature.ident, &signature.generics);
    let (inputs, output, bounds) = (&signature.inputs, &signature.output, &signature.generics.where_clause);
    let is_async = if is_async.is_some() { "async " } else { "" };
    let rest = text(&quote!(#generics (#inputs) #output #bounds));
    format!("{is_async}fn {prefix}{ident}{rest}").replace(",)", ")")
}

/// Its derives, and whether others may construct and match all of its parts.
fn notes(attributes: &[Attribute]) -> String {
    let mut notes = String::new();
    for attribute in attributes {
        if attribute.path().is_ident("non_exhaustive") {
            notes.push_str(", non-exhaustive");
        }
        if attribute.path().is_ident("derive")
            && let syn::Meta::List(list) = &attribute.meta
        {
            notes.push_str(&format!(": {}", text(&list.tokens)));
        }
    }
    notes
}

fn bounds(bounds: &impl ToTokens) -> String {
    let bounds = text(bounds);
    if bounds.is_empty() { bounds } else { format!(": {bounds}") }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("doc") && text(&attribute.meta).contains("(hidden)"))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && text(&attribute.meta).contains("(test)"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Tokens as a person would write them, near enough.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    let spaces = [(" :: ", "::"), (":: ", "::"), ("& ", "&"), (" ,", ","), (" :", ":"), ("< ", "<"), (" <", "<")];
    let others = [("( ", "("), (" )", ")"), (" (", "("), ("[ ", "["), (" ]", "]"), (" ;", ";"), ("! ", "!")];
    for (from, to) in spaces.into_iter().chain(others) {
        text = text.replace(from, to);
    }
    // The arrow keeps the blank before it.
    text.replace(" >", ">").replace("->", " ->").replace("  ->", " ->")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_items_are_listed_where_they_are_shown() {
        let directory = std::env::temp_dir().join(format!("cloudy-listing-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("inner")).expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("a file");
        write(
            "lib.rs",
            "mod inner;\n#[doc(hidden)]\npub mod internals { pub fn f() {} }\npub use inner::{Thing, error::Error};\npub use other::Name;\npub const MAX: usize = 1;",
        );
        write(
            "inner/mod.rs",
            "pub(crate) mod error;\n#[derive(Clone, Debug)]\n#[non_exhaustive]\npub struct Thing<T> { pub a: Vec<T>, b: u8 }\nimpl<T> Thing<T> {\n    pub async fn get(&self, key: &str) -> Result<Option<T>, Error> { }\n    fn own(&self) {}\n    /// Cancel safe.\n    pub async fn set(&self) {}\n}\npub struct Unseen;\n#[cfg(test)]\nmod tests;",
        );
        write("inner/error.rs", "pub enum Error { Gone { index: u64 }, Other(String) }\nimpl Display for Error {}");
        let (found, silent) = (of_crate(&directory).expect("Rust"), without_cancellation(&directory));
        std::fs::remove_dir_all(directory).expect("deleted");
        assert_eq!(silent.expect("Rust"), ["get"]);
        assert_eq!(
            found,
            [
                "struct Thing<T>: Clone, Debug, non-exhaustive",
                "field Thing.a: Vec<T>",
                "async fn Thing::get(&self, key: &str) -> Result<Option<T>, Error>",
                "async fn Thing::set(&self)",
                "enum Error",
                "variant Error::Gone",
                "field Error::Gone.index: u64",
                "variant Error::Other",
                "field Error::Other.0: String",
                "impl Display for Error",
                "use Name = other::Name",
                "const MAX: usize",
            ]
        );
    }
}
