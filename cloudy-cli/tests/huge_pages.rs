//! Started again with an allocator that asks for huge pages: once at most, and always this program.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, Running, cloudy, listening, run};

fn arguments_of(process: u32) -> Vec<String> {
    let arguments = fs::read(format!("/proc/{process}/cmdline")).expect("its arguments");
    let arguments = arguments.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned());
    arguments.collect()
}

/// Its environment sets the allocator's tunables.
fn has_tunables(process: u32) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).expect("its environment");
    environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(b"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"))
}

/// The loader that this program is linked to, from the test's own memory.
fn loader() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("its mappings");
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    paths.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")))
}

/// A library that takes the tunables out of the environment, as glibc 2.39 does for programs with capabilities.
fn scrubber(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("scrub.c"), directory.join("scrub.so"));
    let text =
        "#include <stdlib.h>\n__attribute__((constructor)) static void scrub(void) { unsetenv(\"GLIBC_TUNABLES\"); }";
    fs::write(&source, text).expect("written");
    // The linker that this test was built with is a compiler's.
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.expect("cc").success());
    library
}

#[test]
fn a_node_has_huge_pages_and_its_name_and_may_be_started_without() {
    let cluster = Cluster::new();
    let (slave, _) = cluster.slave(&[]);
    assert!(has_tunables(slave.id()));
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", slave.id())).expect("a name"), "cloudy\n");
    let (without, _) = cluster.slave(&["--no-huge-pages"]);
    assert!(!has_tunables(without.id()));
    let mut command = cluster.node(&["slave", "127.0.0.1", "0"]);
    command.env("GLIBC_TUNABLES", "");
    let (without, _) = listening(Running::start(command));
    assert!(!has_tunables(without.id()) && !arguments_of(without.id()).contains(&"--no-huge-pages".to_owned()));
}

#[test]
fn a_supervised_node_gets_them_from_its_supervisor() {
    let cluster = Cluster::new();
    let (supervisor, _) = cluster.slave(&["--supervise"]);
    let id = supervisor.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
    let child = children.trim().parse().expect("one child");
    assert!(has_tunables(child) && !has_tunables(id));
    assert_eq!(fs::read_to_string(format!("/proc/{child}/comm")).expect("a name"), "cloudy\n");
}

#[test]
fn where_the_environment_is_scrubbed_a_node_starts_again_once() {
    let cluster = Cluster::new();
    let mut command = cluster.node(&["slave", "127.0.0.1", "0"]);
    command.env("LD_PRELOAD", scrubber(cluster.dir.path()));
    let (slave, _) = listening(Running::start(command));
    let again = arguments_of(slave.id()).iter().filter(|argument| *argument == "--no-huge-pages").count();
    assert_eq!(again, 1, "started again once");
    slave.signal("TERM");
    assert_eq!(slave.end().code(), Some(0));
}

#[test]
fn a_program_that_was_given_to_the_loader_stays_itself_and_so_do_its_processes() {
    let Some(loader) = loader() else { return };
    let version = Command::new(&loader).arg(env!("CARGO_BIN_EXE_cloudy")).arg("--version").output().expect("run");
    assert_eq!(version.stdout, cloudy(&["--version"]).output().expect("run").stdout);
    let mut command = Command::new(&loader);
    command.arg(env!("CARGO_BIN_EXE_cloudy")).args(["demo", "--nodes", "2", "--send", "200ms", "--grace", "300ms"]);
    let ended = run(command);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let cluster = Cluster::new();
    let slave = cluster.node(&["slave", "127.0.0.1", "0"]);
    let mut command = Command::new(&loader);
    command.arg(slave.get_program()).args(slave.get_args());
    let (slave, _) = listening(Running::start(command));
    slave.signal("TERM");
    assert_eq!(slave.end().code(), Some(0));
}
