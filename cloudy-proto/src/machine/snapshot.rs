//! Snapshots of the application's state: what the result holds before one need not be kept, and who comes late begins
//! with one (`protocol.md` §7).

use bytes::{Bytes, BytesMut};

use crate::config::Durability;
use crate::digest::ResultBase;
use crate::id::{Index, NodeId};
use crate::io::Output;
use crate::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_PART_BYTES};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::stored::{Record, StoredBase, StoredSnapshot};
use crate::walk::ResultState;
use crate::wire::{ControlFrame, Fetched};

/// A snapshot on its way here.
#[derive(Debug)]
pub(super) struct Incoming {
    index: Index,
    base: ResultBase,
    length: u64,
    state: BytesMut,
}

impl Machine {
    /// The application says what its state is after an index.
    pub(super) fn snapshot_taken(&mut self, index: Index, state: Bytes) {
        let known = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
        if index <= known || index > self.delivery.result.index() || state.len() > SNAPSHOT_BYTES_MAX {
            return;
        }
        let end = self.delivery.result.index();
        let index = if self.rules.hold(Rule::SnapshotIsOfItsIndex) { index } else { index.next().min(end) };
        let Some(kept) = self.delivery.result.base_before(index) else { return };
        let begins = StoredBase { ends: self.message_ends(), ..kept };
        self.keep_snapshot(StoredSnapshot { index, begins, state });
    }

    fn keep_snapshot(&mut self, snapshot: StoredSnapshot) {
        let needed = snapshot.begins.index().next();
        let retained = self.delivery.retained.first();
        // With a gap behind it, it would help nobody. On a disk that memory does not fill: the node starts with the disk.
        let first = match self.delivery.durability {
            Durability::Memory => retained,
            Durability::Disk if self.rules.hold(Rule::StoredFollowsSnapshot) => {
                retained.map(|_| self.delivery.stored_from)
            }
            Durability::Disk => self.first_kept(),
        };
        if first.is_none_or(|first| first <= needed) {
            self.delivery.keep(Record::Snapshot(snapshot.clone()));
            self.begin_stored(&snapshot.begins);
            self.snapshot = Some(snapshot);
        }
    }

    /// The first index that can be given to others, if there is any: from memory or from the disk.
    pub(super) fn first_kept(&self) -> Option<Index> {
        let retained = self.delivery.retained.first();
        match self.delivery.durability {
            Durability::Memory => retained,
            Durability::Disk => retained.map(|first| first.min(self.delivery.stored_from)),
        }
    }

    /// Somebody misses what is not kept any more: it is given the snapshot instead; false if there is none that what
    /// is retained follows.
    pub(super) fn serve_snapshot(&mut self, to: NodeId, offset: u64) -> bool {
        let first = self.first_kept();
        let follows = |snapshot: &&StoredSnapshot| {
            let needed = snapshot.begins.index().next();
            first.map_or(needed > self.delivery.result.index(), |first| first <= needed)
        };
        let Some(snapshot) = self.snapshot.as_ref().filter(follows) else { return false };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(snapshot.state.len());
        let end = (from + SNAPSHOT_PART_BYTES).min(snapshot.state.len());
        let part = Fetched::Snapshot {
            index: snapshot.index,
            base: (from == 0).then(|| Box::new(snapshot.begins.base.clone())),
            length: snapshot.state.len() as u64,
            offset: from as u64,
            part: snapshot.state.slice(from..end),
        };
        self.send_control(to, ControlFrame::Fetched(part));
        true
    }

    /// Somebody wants more of a snapshot; of a later one, if there is one meanwhile, from its beginning.
    pub(super) fn serve_more(&mut self, to: NodeId, index: Index, offset: u64) {
        let same = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.index == index);
        self.serve_snapshot(to, if same { offset } else { 0 });
    }

    /// A part of a snapshot comes.
    pub(super) fn take_part(
        &mut self,
        from: NodeId,
        (index, length, offset): (Index, u64, u64),
        base: Option<Box<ResultBase>>,
        part: &Bytes,
    ) {
        if self.observes() {
            return self.truncated(from, index.next());
        }
        let Some(fetching) = &mut self.fetching else { return };
        if let Some(base) = base.filter(|_| offset == 0) {
            fetching.snapshot = Some(Incoming { index, base: *base, length, state: BytesMut::new() });
        }
        let continues = |incoming: &&mut Incoming| {
            (incoming.index, incoming.length, incoming.state.len() as u64) == (index, length, offset)
        };
        let Some(incoming) = fetching.snapshot.as_mut().filter(continues) else { return };
        incoming.state.extend_from_slice(part);
        let held = incoming.state.len() as u64;
        if held < length && !part.is_empty() {
            let timeout = self.state.view().map(|view| view.parameters.failure_timeout).unwrap_or_default();
            self.set_timer(Timer::Fetch, timeout);
            return self.send_control(from, ControlFrame::FetchSnapshot { index, offset: held });
        }
        if let Some(Incoming { index, base, state, .. }) = fetching.snapshot.take() {
            self.begin_with(index, base, state.freeze());
        }
    }

    /// The result goes on from a base, and the application from a state.
    fn begin_with(&mut self, index: Index, mut base: ResultBase, state: Bytes) {
        if !self.rules.hold(Rule::SnapshotHasLastNumbers) {
            base.last_numbers.clear();
        }
        let (after, here) = (base.checkpoint.index, self.delivery.result.index());
        // Of several that came, a later one may have taken the application further.
        let newer = index > self.delivery.restored_to;
        if after >= here && index >= after && (after > here || newer) {
            let begins = StoredBase { base, first_index: after.next(), ..StoredBase::default() };
            self.delivery.result = ResultState::resumed(&begins);
            self.delivery.retained.clear();
            let known = self.snapshot.take().filter(|_| !newer).map(|known| (known.index, known.state));
            if newer {
                self.delivery.restored_to = index;
                self.delivery.outputs.push_back(Output::Restore { index, state: state.clone() });
            }
            let (index, state) = known.unwrap_or((index, state));
            self.keep_snapshot(StoredSnapshot { index, begins, state });
        }
        self.fetch();
    }
}
