//! The state of calls: requests, the members that have to answer, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use bytes::Bytes;
use cloudy_proto::{Index, MessageId, NodeId};
use serde::{Deserialize, Serialize};

use super::snapshot;
use crate::replica::{Applied, MembersChanged, StateMachine};

/// The maximum size of a request and of a reply of [`Calls`](super::Calls), in bytes.
pub const CALL_BYTES_MAX: usize = 64 << 10;
/// The maximum number of calls that one member can have open at a time.
pub const OPEN_CALLS_MAX: usize = 256;
/// The maximum size of all requests and replies of open calls, in bytes: half of the largest snapshot.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The answer of a member to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallAnswer {
    /// The reply of its handler.
    Reply(Bytes),
    /// The member left the group or was evicted before it replied. Its handler may have run.
    Gone,
    /// Its handler panicked.
    Panicked,
    /// Its reply had more than [`CALL_BYTES_MAX`] bytes, or the open calls of the group held too many.
    TooLarge,
}

/// The replies that complete a call, unless all members have answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wanted {
    All,
    First,
    Majority,
}

impl Wanted {
    /// The number of replies, of a number of members.
    pub(super) fn of(self, members: usize) -> usize {
        match self {
            Self::All => members,
            Self::First => 1,
            Self::Majority => members / 2 + 1,
        }
    }
}

/// A call that its caller has not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenCall {
    id: MessageId,
    request: Bytes,
    wanted: Wanted,
    /// The members that have not answered.
    pub(super) waiting: BTreeSet<NodeId>,
    pub(super) answers: BTreeMap<NodeId, CallAnswer>,
    /// The index that completed it; later answers are ignored.
    pub(super) completed: Option<Index>,
}

impl OpenCall {
    fn held_bytes(&self) -> usize {
        self.request.len() + self.answers.values().map(CallAnswer::bytes).sum::<usize>()
    }

    pub(super) fn replies(&self) -> usize {
        self.answers.values().filter(|answer| matches!(answer, CallAnswer::Reply(_))).count()
    }

    /// The number of replies that the call asks for.
    pub(super) fn replies_wanted(&self) -> usize {
        self.wanted.of(self.waiting.len() + self.answers.len())
    }

    fn answer(&mut self, node: NodeId, answer: CallAnswer, at: Index) {
        if self.completed.is_some() || !self.waiting.remove(&node) {
            return;
        }
        self.answers.insert(node, answer);
        if self.waiting.is_empty() || self.replies() >= self.replies_wanted() {
            self.completed = Some(at);
            self.request = Bytes::new();
        }
    }
}

impl CallAnswer {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.len(),
            Self::Gone | Self::Panicked | Self::TooLarge => 0,
        }
    }
}

/// All calls of a group that their callers have not closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenCalls {
    members: BTreeSet<NodeId>,
    /// By the index of the call.
    calls: BTreeMap<Index, OpenCall>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    Call {
        request: Bytes,
        wanted: Wanted,
    },
    /// The answer of the member that submits it.
    Answer {
        call: Index,
        answer: CallAnswer,
    },
    /// The caller has the answers, or no longer waits for them.
    Close(MessageId),
}

/// A request that a member has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRequest {
    /// The index of the call: it names the call, at all members.
    pub index: Index,
    /// The member that calls.
    pub caller: NodeId,
    /// The content of the request.
    pub payload: Bytes,
}

