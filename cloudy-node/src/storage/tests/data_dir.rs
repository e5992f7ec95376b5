//! A directory is recognised, created, or refused with a clear text; a refused one is left unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::cluster_key::ClusterKey;

/// Every file below a directory, with its bytes and mode.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let bytes = if metadata.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        files.insert(entry.path(), (bytes, mode(&entry.path())));
    }
    files
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &Path) -> u32 {
    0
}

/// A node's directory with one record in it.
fn used() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("above").join("data");
    let directory = DataDir::open(&path, true).unwrap();
    let store = directory.open_store(|_| {}).unwrap();
    store.submit(GROUP, vec![put(Table::Meta, b"key", b"value")], 1).unwrap();
    store.close().unwrap();
    (parent, path)
}

/// The words of the refusal; nothing in the directory has changed.
fn refusal(path: &Path) -> String {
    let before = snapshot(path);
    let opened = DataDir::open(path, true).and_then(|directory| directory.open_store(|_| {}).map(drop));
    let words = opened.expect_err("refused").to_string();
    assert!(snapshot(path) == before, "altered: {words}");
    words
}

#[test]
fn a_node_is_the_same_after_a_restart() {
    let (_parent, path) = used();
    let cluster = ClusterKey::from_bytes(&[1; 32]);
    let first = DataDir::open(&path, false).unwrap();
    let (id, identity) = (first.node_id(), first.identity(&cluster).unwrap());
    assert_eq!((first.path(), identity.node_id()), (&*path, id));
    drop(first);
    let second = DataDir::open(&path, false).unwrap();
    assert_eq!(second.node_id(), id);
    assert_eq!(second.identity(&cluster).unwrap().certified().cert, identity.certified().cert);
    let store = second.open_store(|_| {}).unwrap();
    assert_eq!(store.groups().unwrap(), [GROUP]);
    assert_eq!(pairs(store.range(GROUP, Table::Meta, .., 100).unwrap()), [(b"key".to_vec(), b"value".to_vec())]);

    let (_parent, other) = used();
    assert_ne!(DataDir::open(&other, false).unwrap().node_id(), id);
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_what_is_made() {
    let (_parent, path) = used();
    assert_eq!(mode(&path), 0o700);
    let files = snapshot(&path);
    let names: Vec<&str> = files.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["FORMAT", "LOCK", "cloudy.redb", "node.key"]);
    assert!(files.values().all(|(_, mode)| *mode == 0o600), "{:?}", files.values().map(|(_, mode)| mode));
    assert_eq!(fs::read_to_string(path.join(FORMAT_FILE)).unwrap(), "cloudy data directory\nformat 6\n");

    fs::set_permissions(path.join(NODE_KEY_FILE), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let words = refusal(&path);
    let file = path.join(NODE_KEY_FILE);
    assert!(words.contains("(mode 0644)") && words.contains(&format!("`chmod 600 {}`", file.display())), "{words}");
}

#[test]
fn a_directory_is_made_only_where_it_is_allowed_and_nothing_is_there() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let words = DataDir::open(&path, false).unwrap_err().to_string();
    let expected = format!("there is no data directory {}: check the name, or allow it to be created", path.display());
    assert_eq!(words, expected);
    assert!(!path.exists());
    // An empty directory, as the root of a volume is.
    fs::create_dir(&path).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    assert_eq!(DataDir::open(&path, false).unwrap_err().to_string(), expected);
    assert_eq!(snapshot(&path).len(), 1);
    drop(DataDir::open(&path, true).unwrap());
    assert_eq!(snapshot(&path).len(), 5);
}

