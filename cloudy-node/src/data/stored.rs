//! A data directory that is read and not changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloudy_proto::{
    ApprovedItem, Checkpoint, GroupId, Index, NodeId, Position, ResultDigest, Stored, StoredState, View,
};

use super::error::DataError;
use crate::storage::{
    Damage, GroupMeta, ReadGroupError, ReadOnlyDir, Store, Table, check_state, last_index, read_group, read_part,
};

/// Maximum bytes of slot bodies that are read at once, beside one entry.
const PART_BYTES: usize = 4 << 20;

/// A data directory, open for reading only. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct StoredNode {
    path: PathBuf,
    node: NodeId,
    format: u64,
    /// There until this is dropped.
    store: Option<Store>,
}

impl Drop for StoredNode {
    /// Waits for the store's thread, so that the directory is free afterwards.
    fn drop(&mut self) {
        // Nothing was written, so nothing can be lost.
        let _ = self.store.take().map(Store::close);
    }
}

/// The number and the size of a table's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSize {
    /// The table.
    pub table: Table,
    /// Number of records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// A group in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredGroup {
    /// The id.
    pub id: GroupId,
    /// The name.
    pub name: String,
    /// The node that created it.
    pub creator: NodeId,
    /// The latest view that the directory knows; none before the first one.
    pub view: Option<Arc<View>>,
    /// The nodes that vote in the consensus.
    pub voters: Vec<NodeId>,
    /// The first stored index; one after `last` if no message is stored.
    pub first: Index,
    /// The last stored index.
    pub last: Index,
    /// Number of messages of the latest view that the node holds without knowing that they are approved. A node that
    /// starts on the directory finds out with the other members.
    pub held: u64,
    /// The index of the application's snapshot, if there is one.
    pub snapshot: Option<Index>,
    /// Whether the group is closed.
    pub closed: bool,
    /// Whether the node was an active member of that view, or could become one without others' data.
    pub is_complete: bool,
    /// The size of each table with records.
    pub tables: Vec<TableSize>,
}

impl StoredGroup {
    /// Whether the group has ended, as far as the directory knows: it is closed, or its last view is in force.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.closed || self.view.as_ref().is_some_and(|view| view.last)
    }
}

