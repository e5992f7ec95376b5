//! Replicated state machines: responses, reads, snapshots, and what stops a replica (`protocol.md` §7).

use std::io::{self, Read, Write};
use std::time::Duration;

use cloudy_node::fault::MemoryNetwork;
use cloudy_node::{
    Applied, BroadcastError, EndReason, Group, GroupConfig, Index, MembersChanged, Node, NodeId, OnFailure, Outcome,
    ReadError, ReadyError, Replica, ReplicaConfig, ReplicaError, StateMachine, SubmitError, ViewId,
};
use futures_util::future::join_all;

use crate::common::{create, key, start, start_all, until, within};
use crate::help::config;
use crate::hosts::{Process, on_disk, start_again, start_hosts};
use crate::path::{Path, address};

/// A sum over positions and bytes, which no two orders give alike; and how it came about here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    sum: u64,
    members: Vec<NodeId>,
    /// Each view with its first index.
    views: Vec<(ViewId, Index)>,
    /// Not in snapshots: commands that were applied one by one here.
    applied: u64,
    /// Not in snapshots: the state began with a snapshot.
    restored: bool,
}

impl Sum {
    fn result(&self) -> (u64, u64) {
        (self.count, self.sum)
    }
}

impl StateMachine for Sum {
    type Command = Vec<u8>;
    /// How many commands there are with this one.
    type Response = u64;

    fn apply(&mut self, at: Applied, bytes: Vec<u8>) -> u64 {
        assert!(bytes != b"panic", "as submitted");
        let byte = u64::from(bytes.first().copied().unwrap_or_default());
        self.sum = self.sum.wrapping_mul(31).wrapping_add(at.index.0 ^ byte);
        self.count += 1;
        self.applied += 1;
        self.count
    }

    fn members_changed(&mut self, change: &MembersChanged) {
        self.sum = self.sum.wrapping_mul(31).wrapping_add(change.first.0 ^ change.view.0);
        self.members = change.members.clone();
        self.views.push((change.view, change.first));
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&postcard::to_stdvec(&(self.count, self.sum, &self.members, &self.views)).unwrap())
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let (count, sum, members, views) = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        Ok(Self { count, sum, members, views, applied: 0, restored: true })
    }
}

/// Replicas that know all members: what follows changes their states by commands only, while no view changes.
async fn replicas(groups: &[Group], config: &ReplicaConfig) -> Vec<Replica<Sum>> {
    let starts = groups.iter().map(|group| Replica::start_with(group.clone(), Sum::default(), config.clone()));
    let replicas: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    for replica in &replicas {
        until("the members are announced", async || state(replica).await.members.len() == groups.len()).await;
    }
    replicas
}

async fn state(replica: &Replica<Sum>) -> Sum {
    replica.read(Sum::clone).await.unwrap()
}

