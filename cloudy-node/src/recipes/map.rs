//! A map of keys to values.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::Index;
use serde::{Deserialize, Serialize};

use super::clock::{self, Stopped, in_ms, now_ms};
use super::snapshot;
use crate::handle::Group;
use crate::replica::{Applied, ReadError, Replica, ReplicaError, StateMachine, SubmitError};
use crate::wait::Wait;

/// A value of a [`Map`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// The bytes that were put.
    pub value: Bytes,
    /// The index of the command that put them: it rises with each change.
    pub revision: Index,
}

/// A condition of [`Map::replace`] or [`Map::commit`] does not hold, and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {key:?} has another revision than expected: read the entry that the error carries, and try again")]
#[non_exhaustive]
pub struct Conflict {
    /// The first key whose condition does not hold.
    pub key: String,
    /// The value of the key.
    pub found: Option<Entry>,
}

/// Changes of a [`Map`] that take effect together, or not at all: [`Map::commit`].
///
/// The conditions are checked first, then the changes are made in their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Transaction {
    /// The revision that each key must have; an absent key has none.
    conditions: Vec<(String, Option<Index>)>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Change {
    key: String,
    /// None removes the key.
    value: Option<Bytes>,
    lifetime_ms: Option<u64>,
}

impl Transaction {
    /// A transaction that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that a key has a revision; none requires that the key is absent.
    #[must_use]
    pub fn require(mut self, key: impl Into<String>, revision: Option<Index>) -> Self {
        self.conditions.push((key.into(), revision));
        self
    }

    /// Puts a value.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.change(key.into(), Some(value.into()), None)
    }

    /// Puts a value that is removed after a time: see [`Map::put_for`].
    #[must_use]
    pub fn put_for(self, key: impl Into<String>, value: impl Into<Bytes>, lifetime: Duration) -> Self {
        self.change(key.into(), Some(value.into()), Some(in_ms(lifetime)))
    }

    /// Removes a key.
    #[must_use]
    pub fn remove(self, key: impl Into<String>) -> Self {
        self.change(key.into(), None, None)
    }

    fn change(mut self, key: String, value: Option<Bytes>, lifetime_ms: Option<u64>) -> Self {
        self.changes.push(Change { key, value, lifetime_ms });
        self
    }
}

/// A map of text keys to values, the same at all members of a group. Clones are handles to the same one.
///
/// Each change is linearizable, and so is [`get`](Self::get). [`get_local`](Self::get_local) reads what this member knows.
///
/// # Failure mode
///
/// A change whose outcome is unknown may still take effect. A [`replace`](Self::replace) with the revision that was
/// read, or a [`commit`](Self::commit) that requires it, can be repeated safely: it takes effect once at most.
///
/// An entry with a lifetime ends by agreed time: see the [module](super). A member that is cut off shows it for longer.
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use cloudy_node::recipes::{Map, Transaction};
///
/// let map = Map::start(group).await?;
/// map.put("colour", "red").await?;
/// let entry = map.get("colour").await?.expect("it was put");
/// map.replace("colour", Some(entry.revision), Some("blue".into())).await??;
/// map.put_for("session/7", "alice", Duration::from_secs(60)).await?;
/// map.commit(Transaction::new().require("owner", None).put("owner", "bob").remove("colour")).await??;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Map {
    replica: Replica<Entries>,
    /// Stopped with the last handle.
    _ticks: Arc<Stopped>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    entry: Entry,
    expires_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entries {
    /// The agreed time.
    now_ms: u64,
    kept: BTreeMap<String, Kept>,
    /// When keys expire, soonest first.
    expiries: BTreeSet<(u64, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Command {
    now_ms: u64,
    transaction: Transaction,
}

/// The index of the changes, and the entries before them.
type Changed = (Index, Vec<Option<Entry>>);

impl Entries {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.kept.get(key).map(|kept| &kept.entry)
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let Kept { entry, expires_ms } = self.kept.remove(key)?;
        if let Some(at) = expires_ms {
            self.expiries.remove(&(at, key.to_owned()));
        }
        Some(entry)
    }

    fn change(&mut self, revision: Index, change: Change) -> Option<Entry> {
        let before = self.remove(&change.key);
        if let Some(value) = change.value {
            let expires_ms = change.lifetime_ms.map(|lifetime| self.now_ms.saturating_add(lifetime));
            self.expiries.extend(expires_ms.map(|at| (at, change.key.clone())));
            self.kept.insert(change.key, Kept { entry: Entry { value, revision }, expires_ms });
        }
        before
    }

    /// The time passes, and entries expire.
    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some((_, key)) = self.expiries.first().filter(|(at, _)| *at <= self.now_ms).cloned() {
            self.remove(&key);
        }
    }
}

