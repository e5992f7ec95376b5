//! `cloudy join`: members of a group for programs in any language.

mod common;

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use common::{Cluster, Running, cloudy, free_port, until};
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
    let stdout = File::options().append(true).create(true).open(output).unwrap();
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

/// The number of lines of each member: 100,000 where that takes no matter.
fn count() -> usize {
    std::env::var("CLOUDY_TEST_JOIN_LINES").map_or(500, |count| count.parse().unwrap())
}

#[test]
fn three_members_print_equal_sequences_and_one_continues_after_kill() {
    let (cluster, ports, count) = (Cluster::new(), ports::<3>(), count());
    let data: Vec<String> = (0..3).map(|at| cluster.path(&format!("data-{at}")).display().to_string()).collect();
    let begin = |at: usize| {
        let more = ["--data", data[at].as_str(), "--durability", "disk", "--stay"];
        start(join(&cluster, ports[at], &ports, &more), &cluster.path(&format!("output-{at}")))
    };
    let mut members: Vec<Member> = (0..3).map(begin).collect();
    members.iter_mut().zip(["a", "b", "c"]).for_each(|(member, name)| member.send(name, count));
    until("all have the result", || members.iter().all(|member| member.lines("text").len() == 3 * count));
    until("all have their receipts", || members.iter().all(|member| member.lines("receipt").len() == count));
    let first = members[0].lines("text");
    assert!(members[1..].iter().all(|member| member.lines("text") == first), "the sequences differ");
    assert!(first.iter().zip(1..).all(|(line, index)| line["index"] == index), "an index is missing");
    // The last member is killed while it prints, and the others continue.
    members[0].send("later", count);
    until("the last one prints more", || members[2].lines("text").len() > 3 * count);
    members.pop().unwrap().child.kill().unwrap();
    members[1].send("without", count);
    let total = 5 * count;
    until("the others have the result", || members.iter().all(|member| member.lines("text").len() == total));
    members.push(begin(2));
    until("it has the rest", || members[2].lines("text").len() >= total);
    members[1].send("again", 1);
    until("all have the last message", || members.iter().all(|member| member.lines("text").len() > total));
    let expected = members[0].lines("text");
    assert_eq!(members[2].lines("text"), expected, "there is a gap or a repeat");
    // It was evicted and is back, or its absence was too short for that: in both cases it has printed each view once.
    let views = |member: &Member| {
        let views = member.lines("members").into_iter().map(|view| view["view"].as_u64().unwrap());
        views.collect::<Vec<_>>()
    };
    until("all have the same views", || views(&members[2]) == views(&members[0]));
}

#[test]
fn a_member_continues_for_another_reader_where_it_stopped_unless_it_gets_an_index() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let data = cluster.path("data").display().to_string();
    let mut run = 0..;
    let mut prints = |more: &[&str], input: &str, (expected, next): (&[&str], usize)| {
        let more = [&["--data", data.as_str(), "--durability", "disk", "--stay"], more].concat();
        let output = cluster.path(&format!("output-{}", run.next().unwrap()));
        let mut member = start(join(&cluster, port, &[port], &more), &output);
        member.child.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        until("the result is printed", || member.lines("text").len() >= expected.len());
        let stored = || std::fs::read_to_string(cluster.path("data/join.position")).unwrap();
        // Up to where it is printed, and is being printed.
        until("the position is stored", || stored().contains(&format!(" {next:020} {next:020} ")));
        // It is killed and has not left, so its group continues.
        member.child.kill().unwrap();
        let lines = member.lines("text");
        assert_eq!(lines.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    };
    prints(&[], "one\ntwo\n", (&["one", "two"], 3));
    prints(&[], "three\n", (&["three"], 4));
    prints(&["--from", "2"], "four\n", (&["two", "three", "four"], 5));
    prints(&[], "five\n", (&["five"], 6));
}

