//! Files that are invalid, in use, or not allowed to grow.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Cluster, Running, cloudy, listening, printed, run};

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn too_few_open_files_are_an_error_with_a_remedy_for_every_command() {
    let cluster = Cluster::new();
    let mut commands = vec![
        cluster.node(&["slave", "127.0.0.1", "0"]),
        cluster.node(&["slave", "127.0.0.1", "0", "--supervise"]),
        cluster.node(&["master", "127.0.0.1", "0", "--discovery-timeout", "100ms"]),
        cloudy(&["demo", "--nodes", "2"]),
        cloudy(&["completions", "bash"]),
    ];
    for args in [["tail", "127.0.0.1:1"], ["key", "show"]] {
        let mut command = cloudy(&args);
        command.arg("--cluster-key").arg(&cluster.key);
        commands.push(command);
    }
    for own in commands {
        // Four are enough for the loader, and for no runtime.
        for limit in 4..=8 {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
            command.arg(own.get_program()).args(own.get_args());
            run(command).failed_with(&["Too many open files", "help: raise the limit of open files (ulimit -n)"]);
        }
    }
}

#[test]
fn a_slave_that_is_started_twice_changes_nothing_of_the_first_ones_result() {
    let cluster = Cluster::new();
    let [result, other] = ["result.jsonl", "other.jsonl"].map(|name| cluster.path(name).display().to_string());
    fs::write(&result, "an earlier result\n").expect("written");
    fs::write(&other, "another result\n").expect("written");
    let (first, port) = cluster.slave(&["--result", &result]);
    // By a separate port, by the same port, and by both files.
    let port = port.to_string();
    run(cluster.node(&["slave", "127.0.0.1", "0", "--result", &result]))
        .failed_with(&["writes its result to", &result]);
    run(cluster.node(&["slave", "127.0.0.1", &port, "--result", &result])).failed_with(&["in use"]);
    run(cluster.node(&["slave", "127.0.0.1", &port, "--result", &other])).failed_with(&["in use"]);
    let fresh = cluster.path("fresh.jsonl");
    run(cluster.node(&["slave", "127.0.0.1", &port, "--result", &fresh.display().to_string()]))
        .failed_with(&["in use"]);
    assert!(!fresh.exists(), "what was made in vain is gone");
    assert_eq!(fs::read_to_string(&other).expect("read"), "another result\n");
    assert_eq!(fs::read_to_string(&result).expect("read"), "an earlier result\n");
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "200ms", "300ms", "--expect", "1"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_eq!(first.end().code(), Some(0));
    assert!(!common::recompute(Path::new(&result)).values.is_empty());
}

#[test]
fn a_data_directory_that_is_in_use_costs_no_result() {
    let cluster = Cluster::new();
    let [result, data] = ["result.jsonl", "data"].map(|name| cluster.path(name).display().to_string());
    fs::write(&result, "an earlier result\n").expect("written");
    let (_first, _) = cluster.slave(&["--data", &data]);
    run(cluster.node(&["slave", "127.0.0.1", "0", "--data", &data, "--result", &result]))
        .failed_with(&["is in use by another process"]);
    assert_eq!(fs::read_to_string(&result).expect("read"), "an earlier result\n");
}

#[test]
fn a_result_overwrites_neither_the_key_nor_the_data_directory() {
    let cluster = Cluster::new();
    let key = fs::read(&cluster.key).expect("the key");
    let data = cluster.path("data");
    let slave = |args: &[&str]| run(cluster.node(&[&["slave", "127.0.0.1", "0"], args].concat()));
    let same = cluster.path("same");
    std::os::unix::fs::symlink(&cluster.key, &same).expect("a link");
    for path in [&cluster.key, &same] {
        let path = path.display().to_string();
        slave(&["--result", &path]).failed_with(&["would overwrite the file with the cluster key", "--result"]);
    }
    assert_eq!(fs::read(&cluster.key).expect("the key"), key);
    let (running, _) = cluster.slave(&["--data", &data.display().to_string()]);
    running.signal("TERM");
    running.end();
    for name in ["node.key", "FORMAT", "another"] {
        let (path, data) = (data.join(name).display().to_string(), data.display().to_string());
        slave(&["--data", &data, "--result", &path]).failed_with(&["would overwrite a file in the data directory"]);
    }
}

#[test]
fn addresses_of_groups_of_machines_are_none_to_listen_on() {
    let cluster = Cluster::new();
    for address in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
        run(cluster.node(&["slave", address, "0", "--start-timeout", "1ms"]))
            .failed_with(&["help: give an address of"]);
    }
}

