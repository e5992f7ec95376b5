//! Data directories of real nodes, read while they are closed, killed or damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloudy_proto::{ApprovedItem, Durability, Index, Parameters};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::cluster_key::ClusterKey;
use crate::group::GroupConfig;
use crate::group::saved::Saved;
use crate::handle::Group;
use crate::node::Node;
use crate::storage::{DATA_FILES, DataDir, DataDirError, Op};

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("cloudy records");
const PACKS: TableDefinition<'static, (u64, u64), &[u8]> = TableDefinition::new("cloudy packs");
const GONE: TableDefinition<'static, u64, u32> = TableDefinition::new("cloudy packs' gone");

/// Number of messages: two checkpoints are stored among them.
const LAST: u64 = 140_000;

async fn start(path: &Path) -> Node {
    let dir = DataDir::open(path, true).expect("a data directory");
    let identity = dir.identity(&ClusterKey::generate().expect("a key")).expect("an identity");
    Node::builder().identity(identity).data_dir(dir).start().await.expect("starts")
}

/// A group of one with messages of several sizes, that keeps this much of them.
async fn filled(node: &Node, retain_disk_bytes: Option<u64>) -> Group {
    let parameters = Parameters::default().durability(Durability::Disk);
    let config = GroupConfig::default().parameters(parameters).retain_disk_bytes(retain_disk_bytes);
    let group = node.create_group("orders", 1, config).await.expect("created");
    for number in 0..LAST {
        let size = if number % 2_000 == 0 { 3_000 } else { 2 };
        drop(group.broadcast(noise(number, size)).await.expect("accepted"));
    }
    group.flush().await.expect("approved");
    group
}

