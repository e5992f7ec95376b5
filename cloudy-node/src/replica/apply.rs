//! The task that applies the group's messages, in order, and takes snapshots.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Entry, Index, InstalledView, MessageId, NodeId, Position, Seq, ViewId};
use futures_core::Stream;

use super::envelope::{self, Envelope, Vote};
use super::error::ReplicaError;
use super::snapshot::{self, Members, Taken, Target};
use super::votes::{Verdict, Votes};
use super::{Applied, Core, Inner, MembersChanged, StateMachine};
use crate::group::{Approved, ApprovedError, ApprovedItem, EndReason};
use crate::handle::Group;
use crate::health::panic_message;

/// Bytes of payload that are applied in one piece, while reads wait.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// A member that is this many messages behind does not announce the digests of its snapshots: the others do not keep them.
const ANNOUNCE_BEHIND_MAX: u64 = 65_536;

type ReadItem = Option<Result<ApprovedItem, ApprovedError>>;

/// The task's data beside the state.
struct Applier<'a, S: StateMachine> {
    inner: &'a Arc<Inner<S>>,
    approved: Approved,
    /// Read, and not applied.
    queue: VecDeque<ApprovedItem>,
    /// Read after the queue, which is applied first.
    next: Option<ReadItem>,
    /// Bytes of payload since the last snapshot.
    unsaved_bytes: u64,
    votes: Votes,
    /// A snapshot that is kept once a majority has the same, or at the next one.
    unconfirmed: Option<Taken>,
}

/// The outcome of a piece.
#[derive(Debug, Default)]
struct Piece {
    rest: VecDeque<ApprovedItem>,
    votes: Vec<(NodeId, Vote)>,
    unsaved_bytes: u64,
    /// A snapshot is due at the state's index.
    snapshot_is_due: bool,
}

/// Applies until the group ends or the replica cannot continue: why.
pub(super) async fn run<S: StateMachine>(inner: &Arc<Inner<S>>) -> ReplicaError {
    let position = inner.core.read().await.position();
    let mut applier = Applier {
        inner,
        approved: inner.group.approved_after(position),
        queue: VecDeque::new(),
        next: None,
        unsaved_bytes: 0,
        votes: Votes::default(),
        unconfirmed: None,
    };
    loop {
        if let Err(reason) = applier.step().await {
            return reason;
        }
    }
}

/// The state of the newest snapshot here, if it goes further than an index.
pub(super) async fn restored_after<S: StateMachine>(
    group: &Group,
    index: Index,
) -> Result<Option<Core<S>>, ReplicaError> {
    let restored = group.shared.lock().restored.clone();
    let Some((at, saved)) = restored.filter(|(at, _)| *at > index) else { return Ok(None) };
    let restore = blocking("restore", at, move || snapshot::restore(at, saved.reader()));
    restore.await?.map(Some).map_err(|error| ReplicaError::Restore { index: at, reason: error.to_string() })
}

/// Runs a method of the application on a thread that may block.
async fn blocking<T: Send + 'static>(
    during: &'static str,
    index: Index,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReplicaError> {
    let done = tokio::task::spawn_blocking(move || guarded(during, index, work));
    // A runtime that shuts down cancels it.
    done.await.unwrap_or_else(|_| Err(EndReason::ShutDown.into()))
}

/// Turns a panic of the application into the reason why the replica stops.
fn guarded<T>(during: &'static str, index: Index, work: impl FnOnce() -> T) -> Result<T, ReplicaError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = panic_message(panic.as_ref());
        ReplicaError::Panicked { during, index, message }
    })
}

