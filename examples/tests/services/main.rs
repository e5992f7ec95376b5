//! Processes of the examples `chat` and `worker`.

#![cfg(target_os = "linux")]

#[path = "../kv/client.rs"]
#[expect(dead_code, reason = "kv uses the rest")]
mod client;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::{events, get, request};
use futures_util::future::join_all;
use tempfile::TempDir;

/// Against hanging: far above the usual time.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Waits for a state that nothing announces.
async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let reaches = async {
        while !reached().await {
            // sleep: between two checks.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HANGS_AFTER, reaches).await.unwrap_or_else(|_| panic!("it does not come: {what}"));
}

/// An address of this test process alone.
fn address(port: usize) -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 + high % 64, middle, low), port as u16).into()
}

/// Processes that are killed at the end.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // It may have ended.
            drop((process.kill(), process.wait()));
        }
    }
}

/// Starts three equal processes: with options of each.
fn start(program: &str, key: &Path, port: usize, options: impl Fn(usize) -> Vec<String>) -> Processes {
    let processes = (0..3).map(|at| {
        let mut command = Command::new(program);
        command.arg("--key").arg(key).args(["--expect", "3", "--bind", &address(port + at).to_string()]);
        for seed in 0..3 {
            command.args(["--seed", &address(port + seed).to_string()]);
        }
        command.args(options(at)).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    });
    Processes(processes.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_at_all_instances_see_one_order_and_miss_nothing_when_they_connect_again() {
    const MESSAGES: usize = 30;
    let directory = TempDir::new().unwrap();
    let http = |at: usize| address(7_610 + at);
    let options = |at: usize| vec!["--http".to_owned(), http(at).to_string()];
    let _processes = start(env!("CARGO_BIN_EXE_chat"), &directory.path().join("key"), 7_600, options);
    for at in 0..3 {
        until("the page is served", async || get(http(at), "/").await.is_ok_and(|page| page.status == 200)).await;
    }
    let mut early = events(http(0), "GET /messages", "").await;
    let says = (0..MESSAGES).map(async |at| {
        let answer = request(http(at % 3), "POST /messages", &[], &format!("message {at}")).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.parse::<usize>().unwrap()
    });
    let mut indexes = join_all(says).await;
    indexes.sort_unstable();
    assert_eq!(indexes, (1..=MESSAGES).collect::<Vec<_>>());
    // Pairs of an index and a text.
    let seen = async |lines: &mut tokio::sync::mpsc::UnboundedReceiver<String>, count: usize| {
        let mut seen = Vec::new();
        while seen.len() < count {
            let line = tokio::time::timeout(HANGS_AFTER, lines.recv()).await.unwrap().unwrap();
            if let Some(id) = line.strip_prefix("id: ") {
                let text = lines.recv().await.unwrap();
                seen.push((id.parse::<usize>().unwrap(), text));
            }
        }
        seen
    };
    let all = seen(&mut early, MESSAGES).await;
    assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), indexes);
    let mut late = events(http(1), "GET /messages", "").await;
    assert_eq!(seen(&mut late, MESSAGES).await, all, "another instance shows another order");
    let mut again = events(http(2), "GET /messages", "last-event-id: 12\r\n").await;
    assert_eq!(seen(&mut again, MESSAGES - 12).await, all[12..], "it continues after its last event");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_of_a_worker_that_is_killed_is_done_by_another() {
    const TASKS: usize = 20;
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (done, held) = (path("done"), path("held"));
    // The first worker with task 7 says which process it is, and holds the task.
    let command = format!(
        "read task; echo $task >> {done}; \
         if [ $task = 7 ] && [ ! -e {held} ]; then echo $PPID > {held}.new; mv {held}.new {held}; \
         while [ -e {held} ]; do sleep 0.1; done; fi"
    );
    let options = |_| vec!["--exec".to_owned(), command.clone()];
    let key = directory.path().join("key");
    let mut processes = start(env!("CARGO_BIN_EXE_worker"), &key, 7_700, options);
    let mut stdin = processes.0[0].stdin.take().unwrap();
    (1..=TASKS).for_each(|task| writeln!(stdin, "{task}").unwrap());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    until("a worker holds task 7", async || !read(&held).is_empty()).await;
    let lines = || read(&done).lines().map(|line| line.parse().unwrap()).collect::<Vec<usize>>();
    // A worker that is evicted under load gives its task to another: each is done at least once.
    let tasks = || lines().into_iter().collect::<BTreeSet<usize>>();
    until("the others do the rest", async || tasks().len() == TASKS).await;
    assert_eq!(tasks(), (1..=TASKS).collect());
    let holder: u32 = read(&held).trim().parse().unwrap();
    let killed = processes.0.iter_mut().find(|process| process.id() == holder).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    until("another does task 7", async || lines().iter().filter(|task| **task == 7).count() >= 2).await;
}
