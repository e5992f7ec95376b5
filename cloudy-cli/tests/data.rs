//! `cloudy data`: directories of nodes that do not run.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cloudy_node::{DataDir, Durability, Group, GroupConfig, Node, Parameters, key_file};
use common::{Cluster, Ended, Running, cloudy, free_port, run, until};
use serde_json::Value;

/// A running group on disk.
struct Members {
    nodes: Vec<Node>,
    groups: Vec<Group>,
}

async fn members(cluster: &Cluster, count: usize) -> Members {
    let keys = key_file::load_keys(&cluster.key).unwrap();
    let mut nodes = Vec::new();
    for at in 0..count {
        let dir = DataDir::open(&cluster.path(&format!("data-{at}")), true).unwrap();
        let identity = dir.identity(keys.primary()).unwrap();
        nodes.push(Node::builder().identity(identity).data_dir(dir).start().await.unwrap());
    }
    let parameters = Parameters::default().durability(Durability::Disk);
    let address = nodes[0].local_addr();
    let joining = nodes[1..]
        .iter()
        .cloned()
        .map(|joiner| tokio::spawn(async move { joiner.join_group_at("orders", address).await.unwrap() }));
    let joining: Vec<_> = joining.collect();
    let config = GroupConfig::default().parameters(parameters);
    let mut groups = vec![nodes[0].create_group("orders", count, config).await.unwrap()];
    for joining in joining {
        groups.push(joining.await.unwrap());
    }
    Members { nodes, groups }
}

/// A running group of two, on disk.
struct Pair {
    nodes: Vec<Node>,
    group: Group,
}

async fn pair(cluster: &Cluster) -> Pair {
    let Members { nodes, mut groups } = members(cluster, 2).await;
    let (other, group) = (groups.pop().unwrap(), groups.pop().unwrap());
    for number in 0..300 {
        let group = if number % 2 == 0 { &group } else { &other };
        drop(group.broadcast(format!("order {number} \u{e9}")).await.unwrap());
    }
    group.flush().await.unwrap();
    other.flush().await.unwrap();
    Pair { nodes, group }
}

