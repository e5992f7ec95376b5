//! The public surface of `cloudy-node`, held against the one that the project has committed: a change of it is seen in
//! review, and none happens by accident.

mod listing;

use std::path::Path;

use crate::steps::Outcome;

const CRATE: &str = "cloudy-node/src";
/// The file of the surface.
const SNAPSHOT: &str = "cloudy-node/public-surface.txt";
const ACCEPT: &str = "cargo xtask surface --accept";
/// Lines of a difference that are shown.
const SHOWN_MAX: usize = 40;

/// Compares.
pub(crate) fn check(root: &Path) -> Outcome {
    let silent = listing::without_cancellation(&root.join(CRATE)).and_then(|silent| match silent.as_slice() {
        [] => Ok(()),
        silent => Err(format!("say in their documentation whether these are cancel safe: {}", silent.join(", "))),
    });
    outcome(silent.and_then(|()| listing::of_crate(&root.join(CRATE))).and_then(|found| compare(root, &found)))
}

/// Takes the surface as it is for the one to expect.
pub(crate) fn accept(root: &Path) -> Outcome {
    let write = |found: Vec<String>| {
        let text = found.join("\n") + "\n";
        std::fs::write(root.join(SNAPSHOT), text).map_err(|error| format!("cannot write {SNAPSHOT}: {error}"))?;
        println!("{SNAPSHOT} has {} items; commit it with what changed them", found.len());
        Ok(())
    };
    outcome(listing::of_crate(&root.join(CRATE)).and_then(write))
}

fn outcome(worked: Result<(), String>) -> Outcome {
    match worked {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            eprintln!("error: {error}");
            Outcome::Failed
        }
    }
}

fn compare(root: &Path, found: &[String]) -> Result<(), String> {
    let text = std::fs::read_to_string(root.join(SNAPSHOT))
        .map_err(|error| format!("cannot read {SNAPSHOT} ({error}); `{ACCEPT}` makes it"))?;
    let expected: Vec<&str> = text.lines().collect();
    let gone = expected.iter().filter(|line| !found.iter().any(|other| other == *line)).map(|line| format!("- {line}"));
    let new = found.iter().filter(|line| !expected.contains(&line.as_str())).map(|line| format!("+ {line}"));
    let difference: Vec<String> = gone.chain(new).collect();
    if difference.is_empty() {
        return Ok(());
    }
    let shown = difference[..difference.len().min(SHOWN_MAX)].join("\n");
    Err(format!(
        "the public surface is not that of {SNAPSHOT}; if that is meant, run `{ACCEPT}` and commit it:\n{shown}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_surface_is_the_committed_one() {
        let found = listing::of_crate(&crate::root().join(CRATE)).expect("the crate can be read");
        assert!(found.len() > 100, "only {} items seen: the walk is broken", found.len());
        assert_eq!(compare(&crate::root(), &found), Ok(()));
    }

    #[test]
    fn every_public_wait_documents_its_cancel_safety() {
        let silent = listing::without_cancellation(&crate::root().join(CRATE)).expect("the crate can be read");
        assert!(silent.is_empty(), "what does dropping these futures do? {silent:?}");
    }

    #[test]
    fn additions_and_removals_are_named() {
        let directory = std::env::temp_dir().join(format!("cloudy-surface-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("cloudy-node")).expect("a directory");
        std::fs::write(directory.join(SNAPSHOT), "fn a()\nfn b()\n").expect("a file");
        let found = ["fn a()", "fn c()"].map(String::from);
        let error = compare(&directory, &found).expect_err("they differ");
        assert!(error.ends_with(":\n- fn b()\n+ fn c()"), "{error}");
        assert_eq!(compare(&directory, &["fn a()", "fn b()"].map(String::from)), Ok(()));
        std::fs::remove_dir_all(directory).expect("deleted");
    }
}