#[test]
fn what_is_somebody_elses_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("thesis.txt"), b"years of work").unwrap();
    let words = refusal(parent.path());
    assert!(words.contains("holds \"thesis.txt\" and no FORMAT file"), "{words}");
    assert!(words.contains("name a new or empty directory, or restore this one from a backup"), "{words}");

    let words = DataDir::open(&parent.path().join("thesis.txt"), true).unwrap_err().to_string();
    assert!(words.ends_with("thesis.txt is no directory: name a directory for the node's data"), "{words}");
    assert_eq!(snapshot(parent.path()).len(), 1);

    let (_parent, path) = used();
    fs::remove_file(path.join(FORMAT_FILE)).unwrap();
    let words = refusal(&path);
    assert!(words.contains("no FORMAT file") && words.contains("or lost a part"), "{words}");
}

#[test]
fn another_format_is_refused_and_a_damaged_one_too() {
    let (_parent, path) = used();
    let format = path.join(FORMAT_FILE);
    for (version, more) in [(7, ""), (7, "and more\n"), (3, "")] {
        fs::write(&format, format!("cloudy data directory\nformat {version}\n{more}")).unwrap();
        let words = refusal(&path);
        let expected = format!(
            "has data format {version}, and this program knows format 6: use the version of cloudy that wrote it, \
             or name a new directory and let the node join again"
        );
        assert!(words.ends_with(&expected), "{words}");
    }
    let good = "cloudy data directory\nformat 6\n";
    let mut damaged: Vec<Vec<u8>> = vec![vec![], good[..10].into(), format!("{good}x").into(), vec![0xff; 5_000]];
    damaged.push("cloudy data directory\nformat -1\n".into());
    for at in 0..good.len() {
        let mut altered = good.as_bytes().to_vec();
        altered[at] ^= 0x08;
        damaged.push(altered);
    }
    for bytes in damaged {
        fs::write(&format, bytes).unwrap();
        let words = refusal(&path);
        let refused = words.contains("FORMAT is damaged or of another program") || words.contains("has data format 9");
        assert!(refused, "{words}");
    }
    fs::write(&format, good).unwrap();
    DataDir::open(&path, false).unwrap();
}

#[test]
fn a_second_opener_is_refused() {
    let (_parent, path) = used();
    let first = DataDir::open(&path, false).unwrap();
    let words = refusal(&path);
    let expected = format!(
        "the data directory {} is in use by another process: stop that one, or give this node a directory of its own",
        path.display()
    );
    assert_eq!(words, expected);
    let store = first.open_store(|_| {}).unwrap();
    let words = first.open_store(|_| {}).unwrap_err().to_string();
    assert!(words.ends_with("the database is in use: close the other store, or stop the process that has it open"));
    // The store alone keeps the directory.
    drop(first);
    assert_eq!(refusal(&path), expected);
    store.close().unwrap();
    DataDir::open(&path, false).unwrap();
}

#[test]
fn a_private_key_that_was_altered_or_lost_is_refused() {
    let (_parent, path) = used();
    let file = path.join(NODE_KEY_FILE);
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        for flip in [1, 0x20] {
            let mut altered = good.clone();
            altered[at] ^= flip;
            fs::write(&file, altered).unwrap();
            let words = refusal(&path);
            assert!(words.contains("node.key is damaged: restore the data directory from a backup"), "{words}");
        }
    }
    for bytes in [&[][..], &good[..good.len() - 1], &[good.clone(), b"\n".to_vec()].concat(), &[b'a'; 3_000]] {
        fs::write(&file, bytes).unwrap();
        assert!(refusal(&path).contains("node.key is damaged"));
    }
    fs::remove_file(&file).unwrap();
    assert!(refusal(&path).contains("node.key is missing: restore the data directory from a backup"));
    fs::create_dir(&file).unwrap();
    assert!(refusal(&path).contains("node.key is no regular file"));
}