impl OpenCalls {
    pub(super) fn get(&self, call: Index) -> Option<&OpenCall> {
        self.calls.get(&call)
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// The oldest calls that a member has to answer, from an index on.
    pub(super) fn requests_to(&self, node: NodeId, from: Index, count_max: usize) -> Vec<CallRequest> {
        let calls = self.calls.range(from..);
        let asked = calls.filter(|(_, call)| call.completed.is_none() && call.waiting.contains(&node)).take(count_max);
        asked
            .map(|(index, call)| CallRequest { index: *index, caller: call.id.origin, payload: call.request.clone() })
            .collect()
    }

    fn held_bytes(&self) -> usize {
        self.calls.values().map(OpenCall::held_bytes).sum()
    }

    fn open(&mut self, at: Applied, request: Bytes, wanted: Wanted) -> Option<Applied> {
        // The earlier process of the caller waits for nothing.
        self.calls.retain(|_, call| call.id.origin != at.id.origin || call.id.incarnation == at.id.incarnation);
        let open = self.calls.values().filter(|call| call.id.origin == at.id.origin).count();
        let fits = request.len() <= CALL_BYTES_MAX && self.held_bytes() + request.len() <= HELD_BYTES_MAX;
        if open >= OPEN_CALLS_MAX || !fits {
            return None;
        }
        let waiting = self.members.clone();
        let call = OpenCall { id: at.id, request, wanted, waiting, answers: BTreeMap::new(), completed: None };
        self.calls.insert(at.index, call);
        Some(at)
    }
}

impl StateMachine for OpenCalls {
    type Command = Command;
    /// The place of a call that was accepted.
    type Response = Option<Applied>;

    fn apply(&mut self, at: Applied, command: Command) -> Option<Applied> {
        match command {
            Command::Call { request, wanted } => return self.open(at, request, wanted),
            Command::Answer { call, answer } => {
                let fits = answer.bytes() <= CALL_BYTES_MAX && self.held_bytes() + answer.bytes() <= HELD_BYTES_MAX;
                if let Some(call) = self.calls.get_mut(&call) {
                    call.answer(at.id.origin, if fits { answer } else { CallAnswer::TooLarge }, at.index);
                }
            }
            Command::Close(id) => self.calls.retain(|_, call| call.id != id),
        }
        None
    }

