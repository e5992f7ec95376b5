//! The thread that writes: everything queued, one transaction, one sync, then the completions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use cloudy_proto::GroupId;
use redb::{Database, Durability, ReadableTable};

use super::error::{StoreError, guarded, read_error, write_error};
use super::forgotten::Forgotten;
use super::op::{Op, Submission};
use super::packs::{self, Deleted, Places};
use super::record::{self, RECORDS};

/// The outcome of a group's submissions, reported on the store's own thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Whose.
    pub group: GroupId,
    /// The highest ticket covered: this and every earlier submission of the group not yet completed.
    pub ticket: u64,
    /// They are on disk; or it is unknown whether they are, and none of them may be relied on.
    pub result: Result<(), StoreError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// End when the queue is empty.
    Drained,
    /// End at once.
    Abandoned,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Submission>,
    /// Of the submissions that wait and of those being written.
    pub(super) backlog_bytes: usize,
    /// Number of submissions, and of those that were written or have failed.
    pub(super) submitted: u64,
    pub(super) written: u64,
    /// Groups whose last operation forgets them.
    pub(super) forgotten: BTreeSet<GroupId>,
    pub(super) stop: Option<Stop>,
    /// The first failure, after which nothing is written.
    pub(super) failed: Option<StoreError>,
    /// The thread is gone.
    pub(super) ended: bool,
    /// The times of transactions with their syncs.
    #[cfg(feature = "admin")]
    pub(super) syncs: crate::histogram::Histogram,
}

impl Queue {
    /// True if nothing else waits: the thread is to be woken.
    pub(super) fn push(&mut self, submission: Submission) -> bool {
        self.backlog_bytes += submission.cost_bytes;
        self.submitted += 1;
        let is_first = self.waiting.is_empty();
        self.waiting.push(submission);
        is_first
    }
}

/// The directory of a database.
pub(super) struct Directory {
    /// Held while the database is open.
    pub(super) _lock: Arc<File>,
    #[cfg(feature = "next-version")]
    pub(super) path: std::path::PathBuf,
}

/// The data that the store shares with its thread. The lock of the directory outlives the database.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    /// Notified after each write, and at the end of the thread.
    pub(super) written: Condvar,
    #[cfg_attr(not(feature = "next-version"), expect(dead_code, reason = "it holds the lock of the directory"))]
    pub(super) directory: Option<Directory>,
}

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while the queue is locked")
    }

    /// Waits for submissions, unless there is other work to do; none when the thread is to end.
    fn next_batch(&self, other_work: bool) -> Option<Vec<Submission>> {
        let mut queue = self.queue();
        loop {
            match queue.stop {
                Some(Stop::Abandoned) => return None,
                _ if !queue.waiting.is_empty() => return Some(std::mem::take(&mut queue.waiting)),
                Some(Stop::Drained) => return None,
                None if other_work => return Some(Vec::new()),
                None => queue = self.wake.wait(queue).expect("nothing panics while the queue is locked"),
            }
        }
    }
}

#[cfg(feature = "next-version")]
impl Shared {
    /// Raises the directory's format before the first record of a newer one is stored: from then on an older program
    /// refuses the directory.
    fn raise_format(&self, batch: &[Submission]) -> Result<(), redb::Error> {
        let is_newer = |op: &Op| matches!(op, Op::Put { key, .. } if key == super::group_records::NEXT_KEY);
        let has_newer = batch.iter().any(|submission| submission.ops.iter().any(is_newer));
        let Some(directory) = self.directory.as_ref().filter(|_| has_newer) else { return Ok(()) };
        let newest = *crate::versions::data_formats().end();
        let raised = super::data_files::raise_format(&directory.path, newest);
        raised.map_err(|error| redb::Error::Io(std::io::Error::other(error)))
    }
}

/// Marks the end of the thread, however it comes.
struct EndMark<'a>(&'a Shared);

impl Drop for EndMark<'_> {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.written.notify_all();
    }
}