impl StoredNode {
    /// Opens the data directory at `path`, and verifies every page of its database.
    ///
    /// # Errors
    /// The directory is in use, damaged, of another version, or cannot be read; see [`verify`](super::verify).
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::of(ReadOnlyDir::open(path)?)
    }

    pub(super) fn of(dir: ReadOnlyDir) -> Result<Self, DataError> {
        Ok(Self {
            path: dir.path().to_owned(),
            node: dir.node_id(),
            format: dir.format(),
            store: Some(dir.open_store()?),
        })
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("only taken when this is dropped")
    }

    /// The node that owns the directory.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// The data format of the directory.
    #[must_use]
    pub fn format(&self) -> u64 {
        self.format
    }

    /// The groups from which a node would continue, ordered by id.
    ///
    /// # Errors
    /// The records of a group are damaged.
    pub fn groups(&self) -> Result<Vec<StoredGroup>, DataError> {
        let mut groups = Vec::new();
        for id in self.store().groups()? {
            if let Some((meta, stored)) = read_group(self.store(), id)? {
                groups.push(self.describe(id, meta, &stored)?);
            }
        }
        Ok(groups)
    }

    /// The group of this name or id; without one, the only group.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn group(&self, name_or_id: Option<&str>) -> Result<StoredGroup, DataError> {
        let groups = self.groups()?;
        let path = self.path.clone();
        let known =
            groups.iter().map(|group| format!("{:?} ({})", group.name, group.id)).collect::<Vec<_>>().join(", ");
        let is_asked =
            |group: &StoredGroup| name_or_id.is_none_or(|asked| group.name == asked || group.id.to_string() == asked);
        let mut named = groups.into_iter().filter(is_asked);
        match (named.next(), named.next(), name_or_id) {
            (Some(group), None, _) => Ok(group),
            (Some(_), Some(_), _) => Err(DataError::SeveralGroups { path, known }),
            (None, _, _) if known.is_empty() => Err(DataError::Empty { path }),
            (None, _, asked) => Err(DataError::NoGroup { path, asked: asked.unwrap_or_default().to_owned(), known }),
        }
    }

    fn describe(&self, id: GroupId, meta: GroupMeta, stored: &Stored) -> Result<StoredGroup, DataError> {
        let contradiction = |cause| ReadGroupError::Contradiction { group: id, cause };
        let StoredState { view, closed, is_complete, voters, snapshot, held, .. } =
            stored.state().map_err(contradiction)?;
        let first = stored.begins().map_or(Index(1), |base| base.index().next());
        let before = Index(first.0 - 1);
        let last = last_index(self.store(), id)?.unwrap_or(before).max(before);
        let mut tables = Vec::new();
        for table in Table::ALL {
            let (records, bytes) = self.store().size(id, table)?;
            tables.push(TableSize { table, records, bytes });
        }
        tables.retain(|table| table.records > 0);
        let GroupMeta { name, creator, .. } = meta;
        Ok(StoredGroup { id, name, creator, view, voters, first, last, held, snapshot, closed, is_complete, tables })
    }

    /// Reads the stored result of a group from an index on.
    ///
    /// # Errors
    /// [`DataError::NotStored`] if the result begins later.
    pub fn read(&self, group: &StoredGroup, from: Index) -> Result<StoredResult<'_>, DataError> {
        if from < group.first {
            return Err(DataError::NotStored { first: group.first });
        }
        let digest = (from == Index(1) && group.closed).then(ResultDigest::default);
        Ok(StoredResult {
            store: self.store(),
            group: group.id,
            position: Position::beginning_at(from),
            last: group.last,
            digest,
            ended: false,
        })
    }

    /// The first contradiction in the records of each group.
    pub(super) fn contradictions(&self) -> Vec<Damage> {
        let mut damage = Vec::new();
        let groups = match self.store().groups() {
            Ok(groups) => groups,
            Err(error) => return vec![damage_of(None, &error.to_string())],
        };
        for id in groups {
            let read = || -> Result<(), DataError> {
                let Some((meta, stored)) = read_group(self.store(), id)? else { return Ok(()) };
                let group = self.describe(id, meta, &stored)?;
                let mut result = self.read(&group, group.first)?;
                while result.next_part()?.is_some() {}
                match stored.snapshot() {
                    Some(snapshot) => Ok(check_state(self.store(), id, &snapshot.state)?),
                    None => Ok(()),
                }
            };
            if let Err(error) = read() {
                damage.push(damage_of(Some(id), &error.to_string()));
            }
        }
        damage
    }
}

fn damage_of(group: Option<GroupId>, fault: &str) -> Damage {
    Damage { group, table: "all".to_owned(), record: "all".to_owned(), fault: fault.to_owned() }
}

/// A stored result, part by part.
#[derive(Debug)]
pub struct StoredResult<'a> {
    store: &'a Store,
    group: GroupId,
    position: Position,
    last: Index,
    digest: Option<ResultDigest>,
    ended: bool,
}

impl StoredResult<'_> {
    /// The next messages and views in the agreed order; none at the end of what is stored.
    ///
    /// # Errors
    /// A record is damaged or missing.
    pub fn next_part(&mut self) -> Result<Option<Vec<ApprovedItem>>, DataError> {
        if self.ended {
            return Ok(None);
        }
        let gap = DataError::Gap { before: self.position.next };
        let part = read_part(self.store, self.group, self.position, PART_BYTES)?.ok_or(gap)?;
        for item in &part {
            if matches!(item, ApprovedItem::Batch(entry) if entry.first_index != self.position.next) {
                return Err(DataError::Gap { before: self.position.next });
            }
            self.position.pass(item);
            match (&mut self.digest, item) {
                (Some(digest), ApprovedItem::Batch(entry)) => {
                    digest.append(entry.origin, entry.incarnation, &entry.batch);
                }
                (Some(digest), ApprovedItem::View(installed)) => digest.begin_view(&installed.view),
                (None, _) => {}
            }
        }
        if part.is_empty() {
            self.ended = true;
            if self.position.next <= self.last {
                return Err(DataError::Gap { before: self.position.next });
            }
            return Ok(None);
        }
        Ok(Some(part))
    }

    /// The length and the digest of the final result: of a closed group that was read from index 1 to its end.
    pub fn final_result(&mut self) -> Option<Checkpoint> {
        self.digest.as_mut().filter(|_| self.ended).map(ResultDigest::checkpoint)
    }
}