#[test]
fn a_tail_prints_the_last_messages_or_new_ones_in_three_forms() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let mut member = start(join(&cluster, port, &[port], &["--stay"]), &cluster.path("output"));
    let tail = |more: &[&str]| {
        let mut command = cloudy(&["tail", "--group", "orders", "--seed", &format!("127.0.0.1:{port}")]);
        command.args(["--seed", "127.0.0.1:9", "--cluster-key"]).arg(&cluster.key).args(more);
        Running::start(command)
    };
    // An empty result has a length too: new messages are all.
    let new = tail(&["--new", "--count", "2", "--format", "base64"]);
    until("the group is open", || !member.lines("members").is_empty());
    member.child.stdin.as_mut().unwrap().write_all(b"one\ntwo\n\xff\xfe\nfour\n").unwrap();
    until("all is in the result", || member.lines("receipt").len() == 4);
    let printed = |tail: Running| {
        let ended = tail.end();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        ended.stdout
    };
    assert_eq!(printed(tail(&["--count", "2", "--format", "text"])), "one\ntwo\n");
    assert_eq!(printed(tail(&["--last", "2", "--count", "2", "--format", "base64"])), "//4=\nZm91cg==\n");
    assert_eq!(printed(tail(&["--last", "9", "--count", "1", "--format", "text"])), "one\n");
    let json = printed(tail(&["--last", "2", "--count", "2"]));
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<&Value> = lines.iter().filter(|line| line["members"].is_null()).collect();
    assert_eq!(messages.len(), 2, "{json}");
    assert_eq!((&messages[0]["base64"], &messages[1]["text"]), (&"//4=".into(), &"four".into()), "{json}");
    assert_eq!(messages[0]["index"], 3, "{json}");
    // It began before the messages, or after some of them.
    member.child.stdin.as_mut().unwrap().write_all(b"five\nsix\n").unwrap();
    let text = printed(new);
    let all = ["b25l", "dHdv", "//4=", "Zm91cg==", "Zml2ZQ==", "c2l4"];
    assert!(all.windows(2).any(|pair| text.lines().eq(pair.iter().copied())), "{text:?}");
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

/// A paused member keeps a group of two from accepting further lines.
#[test]
#[cfg(unix)]
fn a_line_that_expires_is_named_and_in_no_result() {
    let (cluster, ports) = (Cluster::new(), ports::<2>());
    let begin = |at: usize| {
        let more = ["--stay", "--expire", "200ms"];
        start(join(&cluster, ports[at], &ports, &more), &cluster.path(&format!("output-{at}")))
    };
    let mut members = [begin(0), begin(1)];
    members[0].send("first", 1);
    until("both have a message", || members.iter().all(|member| member.lines("text").len() == 1));
    let paused = members[1].child.id().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &paused]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    let mut sent = 1;
    let stdin = members[0].child.stdin.take();
    let (mut stdin, first) = (stdin.unwrap(), &members[0]);
    until("a line expires", || {
        // A few of them fill the window.
        writeln!(stdin, "{} {}", sent + 1, "x".repeat(64 << 10)).unwrap();
        sent += 1;
        !first.lines("expired").is_empty()
    });
    signal("-CONT");
    let numbers = |field: &str, number: &str| -> Vec<u64> {
        first.lines(field).iter().map(|line| line[number].as_u64().unwrap()).collect()
    };
    until("each line has an outcome", || {
        numbers("receipt", "line").len() + numbers("expired", "expired").len() == sent
    });
    let accepted = &numbers("receipt", "line")[1..];
    until("the other has the result", || members[1].lines("text").len() == accepted.len() + 1);
    let of = |line: &Value| line["text"].as_str().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(members[1].lines("text")[1..].iter().map(of).collect::<Vec<_>>(), accepted);
}

/// A member that is in its group, with stdin and stderr of its own.
struct Piped(Child, BufReader<ChildStderr>, Vec<String>);

