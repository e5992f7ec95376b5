use std::sync::Barrier;

use super::*;
use crate::cluster_key::ParseClusterKeyError;

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_created_key_is_loaded_again_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep").join("er").join("cluster.key");
    assert!(matches!(load(&path), Err(KeyFileError::Missing { .. })));
    let key = create(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{}\n", *key.to_text()));
    assert_eq!(*load(&path).unwrap().to_text(), *key.to_text());

    let error = create(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(load_or_create(&path).unwrap(), key.into());
    assert_eq!(entries(path.parent().unwrap()), [&*path], "drafts are removed");
}

#[test]
fn concurrent_first_users_agree_on_one_key() {
    const USERS: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cloudy").join("cluster.key");
    let barrier = Barrier::new(USERS);
    let keys: Vec<String> = std::thread::scope(|scope| {
        let users: Vec<_> = (0..USERS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    load_or_create(&path).unwrap().primary().to_text().to_string()
                })
            })
            .collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    let stored = load(&path).unwrap().to_text().to_string();
    assert_eq!(keys, vec![stored; USERS]);
    assert_eq!(entries(path.parent().unwrap()), [&*path], "drafts are removed");
}

#[cfg(unix)]
#[test]
fn rights_of_others_are_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    for mode in [0o644, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::LooseRights { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    // The group of a file that this process creates is its own group.
    for mode in [0o600, 0o400, 0o440, 0o640] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        load(&path).unwrap();
    }
}

#[test]
fn other_contents_are_refused_and_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    create(&path).unwrap();
    let refused = |contents: &[u8]| {
        fs::write(&path, contents).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), contents, "a wrong file is left alone");
        assert!(!format!("{error:?} {error}").contains("5ec3e7"));
        error
    };
    let contents = |error| match error {
        KeyFileError::Contents { cause, .. } => cause,
        other => panic!("{other}"),
    };
    assert_eq!(contents(refused(b"")), ParseClusterKeyError::Prefix.into());
    assert_eq!(contents(refused(b"cloudy-key-1:5ec3e7\n")), ParseClusterKeyError::Length { found: 6 }.into());
    let good = ClusterKey::from_bytes(&[1; 32]).to_text();
    let second = format!("{}\nnext cloudy-key-1:5ec3e7\n", *good);
    let cause = ParseClusterKeyError::Length { found: 6 };
    assert_eq!(contents(refused(second.as_bytes())), ParseClusterKeysError::Accepted { line: 2, cause });
    assert!(matches!(refused(b"\xff\xfe"), KeyFileError::NotAKey { .. }));
    let mut long = ClusterKey::generate().unwrap().to_text().as_bytes().to_vec();
    long.resize(KEY_FILE_BYTES_MAX, b' ');
    fs::write(&path, &long).unwrap();
    load(&path).unwrap();
    long.push(b' ');
    assert!(matches!(refused(&long), KeyFileError::NotAKey { .. }));
    assert!(matches!(load(directory.path()), Err(KeyFileError::NotAFile { .. })));
}

#[test]
fn the_command_line_goes_before_the_variable_before_the_default() {
    let (flag, variable) = (Path::new("/a/flag"), OsStr::new("/a/variable"));
    let named = |path: &str| KeyFileChoice { path: path.into(), is_default: false };
    assert_eq!(choose(Some(flag), Some(variable)).unwrap(), named("/a/flag"));
    assert_eq!(choose(None, Some(variable)).unwrap(), named("/a/variable"));
    let default = choose(None, Some(OsStr::new(""))).unwrap();
    assert_eq!(default, KeyFileChoice { path: default_path().unwrap(), is_default: true });
    assert!(default.path.ends_with("cloudy/cluster.key"));
}

#[test]
fn only_the_default_is_made_on_first_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    let mut choice = KeyFileChoice { path: path.clone(), is_default: false };
    assert!(matches!(choice.open(), Err(KeyFileError::Missing { .. })));
    assert!(!path.exists());
    choice.is_default = true;
    let keys = choice.open().unwrap();
    assert_eq!(load_keys(&path).unwrap(), keys);
}

#[test]
fn a_change_replaces_the_file_as_a_whole_or_leaves_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    let never = |_: &mut ClusterKeys| -> Result<(), KeyFileError> { panic!("there is nothing to change") };
    assert!(matches!(change(&path, never), Err(KeyFileError::Missing { .. })));
    let key = create(&path).unwrap();
    let next = ClusterKey::generate().unwrap();
    let (keys, ()) = change(&path, |keys| Ok(keys.begin_rotation(next.clone())?)).unwrap();
    assert_eq!((keys.primary(), keys.accepted()), (&key, Some((cluster_keys::AcceptedAs::Next, &next))));
    assert_eq!(load_keys(&path).unwrap(), keys);
    assert_eq!(load(&path).unwrap(), key, "the primary key alone");

    let error = change(&path, |keys| {
        keys.switch()?;
        Ok(keys.switch()?)
    });
    assert!(matches!(error, Err(KeyFileError::Rotate(RotateError::Switched))), "{error:?}");
    assert_eq!(load_keys(&path).unwrap(), keys, "as before");
    assert_eq!(entries(directory.path()), [&*path], "drafts are removed");
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        change(&link, |keys| Ok(keys.switch()?)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&path).unwrap(), next);
    }
}