/// Waits until each replica has applied this number of commands.
async fn have(replicas: &[Replica<Sum>], count: u64) {
    for replica in replicas {
        until("all is applied", async || state(replica).await.count == count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_gets_the_responses_of_its_own_commands_once() {
    const EACH: u64 = 300;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    let submits = replicas.iter().map(async |replica| {
        let commands = (0..EACH).map(|at| replica.submit(vec![at as u8]));
        join_all(commands).await.into_iter().map(Result::unwrap).collect::<Vec<u64>>()
    });
    let mut responses = within("the responses", join_all(submits)).await.concat();
    responses.sort_unstable();
    assert_eq!(responses, (1..=3 * EACH).collect::<Vec<_>>(), "each command has a position of its own");
    have(&replicas, 3 * EACH).await;
    let first = state(&replicas[0]).await;
    for replica in &replicas {
        let newest = within("a read", replica.read_linearizable(Sum::result)).await.unwrap();
        assert_eq!(newest, first.result());
        assert_eq!(*replica.watch().borrow(), replica.status().await.applied);
        assert_eq!(replica.status().await.skipped, 0);
        assert_eq!(state(replica).await.members.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_expires_is_applied_nowhere_and_one_in_time_gets_its_response() {
    const IN_TIME: u64 = 200;
    const LATE: usize = 50;
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let waits = config(|parameters| {
        (parameters.window_slots, parameters.slot_payloads_max) = (4, 1);
        parameters.on_failure = OnFailure::Wait;
    });
    let (_nodes, groups) = path.group_with(waits, 3, &network, &key).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    let long = Duration::from_secs(3_600);
    let in_time = join_all((0..IN_TIME).map(|_| replicas[0].submit_within(vec![1], long)));
    let responses: Vec<u64> = within("the responses", in_time).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(responses, (1..=IN_TIME).collect::<Vec<_>>(), "in the order of the calls");
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    let late = (0..LATE).map(|_| {
        let replica = replicas[0].clone();
        tokio::spawn(async move { replica.submit_within(vec![2], Duration::from_millis(100)).without_timeout().await })
    });
    let late: Vec<_> = late.collect();
    until("one expires", async || late.iter().any(tokio::task::JoinHandle::is_finished)).await;
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    let late: Vec<_> = within("all are answered", join_all(late)).await.into_iter().map(Result::unwrap).collect();
    let is_expired = |error: &SubmitError| matches!(error, SubmitError::NotAccepted(BroadcastError::Expired { .. }));
    let applied = late.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(late.into_iter().filter_map(Result::err).filter(|error| is_expired(error)).count(), LATE - applied);
    assert!(applied < LATE, "none expired");
    have(&replicas, IN_TIME + applied as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_reflects_an_answer_of_another_member() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    for at in 0..200 {
        let answered = within("a response", replicas[at % 3].submit(vec![1])).await.unwrap();
        let read = within("a read", replicas[(at + 1) % 3].read_linearizable(|sum| sum.count)).await.unwrap();
        assert!(read >= answered, "{read} of {answered}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_something_else_is_skipped_alike_and_counted() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    for payload in [&b""[..], b"\x00\x05ab", b"\xffsomething"] {
        let _receipt = groups[0].broadcast(payload).await.unwrap().await.unwrap();
    }
    assert_eq!(within("a response", replicas[1].submit(vec![1])).await.unwrap(), 1);
    have(&replicas, 1).await;
    assert_eq!(state(&replicas[0]).await.result(), state(&replicas[1]).await.result());
    for replica in &replicas {
        assert_eq!(replica.status().await.skipped, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_application_stops_the_replica_by_name_and_reaches_every_handle() {
    let nodes = start_all(&key(), 1).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let replica = replicas(&groups, &ReplicaConfig::default()).await.remove(0);
    let (clone, waiting) = (replica.clone(), replica.clone());
    let closed = tokio::spawn(async move { waiting.closed().await });
    let submitted = within("the panic", replica.submit(b"panic".to_vec())).await;
    assert!(matches!(submitted, Err(SubmitError::Unknown { .. })), "{submitted:?}");
    let reason = within("the reason", closed).await.unwrap();
    assert!(matches!(&reason, ReplicaError::Panicked { during: "apply", message, .. } if message == "as submitted"));
    assert_eq!(clone.read(Sum::clone).await, Err(reason.clone()));
    assert_eq!(within("a read", clone.read_linearizable(Sum::clone)).await, Err(ReadError::Closed(reason.clone())));
    let refused = within("a refusal", clone.submit(vec![1])).await;
    assert!(matches!(refused, Err(SubmitError::Closed(same)) if same == reason));
    assert!(groups[0].broadcast("continues").await.unwrap().await.is_ok(), "the node works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_group_closes_the_replica_and_its_state_stays_readable() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    within("a response", replicas[0].submit(vec![1])).await.unwrap();
    groups[0].end();
    for replica in &replicas {
        assert_eq!(within("the end", replica.closed()).await, ReplicaError::Ended(EndReason::Final));
        assert_eq!(replica.read(|sum| sum.count).await, Ok(1));
        assert_eq!(within("a read", replica.read_linearizable(|sum| sum.count)).await, Ok(1));
        let refused = within("a refusal", replica.submit(vec![1])).await;
        assert!(matches!(refused, Err(SubmitError::Closed(ReplicaError::Ended(EndReason::Final)))), "{refused:?}");
    }
}

const PAYLOAD_BYTES: usize = 200;
/// Less than all messages are, so that the beginning is gone; enough for those since the last checkpoint, which a snapshot
/// begins at, whether a slot has two of them or many.
const RETAIN_BYTES: u64 = 24 << 20;
/// More than lies between two checkpoints of the result, twice.
const MESSAGES: u64 = 150_000;

fn forgetful(config: GroupConfig) -> GroupConfig {
    config.retain_bytes(RETAIN_BYTES)
}

fn often() -> ReplicaConfig {
    ReplicaConfig::default().snapshot_every_bytes(256 << 10)
}

/// Broadcasts commands without waiting for each, no faster than the slowest replica.
async fn submit_many(replicas: &[Replica<Sum>], messages: u64) {
    let first = state(&replicas[0]).await.count;
    for at in 0..messages {
        let mut payload = vec![0];
        payload.extend(postcard::to_stdvec(&vec![at as u8; PAYLOAD_BYTES]).unwrap());
        let _receipt = within("capacity", replicas[0].group().broadcast(payload)).await.unwrap();
        if at % 4_096 == 0 {
            for replica in replicas {
                until("the replica follows", async || state(replica).await.count + 16_384 > first + at).await;
            }
        }
    }
    have(replicas, first + messages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_starts_from_a_snapshot() {
    let key = key();
    // The joiner retains more than that.
    let nodes = start_all(&key, 1).await;
    let groups = create(&nodes, "sums", forgetful(GroupConfig::default())).await;
    let mut replicas = replicas(&groups, &often()).await;
    submit_many(&replicas, MESSAGES).await;
    let late: Node = start(&key).await;
    let joined = within("it joins", late.join_group_at("sums", nodes[0].local_addr())).await.unwrap();
    replicas.push(Replica::start_with(joined, Sum::default(), often()).await.unwrap());
    have(&replicas, MESSAGES).await;
    submit_many(&replicas, 1_000).await;
    for replica in &replicas {
        until("both know the joiner", async || state(replica).await.members.len() == 2).await;
    }
    let late = state(&replicas[1]).await;
    assert_eq!(late.result(), state(&replicas[0]).await.result());
    assert!(late.restored && late.applied < MESSAGES, "{late:?}");
    groups[0].end();
    for replica in &replicas {
        assert_eq!(within("the end", replica.closed()).await, ReplicaError::Ended(EndReason::Final));
    }
    assert_eq!(state(&replicas[0]).await.result(), state(&replicas[1]).await.result());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_from_the_snapshot_on_disk() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 2).await;
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    let groups = create(&nodes, "sums", forgetful(on_disk())).await;
    drop(nodes);
    let before = replicas(&groups, &often()).await;
    submit_many(&before, MESSAGES).await;
    let expected = state(&before[0]).await.result();
    drop((groups, before));
    processes.into_iter().for_each(Process::kill);
    let processes = start_again(&mut hosts, &key).await;
    let groups: Vec<Group> = processes.iter().map(Process::resumed).collect();
    let replicas = replicas(&groups, &often()).await;
    have(&replicas, MESSAGES).await;
    for replica in &replicas {
        let state = state(replica).await;
        // The view after the restart is part of the sum.
        assert_eq!(state.count, expected.0);
        assert!(state.restored && state.applied < MESSAGES / 2, "the beginning is not read again: {state:?}");
    }
    submit_many(&replicas, 100).await;
    let newest = within("a read", replicas[1].read_linearizable(Sum::result)).await.unwrap();
    until("both have the same", async || state(&replicas[0]).await.result() == newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_again_in_its_process_continues_from_its_own_snapshot() {
    let nodes = start_all(&key(), 1).await;
    let groups = create(&nodes, "sums", forgetful(GroupConfig::default())).await;
    let first = replicas(&groups, &often()).await;
    submit_many(&first, MESSAGES).await;
    let expected = state(&first[0]).await.result();
    drop(first);
    let again = replicas(&groups, &often()).await;
    have(&again, MESSAGES).await;
    let state = state(&again[0]).await;
    assert_eq!(state.result(), expected);
    assert!(state.restored, "the beginning is gone from memory");
}

/// A snapshot of another application is rejected with the reason, and the group works.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_another_application_is_refused() {
    #[derive(Debug)]
    struct Stubborn(Sum);
    impl StateMachine for Stubborn {
        type Command = Vec<u8>;
        type Response = u64;
        fn apply(&mut self, at: Applied, bytes: Vec<u8>) -> u64 {
            self.0.apply(at, bytes)
        }
        fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
            self.0.snapshot(to)
        }
        fn restore(_from: &mut dyn Read) -> io::Result<Self> {
            Err(io::Error::other("another application's"))
        }
    }
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 1).await;
    let groups = create(&[processes[0].node.clone()], "sums", forgetful(on_disk())).await;
    let before = replicas(&groups, &often()).await;
    submit_many(&before, 3_000).await;
    until("a snapshot is stored", async || groups[0].status().await.is_some_and(|status| status.snapshot.is_some()))
        .await;
    drop((groups, before));
    processes.clear();
    let again = hosts[0].start(&key).await;
    let refused = Replica::start(again.resumed(), Stubborn(Sum::default())).await.unwrap_err();
    assert!(matches!(&refused, ReplicaError::Restore { reason, .. } if reason == "another application's"), "{refused}");
    let replica = Replica::start(again.resumed(), Sum::default()).await.unwrap();
    have(&[replica], 3_000).await;
}

/// A state that a defect changes at one node.
#[derive(Debug, Default)]
struct Differs {
    sum: u64,
    /// At the node with the defect.
    extra: u64,
}

impl StateMachine for Differs {
    type Command = Vec<u8>;
    type Response = ();
    fn apply(&mut self, at: Applied, _bytes: Vec<u8>) {
        self.sum += at.index.0 + self.extra;
    }
    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.sum.to_le_bytes())
    }
    fn restore(_from: &mut dyn Read) -> io::Result<Self> {
        Err(io::Error::other("no restart here"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_differs_stops_and_the_majority_names_it() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "sums", GroupConfig::default()).await;
    let config = ReplicaConfig::default().snapshot_every_bytes(2_000);
    let mut replicas = Vec::new();
    for (group, extra) in groups.iter().zip([0, 0, 1]) {
        let state = Differs { sum: 0, extra };
        replicas.push(Replica::start_with(group.clone(), state, config.clone()).await.unwrap());
    }
    for _ in 0..30 {
        within("a response", replicas[0].submit(vec![7; 100])).await.unwrap();
    }
    let reason = within("the minority stops", replicas[2].closed()).await;
    let ReplicaError::Diverged(divergence) = &reason else { panic!("{reason}") };
    let mut named: Vec<NodeId> = divergence.others.iter().map(|(node, _)| *node).collect();
    named.sort_unstable();
    let mut others = [nodes[0].id(), nodes[1].id()];
    others.sort_unstable();
    assert_eq!(named, others);
    assert_eq!(replicas[2].read(|state| state.sum).await, Err(reason.clone()));
    for replica in &replicas[..2] {
        until("the majority names it", async || {
            let divergence = replica.status().await.divergence;
            divergence.is_some_and(|found| found.others.iter().all(|(node, _)| *node == nodes[2].id()))
        })
        .await;
    }
    within("the majority continues", replicas[1].submit(vec![7; 100])).await.unwrap();
    until("a snapshot is kept", async || replicas[1].status().await.snapshot.is_some()).await;
}

fn cut_off(network: &MemoryNetwork, host: u8, others: [u8; 2]) {
    others.iter().for_each(|other| network.cut(address(host), address(*other)));
}

fn heal(network: &MemoryNetwork, host: u8, others: [u8; 2]) {
    others.iter().for_each(|other| network.heal(address(host), address(*other)));
}

/// A member that is cut off, and evicted meanwhile, gives no old state, and knows what it does not know.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_cut_off_waits_or_fails_and_never_reads_old_state() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (_nodes, groups) = path.group_of(3, &network, &key).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    replicas[2].submit(vec![1]).await.unwrap();
    cut_off(&network, 3, [1, 2]);
    let late = replicas[2].submit(vec![2]).timeout(Duration::from_secs(1)).await;
    let Err(SubmitError::Unknown { id, .. }) = late else { panic!("{late:?}") };
    assert_eq!(replicas[0].submit(vec![3]).await.unwrap(), 2);
    let failed = replicas[2].read_linearizable(|sum| sum.count).timeout(Duration::from_secs(1)).await;
    assert!(matches!(failed, Err(ReadError::TimedOut(_))), "{failed:?}");
    assert_eq!(replicas[2].read(|sum| sum.count).await, Ok(1), "a local read has a prefix");
    // A read that began while the member was evicted ends once it is back.
    let waiting = tokio::spawn({
        let replica = replicas[2].clone();
        async move { replica.read_linearizable(|sum| sum.count).await }
    });
    assert_eq!(replicas[1].submit(vec![4]).await.unwrap(), 3);
    heal(&network, 3, [1, 2]);
    let read = within("the read", waiting).await.unwrap().unwrap();
    assert!(read >= 3, "{read}");
    until("the outcome is known", async || replicas[0].outcome(id).await != Ok(Outcome::Open)).await;
    let applied = u64::from(replicas[0].outcome(id).await == Ok(Outcome::Approved));
    let newest = within("a read", replicas[1].read_linearizable(|sum| sum.count)).await.unwrap();
    assert_eq!(newest, 3 + applied);
    assert_eq!(replicas[2].outcome(id).await, replicas[0].outcome(id).await);
}

/// Reads that wait at the same time share a barrier, and none is served by a barrier that was in flight when it came.
#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_barrier_that_is_broadcast_after_it_came() {
    let (path, key) = (Path::of(20, None), key());
    let network = path.network();
    let (_nodes, groups) = path.group_of(2, &network, &key).await;
    let replicas = replicas(&groups, &ReplicaConfig::default()).await;
    // What a member broadcasts by itself precedes its command.
    for replica in &replicas {
        replica.submit(vec![1]).await.unwrap();
    }
    let newest = replicas[0].submit(vec![1]).await.unwrap();
    let before = replicas[0].status().await.applied;
    let read = || {
        let replica = replicas[0].clone();
        tokio::spawn(async move { replica.read_linearizable(|sum| sum.count).await })
    };
    let first = read();
    until("the first barrier is in flight", async || {
        groups[0].status().await.is_some_and(|status| status.pending_slots > 0)
    })
    .await;
    assert_eq!(replicas[0].status().await.approved, before);
    for read in [read(), read(), read(), first] {
        assert_eq!(within("a read", read).await.unwrap(), Ok(newest));
    }
    assert_eq!(replicas[0].status().await.applied.0, before.0 + 2, "two barriers for four reads");
}

/// A member that is cut off notices it, and notices when it is back.
#[tokio::test(start_paused = true)]
async fn a_member_knows_whether_it_is_current() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (_nodes, groups) = path.group_of(3, &network, &key).await;
    for group in &groups {
        group.ready().await.unwrap();
        assert!(group.is_current().await);
    }
    cut_off(&network, 3, [1, 2]);
    until("it notices", async || !groups[2].is_current().await).await;
    let late = groups[2].ready().timeout(Duration::from_secs(2)).await;
    assert!(matches!(late, Err(ReadyError::TimedOut(_))), "{late:?}");
    groups[0].ready().await.unwrap();
    assert_eq!(groups[0].status().await.unwrap().members.len(), 2, "the others continue without it");
    heal(&network, 3, [1, 2]);
    groups[2].ready().await.unwrap();
    let receipt = groups[2].broadcast("back").await.unwrap();
    within("the approval", receipt).await.unwrap();
    groups[2].leave().await.unwrap();
    assert_eq!(groups[2].ready().await, Err(ReadyError::Ended(EndReason::Left)));
    assert!(!groups[2].is_current().await);
}

/// Members apply each view at the same index, without a command after it, and also after a start from a snapshot.
#[tokio::test(start_paused = true)]
async fn each_view_is_applied_once_and_at_the_same_index() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (nodes, groups) = path.group_of(3, &network, &key).await;
    let config = ReplicaConfig::default().snapshot_every_bytes(300);
    let mut replicas = replicas(&groups, &config).await;
    until("a snapshot is kept", async || {
        replicas[0].submit(vec![1; 100]).await.unwrap();
        replicas[0].status().await.snapshot.is_some()
    })
    .await;
    let others = [nodes[0].id(), nodes[1].id()];
    for _ in 0..2 {
        cut_off(&network, 3, [1, 2]);
        until("it is evicted", async || state(&replicas[0]).await.members.len() == 2).await;
        heal(&network, 3, [1, 2]);
        for replica in &replicas {
            until("it is back", async || state(replica).await.members.len() == 3).await;
        }
    }
    let views = state(&replicas[0]).await.views.len();
    assert!(views >= 5, "{views}");
    // From its snapshot, with views after that.
    replicas[1] = Replica::start_with(groups[1].clone(), Sum::default(), config).await.unwrap();
    until("it has all views", async || state(&replicas[1]).await.views.len() >= views).await;
    assert!(state(&replicas[1]).await.restored);
    groups[2].leave().await.unwrap();
    for replica in &replicas[..2] {
        until("it has left", async || state(replica).await.members.iter().all(|node| others.contains(node))).await;
    }
    assert_eq!(within("the end", replicas[2].closed()).await, ReplicaError::Ended(EndReason::Left));
    let newest = replicas[1].read_linearizable(Sum::clone).await.unwrap();
    until("both have the same", async || state(&replicas[0]).await.result() == newest.result()).await;
    assert_eq!(state(&replicas[0]).await.views, newest.views);
    let views = newest.views.iter().map(|(view, _)| view.0);
    assert!(views.eq(1..=newest.views.len() as u64), "{:?}", newest.views);
}