pub(super) fn run(shared: &Shared, mut on_completion: impl FnMut(Completion)) {
    let _end = EndMark(shared);
    let mut failed: Option<StoreError> = None;
    let mut forgotten = match guarded(|| Forgotten::of(&shared.database)) {
        Ok(forgotten) => forgotten,
        Err(error) => {
            failed = Some(read_error(error));
            Forgotten::default()
        }
    };
    while let Some(batch) = shared.next_batch(failed.is_none() && !forgotten.is_empty()) {
        #[cfg(feature = "admin")]
        let begun = std::time::Instant::now();
        let result = match &failed {
            Some(error) => Err(error.clone()),
            None => guarded(|| {
                #[cfg(feature = "next-version")]
                shared.raise_format(&batch)?;
                write(&shared.database, &batch, &mut forgotten)
            })
            .map_err(write_error),
        };
        let cost_bytes: usize = batch.iter().map(|submission| submission.cost_bytes).sum();
        let mut covered: BTreeMap<GroupId, u64> = BTreeMap::new();
        for submission in &batch {
            // A failure is always reported.
            if let Some(of) = submission.ticket.or(result.is_err().then_some(0)) {
                let ticket = covered.entry(submission.group).or_default();
                *ticket = of.max(*ticket);
            }
        }
        let count = batch.len() as u64;
        drop(batch);
        failed = result.clone().err();
        {
            let mut queue = shared.queue();
            queue.backlog_bytes -= cost_bytes;
            queue.written += count;
            queue.failed.clone_from(&failed);
            #[cfg(feature = "admin")]
            queue.syncs.observe(begun.elapsed(), 1);
        }
        shared.written.notify_all();
        for (group, ticket) in covered {
            on_completion(Completion { group, ticket, result: result.clone() });
        }
    }
}

/// One transaction; on disk when this returns. If it fails, nothing more is written.
fn write(database: &Database, batch: &[Submission], forgotten: &mut Forgotten) -> Result<(), redb::Error> {
    if forgotten.is_empty() && batch.iter().all(|submission| submission.ops.is_empty()) {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    forgotten.delete_piece(&transaction)?;
    {
        let mut places = packs::store(&transaction, batch)?;
        let mut deleted = Deleted::default();
        let mut records = transaction.open_table(RECORDS)?;
        for submission in batch {
            for op in &submission.ops {
                match op {
                    Op::Forget => forgotten.mark(&mut records, submission.group)?,
                    op => apply(&mut records, submission.group, op, &mut places, &mut deleted)?,
                }
            }
        }
        deleted.settle(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

fn apply(
    records: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    group: GroupId,
    op: &Op,
    places: &mut Places,
    deleted: &mut Deleted,
) -> Result<(), redb::Error> {
    let mut delete = |_: &[u8], sealed: &[u8]| {
        deleted.note(sealed);
        false
    };
    match op {
        Op::Put { table, key, value } => {
            let key = record::full_key(group, *table, key);
            let place = packs::packed(op).and_then(|_| places.next(group, *table));
            let before = records.insert(key.as_slice(), record::sealed(&key, value, place).as_slice())?;
            before.iter().for_each(|before| deleted.note(before.value()));
        }
        Op::DeleteRange { table, from, to } => {
            let (from, to) = (record::full_key(group, *table, from), record::full_key(group, *table, to));
            if from < to {
                records.retain_in(from.as_slice()..to.as_slice(), &mut delete)?;
            }
        }
        // Marked by the caller.
        Op::Forget => {}
        Op::DeleteFirst { table, from, to, count_max } => {
            let (from, to) = (record::full_key(group, *table, from), record::full_key(group, *table, to));
            let next = records.range::<&[u8]>(from.as_slice()..to.as_slice())?.nth(*count_max).transpose()?;
            let to = next.map_or(to, |(key, _)| key.value().to_vec());
            records.retain_in(from.as_slice()..to.as_slice(), &mut delete)?;
        }
    }
    Ok(())
}
