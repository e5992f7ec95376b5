//! Calls: the members that answer, and those that are named as gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cloudy_node::recipes::{CALL_BYTES_MAX, CallAnswer, CallError, CallRequest, Calls, OPEN_CALLS_MAX, Replies};
use cloudy_node::{Group, GroupConfig, Node, NodeId};
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::common::{create, key, start_all, until, within};
use crate::path::{Path, address};

/// Handlers that reply with the request and their member's number, once a request is let through.
struct Members {
    calls: Vec<Calls>,
    gates: Vec<Arc<Semaphore>>,
}

impl Members {
    /// `open`: the members whose handlers reply at once.
    async fn start(groups: &[Group], open: &[usize]) -> Self {
        let gates: Vec<_> = groups.iter().map(|_| Arc::new(Semaphore::new(0))).collect();
        open.iter().for_each(|member| gates[*member].add_permits(1));
        let calls = groups.iter().zip(&gates).enumerate().map(|(member, (group, gate))| {
            let gate = Arc::clone(gate);
            Calls::start(group.clone(), move |request: CallRequest| {
                let gate = Arc::clone(&gate);
                async move {
                    assert_ne!(request.payload, "panic", "as asked");
                    drop(gate.acquire().await.unwrap());
                    match &request.payload[..] {
                        b"large" => vec![0; CALL_BYTES_MAX + 1],
                        payload => [payload, member.to_string().as_bytes()].concat(),
                    }
                }
            })
        });
        let calls = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        Self { calls, gates }
    }

    /// Calls in a task, and waits until the call has an index.
    async fn begin(&self, member: usize) -> tokio::task::JoinHandle<Result<Replies, CallError>> {
        let calls = self.calls[member].clone();
        let call = tokio::spawn(async move { calls.call("x").all().without_timeout().await });
        until("the call is open", async || self.calls[member].open().await == Ok(1)).await;
        call
    }

    async fn all_are_closed(&self) {
        for calls in &self.calls {
            until("no call is open", async || calls.open().await == Ok(0)).await;
        }
    }
}

fn ids(nodes: &[Node]) -> Vec<NodeId> {
    nodes.iter().map(Node::id).collect()
}