impl Piped {
    fn start(mut command: Command, stdout: impl Into<Stdio>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.contains("in group")) {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it has ended: {said:?}");
            said.push(line);
        }
        Self(child, stderr, said)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Its status, and the words on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let mut words = String::new();
        self.1.read_to_string(&mut words).unwrap();
        (self.0.wait().unwrap().code(), words.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn a_group_that_all_have_left_takes_no_lines_until_it_is_forgotten() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let data = cluster.path("data").display().to_string();
    let run = |input: &str| {
        let more = ["--data", &data, "--durability", "disk", "--from", "1"];
        let output = cluster.path("output");
        let mut member = Piped::start(join(&cluster, port, &[port], &more), File::create(&output).unwrap());
        // It may have ended.
        drop(member.0.stdin.take().unwrap().write_all(input.as_bytes()));
        (member.end(), read_to_string(&output).unwrap())
    };
    let ((status, words), _) = run("one\n");
    assert_eq!(status, Some(0), "{words}");
    // Its only member has left, which closes a group.
    let ((status, words), output) = run("two\n");
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("group \"orders\": it is closed") && words.contains("cloudy data forget"), "{words}");
    assert!(output.contains("\"text\":\"one\"") && !output.contains("receipt"), "{output}");
    let forget = |more: &[&str]| common::run(cloudy(&[&["data", "forget", &data, "orders"], more].concat()));
    forget(&[]).failed_with(&["group \"orders\"", "nothing is deleted yet", "--yes"]);
    let forgotten = forget(&["--yes"]);
    assert!(forgotten.code() == Some(0) && forgotten.stdout.contains("deleted group \"orders\""), "{forgotten:?}");
    forget(&["--yes"]).failed_with(&["has no group"]);
    let ((status, words), output) = run("three\n");
    assert_eq!(status, Some(0), "{words}");
    assert!(output.contains("\"text\":\"three\"") && !output.contains("one"), "{output}");
}

#[test]
fn members_that_leave_beside_a_dead_one_end_soon_and_one_of_them_names_it() {
    let (cluster, ports) = (Cluster::new(), ports::<3>());
    let begin =
        |at: usize| Piped::start(join(&cluster, ports[at], &ports, &["--heir-timeout", "300ms"]), Stdio::null());
    let mut members = std::thread::scope(|scope| {
        let begun = [0, 1, 2].map(|at| scope.spawn(move || begin(at)));
        begun.map(|member| member.join().unwrap()).into_iter().collect::<Vec<_>>()
    });
    // The creator has the first vote.
    members.sort_by_key(|member| !member.2.iter().any(|line| line.starts_with("creates the group with")));
    members.pop().unwrap().0.kill().unwrap();
    members.iter_mut().for_each(|member| drop(member.0.stdin.take()));
    let ended: Vec<_> = members.into_iter().map(Piped::end).collect();
    assert!(ended.iter().all(|(status, _)| *status == Some(0)), "{ended:?}");
    let named = ended.iter().filter(|(_, words)| words.contains("no other member is left to hand over to"));
    assert_eq!(named.count(), 1, "{ended:?}");
}

#[test]
#[cfg(unix)]
fn a_member_whose_command_hangs_ends_after_a_signal_and_names_the_message() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let begun = cluster.path("begun");
    let exec = format!("touch {}; exec sleep 1000", begun.display());
    let mut member = Piped::start(join(&cluster, port, &[port], &["--exec", &exec]), Stdio::null());
    member.0.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    until("the command runs", || begun.exists());
    member.signal("TERM");
    let (status, words) = member.end();
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("the command for the message at index 1") && words.contains("--from 1"), "{words}");
}

#[test]
#[cfg(unix)]
fn a_member_whose_output_is_not_read_ends_after_a_signal() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let (stdout, _reader) = common::blocked();
    let member = Piped::start(join(&cluster, port, &[port], &[]), stdout);
    // Its first view is not printed.
    member.signal("TERM");
    let (status, words) = member.end();
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("standard output has no reader"), "{words}");
}

#[test]
#[cfg(unix)]
fn a_member_whose_reader_is_gone_ends_without_a_message() {
    let (cluster, [port]) = (Cluster::new(), ports::<1>());
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let member = Piped::start(join(&cluster, port, &[port], &[]), stdout);
    let (status, words) = member.end();
    assert_eq!(status, Some(141), "{words}");
    assert!(!words.contains("error"), "{words}");
}