impl StateMachine for Entries {
    type Command = Command;
    type Response = Result<Changed, Conflict>;

    fn apply(&mut self, at: Applied, Command { now_ms, transaction }: Command) -> Result<Changed, Conflict> {
        self.advance(now_ms);
        for (key, revision) in transaction.conditions {
            let found = self.get(&key);
            if found.map(|entry| entry.revision) != revision {
                return Err(Conflict { found: found.cloned(), key });
            }
        }
        let changes = transaction.changes.into_iter();
        Ok((at.index, changes.map(|change| self.change(at.index, change)).collect()))
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        snapshot::write(self, to)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        snapshot::read(from)
    }
}

impl Map {
    /// Starts the map of a group, which must hold nothing else.
    ///
    /// Cancel safe: a dropped future has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        let replica = Replica::start(group, Entries::default()).await?;
        let ticks = clock::tick(replica.clone(), Entries::next_expiry_ms, |now_ms| Command {
            now_ms,
            transaction: Transaction::new(),
        });
        Ok(Self { replica, _ticks: Arc::new(Stopped::spawn(ticks)) })
    }

    /// Puts a value, and returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.change(Transaction::new().put(key, value))
    }

    /// Puts a value that is removed after a time, unless the key is changed before, and returns the entry before. The
    /// time is at least a millisecond and counts from the agreed time at which the value is put. All members remove the
    /// entry at the same index: usually within a tenth of a second after the time has passed by the first clock of a
    /// member.
    ///
    /// Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn put_for(
        &self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
        lifetime: Duration,
    ) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.change(Transaction::new().put_for(key, value, lifetime))
    }

    /// Removes a key, and returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn remove(&self, key: impl Into<String>) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.change(Transaction::new().remove(key))
    }

    /// Compare and swap: puts a value, or removes the key for none, if the key has the expected revision; none expects
    /// that the key is absent. Returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// The outer error is that of [`Replica::submit`]; the inner one reports that the condition does not hold.
    pub fn replace(
        &self,
        key: impl Into<String>,
        expected: Option<Index>,
        value: Option<Bytes>,
    ) -> Wait<'_, Result<Result<Option<Entry>, Conflict>, SubmitError>> {
        let key = key.into();
        let transaction = Transaction::new().require(&key, expected).change(key, value, None);
        self.submit(transaction).map(|answer| answer.map(|changed| changed.map(only)))
    }

    /// Makes all changes of a transaction if all its conditions hold, and returns their index, which is the revision of
    /// each key that was put. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// The outer error is that of [`Replica::submit`]; the inner one names a key whose condition does not hold.
    pub fn commit(&self, transaction: Transaction) -> Wait<'_, Result<Result<Index, Conflict>, SubmitError>> {
        self.submit(transaction).map(|answer| answer.map(|changed| changed.map(|(index, _)| index)))
    }

    /// The entry of a key, with every change that was answered anywhere before the call. Dropping it changes nothing.
    ///
    /// # Errors
    /// As [`Replica::read_linearizable`].
    pub fn get(&self, key: impl Into<String>) -> Wait<'_, Result<Option<Entry>, ReadError>> {
        let key = key.into();
        self.replica.read_linearizable(move |entries| entries.get(&key).cloned())
    }

    /// The entry of a key as this member knows it, possibly not the newest.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn get_local(&self, key: &str) -> Result<Option<Entry>, ReplicaError> {
        self.replica.read(|entries| entries.get(key).cloned()).await
    }

    /// Returns once this member knows another revision of a key than the given one, with the entry; none stands for an
    /// absent key. Changes that follow each other quickly may come as one.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The replica is closed.
    pub async fn changed(&self, key: &str, from: Option<Index>) -> Result<Option<Entry>, ReplicaError> {
        let mut applied = self.replica.watch();
        loop {
            let entry = self.get_local(key).await?;
            if entry.as_ref().map(|entry| entry.revision) != from {
                return Ok(entry);
            }
            tokio::select! {
                _ = applied.changed() => {}
                reason = self.replica.closed() => return Err(reason),
            }
        }
    }

    fn submit(&self, transaction: Transaction) -> Wait<'_, Result<Result<Changed, Conflict>, SubmitError>> {
        self.replica.submit(Command { now_ms: now_ms(), transaction })
    }

    /// A change without a condition.
    fn change(&self, transaction: Transaction) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.submit(transaction).map(|answer| answer.map(|changed| changed.ok().and_then(only)))
    }
}