#[test]
fn of_concurrent_changes_none_is_lost() {
    const USERS: u8 = 12;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    create(&path).unwrap();
    let barrier = Barrier::new(usize::from(USERS));
    std::thread::scope(|scope| {
        for user in 0..USERS {
            let (path, barrier) = (&path, &barrier);
            scope.spawn(move || {
                barrier.wait();
                change(path, |keys| Ok(keys.revoke(cloudy_proto::NodeId([user; 32]))?)).unwrap()
            });
        }
    });
    assert_eq!(load_keys(&path).unwrap().revoked().len(), usize::from(USERS));
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_a_file_is_rejected_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let [pipe, socket] = ["pipe", "socket"].map(|name| directory.path().join(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for path in [&*pipe, &*socket, &*link, directory.path(), Path::new("/dev/zero")] {
        let error = load_or_create(path).unwrap_err();
        assert!(matches!(error, KeyFileError::NotAFile { .. }), "{error}");
        let error = change(path, |_| Ok(())).unwrap_err();
        assert!(matches!(error, KeyFileError::NotAFile { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_in_which_every_user_replaces_files_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    create(&path).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let set = |of: &Path, mode| fs::set_permissions(of, fs::Permissions::from_mode(mode)).unwrap();
    // As /tmp, and as orchestrators mount secrets.
    set(directory.path(), 0o1777);
    load(&path).unwrap();
    for loose in [directory.path(), elsewhere.path()] {
        set(directory.path(), 0o700);
        set(loose, 0o777);
        let error = load_keys(&link).unwrap_err();
        let KeyFileError::LooseDirectory { path, mode: 0o777 } = &error else { panic!("{error}") };
        assert_eq!(fs::canonicalize(path).unwrap(), fs::canonicalize(loose).unwrap());
        assert!(error.to_string().contains("chmod o-w"), "{error}");
        let other = loose.join("other.key");
        assert!(matches!(create(&other), Err(KeyFileError::LooseDirectory { .. })));
        assert!(!other.exists(), "no key is made where it could not be used");
    }
}

fn refused(_: &Path, _: &Path) -> io::Result<()> {
    // EPERM, as vfat returns for a hard link.
    Err(io::ErrorKind::PermissionDenied.into())
}

fn unknown(_: &Path, _: &Path) -> io::Result<()> {
    // EINVAL, as FUSE returns for a rename with a condition.
    Err(io::ErrorKind::InvalidInput.into())
}

fn no_sync(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::InvalidInput.into())
}

#[test]
fn a_limited_file_system_gets_a_complete_key_file_without_an_error() {
    let lacking = [
        FileSystem { hard_link: refused, ..files::SYSTEM },
        FileSystem { hard_link: refused, rename_new: unknown, ..files::SYSTEM },
        FileSystem { sync_directory: no_sync, ..files::SYSTEM },
        FileSystem { sync_directory: |_| Err(io::Error::other("a broken disk")), ..files::SYSTEM },
    ];
    for (at, system) in lacking.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.key");
        let key = create_on(system, &path).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(load(&path).unwrap(), key, "{at}");
        let error = create_on(system, &path).unwrap_err();
        assert!(matches!(error, KeyFileError::Exists { .. }), "{at}: {error}");
        let next = ClusterKey::generate().unwrap();
        change_on(system, &path, |keys| Ok(keys.begin_rotation(next)?)).unwrap();
        assert!(load_keys(&path).unwrap().accepted().is_some(), "{at}");
        assert_eq!(entries(directory.path()), [&*path], "{at}: drafts are removed");
    }
    let full = FileSystem { hard_link: |_, _| Err(io::ErrorKind::StorageFull.into()), ..files::SYSTEM };
    let directory = tempfile::tempdir().unwrap();
    let error = create_on(&full, &directory.path().join("cluster.key")).unwrap_err();
    assert!(matches!(error, KeyFileError::Write { .. }), "{error}");
    assert!(entries(directory.path()).is_empty(), "nothing is left of what failed");
}

#[cfg(unix)]
#[test]
fn a_change_keeps_owner_group_and_mode() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    // Only root can give a file away; any other user's file stays its own.
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(12_345), Some(23_456)).unwrap();
        let error = load_keys(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::OtherOwner { owner: 12_345, .. }), "{error}");
        inspect(&path).unwrap();
    }
    let of = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    let before = of(&path);
    change(&path, |keys| Ok(keys.revoke(cloudy_proto::NodeId([7; 32]))?)).unwrap();
    assert_eq!(of(&path), before);
    assert_eq!(inspect(&path).unwrap().revoked().len(), 1);
}