    fn members_changed(&mut self, change: &MembersChanged) {
        self.members = change.members.iter().copied().collect();
        self.calls.retain(|_, call| !change.left.contains(&call.id.origin));
        for call in self.calls.values_mut() {
            change.left.iter().for_each(|node| call.answer(*node, CallAnswer::Gone, change.first));
        }
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        snapshot::write(self, to)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        snapshot::read(from)
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::{Incarnation, Seq, ViewId};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn at(from: u8, index: u64) -> Applied {
        let id = MessageId { origin: node(from), incarnation: Incarnation(1), seq: Seq(index) };
        Applied { index: Index(index), id }
    }

    fn view(calls: &mut OpenCalls, first: u64, members: &[u8], left: &[u8]) {
        let [members, left] = [members, left].map(|nodes| nodes.iter().copied().map(node).collect());
        let change = MembersChanged { view: ViewId(first), first: Index(first), members, joined: Vec::new(), left };
        calls.members_changed(&change);
    }

    fn call(calls: &mut OpenCalls, from: u8, index: u64, wanted: Wanted) -> Option<Applied> {
        calls.apply(at(from, index), Command::Call { request: Bytes::from_static(b"request"), wanted })
    }

    fn reply(calls: &mut OpenCalls, from: u8, index: u64, call: u64, reply: &'static [u8]) {
        let answer = CallAnswer::Reply(Bytes::from_static(reply));
        calls.apply(at(from, index), Command::Answer { call: Index(call), answer });
    }

    #[test]
    fn a_call_is_answered_by_exactly_the_members_of_its_view() {
        let mut calls = OpenCalls::default();
        view(&mut calls, 1, &[1, 2, 3], &[]);
        assert_eq!(call(&mut calls, 1, 1, Wanted::All), Some(at(1, 1)));
        // A node that joins later has no part in it.
        view(&mut calls, 2, &[1, 2, 3, 4], &[]);
        assert!(calls.requests_to(node(4), Index(0), 9).is_empty());
        reply(&mut calls, 4, 2, 1, b"four");
        reply(&mut calls, 1, 3, 1, b"one");
        reply(&mut calls, 2, 4, 1, b"two");
        reply(&mut calls, 2, 5, 1, b"again");
        assert_eq!(calls.get(Index(1)).unwrap().completed, None);
        view(&mut calls, 6, &[1, 2, 4], &[3]);
        let completed = calls.get(Index(1)).unwrap();
        assert_eq!((completed.completed, completed.replies()), (Some(Index(6)), 2));
        let [one, two] = [&b"one"[..], b"two"].map(|reply| CallAnswer::Reply(Bytes::from_static(reply)));
        assert_eq!(completed.answers, [(node(1), one), (node(2), two), (node(3), CallAnswer::Gone)].into());
        reply(&mut calls, 3, 7, 1, b"late");
        assert_eq!(calls.get(Index(1)).unwrap().answers[&node(3)], CallAnswer::Gone);
        calls.apply(at(1, 8), Command::Close(at(1, 1).id));
        assert_eq!(calls.len(), 0, "a closed call costs nothing");
    }

    #[test]
    fn the_first_reply_and_a_majority_complete_a_call() {
        let mut calls = OpenCalls::default();
        view(&mut calls, 1, &[1, 2, 3], &[]);
        call(&mut calls, 1, 1, Wanted::First);
        call(&mut calls, 1, 2, Wanted::Majority);
        view(&mut calls, 3, &[1, 2], &[3]);
        assert!([1, 2].map(|call| calls.get(Index(call)).unwrap().completed) == [None; 2], "no reply counts");
        reply(&mut calls, 2, 3, 1, b"two");
        reply(&mut calls, 2, 4, 2, b"two");
        reply(&mut calls, 1, 5, 1, b"one");
        reply(&mut calls, 1, 6, 2, b"one");
        let [first, majority] = [1, 2].map(|call| calls.get(Index(call)).unwrap().clone());
        assert_eq!((first.completed, first.replies()), (Some(Index(3)), 1), "a later reply is ignored");
        assert_eq!((majority.completed, majority.replies()), (Some(Index(6)), 2));
        assert!(calls.requests_to(node(1), Index(0), 9).is_empty(), "nothing is left to answer");
    }

    #[test]
    fn calls_of_a_member_that_is_gone_or_restarted_are_dropped_and_their_number_is_bounded() {
        let mut calls = OpenCalls::default();
        view(&mut calls, 1, &[1, 2], &[]);
        for index in 1..=OPEN_CALLS_MAX as u64 {
            assert!(call(&mut calls, 1, index, Wanted::All).is_some());
        }
        assert_eq!(call(&mut calls, 1, 1_000, Wanted::All), None);
        assert!(call(&mut calls, 2, 1_001, Wanted::All).is_some(), "each member has its own bound");
        let mut restarted = at(1, 1_002);
        restarted.id.incarnation = Incarnation(2);
        let command = Command::Call { request: Bytes::new(), wanted: Wanted::All };
        assert!(calls.apply(restarted, command).is_some());
        assert_eq!(calls.len(), 2);
        view(&mut calls, 1_003, &[2], &[1]);
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn requests_and_replies_are_bounded() {
        let mut calls = OpenCalls::default();
        view(&mut calls, 1, &[1, 2], &[]);
        let large = Bytes::from(vec![0; CALL_BYTES_MAX + 1]);
        let open = |request| Command::Call { request, wanted: Wanted::All };
        assert_eq!(calls.apply(at(1, 1), open(large.clone())), None);
        call(&mut calls, 1, 2, Wanted::All);
        calls.apply(at(2, 3), Command::Answer { call: Index(2), answer: CallAnswer::Reply(large.clone()) });
        assert_eq!(calls.get(Index(2)).unwrap().answers[&node(2)], CallAnswer::TooLarge);
        let largest = large.slice(1..);
        let opened =
            (3..1_000).filter(|index| calls.apply(at((index % 8) as u8, *index), open(largest.clone())).is_some());
        assert_eq!(opened.count(), HELD_BYTES_MAX / CALL_BYTES_MAX - 1);
        calls.apply(at(1, 1_000), Command::Answer { call: Index(2), answer: CallAnswer::Reply(largest) });
        assert_eq!(calls.get(Index(2)).unwrap().answers[&node(1)], CallAnswer::TooLarge);
        let mut bytes = Vec::new();
        calls.snapshot(&mut bytes).unwrap();
        assert_eq!(OpenCalls::restore(&mut bytes.as_slice()).unwrap(), calls);
    }
}
