//! The replicated state: keys with values and revisions, and the newest changes for watchers.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};

use cloudy_node::{Applied, Index, StateMachine};
use serde::{Deserialize, Serialize};

/// The number of changes that a watcher can be behind.
const CHANGES_MAX: usize = 10_000;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    /// The index of the command that put the value.
    pub(crate) revision: Index,
}

/// A change of a key. No value stands for a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) index: Index,
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
}

/// The state that every member has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Store {
    entries: BTreeMap<String, Entry>,
    /// Oldest first.
    changes: VecDeque<Change>,
    /// The index of the newest change that is dropped.
    dropped: Index,
}

/// What a command requires of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    Always,
    IsAbsent,
    HasRevision(Index),
}

/// Puts the value of a key, or removes the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) key: String,
    pub(crate) condition: Condition,
    pub(crate) value: Option<Vec<u8>>,
}

/// The response to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The index of the change. None: the condition did not hold, and nothing changed.
    pub(crate) changed_at: Option<Index>,
    /// The entry before the command.
    pub(crate) before: Option<Entry>,
}

impl StateMachine for Store {
    type Command = Command;
    type Response = Response;

    fn apply(&mut self, at: Applied, command: Command) -> Response {
        let Command { key, condition, value } = command;
        let before = self.entries.get(&key).cloned();
        let holds = match condition {
            Condition::Always => true,
            Condition::IsAbsent => before.is_none(),
            Condition::HasRevision(revision) => before.as_ref().is_some_and(|entry| entry.revision == revision),
        };
        if !holds {
            return Response { changed_at: None, before };
        }
        match value.clone() {
            Some(value) => self.entries.insert(key.clone(), Entry { value, revision: at.index }),
            None => self.entries.remove(&key),
        };
        self.changes.push_back(Change { index: at.index, key, value });
        if self.changes.len() > CHANGES_MAX {
            self.dropped = self.changes.pop_front().map_or(self.dropped, |oldest| oldest.index);
        }
        Response { changed_at: Some(at.index), before }
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&postcard::to_stdvec(self).map_err(io::Error::other)?)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        postcard::from_bytes(&bytes).map_err(io::Error::other)
    }
}

impl Store {
    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    /// The changes after an index. None if some of them are dropped.
    pub(crate) fn changes_after(&self, index: Index) -> Option<Vec<Change>> {
        let first = self.changes.partition_point(|change| change.index <= index);
        (index >= self.dropped).then(|| self.changes.range(first..).cloned().collect())
    }
}