/// Takes a snapshot near the beginning, so that none of the result is deleted.
fn snapshot(group: &Group) {
    let mut writer = group.shared.states().expect("a group on disk").writer();
    let stored = tokio::task::block_in_place(|| writer.write_all(&noise(1, 3_000)).and_then(|()| writer.finish()));
    group.save(Index(10), Saved::Stored(stored.expect("stored")));
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn copy_of(path: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for file in DATA_FILES {
        fs::copy(path.join(file), copy.path().join(file)).expect("copied");
    }
    copy
}

/// Stores some slots again, so that packs have deleted values.
fn store_again(path: &Path, group: GroupId) {
    let store = DataDir::open(path, false).and_then(|dir| dir.open_store(|_| {})).expect("opens");
    let slots = store.range(group, Table::Slots, .., 1 << 20).expect("slots").into_iter().step_by(2);
    let again = slots.map(|slot| Op::Put { table: Table::Slots, key: slot.key, value: slot.value.into() });
    store.submit(group, again.collect(), 1).expect("accepted");
    store.close().expect("stored");
}

/// A copy of a running node's directory, as `kill -9` leaves it, once the node has stored all messages.
async fn killed(path: &Path) -> TempDir {
    let started = Instant::now();
    loop {
        let copy = copy_of(path);
        let last = StoredNode::open(copy.path()).and_then(|node| node.group(None)).map(|group| group.last);
        if matches!(last, Ok(Index(LAST))) {
            return copy;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{last:?}");
        // sleep: the disk of a running node gives no sign.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn database(path: &Path) -> PathBuf {
    path.join("cloudy.redb")
}

/// The bytes to alter, with the name of the table: of a few records of each table.
fn targets(path: &Path) -> Vec<(String, Vec<u8>)> {
    let copy = copy_of(path);
    let opened = Database::open(database(copy.path())).expect("a database");
    let read = opened.begin_read().expect("reads");
    let mut records: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
    for entry in read.open_table(RECORDS).expect("a table").iter().expect("records") {
        let (key, sealed) = entry.expect("a record");
        records.entry(key.value()[16]).or_default().push(sealed.value().to_vec());
    }
    let mut targets = Vec::new();
    for table in Table::ALL {
        let of_table = records.get(&(table as u8 + 1)).unwrap_or_else(|| panic!("no records in table {table}"));
        targets.push((table.to_string(), of_table[of_table.len() / 2].clone()));
    }
    for piece in read.open_table(PACKS).expect("a table").iter().expect("pieces").rev().take(1) {
        // Its end is of a value that is still there.
        let piece = piece.expect("a piece").1.value().to_vec();
        targets.push(("slots".to_owned(), piece[piece.len() - 64..].to_vec()));
    }
    let gone: Vec<(u64, u32)> = read
        .open_table(GONE)
        .expect("a table")
        .iter()
        .expect("records")
        .map(|entry| {
            let (pack, count) = entry.expect("a record");
            (pack.value(), count.value())
        })
        .collect();
    assert!(!gone.is_empty(), "no pack with deleted values");
    // A leaf of the database with fixed sizes: the number of entries, the keys, the values.
    let mut leaf = (gone.len() as u16).to_le_bytes().to_vec();
    leaf.extend(gone.iter().flat_map(|(pack, _)| pack.to_le_bytes()));
    leaf.extend(gone.iter().flat_map(|(_, count)| count.to_le_bytes()));
    targets.push(("packs' gone".to_owned(), leaf));
    targets
}

/// Flips a bit in every copy of these bytes: of those that the database has left behind as well.
fn flip(path: &Path, bytes: &[u8], at: usize) -> usize {
    let file = database(path);
    let mut image = fs::read(&file).expect("a database");
    let places: Vec<usize> = memchr_all(&image, bytes);
    places.iter().for_each(|place| image[place + at] ^= 0x10);
    fs::write(&file, image).expect("written");
    places.len()
}

fn memchr_all(image: &[u8], bytes: &[u8]) -> Vec<usize> {
    let first = bytes[0];
    let starts = image.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at);
    starts.filter(|at| image[*at..].starts_with(bytes)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_in_each_table_are_named_with_their_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(dir.path()).await;
    let group = filled(&node, None).await;
    snapshot(&group);
    let group = group.id();
    let killed = killed(dir.path()).await;
    node.shutdown().await;
    store_again(dir.path(), group);
    store_again(killed.path(), group);
    let mut named = BTreeSet::new();
    for (path, of_all) in [(dir.path(), true), (killed.path(), false)] {
        let verified = verify(path).expect("verified");
        assert_eq!(verified.damage, []);
        for (table, bytes) in targets(path) {
            // Of a killed node's directory the database has to be read in another way: one table shows that.
            let places = if of_all { &[3, bytes.len() - 1][..] } else { &[3][..] };
            for at in places.iter().filter(|_| of_all || table == "result") {
                let copy = copy_of(path);
                assert!(flip(copy.path(), &bytes, *at) > 0, "table {table}: the bytes are not in the file");
                let damage = verify(copy.path()).expect("verified").damage;
                let is_named = |damage: &Damage| {
                    damage.table == table && !damage.record.is_empty() && damage.group.is_none_or(|of| of == group)
                };
                assert!(damage.iter().any(is_named), "table {table}, byte {at}: {damage:?}");
                named.insert(table.clone());
            }
        }
    }
    assert_eq!(named.len(), Table::ALL.len() + 1, "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_changes_no_file_and_a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(dir.path()).await;
    let group = filled(&node, Some(100_000)).await;
    for opened in [StoredNode::open(dir.path()).map(drop), verify(dir.path()).map(drop)] {
        let error = opened.expect_err("in use");
        assert!(matches!(error, DataError::Dir(DataDirError::InUse { .. })), "{error}");
        assert!(error.to_string().contains("is in use by another process"), "{error}");
    }
    let killed = killed(dir.path()).await;
    let files = |path: &Path| DATA_FILES.map(|file| fs::read(path.join(file)).expect("a file"));
    let before = files(killed.path());
    let stored = StoredNode::open(killed.path()).expect("opens");
    let described = stored.group(None).expect("the only group");
    assert_eq!((described.id, described.name.as_str()), (group.id(), "orders"));
    let mut result = stored.read(&described, described.first).expect("reads");
    let mut next = described.first.0;
    while let Some(part) = result.next_part().expect("reads") {
        for item in part {
            if let ApprovedItem::Batch(entry) = item {
                assert_eq!(entry.first_index.0, next);
                next = entry.last_index().0 + 1;
            }
        }
    }
    assert_eq!(next, described.last.0 + 1);
    drop(stored);
    verify(killed.path()).expect("verifies");
    assert!(files(killed.path()) == before, "a file was changed");
    node.shutdown().await;
    let stored = StoredNode::open(dir.path()).expect("opens");
    let described = stored.group(None).expect("the only group");
    assert!(described.first > Index(1), "{described:?}");
    assert_eq!((described.last, described.held), (Index(LAST), 0));
    let early = stored.read(&described, Index(1)).expect_err("deleted");
    assert!(matches!(early, DataError::NotStored { first } if first == described.first), "{early}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_a_new_group_with_the_same_messages_or_nothing() {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("new");
    let mut importer = Importer::create(&path, "orders").await.expect("created");
    for number in 0..100_u32 {
        importer.message(number.to_le_bytes().to_vec()).await.expect("accepted");
    }
    let imported = importer.finish().await.expect("finished");
    assert_eq!(imported.last, Index(100));
    let stored = StoredNode::open(&path).expect("opens");
    let group = stored.group(Some("orders")).expect("there");
    assert_eq!((group.id, group.last, stored.node_id()), (imported.group, Index(100), imported.node));
    drop(stored);
    let error = Importer::create(&path, "orders").await.expect_err("there is a node");
    assert!(error.to_string().contains("name a new or empty directory"), "{error}");
    // A node continues the group.
    let node = start(&path).await;
    let group = node.resumed_groups()[0].clone();
    let approval = group.broadcast("later").await.expect("accepted").await.expect("approved");
    assert_eq!((group.id(), approval.index), (imported.group, Index(101)));
    node.shutdown().await;
    let other = parent.path().join("other");
    Importer::create(&other, "orders").await.expect("created").discard().await;
    assert!(!other.exists(), "a discarded import leaves nothing");
}
