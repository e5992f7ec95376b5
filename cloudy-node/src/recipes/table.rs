//! The state of named locks: holders, waiting requests, agreed time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};

use cloudy_proto::{Index, NodeId};
use serde::{Deserialize, Serialize};

use super::snapshot;
use crate::replica::{Applied, MembersChanged, StateMachine};

/// A request for a lock: the index of its command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    ticket: Index,
    node: NodeId,
    lease_ms: u64,
}

/// A request that has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    request: Request,
    /// It rises with each grant.
    token: Index,
    expires_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    granted: Option<Grant>,
    /// Longest waiting first.
    waiting: VecDeque<Request>,
}

/// All locks of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// The agreed time.
    now_ms: u64,
    /// The token of the newest grant.
    last_token: Index,
    locks: BTreeMap<String, Lock>,
}

/// An operation on a lock, and the clock of the node that submits it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) now_ms: u64,
    pub(super) action: Action,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Action {
    Acquire {
        name: String,
        lease_ms: u64,
    },
    Renew {
        name: String,
        ticket: Index,
    },
    Release {
        name: String,
        ticket: Index,
    },
    /// Time has passed.
    Tick,
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has the lock, with this fencing token.
    Granted(Index),
    Waiting,
    /// It was released, its lease ended, or its node was no member for a while.
    Gone,
}

impl Table {
    pub(super) fn place(&self, name: &str, ticket: Index) -> Place {
        let Some(lock) = self.locks.get(name) else { return Place::Gone };
        match &lock.granted {
            Some(grant) if grant.request.ticket == ticket => Place::Granted(grant.token),
            _ if lock.waiting.iter().any(|request| request.ticket == ticket) => Place::Waiting,
            _ => Place::Gone,
        }
    }

    /// The holder of a lock, and its fencing token.
    pub(super) fn holder(&self, name: &str) -> Option<(NodeId, Index)> {
        let grant = self.locks.get(name)?.granted?;
        Some((grant.request.node, grant.token))
    }

    /// When the next lease ends.
    pub(super) fn next_expiry_ms(&self) -> Option<u64> {
        self.locks.values().filter_map(|lock| lock.granted).map(|grant| grant.expires_ms).min()
    }

    /// Drops requests, and grants locks that are free then.
    fn drop_requests(&mut self, at: Index, is_dropped: impl Fn(&str, &Request, Option<&Grant>) -> bool) {
        let (now_ms, last_token) = (self.now_ms, &mut self.last_token);
        self.locks.retain(|name, lock| {
            lock.waiting.retain(|request| !is_dropped(name, request, None));
            lock.granted.take_if(|grant| is_dropped(name, &grant.request, Some(&*grant)));
            lock.grant_next(at, last_token, now_ms);
            lock.granted.is_some()
        });
    }
}

impl Lock {
    /// Grants the lock at an index. Several grants can have one index: by one command, and by views that begin there.
    fn grant_next(&mut self, at: Index, last_token: &mut Index, now_ms: u64) {
        if self.granted.is_none()
            && let Some(request) = self.waiting.pop_front()
        {
            *last_token = at.max(last_token.next());
            let expires_ms = now_ms.saturating_add(request.lease_ms);
            self.granted = Some(Grant { request, token: *last_token, expires_ms });
        }
    }
}

impl StateMachine for Table {
    type Command = Command;
    /// The index of the command, and the place of the request that it is about.
    type Response = (Index, Place);

    fn apply(&mut self, at: Applied, command: Command) -> (Index, Place) {
        self.now_ms = self.now_ms.max(command.now_ms);
        let now_ms = self.now_ms;
        self.drop_requests(at.index, |_, _, grant| grant.is_some_and(|grant| grant.expires_ms <= now_ms));
        let place = match command.action {
            Action::Acquire { name, lease_ms } => {
                let request = Request { ticket: at.index, node: at.id.origin, lease_ms };
                let lock = self.locks.entry(name.clone()).or_default();
                lock.waiting.push_back(request);
                lock.grant_next(at.index, &mut self.last_token, now_ms);
                self.place(&name, at.index)
            }
            Action::Renew { name, ticket } => {
                let granted = self.locks.get_mut(&name).and_then(|lock| lock.granted.as_mut());
                if let Some(grant) = granted.filter(|grant| grant.request.ticket == ticket) {
                    grant.expires_ms = now_ms.saturating_add(grant.request.lease_ms);
                }
                self.place(&name, ticket)
            }
            Action::Release { name, ticket } => {
                self.drop_requests(at.index, |of, request, _| of == name && request.ticket == ticket);
                Place::Gone
            }
            Action::Tick => Place::Gone,
        };
        (at.index, place)
    }