impl<S: StateMachine> Applier<'_, S> {
    async fn step(&mut self) -> Result<(), ReplicaError> {
        if self.queue.is_empty() {
            let item = match self.next.take() {
                Some(item) => item,
                None => self.approved.next_batch().await,
            };
            self.take(item).await?;
        }
        self.gather().await;
        let (inner, queue) = (Arc::clone(self.inner), std::mem::take(&mut self.queue));
        let (unsaved_bytes, index) = (self.unsaved_bytes, *self.inner.applied.borrow());
        let piece = blocking("apply", index, move || apply_piece(&inner, queue, unsaved_bytes)).await??;
        (self.queue, self.unsaved_bytes) = (piece.rest, piece.unsaved_bytes);
        for (node, vote) in piece.votes {
            self.note(node, vote).await?;
        }
        if piece.snapshot_is_due {
            self.take_snapshot().await?;
        }
        if !self.inner.is_behind() {
            self.inner.caught_up.notify_waiters();
        }
        Ok(())
    }

    /// Reads what is there, up to a bound.
    async fn gather(&mut self) {
        let mut bytes: usize = self.queue.iter().map(body_bytes).sum();
        while bytes < PIECE_BYTES_MAX && self.next.is_none() {
            let approved = &mut self.approved;
            let ready = poll_fn(|context| match Pin::new(&mut *approved).poll_next(context) {
                Poll::Ready(item) => Poll::Ready(Some(item)),
                Poll::Pending => Poll::Ready(None),
            });
            match ready.await {
                Some(Some(Ok(item))) => {
                    bytes += body_bytes(&item);
                    self.queue.push_back(item);
                }
                // An error is given once.
                Some(item) => self.next = Some(item),
                None => return,
            }
        }
    }

    async fn take(&mut self, item: ReadItem) -> Result<(), ReplicaError> {
        match item {
            Some(Ok(item)) => self.queue.push_back(item),
            Some(Err(ApprovedError::Lagged { resume_from })) => self.restore(resume_from).await?,
            Some(Err(ApprovedError::Unreadable { cause, .. })) => return Err(cause.into()),
            Some(Err(ApprovedError::Ended(reason))) => return Err(reason.into()),
            None => return Err(EndReason::Final.into()),
        }
        Ok(())
    }

    /// Continues from a snapshot, if there is one that the retained part of the result follows.
    async fn restore(&mut self, resume_from: Index) -> Result<(), ReplicaError> {
        let applied = *self.inner.applied.borrow();
        let core = restored_after(&self.inner.group, applied).await?;
        let core = core.filter(|core| core.index.next() >= resume_from);
        let Some(core) = core else { return Err(ReplicaError::Lagged { resume_from }) };
        let (index, position) = (core.index, core.position());
        *self.inner.core.write().await = core;
        (self.unsaved_bytes, self.unconfirmed) = (0, None);
        self.inner.applied.send_replace(index);
        self.approved = self.inner.group.approved_after(position);
        Ok(())
    }

    /// Broadcasts a message of the replica, as soon as the group accepts one.
    fn broadcast(&self, payload: Vec<u8>) {
        let group = self.inner.group.clone();
        tokio::spawn(async move {
            // No caller waits for it: a group that has ended needs none.
            let _ = group.broadcast(payload).await;
        });
    }

    async fn take_snapshot(&mut self) -> Result<(), ReplicaError> {
        if let Some(kept) = self.unconfirmed.take() {
            self.keep(kept);
        }
        let (inner, index) = (Arc::clone(self.inner), *self.inner.applied.borrow());
        let take = move || {
            let bytes_max = inner.config.memory_snapshot_bytes_max.min(snapshot::MEMORY_BYTES_MAX);
            let in_memory = Target::Memory { bytes_max };
            let target = inner.group.shared.states().map_or(in_memory, Target::Disk);
            snapshot::take(&inner.core.blocking_read(), target)
        };
        let taken = blocking("snapshot", index, take).await?;
        match taken {
            Ok(taken) => {
                let vote = Vote { index, digest: taken.digest };
                self.unconfirmed = Some(taken);
                if self.inner.approved().0.saturating_sub(index.0) <= ANNOUNCE_BEHIND_MAX {
                    self.broadcast(envelope::vote(vote));
                }
                self.note(self.inner.group.node_id(), vote).await
            }
            Err(error) => {
                self.no_snapshot(index, error.to_string());
                Ok(())
            }
        }
    }

    /// A member's digest: the snapshot here is kept, or the state is not the others'.
    async fn note(&mut self, node: NodeId, vote: Vote) -> Result<(), ReplicaError> {
        let me = self.inner.group.node_id();
        self.votes.note(node, vote);
        let members = self.inner.core.read().await.header.members.nodes.clone();
        let divergence = self.votes.divergence(me, vote.index, &members);
        match self.votes.verdict(me, vote.index, &members) {
            Verdict::Outvoted => {
                if let Some(divergence) = divergence {
                    return Err(ReplicaError::Diverged(Box::new(divergence)));
                }
            }
            Verdict::Confirmed => {
                if let Some(taken) = self.unconfirmed.take_if(|taken| taken.index == vote.index) {
                    self.keep(taken);
                }
            }
            Verdict::Open => {}
        }
        if let Some(divergence) = divergence {
            tracing::error!(group = self.inner.group.name(), %divergence, "the state of a member differs");
            self.inner.reports().divergence = Some(divergence);
        }
        Ok(())
    }

    /// Hands a snapshot to the node, which gives it to members that need it.
    fn keep(&self, taken: Taken) {
        let Taken { index, saved, .. } = taken;
        match saved {
            Ok(saved) => {
                self.inner.group.shared.lock().saved(index, saved.clone());
                self.inner.group.save(index, saved);
                let mut reports = self.inner.reports();
                (reports.snapshot, reports.snapshot_error) = (Some(index), None);
            }
            Err(reason) => self.no_snapshot(index, reason),
        }
    }

    fn no_snapshot(&self, index: Index, reason: String) {
        tracing::warn!(group = self.inner.group.name(), %index, reason, "no snapshot was taken");
        self.inner.reports().snapshot_error = Some(format!("at index {index}: {reason}"));
    }
}