/// The entry before a single change.
fn only((_, before): Changed) -> Option<Entry> {
    before.into_iter().next().flatten()
}

#[cfg(test)]
mod tests {
    use cloudy_proto::{Incarnation, MessageId, NodeId, Seq};

    use super::*;

    fn apply(entries: &mut Entries, index: u64, now_ms: u64, transaction: Transaction) -> Result<Changed, Conflict> {
        let id = MessageId { origin: NodeId([1; 32]), incarnation: Incarnation(1), seq: Seq(index) };
        entries.apply(Applied { index: Index(index), id }, Command { now_ms, transaction })
    }

    #[test]
    fn an_entry_expires_by_the_latest_time_that_a_command_carried_and_a_change_ends_its_lifetime() {
        let mut entries = Entries::default();
        let lifetime = Duration::from_millis(100);
        let puts =
            Transaction::new().put_for("a", "1", lifetime).put_for("b", "1", lifetime).put_for("c", "1", lifetime);
        apply(&mut entries, 1, 1_000, puts).unwrap();
        assert_eq!(entries.next_expiry_ms(), Some(1_100));
        apply(&mut entries, 2, 500, Transaction::new().put("b", "2").put_for("c", "2", 2 * lifetime)).unwrap();
        apply(&mut entries, 3, 1_100, Transaction::new()).unwrap();
        assert_eq!(["a", "b", "c"].map(|key| entries.get(key).is_some()), [false, true, true]);
        let absent = apply(&mut entries, 4, 1_200, Transaction::new().require("c", None));
        assert_eq!(absent.unwrap().0, Index(4), "it expires before the conditions are checked");
        assert_eq!((entries.kept.len(), entries.next_expiry_ms()), (1, None));
    }

    #[test]
    fn a_transaction_takes_effect_wholly_or_not_at_all() {
        let mut entries = Entries::default();
        apply(&mut entries, 1, 0, Transaction::new().put("a", "1").put("b", "1")).unwrap();
        let stale = Transaction::new().require("a", Some(Index(1))).require("b", None).put("a", "2").remove("b");
        let conflict = apply(&mut entries, 2, 0, stale).unwrap_err();
        assert_eq!((conflict.key.as_str(), conflict.found.unwrap().revision), ("b", Index(1)));
        assert_eq!(["a", "b"].map(|key| entries.get(key).unwrap().revision), [Index(1); 2]);
        let holds = Transaction::new().require("a", Some(Index(1))).put("a", "2").remove("b").put("b", "3");
        let (index, before) = apply(&mut entries, 3, 0, holds).unwrap();
        assert_eq!((index, before.len(), before[2].as_ref()), (Index(3), 3, None), "in their order");
        assert_eq!(["a", "b"].map(|key| entries.get(key).unwrap().revision), [Index(3); 2]);
    }
}
