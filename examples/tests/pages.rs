//! The tutorial shows the code of the examples as it is.

/// Each page with the files that its code is from.
const PAGES: &[(&str, &[&str])] = &[(
    include_str!("../../docs/tutorial/replicated-store.md"),
    &[
        include_str!("../common/mod.rs"),
        include_str!("../kv/main.rs"),
        include_str!("../kv/store.rs"),
        include_str!("../kv/api.rs"),
    ],
)];

/// The blocks of a language on a page.
fn blocks<'a>(page: &'a str, fence: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default())
}

#[test]
fn each_block_of_code_on_a_page_is_a_part_of_its_example() {
    for (page, files) in PAGES {
        let code: Vec<&str> = blocks(page, "```rs\n").collect();
        assert!(code.len() > 5, "the page has code");
        for block in code {
            assert!(files.iter().any(|file| file.contains(block)), "no example has this block:\n{block}");
        }
    }
}

#[test]
fn a_page_names_every_dependency_of_its_example() {
    let manifest = include_str!("../Cargo.toml");
    let (_, own) = manifest.split_once("[dependencies]\n").unwrap();
    let own = own.split("\n\n").next().unwrap().lines().filter_map(|line| line.split(['.', ' ']).next());
    let own: Vec<&str> = own.collect();
    assert!(own.len() > 5);
    for (page, _) in PAGES {
        let shown = blocks(page, "```toml\n").next().unwrap();
        for dependency in &own {
            assert!(shown.lines().any(|line| line.starts_with(&format!("{dependency} = "))), "{dependency}");
        }
    }
}
