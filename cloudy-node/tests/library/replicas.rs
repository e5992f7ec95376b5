//! States that the result makes, and their snapshots (`protocol.md` §7).

use std::sync::{Arc, Mutex};

use cloudy_node::{AppliedMessage, EndReason, Group, GroupConfig, Node, ReplicateError, StateMachine};
use tokio::task::JoinHandle;

use crate::common::{found, key, start, start_all, until, within};
use crate::hosts::{Process, on_disk, start_again, start_hosts};

/// A sum over places and bytes, which no two orders give alike; and how it came about here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    sum: u64,
    /// Messages that were applied one by one here.
    applied: u64,
    /// Snapshots that it began with.
    restored: u64,
}

#[derive(Clone, Debug, Default)]
struct Shown(Arc<Mutex<Sum>>);

impl Shown {
    fn get(&self) -> Sum {
        self.0.lock().unwrap().clone()
    }

    fn result(&self) -> (u64, u64) {
        let sum = self.get();
        (sum.count, sum.sum)
    }
}

impl StateMachine for Shown {
    fn apply(&mut self, message: AppliedMessage<'_>) {
        let mut sum = self.0.lock().unwrap();
        sum.count += 1;
        assert_eq!(message.index.0, sum.count, "in order, and none left out");
        let byte = u64::from(message.payload.first().copied().unwrap_or_default());
        sum.sum = sum.sum.wrapping_mul(31).wrapping_add(message.index.0 ^ byte);
        sum.applied += 1;
    }

    fn snapshot(&self) -> Vec<u8> {
        let (count, sum) = self.result();
        [count.to_le_bytes(), sum.to_le_bytes()].concat()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let number = |from: usize| snapshot.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
        let (Some(count), Some(rest)) = (number(0), number(8)) else {
            return Err("sixteen bytes it has not".to_owned());
        };
        let mut sum = self.0.lock().unwrap();
        (sum.count, sum.sum) = (u64::from_le_bytes(count), u64::from_le_bytes(rest));
        sum.restored += 1;
        Ok(())
    }
}

const PAYLOAD_BYTES: usize = 200;
/// Less than all messages are, so that the beginning is gone; enough for those since the last checkpoint, which a snapshot
/// begins at, whether a slot has two of them or many.
const RETAIN_BYTES: u64 = 24 << 20;
const EVERY_BYTES: u64 = 256 << 10;
/// More than lies between two checkpoints of the result, twice.
const MESSAGES: u64 = 150_000;

fn forgetful(config: GroupConfig) -> GroupConfig {
    config.retain_bytes(RETAIN_BYTES)
}

type Follows = JoinHandle<Result<(), ReplicateError>>;

fn follow(group: &Group) -> (Shown, Follows) {
    let (shown, group) = (Shown::default(), group.clone());
    let mut state = shown.clone();
    (shown, tokio::spawn(async move { group.replicate(&mut state, EVERY_BYTES).await }))
}

/// Broadcasts, and waits until every state has all of it. No faster than the slowest of them.
async fn broadcast(group: &Group, states: &[Shown], messages: u64) {
    let first = states[0].get().count;
    for at in 0..messages {
        let _receipt = within("room", group.broadcast([at as u8; PAYLOAD_BYTES])).await.unwrap();
        if at % 4_096 == 0 {
            until("the states follow", async || states.iter().all(|state| state.get().count + 16_384 > first + at))
                .await;
        }
    }
    until("all is applied", async || states.iter().all(|state| state.get().count == first + messages)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_when_the_beginning_is_gone_begins_with_a_snapshot() {
    let key = key();
    // The joiner retains more than that.
    let nodes = start_all(&key, 1).await;
    let groups = found(&nodes, "sums", forgetful(GroupConfig::default())).await;
    let (mut states, mut tasks): (Vec<Shown>, Vec<Follows>) = groups.iter().map(follow).unzip();
    broadcast(&groups[0], &states, MESSAGES).await;
    let late: Node = start(&key).await;
    let joined = within("it joins", late.join_group_at("sums", nodes[0].local_addr())).await.unwrap();
    let (state, task) = follow(&joined);
    states.push(state);
    tasks.push(task);
    until("it knows all", async || states[1].get().count == MESSAGES).await;
    broadcast(&joined, &states, 1_000).await;
    assert_eq!(states[1].result(), states[0].result());
    let late = states[1].get();
    assert_eq!(late.restored, 1);
    assert!(late.applied < MESSAGES, "{late:?}");
    // The result ends alike for all, though one has never seen its beginning.
    groups[0].end();
    for task in tasks {
        assert_eq!(within("the end", task).await.unwrap(), Ok(()));
    }
    assert!(states.iter().all(|state| state.result() == states[0].result()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_keeps_the_snapshot_and_what_follows_it() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 2).await;
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    let groups = found(&nodes, "sums", forgetful(on_disk())).await;
    drop(nodes);
    let (states, tasks): (Vec<Shown>, Vec<Follows>) = groups.iter().map(follow).unzip();
    broadcast(&groups[0], &states, MESSAGES).await;
    let before = states[0].result();
    drop(groups);
    processes.into_iter().for_each(Process::kill);
    tasks.iter().for_each(JoinHandle::abort);
    let processes = start_again(&mut hosts, &key).await;
    let groups: Vec<Group> = processes.iter().map(Process::resumed).collect();
    let (states, _tasks): (Vec<Shown>, Vec<Follows>) = groups.iter().map(follow).unzip();
    until("both know all", async || states.iter().all(|state| state.result() == before)).await;
    for state in &states {
        let state = state.get();
        assert_eq!(state.restored, 1, "{state:?}");
        assert!(state.applied < MESSAGES / 2, "the beginning is not read again: {state:?}");
    }
    broadcast(&groups[1], &states, 100).await;
    assert_eq!(states[0].result(), states[1].result());
}

#[tokio::test]
async fn a_snapshot_of_something_else_is_told_and_harms_nobody() {
    struct Stubborn(Shown);
    impl StateMachine for Stubborn {
        fn apply(&mut self, message: AppliedMessage<'_>) {
            self.0.apply(message);
        }
        fn snapshot(&self) -> Vec<u8> {
            b"short".to_vec()
        }
        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            self.0.restore(snapshot)
        }
    }
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 1).await;
    let groups = found(&[processes[0].node.clone()], "sums", forgetful(on_disk())).await;
    let shown = Shown::default();
    let (mut state, group) = (Stubborn(shown.clone()), groups[0].clone());
    let task = tokio::spawn(async move { group.replicate(&mut state, 1_000).await });
    broadcast(&groups[0], &[shown], 1_000).await;
    until("a snapshot is stored", async || groups[0].status().await.is_some_and(|status| status.snapshot.is_some()))
        .await;
    task.abort();
    drop(groups);
    processes.clear();
    let again = hosts[0].start(&key).await;
    let refused = again.resumed().replicate(&mut Stubborn(Shown::default()), 1_000).await;
    assert!(matches!(refused, Err(ReplicateError::Restore { .. })), "{refused:?}");
    again.resumed().end();
    until("the group ends without it", async || again.resumed().has_ended()).await;
    let ended = again.resumed().replicate(&mut Shown::default(), 1_000).await;
    assert!(!matches!(ended, Err(ReplicateError::Ended(EndReason::Diverged { .. }))));
}
