//! Tests that need a separate process: an end by kill, and rights that the test's own user may not lack.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Names the directory for the child, which is one of the tests here that do nothing without it.
const DIRECTORY_VARIABLE: &str = "CLOUDY_TEST_DATA_DIR";

fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("storage::tests::process::{test}"), "--ignored", "--nocapture"]);
    command.env(DIRECTORY_VARIABLE, directory).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn directory_of_child() -> std::path::PathBuf {
    std::env::var_os(DIRECTORY_VARIABLE).expect("run by another test").into()
}

#[test]
#[ignore = "the child of a_killed_process_leaves_what_was_completed"]
fn child_that_stores_for_ever() {
    let directory = DataDir::open(&directory_of_child(), true).unwrap();
    let (sender, completions) = channel();
    let store = directory.open_store(move |completion| sender.send(completion).unwrap()).unwrap();
    let start = store.range(GROUP, Table::Slots, .., usize::MAX).unwrap().len() as u64;
    for ticket in start.. {
        store.submit(GROUP, vec![put(Table::Slots, &ticket.to_be_bytes(), &noise(ticket, 500))], ticket).unwrap();
        // A few at a time are in flight, so that the kill meets writes.
        if ticket % 5 == 0 {
            while completions.recv_timeout(PATIENCE).unwrap().ticket < ticket {}
            println!("completed {ticket}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_killed_process_leaves_what_was_completed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let mut next = 0;
    for round in 1..=5_u64 {
        let mut process = child("child_that_stores_for_ever", &path).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut completed =
            lines.filter_map(|line| line.split_once("completed ").map(|(_, ticket)| ticket.parse().unwrap()));
        let seen: u64 = completed.nth(round as usize * 3).expect("the child stores");
        // SIGKILL: the child has no say.
        process.kill().unwrap();
        let last_seen = completed.last().unwrap_or(seen);
        process.wait().unwrap();

        let directory = DataDir::open(&path, false).unwrap();
        let store = directory.open_store(|_| {}).unwrap();
        let found = pairs(store.range(GROUP, Table::Slots, .., usize::MAX).unwrap());
        for (ticket, (key, value)) in (0..).zip(&found) {
            assert!(*key == u64::to_be_bytes(ticket) && *value == noise(ticket, 500), "round {round}, {ticket}");
        }
        assert!(found.len() as u64 > last_seen, "round {round}: {last_seen} completed, {} there", found.len());
        assert!(found.len() > next, "round {round} stored nothing");
        next = found.len();
        store.close().unwrap();
    }
}

#[test]
#[ignore = "the child of a_read_only_directory_is_rejected_with_the_reason"]
fn child_that_opens_once() {
    let opened = DataDir::open(&directory_of_child(), true).and_then(|directory| directory.open_store(|_| {}));
    println!("outcome: {}", opened.map_or_else(|error| error.to_string(), |_| "opened".to_owned()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_directory_is_rejected_with_the_reason() {
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    /// "nobody": a user without rights.
    const NOBODY: u32 = 65_534;

    let parent = tempfile::tempdir().unwrap();
    set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
    let path = parent.path().join("data");
    drop(DataDir::open(&path, true).unwrap());
    let outcome = |directory: &Path| {
        let mut command = child("child_that_opens_once", directory);
        // Rights do not bind the superuser, so the child runs as another user.
        if metadata(parent.path()).unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let text = match command.output() {
            Ok(output) => String::from_utf8(output.stdout).unwrap(),
            Err(error) => {
                println!("skipped: a process of another user cannot be started here: {error}");
                return None;
            }
        };
        let (_, outcome) = text.split_once("outcome: ").unwrap_or_else(|| panic!("the child said {text}"));
        Some(outcome.lines().next().unwrap().to_owned())
    };
    let files = [FORMAT_FILE, LOCK_FILE, NODE_KEY_FILE, DATABASE_FILE].map(|name| path.join(name));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    for file in &files {
        set_permissions(file, Permissions::from_mode(0o444)).unwrap();
    }
    set_permissions(&path, Permissions::from_mode(0o555)).unwrap();
    let Some(words) = outcome(&path) else { return };
    let lock = path.join(LOCK_FILE);
    let expected = format!(
        "cannot open {}: Permission denied (os error 13); run this as a user with the rights to it and to its directory",
        lock.display()
    );
    assert_eq!(words, expected);
    set_permissions(parent.path(), Permissions::from_mode(0o555)).unwrap();
    let below = parent.path().join("another");
    let words = outcome(&below).unwrap();
    assert!(words.starts_with(&format!("cannot create {}: Permission denied", below.display())), "{words}");
    assert!(!below.exists());
    assert!(files.each_ref().map(|file| std::fs::read(file).unwrap()) == before);
    // So that the temporary directory can be removed by an ordinary user.
    set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
    set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}