    fn members_changed(&mut self, change: &MembersChanged) {
        self.drop_requests(change.first, |_, request, _| change.left.contains(&request.node));
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
    use cloudy_proto::{Incarnation, MessageId, Seq, ViewId};

    use super::*;

    const LEASE_MS: u64 = 100;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    /// A table and the index of the next command.
    #[derive(Default)]
    struct Sequence(Table, u64);

    impl Sequence {
        fn at(&mut self, from: u8) -> Applied {
            self.1 += 1;
            let id = MessageId { origin: node(from), incarnation: Incarnation(1), seq: Seq(self.1) };
            Applied { index: Index(self.1), id }
        }

        fn apply(&mut self, from: u8, now_ms: u64, action: Action) -> Place {
            let at = self.at(from);
            self.0.apply(at, Command { now_ms, action }).1
        }

        fn acquire(&mut self, from: u8, now_ms: u64) -> (Index, Place) {
            let place = self.apply(from, now_ms, Action::Acquire { name: "a".to_owned(), lease_ms: LEASE_MS });
            (Index(self.1), place)
        }
    }

    #[test]
    fn requests_get_the_lock_in_order_and_with_rising_tokens() {
        let mut sequence = Sequence::default();
        let (first, granted) = sequence.acquire(1, 0);
        assert_eq!(granted, Place::Granted(Index(1)));
        let (second, place) = sequence.acquire(2, 0);
        let (third, _) = sequence.acquire(3, 0);
        assert_eq!(place, Place::Waiting);
        sequence.apply(1, 0, Action::Release { name: "a".to_owned(), ticket: first });
        assert_eq!(sequence.0.place("a", second), Place::Granted(Index(4)));
        sequence.apply(2, 0, Action::Release { name: "a".to_owned(), ticket: second });
        assert_eq!(sequence.0.holder("a"), Some((node(3), Index(5))));
        sequence.apply(3, 0, Action::Release { name: "a".to_owned(), ticket: third });
        assert_eq!(sequence.0.locks.len(), 0, "a free lock costs nothing");
    }

    #[test]
    fn a_lease_ends_by_the_latest_time_that_a_command_carried_and_a_renewal_extends_it() {
        let mut sequence = Sequence::default();
        let (first, _) = sequence.acquire(1, 1_000);
        let (second, _) = sequence.acquire(2, 500);
        assert_eq!(sequence.0.next_expiry_ms(), Some(1_000 + LEASE_MS));
        let renewed = sequence.apply(1, 1_000 + LEASE_MS - 1, Action::Renew { name: "a".to_owned(), ticket: first });
        assert_eq!(renewed, Place::Granted(first));
        sequence.apply(3, 1_000 + LEASE_MS, Action::Tick);
        assert_eq!(sequence.0.place("a", second), Place::Waiting);
        sequence.apply(3, 1_000 + 2 * LEASE_MS, Action::Tick);
        assert_eq!(sequence.0.place("a", first), Place::Gone);
        assert_eq!(sequence.0.place("a", second), Place::Granted(Index(5)));
        let late = sequence.apply(1, 0, Action::Renew { name: "a".to_owned(), ticket: first });
        assert_eq!(late, Place::Gone);
    }

    fn without(gone: u8, first: Index) -> MembersChanged {
        let (members, left) = (vec![node(9)], vec![node(gone)]);
        MembersChanged { view: ViewId(2), first, members, joined: Vec::new(), left }
    }

    #[test]
    fn the_requests_of_a_node_that_is_no_member_are_dropped() {
        let mut sequence = Sequence::default();
        let (first, _) = sequence.acquire(1, 0);
        let (second, _) = sequence.acquire(1, 0);
        let (third, _) = sequence.acquire(2, 0);
        sequence.0.members_changed(&without(1, Index(4)));
        assert_eq!([first, second].map(|ticket| sequence.0.place("a", ticket)), [Place::Gone; 2]);
        assert_eq!(sequence.0.place("a", third), Place::Granted(Index(4)));
    }

    #[test]
    fn tokens_rise_when_views_and_a_command_grant_a_lock_at_the_same_index() {
        let mut sequence = Sequence::default();
        let tickets = [1, 2, 3, 4].map(|node| sequence.acquire(node, 0).0);
        sequence.0.members_changed(&without(1, Index(5)));
        assert_eq!(sequence.0.place("a", tickets[1]), Place::Granted(Index(5)));
        sequence.0.members_changed(&without(2, Index(5)));
        assert_eq!(sequence.0.place("a", tickets[2]), Place::Granted(Index(6)));
        // The command at index 5.
        sequence.apply(4, LEASE_MS, Action::Tick);
        assert_eq!(sequence.0.place("a", tickets[3]), Place::Granted(Index(7)));
    }
}