fn reply_of(replies: &Replies, node: NodeId) -> &[u8] {
    match &replies.answers()[&node] {
        CallAnswer::Reply(reply) => reply,
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_replies_to_each_call_once() {
    const EACH: usize = 20;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "calls", GroupConfig::default()).await;
    let (members, ids) = (Members::start(&groups, &[0, 1, 2]).await, ids(&nodes));
    let calls = members.calls.iter().map(async |calls| {
        let calls = (0..EACH).map(|at| calls.call(format!("{at} by ")).all());
        join_all(calls).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    });
    let replies = within("the replies", join_all(calls)).await;
    for (at, replies) in replies.iter().flat_map(|replies| replies.iter().enumerate()) {
        assert_eq!(replies.answers().len(), 3);
        for (member, node) in ids.iter().enumerate() {
            assert_eq!(reply_of(replies, *node), format!("{at} by {member}").as_bytes());
        }
        assert!(replies.completed() > replies.index());
    }
    let indices: BTreeSet<_> = replies.iter().flatten().map(Replies::index).collect();
    assert_eq!(indices.len(), 3 * EACH, "each call has an index of its own");
    let first = within("a reply", members.calls[0].call("x").first()).await.unwrap();
    assert_eq!(first.answers().len(), 1);
    let majority = within("replies", members.calls[1].call("x").majority()).await.unwrap();
    assert_eq!(majority.replies().count(), 2);
    members.all_are_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_and_members_that_do_not_answer_are_named() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "calls", GroupConfig::default()).await;
    let (members, ids) = (Members::start(&groups, &[0, 1]).await, ids(&nodes));
    let failed = within("the answers", members.calls[0].call("panic").all()).await.unwrap();
    assert_eq!(failed.missing().collect::<BTreeSet<_>>(), ids.iter().copied().collect());
    assert!(failed.answers().values().all(|answer| *answer == CallAnswer::Panicked));
    let none = within("the answers", members.calls[0].call("panic").first()).await;
    assert!(matches!(none, Err(CallError::TooFew { wanted: 1, .. })), "{none:?}");
    let large = members.calls[0].call(vec![0; CALL_BYTES_MAX + 1]).all().await;
    assert!(matches!(large, Err(CallError::TooLarge { .. })), "{large:?}");
    let late = members.calls[0].call("x").all().timeout(Duration::from_millis(500)).await.unwrap_err();
    let words = late.to_string();
    let CallError::TimedOut { missing, .. } = late else { panic!("{words}") };
    assert!(missing.contains(&ids[2]) && words.contains(&ids[2].short().to_string()), "{words}");
    members.all_are_closed().await;
    members.gates[2].add_permits(1);
    let large = within("the answers", members.calls[1].call("large").all()).await.unwrap();
    assert!(large.answers().len() == 3 && large.answers().values().all(|answer| *answer == CallAnswer::TooLarge));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_open_calls_is_bounded_and_a_dropped_call_is_withdrawn() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "calls", GroupConfig::default()).await;
    let members = Members::start(&groups, &[]).await;
    let calls = members.calls[0].clone();
    let open = tokio::spawn(async move {
        let all = (0..OPEN_CALLS_MAX).map(|_| calls.call("x").all().without_timeout());
        join_all(all).await
    });
    until("all are open", async || members.calls[0].open().await == Ok(OPEN_CALLS_MAX)).await;
    let full = within("an answer", members.calls[0].call("x").all()).await;
    assert!(matches!(full, Err(CallError::Full)), "{full:?}");
    open.abort();
    members.all_are_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_killed_or_leaves_during_a_call_is_named_as_gone() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (nodes, groups) = path.group_of(4, &network, &key).await;
    let (mut members, ids) = (Members::start(&groups, &[0, 1]).await, ids(&nodes));
    let call = members.begin(0).await;
    assert!(!call.is_finished());
    // As by kill -9: the process says nothing to the others.
    (1..=3).for_each(|other| network.cut(address(4), address(other)));
    drop(members.calls.pop());
    within("the departure", groups[2].leave()).await.unwrap();
    let replies = within("the answers", call).await.unwrap().unwrap();
    assert_eq!(replies.answers().keys().copied().collect::<BTreeSet<_>>(), ids.iter().copied().collect());
    assert_eq!((reply_of(&replies, ids[0]), reply_of(&replies, ids[1])), (&b"x0"[..], &b"x1"[..]));
    assert!([2, 3].iter().all(|gone| replies.answers()[&ids[*gone]] == CallAnswer::Gone), "{replies:?}");
    drop(members.calls.pop());
    members.all_are_closed().await;
}

/// Also a member whose reply comes after its eviction: all members take it for gone. It answers later calls again.
#[tokio::test(start_paused = true)]
async fn an_evicted_member_is_named_as_gone_and_its_own_call_ends() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (nodes, groups) = path.group_of(3, &network, &key).await;
    let (members, ids) = (Members::start(&groups, &[0, 1]).await, ids(&nodes));
    let (call, own) = (members.begin(0).await, members.calls[2].clone());
    let own = tokio::spawn(async move { own.call("y").all().without_timeout().await });
    until("both are open", async || members.calls[0].open().await == Ok(2)).await;
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    let replies = within("the answers", call).await.unwrap().unwrap();
    assert_eq!(replies.missing().collect::<Vec<_>>(), [ids[2]]);
    assert_eq!(replies.answers()[&ids[2]], CallAnswer::Gone);
    members.gates[2].add_permits(1);
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    let own = within("its own call ends", own).await.unwrap();
    assert!(matches!(own, Err(CallError::Evicted(_))), "{own:?}");
    until("it is a member again", async || groups[2].is_current().await).await;
    let again = within("the answers", members.calls[0].call("z").all()).await.unwrap();
    assert_eq!(reply_of(&again, ids[2]), b"z2");
    members.all_are_closed().await;
}