#[test]
fn what_is_no_file_ends_the_start_in_words() {
    let cluster = Cluster::new();
    let pipe = cluster.path("pipe");
    make_pipe(&pipe);
    let data = cluster.path("data");
    let named = |path: &Path| path.display().to_string();
    let slave = |args: &[&str]| run(cluster.node(&[&["slave", "127.0.0.1", "0"], args].concat()));
    slave(&["--result", &named(&pipe)]).failed_with(&["is not a regular file", "name a file"]);
    slave(&["--result", &named(cluster.dir.path())]).failed_with(&["is not a regular file"]);
    for args in
        [&["key", "show", "--cluster-key"][..], &["key", "rotate"], &["slave", "127.0.0.1", "0", "--cluster-key"]]
    {
        let mut command = cloudy(args);
        command.arg(&pipe);
        run(command).failed_with(&["is not a regular file: name the key file itself"]);
    }
    fs::create_dir(&data).expect("made");
    make_pipe(&data.join("FORMAT"));
    slave(&["--data", &named(&data)]).failed_with(&["FORMAT is no regular file"]);
    let mut bench = cloudy(&["bench", "--html"]);
    bench.arg(&pipe);
    run(bench).failed_with(&["cannot write", "no regular file"]);
}

#[test]
fn a_page_of_figures_replaces_no_other_file() {
    let cluster = Cluster::new();
    let notes = cluster.path("notes.txt");
    fs::write(&notes, "to keep").expect("written");
    for kept in [&notes, &cluster.key] {
        let before = fs::read(kept).expect("read");
        let mut bench = cloudy(&["bench", "--html"]);
        bench.arg(kept);
        run(bench).failed_with(&["is not a page of a bench", "--html"]);
        assert_eq!(fs::read(kept).expect("read"), before, "{}", kept.display());
    }
}

/// A command of a process whose files may have so many blocks of 512 or 1,024 bytes, as the shell counts.
fn limited(command: &Command, blocks: u32) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -f {blocks} && exec \"$@\""), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_costs_the_file_and_not_the_process() {
    let cluster = Cluster::new();
    let [result, data] = ["result.jsonl", "data"].map(|name| cluster.path(name).display().to_string());
    let (short, _) =
        listening(Running::start(limited(&cluster.node(&["slave", "127.0.0.1", "0", "--result", &result]), 8)));
    let (whole, _) = cluster.slave(&[]);
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "300ms", "300ms", "--expect", "2"]));
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let short = short.end();
    short.failed_with(&["File too large", "incomplete"]);
    assert_eq!(printed(&short.stdout), printed(&whole.end().stdout));
    // A data directory needs more than that.
    let ended = run(limited(&cluster.node(&["slave", "127.0.0.1", "0", "--data", &data]), 8));
    ended.failed_with(&["ulimit -f"]);
}

#[test]
fn processes_with_a_copied_data_directory_are_named_by_all_and_one_ends() {
    let cluster = Cluster::new();
    let [first, second] = ["first", "second"].map(|name| cluster.path(name));
    let start = |data: &Path| cluster.slave(&["--data", &data.display().to_string(), "--no-discovery"]);
    let (slave, _) = start(&first);
    slave.signal("INT");
    slave.end();
    assert!(Command::new("cp").arg("-r").args([&first, &second]).status().expect("cp").success());
    let (mut one, one_port) = start(&first);
    let (two, two_port) = start(&second);
    let mut master = Running::start({
        let mut command = cluster.node(&["master", "127.0.0.1", "0", "5m", "1s", "--expect", "1"]);
        for port in [one_port, two_port] {
            command.args(["--slave", &format!("127.0.0.1:{port}")]);
        }
        command
    });
    two.end().failed_with(&["another process has this node's identity", "data directory"]);
    one.wait_for("another process has the identity of this node");
    master.wait_for("two processes have one identity, that of node");
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_that_was_made_is_said_to_be_though_the_answer_is_lost() {
    let cluster = Cluster::new();
    let file = cluster.path("another.key");
    let full = fs::File::options().write(true).open("/dev/full").expect("opens");
    let mut command = cloudy(&["key", "new", "--cluster-key"]);
    let ended = command.arg(&file).stdout(full).stderr(Stdio::piped()).output().expect("runs");
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains("the key file was created or changed") && file.exists(), "{words}");
}

#[test]
fn a_key_file_is_changed_under_all_of_its_names_or_not_at_all() {
    let cluster = Cluster::new();
    let [link, hard] = ["link", "hard"].map(|name| cluster.path(name));
    std::os::unix::fs::symlink(&cluster.key, &link).expect("a link");
    let before = fs::read(&cluster.key).expect("the key");
    fs::hard_link(&cluster.key, &hard).expect("another name");
    let rotate = |path: &Path| run(cloudy(&["key", "rotate", &path.display().to_string()]));
    for path in [&cluster.key, &hard, &link] {
        rotate(path).failed_with(&["has 2 names (hard links)", "it is as before"]);
        assert_eq!(fs::read(path).expect("read"), before);
    }
    fs::remove_file(&hard).expect("removed");
    assert_eq!(rotate(&link).code(), Some(0));
    assert!(link.is_symlink() && fs::read(&cluster.key).expect("the key") != before);
    assert_eq!(fs::read(&link).expect("read"), fs::read(&cluster.key).expect("the key"));
}

