//! `cloudy join`: members of a group for programs in any language.

mod common;

use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Cluster, cloudy, free_port, until};
use serde_json::Value;

/// A member that runs, with its output in a file.
struct Member {
    child: Child,
    output: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended.
        drop((self.child.kill(), self.child.wait()));
    }
}

fn ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

fn join(cluster: &Cluster, own: u16, ports: &[u16], more: &[&str]) -> Command {
    let mut command = cloudy(&["join", "orders", "--bind", &format!("127.0.0.1:{own}")]);
    command.arg("--cluster-key").arg(&cluster.key).args(["--expect", &ports.len().to_string()]).args(more);
    for port in ports {
        command.args(["--seed", &format!("127.0.0.1:{port}")]);
    }
    command
}

fn start(mut command: Command, output: &Path) -> Member {
    let stdout = File::create(output).unwrap();
    let child = command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::inherit()).spawn().unwrap();
    Member { child, output: output.to_owned() }
}

impl Member {
    fn send(&mut self, name: &str, count: usize) {
        let stdin = self.child.stdin.as_mut().unwrap();
        (0..count).for_each(|number| writeln!(stdin, "{name} {number}").unwrap());
    }

    /// The complete lines that have a field.
    fn lines(&self, field: &str) -> Vec<Value> {
        let text = read_to_string(&self.output).unwrap();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = complete.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| !line[field].is_null()).collect()
    }
}

#[test]
fn three_members_print_equal_sequences_and_one_continues_after_kill() {
    const COUNT: usize = 500;
    let (cluster, ports) = (Cluster::new(), ports::<3>());
    let data: Vec<String> = (0..3).map(|at| cluster.path(&format!("data-{at}")).display().to_string()).collect();
    let more = |at: usize| ["--data", data[at].as_str(), "--durability", "disk", "--stay"].map(str::to_owned);
    let begin = |at: usize, from: usize, output: &str| {
        let (more, from) = (more(at), from.to_string());
        let more: Vec<&str> = more.iter().map(String::as_str).chain(["--from", &from]).collect();
        start(join(&cluster, ports[at], &ports, &more), &cluster.path(output))
    };
    let mut members: Vec<Member> = (0..3).map(|at| begin(at, 1, &format!("output-{at}"))).collect();
    members.iter_mut().zip(["a", "b", "c"]).for_each(|(member, name)| member.send(name, COUNT));
    until("all have the result", || members.iter().all(|member| member.lines("text").len() == 3 * COUNT));
    until("all have their receipts", || members.iter().all(|member| member.lines("receipt").len() == COUNT));
    let first = members[0].lines("text");
    assert!(members[1..].iter().all(|member| member.lines("text") == first), "the sequences differ");
    assert!(first.iter().zip(1..).all(|(line, index)| line["index"] == index), "an index is missing");
    assert!(members.iter().all(|member| !member.lines("view").is_empty()));
    // The last member is killed, and the others continue.
    let mut killed = members.pop().unwrap();
    killed.child.kill().unwrap();
    let mut texts = killed.lines("text");
    drop(killed);
    members[0].send("later", COUNT);
    members.push(begin(2, texts.len() + 1, "output-again"));
    let total = 4 * COUNT;
    until("the others have the result", || members[..2].iter().all(|member| member.lines("text").len() == total));
    until("it has the rest", || members[2].lines("text").len() == total - texts.len());
    texts.extend(members[2].lines("text"));
    assert_eq!(texts, members[0].lines("text"), "there is a gap or a repeat");
}

#[test]
fn at_the_end_of_its_input_a_member_waits_for_its_receipts_and_leaves() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let seen = cluster.path("seen").display().to_string();
    let exec = format!("cat >> {seen}; echo \" at $CLOUDY_INDEX\" >> {seen}");
    let mut command = join(&cluster, port, &[port], &["--exec", &exec]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\ntwo\n\xff\xfe").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |field: &str| lines.iter().filter(|line| !line[field].is_null()).cloned().collect::<Vec<_>>();
    assert_eq!(with("text").iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((with("base64")[0]["base64"].as_str(), with("base64")[0]["index"].as_u64()), (Some("//4="), Some(3)));
    assert_eq!(with("receipt").iter().map(|line| line["index"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let seen = String::from_utf8_lossy(&std::fs::read(&seen).unwrap()).into_owned();
    assert_eq!(seen.lines().take(2).collect::<Vec<_>>(), ["one at 1", "two at 2"], "{seen:?}");
}

#[test]
fn a_member_that_finds_no_group_names_its_seeds_and_their_answers() {
    let (cluster, [own, other]) = (Cluster::new(), ports::<2>());
    let mut command = join(&cluster, own, &[own, other], &["--open-timeout", "1s"]);
    let ended = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    let words = error.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("was not opened within 1s") && words.contains(&format!("127.0.0.1:{other}")), "{error}");
}