#[test]
fn a_database_that_was_altered_or_lost_is_refused() {
    let (_parent, path) = used();
    let file = path.join(DATABASE_FILE);
    let good = fs::read(&file).unwrap();
    let mut altered = good.clone();
    altered[0] ^= 1;
    fs::write(&file, &altered).unwrap();
    let words = refusal(&path);
    assert!(words.contains("cloudy.redb: there is no database of a cloudy node ("), "{words}");
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    let words = refusal(&path);
    assert!(words.contains("cloudy.redb: the database was altered on disk ("), "{words}");
    fs::write(&file, b"").unwrap();
    assert!(refusal(&path).contains("cloudy.redb: there is no database of a cloudy node (the file is empty)"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(&path).contains("cloudy.redb: there is no database of a cloudy node (the file is missing)"));
    fs::write(&file, &good).unwrap();
    DataDir::open(&path, false).unwrap().open_store(|_| {}).unwrap();
}

#[test]
fn an_interrupted_making_is_taken_up_again_and_only_that() {
    let (_parent, path) = used();
    let unfinished = "cloudy data directory\nformat 6\nunfinished: nothing has been stored in it\n";
    let files = [FORMAT_FILE, LOCK_FILE, NODE_KEY_FILE, DATABASE_FILE];
    // Interrupted after each step: these files are there, the last one torn.
    for steps in 0..=files.len() {
        let again = path.with_file_name(format!("interrupted-{steps}"));
        fs::create_dir(&again).unwrap();
        fs::write(again.join("LOCK"), b"").unwrap();
        fs::write(again.join("FORMAT.draft"), &unfinished[..9]).unwrap();
        for (at, name) in files.into_iter().enumerate().take(steps) {
            let bytes = if name == FORMAT_FILE { unfinished.into() } else { fs::read(path.join(name)).unwrap() };
            let torn = if at + 1 == steps && at > 1 { bytes.len() / 2 } else { bytes.len() };
            fs::write(again.join(name), &bytes[..torn]).unwrap();
        }
        assert!(matches!(DataDir::open(&again, false), Err(DataDirError::Missing { .. })), "not without leave");
        let made = DataDir::open(&again, true).unwrap();
        assert_eq!(made.open_store(|_| {}).unwrap().groups().unwrap(), []);
        assert_eq!(fs::read_to_string(again.join(FORMAT_FILE)).unwrap(), "cloudy data directory\nformat 6\n");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let pipe = |path: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    for (name, words) in [
        (FORMAT_FILE, "FORMAT is no regular file"),
        (LOCK_FILE, "LOCK is no regular file"),
        (NODE_KEY_FILE, "node.key is no regular file"),
        (DATABASE_FILE, "(it is no regular file)"),
    ] {
        for make in [&pipe as &dyn Fn(&Path), &|path: &Path| fs::create_dir(path).unwrap()] {
            let (_parent, path) = used();
            fs::remove_file(path.join(name)).unwrap();
            make(&path.join(name));
            let found = refusal(&path);
            assert!(found.contains(words), "{name}: {found}");
        }
    }
    // Left by another program in a directory whose creation is not complete.
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join(LOCK_FILE), b"").unwrap();
    pipe(&parent.path().join("FORMAT.draft"));
    let words = refusal(parent.path());
    assert!(words.contains("FORMAT.draft is no regular file"), "{words}");
}

#[cfg(unix)]
#[test]
fn rights_that_let_others_in_are_refused_and_those_of_a_volume_are_not() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (_parent, path) = used();
    for mode in [0o777, 0o1777, 0o702] {
        set(&path, mode);
        let words = refusal(&path);
        assert!(words.contains(&format!("(mode {mode:04o})")) && words.contains("chmod o-w"), "{words}");
    }
    // As an orchestrator sets a volume for a group of the process.
    set(&path, 0o2770);
    set(&path.join(NODE_KEY_FILE), 0o660);
    DataDir::open(&path, false).unwrap();
    let parent = tempfile::tempdir().unwrap();
    set(parent.path(), 0o777);
    assert!(matches!(DataDir::open(parent.path(), true), Err(DataDirError::LooseDirectory { .. })));
    assert_eq!(snapshot(parent.path()).len(), 0, "nothing was made");
    DataDir::open(&parent.path().join("below"), true).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(path.join(NODE_KEY_FILE), Some(12_345), None).unwrap();
        let words = refusal(&path);
        assert!(words.contains("user 12345 owns the node's private key"), "{words}");
    }
}