#[test]
fn links_to_nothing_are_named_with_a_remedy() {
    let cluster = Cluster::new();
    let link = cluster.path("link");
    std::os::unix::fs::symlink(cluster.path("nowhere"), &link).expect("a link");
    let named = link.display().to_string();
    let words = ["is a symbolic link to", "nowhere"];
    run(cluster.node(&["slave", "127.0.0.1", "0", "--data", &named])).failed_with(&[words[0], "make that directory"]);
    for args in [&["key", "new", "--cluster-key"][..], &["key", "show", "--cluster-key"], &["key", "rotate"]] {
        let mut command = cloudy(args);
        command.arg(&link);
        run(command).failed_with(&words);
    }
    run(cloudy(&["demo", "--nodes", "2", "--result-dir", &named])).failed_with(&["symbolic link to no directory"]);
}

#[test]
fn a_master_on_disk_names_the_option_that_it_lacks() {
    let cluster = Cluster::new();
    let ended = run(cluster.node(&["master", "127.0.0.1", "0", "1s", "1s", "--durability", "disk"]));
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(2), ""), "{ended:#?}");
    assert!(ended.stderr.contains("--data DIR"), "{ended:#?}");
}

#[test]
fn a_discovery_group_that_is_none_is_a_wrong_command_line() {
    let cluster = Cluster::new();
    for command in ["slave", "master"] {
        let ended = run(cloudy(&[command, "127.0.0.1", "0", "--discovery-group", "1.2.3.4:5"]));
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains("not a multicast group"), "{ended:#?}");
    }
    let ended = run(cluster.node(&["slave", "127.0.0.1", "0", "--retain", "0"]));
    assert!(ended.code() == Some(2) && ended.stderr.contains("less than 1MiB"), "{ended:#?}");
}

#[test]
fn a_result_that_another_program_replaces_is_reported_by_its_slave() {
    let cluster = Cluster::new();
    let result = cluster.path("result.jsonl");
    let (mut slave, _) = cluster.slave(&["--result", &result.display().to_string(), "--rate", "1000"]);
    let mut master = Running::start(cluster.node(&["master", "127.0.0.1", "0", "1s", "500ms", "--expect", "1"]));
    slave.wait_for("approved");
    let other = cluster.path("other");
    fs::write(&other, "another file").expect("written");
    fs::rename(&other, &result).expect("replaced");
    master.wait_for("STOP");
    slave.end().failed_with(&["was replaced by another program", "result.jsonl"]);
    assert_eq!(fs::read_to_string(&result).expect("read"), "another file");
}

/// Commands that print without a node.
#[cfg(target_os = "linux")]
const PRINTED: [&[&str]; 9] = [
    &["--help"],
    &["--version"],
    &["version", "--json"],
    &["help", "demo"],
    &["slave", "--help"],
    &["key", "path"],
    &["completions", "bash"],
    &["man"],
    &["demo", "--nodes", "2", "--send", "100ms", "--grace", "300ms"],
];

#[cfg(target_os = "linux")]
#[test]
fn output_that_is_lost_is_a_failure_of_every_command() {
    let cluster = Cluster::new();
    for args in PRINTED {
        let command = || {
            let mut command = cloudy(args);
            command.env("CLOUDY_CLUSTER_KEY_FILE", &cluster.key).stderr(Stdio::piped());
            command
        };
        let full = fs::File::options().write(true).open("/dev/full").expect("opens");
        let ended = command().stdout(full).output().expect("runs");
        let words = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{args:?}: {words}");
        assert!(words.contains("cannot write to standard output"), "{args:?}: {words}");
        let (reader, closed) = std::os::unix::net::UnixStream::pair().expect("a pair");
        drop(reader);
        let ended = command().stdout(std::os::fd::OwnedFd::from(closed)).output().expect("runs");
        assert_eq!(ended.status.code(), Some(141), "{args:?}: {ended:?}");
        assert!(!String::from_utf8_lossy(&ended.stderr).contains("error: "), "{args:?}: {ended:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_stdout_that_is_closed_at_the_start_counts_as_dev_null() {
    let mut shell = Command::new("sh");
    let ended = shell.args(["-c", "exec \"$0\" --version >&-"]).arg(env!("CARGO_BIN_EXE_cloudy")).output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_copied_data_directory_is_noticed_without_a_master() {
    let cluster = Cluster::new();
    let [first, second] = ["first", "second"].map(|name| cluster.path(name));
    let start = |data: &Path| cluster.slave(&["--data", &data.display().to_string()]);
    let (slave, _) = start(&first);
    slave.signal("INT");
    slave.end();
    assert!(Command::new("cp").arg("-r").args([&first, &second]).status().expect("cp").success());
    let (mut one, _) = start(&first);
    let (two, _) = start(&second);
    two.end().failed_with(&["another process has this node's identity", "data directory"]);
    one.wait_for("another process has the identity of this node");
    one.signal("TERM");
    assert_eq!(one.end().code(), Some(0));
}