/// Ends nodes without an announcement, as a crash does, and waits until their directories are free. No group of theirs
/// may have a handle.
async fn crash(nodes: Vec<Node>, directories: &[PathBuf]) {
    drop(nodes);
    for directory in directories {
        while DataDir::open(directory, false).is_err() {
            // sleep: a directory that becomes free is no event.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Where nothing answers, the time to wait for it does not matter.
const UNANSWERED: [&str; 2] = ["--answer-timeout", "100ms"];

fn data(args: &[&str], directory: &Path, more: &[&str]) -> Command {
    let mut command = cloudy(&["data"]);
    command.args(args).arg(directory).args(more);
    command
}

/// The complete lines of a file.
fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(str::to_owned).collect()
}

fn good(ended: &Ended) -> &str {
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    &ended.stdout
}

#[tokio::test]
async fn an_export_of_a_stopped_node_is_what_tail_prints_of_a_running_one() {
    let cluster = Cluster::new();
    let Pair { nodes, group } = pair(&cluster).await;
    let tailed = cluster.path("tailed");
    let mut tail = cloudy(&["tail", &nodes[0].local_addr().to_string(), "--group", "orders", "--from", "1"]);
    tail.arg("--cluster-key").arg(&cluster.key).stdout(fs::File::create(&tailed).unwrap());
    let mut tail = tail.spawn().unwrap();
    let output = tailed.clone();
    // The nodes of this process run meanwhile.
    let waited = tokio::task::spawn_blocking(move || {
        until("tail has all", || lines_of(&output).iter().filter(|line| line.contains("\"origin\"")).count() == 300);
    });
    waited.await.unwrap();
    tail.kill().and_then(|()| tail.wait()).unwrap();
    let directory = cluster.path("data-0");
    for command in ["inspect", "verify", "export"] {
        run(data(&[command], &directory, &[])).failed_with(&["is in use by another process", "stop that one"]);
    }
    for node in nodes.iter().rev() {
        node.shutdown().await;
    }
    let exported = run(data(&["export"], &directory, &["--group", "orders"]));
    let exported: Vec<&str> = good(&exported).lines().collect();
    let tailed = lines_of(&tailed);
    assert_eq!(exported[..tailed.len()], tailed, "the lines differ");
    // Views that began while the nodes were shut down may follow.
    assert!(exported[tailed.len()..].iter().all(|line| line.contains("members")), "{exported:#?}");
    let text = run(data(&["export"], &directory, &["--format", "text"]));
    assert_eq!(good(&text).lines().count(), 300);
    assert!(good(&text).lines().all(|line| line.starts_with("order ")), "{text:#?}");
    let late = run(data(&["export"], &directory, &["--from", "299"]));
    assert_eq!(good(&late).lines().filter(|line| line.contains("\"origin\"")).count(), 2);
    let inspected = run(data(&["inspect"], &directory, &["--json"])).json();
    let described = &inspected["groups"][0];
    assert_eq!((described["id"].as_str(), described["last"].as_u64()), (Some(&*group.id().to_string()), Some(300)));
    // The other node announced that it stops, and this one continued.
    assert_eq!(described["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(inspected["node"].as_str(), Some(&*nodes[0].id().to_string()));
    let text = run(data(&["inspect"], &directory, &[]));
    for words in ["messages   1 to 300", "this node", "slots"] {
        assert!(good(&text).contains(words), "no {words:?} in {text:#?}");
    }
    assert!(good(&run(data(&["verify"], &directory, &[]))).contains("are good"));
    run(data(&["export"], &directory, &["--group", "none"])).failed_with(&["has no group \"none\"", "orders"]);
    run(data(&["inspect"], &cluster.path("missing"), &[])).failed_with(&["there is no data directory"]);
}

#[tokio::test]
async fn an_imported_group_is_new_has_the_same_messages_and_runs() {
    let cluster = Cluster::new();
    let Pair { nodes, group } = pair(&cluster).await;
    for node in &nodes {
        node.shutdown().await;
    }
    let (exported, new) = (cluster.path("exported"), cluster.path("new"));
    fs::write(&exported, good(&run(data(&["export"], &cluster.path("data-1"), &[])))).unwrap();
    let from = exported.display().to_string();
    let imported = run(data(&["import"], &new, &[&from, "--group", "copies"]));
    let text = good(&imported);
    let id = text.lines().find_map(|line| line.strip_prefix("group ")).unwrap();
    assert!(text.contains("new group \"copies\" with 300 messages") && id != group.id().to_string(), "{text}");
    run(data(&["import"], &new, &[&from, "--group", "copies"])).failed_with(&["name a new or empty directory"]);
    let port = free_port().to_string();
    let at = format!("127.0.0.1:{port}");
    let mut member = cloudy(&["join", "copies", "--bind", &at, "--seed", &at, "--stay", "--data"]);
    member.arg(&new).arg("--cluster-key").arg(&cluster.key);
    let mut member = Running::start(member);
    assert!(member.wait_for("in group").contains(id));
    let tailed = cluster.path("tailed");
    let mut tail = cloudy(&["tail", &at, "--group", "copies"]);
    tail.arg("--cluster-key").arg(&cluster.key).stdout(fs::File::create(&tailed).unwrap());
    let mut tail = tail.spawn().unwrap();
    let payloads = |lines: &[String]| {
        let objects = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let objects = objects.filter(|object| object["origin"].is_string());
        objects
            .map(|object| (object["index"].clone(), object["text"].clone(), object["base64"].clone()))
            .collect::<Vec<_>>()
    };
    let expected = payloads(&lines_of(&exported));
    until("the member has all messages", || payloads(&lines_of(&tailed)).len() >= expected.len());
    assert_eq!(payloads(&lines_of(&tailed)), expected);
    tail.kill().and_then(|()| tail.wait()).unwrap();
}

#[test]
fn a_wrong_import_names_the_line_and_leaves_nothing() {
    let cluster = Cluster::new();
    let (lines, new) = (cluster.path("lines"), cluster.path("new"));
    let file = lines.display().to_string();
    for (text, words) in [
        ("{\"index\":1,\"text\":\"a\"}\nno JSON\n", &["line 2", "no JSON object"][..]),
        ("{\"index\":1,\"text\":\"a\"}\n{\"index\":3,\"text\":\"c\"}\n", &["line 2", "index 3", "2 comes next"]),
        ("{\"index\":7,\"text\":\"a\"}\n", &["begin with index 7", "--renumber"]),
        ("{\"index\":1,\"text\":\"a\"}\n{\"count\":2}\n", &["it counts 2 messages, and 1 precede it"]),
    ] {
        fs::write(&lines, text).unwrap();
        run(data(&["import"], &new, &[&file, "--group", "orders"])).failed_with(words);
        assert!(!new.exists(), "{text}");
    }
    fs::write(&lines, "{\"index\":7,\"text\":\"a\"}\n").unwrap();
    assert!(
        good(&run(data(&["import"], &new, &[&file, "--group", "orders", "--renumber"]))).contains("with 1 messages")
    );
}

#[tokio::test]
async fn damage_is_named_and_sets_the_status() {
    let cluster = Cluster::new();
    let Pair { nodes, .. } = pair(&cluster).await;
    for node in &nodes {
        node.shutdown().await;
    }
    let directory = cluster.path("data-0");
    let file = directory.join("cloudy.redb");
    let mut image = fs::read(&file).unwrap();
    let payload = "order 137 \u{e9}".as_bytes();
    let places: Vec<usize> = (0..image.len()).filter(|at| image[*at..].starts_with(payload)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| image[at + 6] ^= 1);
    fs::write(&file, image).unwrap();
    let verified = run(data(&["verify"], &directory, &[]));
    assert_eq!(verified.code(), Some(1), "{verified:#?}");
    assert!(verified.stdout.contains("damaged: table slots, record 0"), "{verified:#?}");
    assert!(verified.stderr.contains("help: check the disk") && !verified.stderr.contains("panicked"), "{verified:#?}");
    let verified = run(data(&["verify"], &directory, &["--json"]));
    let damage = serde_json::from_str::<Value>(&verified.stdout).unwrap()["damage"][0].clone();
    assert_eq!((verified.code(), damage["table"].as_str()), (Some(1), Some("slots")), "{damage}");
    run(data(&["export"], &directory, &[])).failed_with(&["was altered on disk"]);
}

#[tokio::test]
async fn a_group_is_recovered_only_if_no_member_answers_and_the_others_are_given_up() {
    let cluster = Cluster::new();
    let Pair { mut nodes, group } = pair(&cluster).await;
    let former = group.id();
    drop(group);
    let directory = cluster.path("data-0");
    crash(vec![nodes.remove(0)], std::slice::from_ref(&directory)).await;
    let other = &nodes[0];
    let recover = |more: &[&str]| {
        let mut command = data(&["recover"], &directory, more);
        command.arg("--cluster-key").arg(&cluster.key);
        command
    };
    // The other node runs meanwhile.
    let refused = recover(&["--others-are-lost"]);
    let refused = tokio::task::spawn_blocking(move || run(refused)).await.unwrap();
    refused.failed_with(&["the group is not lost", "and is a member", "start this node again"]);
    other.shutdown().await;
    run(recover(&UNANSWERED)).failed_with(&["no other member answers", &other.id().to_string(), "--others-are-lost"]);
    let command = recover(&[&["--others-are-lost"], &UNANSWERED[..]].concat());
    let recovered = run(command);
    let text = good(&recovered);
    for words in ["as the new group", "messages  1 to 300: ", "missing   ", "excluded  ", &former.to_string()] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let inspected = run(data(&["inspect"], &directory, &["--json"])).json();
    assert_ne!(inspected["groups"][0]["id"].as_str(), Some(&*former.to_string()));
    assert_eq!(inspected["groups"][0]["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(inspected["groups"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_group_that_has_not_ended_is_forgotten_only_by_force() {
    let cluster = Cluster::new();
    let Pair { nodes, group } = pair(&cluster).await;
    let directory = cluster.path("data-0");
    let forget = |more: &[&str]| run(data(&["forget"], &directory, &[&["orders"], more].concat()));
    forget(&["--yes", "--force"]).failed_with(&["is in use by another process"]);
    for node in &nodes {
        node.shutdown().await;
    }
    forget(&["--yes"]).failed_with(&["has not ended", "nothing was deleted", "--force"]);
    forget(&["--force"]).failed_with(&["nothing is deleted yet", "--yes"]);
    assert_eq!(run(data(&["inspect"], &directory, &["--json"])).json()["groups"][0]["name"], "orders");
    assert!(good(&forget(&["--yes", "--force"])).contains(&group.id().to_string()));
    assert_eq!(run(data(&["inspect"], &directory, &["--json"])).json()["groups"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_member_whose_voters_are_lost_names_them_and_the_way_out_and_so_does_a_node_that_joins() {
    let cluster = Cluster::new();
    let Members { nodes, groups } = members(&cluster, 3).await;
    for group in &groups {
        while group.status().await.unwrap().voters.len() < 3 {
            // sleep: a voter that is admitted is no event.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let (addresses, names): (Vec<_>, Vec<_>) =
        nodes.iter().map(|node| (node.local_addr().to_string(), node.id().short())).unzip();
    drop(groups);
    crash(nodes, &[0, 1, 2].map(|at| cluster.path(&format!("data-{at}")))).await;
    // The disks of two are lost, and their nodes start again.
    [1, 2].iter().for_each(|at| fs::remove_dir_all(cluster.path(&format!("data-{at}"))).unwrap());
    let start = |at: usize| {
        let mut command = cloudy(&["join", "orders", "--stay", "--durability", "disk", "--expect", "3", "--bind"]);
        command.arg(&addresses[at]).arg("--data").arg(cluster.path(&format!("data-{at}")));
        command.arg("--cluster-key").arg(&cluster.key).args(addresses.iter().flat_map(|seed| ["--seed", seed]));
        Running::start(command)
    };
    let mut started = [0, 1].map(start);
    for member in &mut started {
        let line = member.wait_for("the group needs 1 of these nodes to continue");
        for at in [1, 2] {
            assert!(line.contains(&format!("node {}, last at {}", names[at], addresses[at])), "{line}");
        }
        assert!(line.contains("`cloudy data recover DIR`"), "{line}");
    }
}