/// Applies items until a snapshot is due.
fn apply_piece<S: StateMachine>(
    inner: &Inner<S>,
    mut queue: VecDeque<ApprovedItem>,
    unsaved_bytes: u64,
) -> Result<Piece, ReplicaError> {
    let mut piece = Piece { unsaved_bytes, ..Piece::default() };
    let mut core = inner.core.blocking_write();
    while let Some(item) = queue.pop_front() {
        let applied = match item {
            ApprovedItem::View(installed) => core.install(&installed).map(|()| None),
            ApprovedItem::Batch(entry) => inner.apply_entry(&mut core, entry, &mut piece),
        };
        match applied {
            // Before the lock is released: the state may be half changed.
            Err(reason) => return Err(inner.close(reason)),
            Ok(Some(rest)) => queue.push_front(rest),
            Ok(None) => {}
        }
        if piece.snapshot_is_due {
            break;
        }
    }
    piece.rest = queue;
    let index = core.index;
    drop(core);
    inner.applied.send_replace(index);
    Ok(piece)
}

fn body_bytes(item: &ApprovedItem) -> usize {
    match item {
        ApprovedItem::Batch(entry) => entry.batch.body.len(),
        ApprovedItem::View(_) => 0,
    }
}

impl<S: StateMachine> Core<S> {
    /// The position of the next item.
    fn position(&self) -> Position {
        Position { next: self.index.next(), view: ViewId(self.header.members.view) }
    }

    fn install(&mut self, installed: &InstalledView) -> Result<(), ReplicaError> {
        let members = Members::of(&installed.view);
        let before = std::mem::replace(&mut self.header.members, members);
        let after = &self.header.members.nodes;
        let change = MembersChanged {
            view: installed.id(),
            first: installed.first,
            members: after.iter().copied().collect(),
            joined: after.difference(&before.nodes).copied().collect(),
            left: before.nodes.difference(after).copied().collect(),
        };
        guarded("members_changed", installed.first, || self.state.members_changed(&change))
    }
}

impl<S: StateMachine> Inner<S> {
    /// Applies the messages of an entry until a snapshot is due: the rest of it, if there is one.
    fn apply_entry(
        &self,
        core: &mut Core<S>,
        entry: Entry,
        piece: &mut Piece,
    ) -> Result<Option<ApprovedItem>, ReplicaError> {
        let body = entry.batch.body.clone();
        for (at, payload) in payload_slices(&body).enumerate() {
            let message = Applied {
                index: Index(entry.first_index.0 + at as u64),
                id: MessageId {
                    origin: entry.origin,
                    incarnation: entry.incarnation,
                    seq: Seq(entry.batch.first_seq.0 + at as u64),
                },
            };
            self.apply(core, message, payload, piece)?;
            piece.unsaved_bytes += payload.len() as u64;
            if piece.unsaved_bytes >= self.config.snapshot_every_bytes {
                (piece.unsaved_bytes, piece.snapshot_is_due) = (0, true);
                let has_more = at as u32 + 1 < entry.batch.count;
                return Ok(has_more.then(|| ApprovedItem::Batch(entry.beginning_at(message.index.next()))));
            }
        }
        Ok(None)
    }

    fn apply(&self, core: &mut Core<S>, at: Applied, payload: &[u8], piece: &mut Piece) -> Result<(), ReplicaError> {
        core.index = at.index;
        match Envelope::decode(payload) {
            Ok(Envelope::Command(command)) => {
                let response = guarded("apply", at.index, || core.state.apply(at, command))?;
                if at.id.origin == self.group.node_id() {
                    self.submitted.respond(at.id, response);
                }
            }
            Ok(Envelope::Barrier) => {}
            Ok(Envelope::Vote(vote)) => piece.votes.push((at.id.origin, vote)),
            Err(error) => {
                core.header.skipped += 1;
                if core.header.skipped.is_power_of_two() {
                    let (group, index, skipped) = (self.group.name(), at.index, core.header.skipped);
                    tracing::warn!(group, %index, skipped, %error, "a payload was skipped, as by all members");
                }
            }
        }
        Ok(())
    }
}
