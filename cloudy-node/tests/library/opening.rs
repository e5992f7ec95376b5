//! Nodes open a group by its name: one group, or an error with the reason (`protocol.md` §7.1).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudy_node::fault::MemoryNetwork;
use cloudy_node::{ClusterKey, Durability, Group, GroupConfig, JoinError, Node, OpenEvent, OpenGroupError, Parameters};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::common::{key, read, until, within};
use crate::help::texts;
use crate::hosts::{Process, start_again, start_hosts};

const NAME: &str = "orders";

type Opened = JoinHandle<Result<Group, OpenGroupError>>;

/// A network in memory, in paused time, with a name service of its own.
struct World {
    key: ClusterKey,
    network: MemoryNetwork,
    names: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

fn seeds(of: impl IntoIterator<Item = u8>) -> Vec<String> {
    of.into_iter().map(|last| at(last).to_string()).collect()
}

impl World {
    fn new() -> Self {
        Self { key: key(), network: MemoryNetwork::new(7), names: Arc::default() }
    }

    async fn start(&self, last: u8) -> Node {
        let names = Arc::clone(&self.names);
        // Other names do not resolve: a lookup by the system takes real time.
        let resolver = move |seed: &str| match seed.parse::<SocketAddr>() {
            Ok(address) => Some(vec![address]),
            Err(_) => Some(names.lock().unwrap().get(seed).cloned().unwrap_or_default()),
        };
        let socket = self.network.bind(at(last)).unwrap();
        Node::builder().cluster_key(&self.key).socket(socket).resolver(resolver).start().await.unwrap()
    }

    async fn start_all(&self, count: u8) -> Vec<Node> {
        join_all((1..=count).map(|last| self.start(last))).await
    }

    fn cut(&self, one: &[u8], other: &[u8]) {
        one.iter().for_each(|&one| other.iter().for_each(|&other| self.network.cut(at(one), at(other))));
    }

