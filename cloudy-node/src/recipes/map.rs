//! A map of keys to values.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use cloudy_proto::Index;
use serde::{Deserialize, Serialize};

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

/// The condition of [`Map::replace`] does not hold, and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has another revision than expected: read the entry that the error carries, and try again")]
#[non_exhaustive]
pub struct Conflict {
    /// What the key has.
    pub found: Option<Entry>,
}

/// A map of text keys to values, the same at all members of a group. Clones are handles to the same one.
///
/// Each change is linearizable, and so is [`get`](Self::get). [`get_local`](Self::get_local) reads what this member knows.
/// A change whose outcome is unknown may still take effect: a [`replace`](Self::replace) with the revision that was read can
/// be repeated safely, since it takes effect once at most.
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use cloudy_node::recipes::Map;
///
/// let map = Map::start(group).await?;
/// map.put("colour", "red").await?;
/// let entry = map.get("colour").await?.expect("it was put");
/// map.replace("colour", Some(entry.revision), Some("blue".into())).await??;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Map(Replica<Entries>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entries(BTreeMap<String, Entry>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Change {
    key: String,
    /// The revision that the key must have; an absent key has none.
    expected: Option<Option<Index>>,
    /// None removes the key.
    value: Option<Bytes>,
}

impl StateMachine for Entries {
    type Command = Change;
    /// The entry before, or what contradicts the condition.
    type Response = Result<Option<Entry>, Conflict>;

    fn apply(&mut self, at: Applied, change: Change) -> Result<Option<Entry>, Conflict> {
        let found = self.0.get(&change.key);
        let revision = found.map(|entry| entry.revision);
        if change.expected.is_some_and(|expected| expected != revision) {
            return Err(Conflict { found: found.cloned() });
        }
        Ok(match change.value {
            Some(value) => self.0.insert(change.key, Entry { value, revision: at.index }),
            None => self.0.remove(&change.key),
        })
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
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        Replica::start(group, Entries::default()).await.map(Self)
    }

    /// Puts a value, and returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.change(Change { key: key.into(), expected: None, value: Some(value.into()) })
    }

    /// Removes a key, and returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn remove(&self, key: impl Into<String>) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        self.change(Change { key: key.into(), expected: None, value: None })
    }

    /// Compare and swap: puts a value, or removes the key for none, if the key has the expected revision; none expects that
    /// the key is absent. Returns the entry before. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// The outer error is that of [`Replica::submit`]; the inner one says that the condition does not hold.
    pub fn replace(
        &self,
        key: impl Into<String>,
        expected: Option<Index>,
        value: Option<Bytes>,
    ) -> Wait<'_, Result<Result<Option<Entry>, Conflict>, SubmitError>> {
        self.0.submit(Change { key: key.into(), expected: Some(expected), value })
    }

    /// The entry of a key, with every change that was answered anywhere before the call. Dropping it changes nothing.
    ///
    /// # Errors
    /// As [`Replica::read_linearizable`].
    pub fn get(&self, key: impl Into<String>) -> Wait<'_, Result<Option<Entry>, ReadError>> {
        let key = key.into();
        self.0.read_linearizable(move |entries| entries.0.get(&key).cloned())
    }

    /// The entry of a key as this member knows it, possibly not the newest.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn get_local(&self, key: &str) -> Result<Option<Entry>, ReplicaError> {
        self.0.read(|entries| entries.0.get(key).cloned()).await
    }

    /// Returns once this member knows another revision of a key than the given one, with the entry; none stands for an absent
    /// key. Changes that follow each other quickly may come as one.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The replica is closed.
    pub async fn changed(&self, key: &str, from: Option<Index>) -> Result<Option<Entry>, ReplicaError> {
        let mut applied = self.0.watch();
        loop {
            let entry = self.get_local(key).await?;
            if entry.as_ref().map(|entry| entry.revision) != from {
                return Ok(entry);
            }
            tokio::select! {
                _ = applied.changed() => {}
                reason = self.0.closed() => return Err(reason),
            }
        }
    }

    fn change(&self, change: Change) -> Wait<'_, Result<Option<Entry>, SubmitError>> {
        // No condition, no conflict.
        self.0.submit(change).map(|before| before.map(Result::unwrap_or_default))
    }
}