    fn heal(&self, one: &[u8], other: &[u8]) {
        one.iter().for_each(|&one| other.iter().for_each(|&other| self.network.heal(at(one), at(other))));
    }
}

fn opening(node: &Node, seeds: Vec<String>, expect: usize) -> Opened {
    let node = node.clone();
    tokio::spawn(async move { node.group(NAME).seeds(seeds).bootstrap_expect(expect).open().await })
}

async fn opened(opening: Opened) -> Group {
    within("the group is open", opening).await.unwrap().unwrap()
}

/// All are in one group, and agree on what each broadcasts.
async fn is_one_group(groups: &[Group]) {
    assert!(groups.iter().all(|group| group.id() == groups[0].id()), "there are several groups");
    for group in groups {
        let receipt = within("it is taken", group.broadcast(group.node_id().short())).await.unwrap();
        within("an approval", receipt.into_future()).await.unwrap();
    }
    let first = read(&groups[0], 1, groups.len()).await;
    for group in &groups[1..] {
        assert_eq!(read(group, 1, groups.len()).await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn three_and_five_nodes_started_in_any_order_open_one_group() {
    for (count, order) in [(3, vec![3, 1, 2]), (3, vec![2, 3, 1]), (5, vec![5, 4, 3, 2, 1]), (5, vec![2, 5, 1, 3, 4])] {
        let world = World::new();
        let (mut nodes, mut openings) = (Vec::new(), Vec::new());
        for last in order {
            let node = world.start(last).await;
            openings.push(opening(&node, seeds(1..=count), count.into()));
            nodes.push(node);
            // sleep: the others start later, in paused time.
            sleep(Duration::from_millis(700 * u64::from(last))).await;
        }
        let groups = join_all(openings.into_iter().map(opened)).await;
        assert_eq!(groups[0].status().await.unwrap().view.unwrap().members(), usize::from(count));
        is_one_group(&groups).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_nodes_than_are_expected_join_the_group_that_the_others_create() {
    let world = World::new();
    let nodes = world.start_all(7).await;
    let openings: Vec<Opened> = nodes.iter().map(|node| opening(node, seeds(1..=5), 3)).collect();
    let groups = join_all(openings.into_iter().map(opened)).await;
    is_one_group(&groups).await;
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_resolves_late_is_found_and_a_wrong_one_harms_nothing() {
    let world = World::new();
    let nodes = world.start_all(3).await;
    let names = ["one.example:1", "two.example:1", "three.example:1", "wrong.example:1"].map(str::to_owned);
    for last in 2..=3 {
        world.names.lock().unwrap().insert(names[last - 1].clone(), vec![at(last as u8)]);
    }
    // Nothing listens there.
    world.names.lock().unwrap().insert(names[3].clone(), vec![at(99)]);
    let openings: Vec<Opened> = nodes.iter().map(|node| opening(node, names.to_vec(), 3)).collect();
    // sleep: several attempts fail before the name resolves, in paused time.
    sleep(Duration::from_secs(20)).await;
    assert!(openings.iter().all(|opening| !opening.is_finished()), "two of three seeds cannot be found");
    world.names.lock().unwrap().insert(names[0].clone(), vec![at(1)]);
    is_one_group(&join_all(openings.into_iter().map(opened)).await).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_know_only_the_first_are_introduced_to_each_other() {
    let world = World::new();
    let nodes = world.start_all(4).await;
    let openings: Vec<Opened> = nodes.iter().map(|node| opening(node, seeds([1]), 4)).collect();
    is_one_group(&join_all(openings.into_iter().map(opened)).await).await;
}

#[tokio::test(start_paused = true)]
async fn no_half_of_a_divided_network_creates_a_group() {
    let world = World::new();
    let nodes = world.start_all(4).await;
    let (one, other) = ([1, 2], [3, 4]);
    world.cut(&one, &other);
    let halves = nodes.iter().map(|node| {
        let open = node.group(NAME).seeds(seeds(1..=4)).bootstrap_expect(3).open();
        open.timeout(Duration::from_secs(30))
    });
    for late in join_all(halves).await {
        let Err(OpenGroupError::TimedOut(late)) = late else { panic!("{late:?}") };
        assert!(late.waits_for().starts_with("2 of 3 nodes are ready"), "{late}");
        assert_eq!(late.answers().iter().map(|answer| answer.from.clone()).collect::<Vec<_>>(), seeds(1..=4));
        let words = ["it is this node", "which opens the group too"];
        let reached = late.answers().iter().filter(|answer| words.iter().any(|words| answer.words.contains(words)));
        assert_eq!(reached.count(), 2, "{late}");
        assert!(late.to_string().contains("which opens the group too, linked to 1 others"), "{late}");
    }
    world.heal(&one, &other);
    let openings: Vec<Opened> = nodes.iter().map(|node| opening(node, seeds(1..=4), 3)).collect();
    is_one_group(&join_all(openings.into_iter().map(opened)).await).await;
}

#[tokio::test(start_paused = true)]
async fn too_few_expected_members_are_refused_also_where_a_node_does_not_list_itself() {
    let world = World::new();
    let nodes = world.start_all(4).await;
    let listed = nodes[0].group(NAME).seeds(seeds(1..=4)).bootstrap_expect(2).open().await.unwrap_err();
    assert!(matches!(listed, OpenGroupError::TooFewExpected { expect: 2, seeds: 4 }), "{listed}");
    assert!(listed.to_string().contains("not more than half of 4 seeds") && listed.to_string().ends_with("at least 3"));
    let openings = nodes.iter().zip(1..).map(|(node, own)| {
        let others = seeds((1..=4).filter(|&last| last != own));
        node.group(NAME).seeds(others).bootstrap_expect(2).open()
    });
    for refused in within("the answers", join_all(openings)).await {
        let Err(OpenGroupError::TooFewExpected { expect: 2, seeds: 4 }) = refused else { panic!("{refused:?}") };
    }
    let openings: Vec<Opened> = (1..)
        .zip(&nodes[..3])
        .map(|(own, node)| {
            let others = seeds((1..=3).filter(|&last| last != own));
            opening(node, others, 2)
        })
        .collect();
    is_one_group(&join_all(openings.into_iter().map(opened)).await).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_with_other_settings_are_named_with_both_values() {
    let world = World::new();
    let nodes = world.start_all(2).await;
    let fast = GroupConfig::default().parameters(Parameters::default().heartbeat(Duration::from_millis(20)));
    let seen = Mutex::new(Vec::new());
    let one = nodes[0].group(NAME).seeds(seeds(1..=2)).bootstrap_expect(2).config(fast);
    let one = one.on_progress(|event| seen.lock().unwrap().push(event)).open().timeout(Duration::from_secs(5));
    let other = nodes[1].group(NAME).seeds(seeds(1..=2)).bootstrap_expect(2).open().timeout(Duration::from_secs(5));
    let (one, other) = tokio::join!(one, other);
    for (error, words) in
        [(one, "heartbeat is 50ms there and 20ms here"), (other, "heartbeat is 20ms there and 50ms here")]
    {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let seen = seen.into_inner().unwrap();
    let differs =
        seen.iter().any(|event| matches!(event, OpenEvent::SettingsDiffer { node, .. } if *node == nodes[1].id()));
    assert!(differs, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_number_of_members_a_group_is_joined_and_never_created() {
    let world = World::new();
    let nodes = world.start_all(3).await;
    let late = nodes[1].group(NAME).seeds(seeds(1..=3)).open().timeout(Duration::from_secs(9)).await.unwrap_err();
    assert!(late.to_string().contains("without bootstrap_expect this node does not create it"), "{late}");
    assert!(late.to_string().contains("which knows no group of that name and does not open one"), "{late}");
    let joins = {
        let node = nodes[1].clone();
        tokio::spawn(async move { node.group(NAME).seeds(seeds(1..=3)).open().await })
    };
    let created = nodes[0].create_group(NAME, 1, GroupConfig::default()).await.unwrap();
    is_one_group(&[created, opened(joins).await]).await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_returns_the_same_group_and_a_dropped_one_withdraws() {
    let world = World::new();
    let nodes = world.start_all(3).await;
    // It gives up while it waits for the others.
    let given_up = nodes[0].group(NAME).seeds(seeds(1..=3)).bootstrap_expect(3).open();
    assert!(tokio::time::timeout(Duration::from_secs(3), given_up).await.is_err());
    let mut openings: Vec<Opened> = nodes[1..].iter().map(|node| opening(node, seeds(1..=3), 3)).collect();
    // sleep: in paused time, for what must not happen.
    sleep(Duration::from_secs(5)).await;
    assert!(openings.iter().all(|opening| !opening.is_finished()), "a node that has withdrawn counts");
    // Two callers at one node at a time.
    openings.extend([opening(&nodes[0], seeds(1..=3), 3), opening(&nodes[0], seeds(1..=3), 3)]);
    let groups = join_all(openings.into_iter().map(opened)).await;
    let again = opened(opening(&nodes[0], seeds(1..=3), 3)).await;
    assert_eq!(again.id(), groups[0].id());
    is_one_group(&groups[..3]).await;
    assert_eq!(groups[3].id(), groups[0].id());
}

#[tokio::test(start_paused = true)]
async fn two_groups_of_one_name_are_named_and_neither_is_joined() {
    let world = World::new();
    let nodes = world.start_all(3).await;
    let one = nodes[0].create_group(NAME, 1, GroupConfig::default()).await.unwrap();
    let other = nodes[1].create_group(NAME, 1, GroupConfig::default()).await.unwrap();
    let error = nodes[2].group(NAME).seeds(seeds(1..=3)).bootstrap_expect(3).open().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenGroupError::TwoGroups { .. }), "{text}");
    assert!([one.id(), other.id()].iter().all(|id| text.contains(&id.to_string())), "{text}");
    assert!(text.contains("end the wrong one"), "{text}");
}

/// Links break and return at random while nodes open a group, so creators are lost at any point of a creation.
#[tokio::test(start_paused = true)]
async fn never_two_groups_however_the_network_fails_meanwhile() {
    const NODES: u8 = 5;
    for seed in 0..8 {
        let (world, mut rng) = (World::new(), StdRng::seed_from_u64(seed));
        let nodes = world.start_all(NODES).await;
        let openings: Vec<Opened> = nodes.iter().map(|node| opening(node, seeds(1..=NODES), 3)).collect();
        for _ in 0..40 {
            // sleep: between two faults, in paused time.
            sleep(Duration::from_millis(rng.random_range(1..120))).await;
            let (one, other) = (rng.random_range(1..=NODES), rng.random_range(1..=NODES));
            if one != other && rng.random_bool(0.6) {
                world.cut(&[one], &[other]);
            } else if one != other {
                world.heal(&[one], &[other]);
            }
        }
        let all: Vec<u8> = (1..=NODES).collect();
        for &one in &all {
            world.heal(&[one], &all.iter().copied().filter(|&other| other != one).collect::<Vec<_>>());
        }
        let groups = join_all(openings.into_iter().map(opened)).await;
        let ids: Vec<_> = groups.iter().map(Group::id).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "seed {seed}: {ids:?}");
    }
}

fn on_disk(process: &Process, seeds: Vec<String>) -> Opened {
    let node = process.node.clone();
    tokio::spawn(
        async move { node.group(NAME).seeds(seeds).bootstrap_expect(3).durability(Durability::Disk).open().await },
    )
}

fn addresses(processes: &[Process]) -> Vec<String> {
    processes.iter().map(|process| process.node.local_addr().to_string()).collect()
}

async fn open_all(processes: &[Process], seeds: &[String]) -> Vec<Group> {
    join_all(processes.iter().map(|process| opened(on_disk(process, seeds.to_vec())))).await
}

async fn broadcast(group: &Group, text: &str) {
    let receipt = within("it is taken", group.broadcast(text)).await.unwrap();
    within("an approval", receipt.into_future()).await.unwrap();
}

async fn have_voters(groups: &[Group]) {
    until("all vote", async || {
        for group in groups {
            if group.status().await.is_none_or(|status| status.voters.len() != groups.len()) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_on_disk_is_opened_again_after_all_nodes_have_moved() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 3).await;
    let groups = open_all(&processes, &addresses(&processes)).await;
    let id = groups[0].id();
    broadcast(&groups[0], "before").await;
    have_voters(&groups).await;
    drop(groups);
    processes.into_iter().for_each(Process::kill);
    hosts.iter_mut().for_each(crate::hosts::Host::moves);
    let processes = start_again(&mut hosts, &key).await;
    let groups = open_all(&processes, &addresses(&processes)).await;
    assert!(groups.iter().all(|group| group.id() == id));
    broadcast(&groups[1], "after").await;
    for group in &groups {
        assert_eq!(texts(&read(group, 1, 2).await), ["before", "after"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_data_directory_was_deleted_joins_the_group_by_the_only_seed_that_is_left() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let seeds = addresses(&processes);
    let groups = open_all(&processes, &seeds).await;
    let id = groups[0].id();
    broadcast(&groups[0], "before").await;
    have_voters(&groups).await;
    drop(groups);
    // Of all seeds one is left, and two nodes are elsewhere; one of them has lost everything.
    let kept = processes.remove(0);
    processes.into_iter().for_each(Process::kill);
    hosts[2] = crate::hosts::Host::new();
    hosts[1].moves();
    let moved = start_again(&mut hosts[1..], &key).await;
    let mut openings: Vec<Opened> = moved.iter().map(|process| on_disk(process, seeds.clone())).collect();
    openings.push(on_disk(&kept, seeds.clone()));
    let groups = join_all(openings.into_iter().map(opened)).await;
    assert!(groups.iter().all(|group| group.id() == id), "there is a second group");
    broadcast(&groups[1], "after").await;
    for group in &groups {
        assert_eq!(texts(&read(group, 1, 2).await), ["before", "after"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resuming_node_names_the_members_that_it_waits_for() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 3).await;
    let seeds = addresses(&processes);
    let groups = open_all(&processes, &seeds).await;
    have_voters(&groups).await;
    let others: Vec<String> = groups[1..].iter().map(|group| group.node_id().short()).collect();
    drop(groups);
    processes.into_iter().for_each(Process::kill);
    let alone = hosts[0].start(&key).await;
    let open = alone.node.group(NAME).seeds(seeds.clone()).bootstrap_expect(3).durability(Durability::Disk).open();
    let late = open.timeout(Duration::from_secs(2)).await.unwrap_err().to_string();
    assert!(late.contains("this node resumes the group, and these members are not linked"), "{late}");
    for (node, seed) in others.iter().zip(&seeds[1..]) {
        assert!(late.contains(&format!("node {node}, last at {seed}")), "{late}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_requires_disk_does_not_join_a_memory_group() {
    let key = key();
    let (_hosts, processes) = start_hosts(&key, 2).await;
    let in_memory = processes[0].node.create_group(NAME, 1, GroupConfig::default()).await.unwrap();
    let seeds = addresses(&processes);
    let refused = within("an answer", opened_on_disk(&processes[1].node, &seeds)).await.unwrap_err();
    let words = refused.to_string();
    assert!(words.contains("keeps its result in memory") && words.contains("Durability::Memory"), "{words}");
    // In memory it joins.
    let joined = processes[1].node.group(NAME).seeds(&seeds).open().await.unwrap();
    assert_eq!(joined.id(), in_memory.id());
    // Also a node that is in it, and stays in it.
    let refused = within("an answer", opened_on_disk(&processes[1].node, &seeds)).await.unwrap_err();
    assert!(matches!(refused, OpenGroupError::Join(JoinError::InMemory { .. })), "{refused}");
    assert_eq!(processes[1].node.group(NAME).seeds(&seeds).open().await.unwrap().id(), joined.id());
    // An invitation to a group in memory is refused as well.
    let inviting = {
        let node = processes[0].node.clone();
        tokio::spawn(async move { node.create_group("other", 2, GroupConfig::default()).await })
    };
    let open = processes[1].node.group("other").seeds(&seeds).durability(Durability::Disk).open();
    let words = within("an answer", open).await.unwrap_err().to_string();
    assert!(words.contains("keeps its result in memory"), "{words}");
    inviting.abort();
}

async fn opened_on_disk(node: &Node, seeds: &[String]) -> Result<Group, OpenGroupError> {
    node.group(NAME).seeds(seeds).durability(Durability::Disk).open().await
}

/// The outcome of the first invitation is not known: the group may exist, without this node's knowledge.
#[tokio::test(start_paused = true)]
async fn a_node_whose_creator_was_lost_accepts_no_other_creator() {
    let world = World::new();
    let nodes = world.start_all(3).await;
    let create = |at: usize, members: usize| {
        let node = nodes[at].clone();
        let limit = Duration::from_secs(60);
        tokio::spawn(async move { node.create_group(NAME, members, GroupConfig::default()).timeout(limit).await })
    };
    // It gathers three members, and there are two.
    let first = create(0, 3);
    let waits = Arc::new(Mutex::new(String::new()));
    let opens = {
        let (node, waits) = (nodes[1].clone(), Arc::clone(&waits));
        let note = move |event| {
            if let OpenEvent::Waits { why } = event {
                *waits.lock().unwrap() = why;
            }
        };
        tokio::spawn(async move { node.group(NAME).seeds(seeds([1])).on_progress(note).open().await })
    };
    let says = |words: &'static str| {
        let waits = Arc::clone(&waits);
        until(words, async move || waits.lock().unwrap().contains(words))
    };
    says("creates the group with this node").await;
    world.cut(&[1], &[2]);
    says("was lost, so the group may exist").await;
    opens.abort();
    // The caller is gone. Another one would join the group of another creator.
    let second = create(2, 2);
    let refused = nodes[1].join_group_at(NAME, at(3)).timeout(Duration::from_secs(20)).await.unwrap_err().to_string();
    assert!(
        refused.contains("has accepted another node's invitation") || refused.contains("was not joined"),
        "{refused}"
    );
    assert!(!second.is_finished(), "there may be two groups");
    // The first creator is back, without the group: this node is free again.
    first.abort();
    world.heal(&[1], &[2]);
    second.abort();
}
