//! The stored data of an earlier incarnation: its result, and its place in the latest view (`protocol.md` §2, §6.2, §7).

use std::sync::Arc;

use crate::io::Output;
use crate::machine::data_plane::DataPlane;
use crate::machine::delivery;
use crate::machine::identity::Identity;
use crate::machine::storage::Storage;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::read_back::{Stored, StoredError};
use crate::result_log::ResultLog;
use crate::stored::StoredSnapshot;
use crate::time::Time;
use crate::view::View;

/// Restores what an earlier incarnation stored.
pub(super) struct RestoreHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) outputs: &'a mut Outputs,
    pub(super) now: Time,
}

impl RestoreHandler<'_> {
    /// Continues the result after the stored part of it.
    pub(super) fn restore_result(&mut self, stored: &Stored) {
        if let Some(begins) = stored.begins() {
            self.storage.retention.begin_at(begins);
        }
        for base in &stored.bases {
            self.storage.retention.add(base.clone());
        }
        if let Some(snapshot) = stored.snapshot.clone() {
            let StoredSnapshot { index, ref state, ref view, .. } = snapshot;
            self.result.on_restored(index);
            self.outputs.push(Output::Restore { index, state: state.clone(), view: view.clone() });
            self.storage.snapshot = Some(snapshot);
        }
        self.result.resume_from(&stored.before);
        let after = stored.before.index();
        if after > self.result.restored_to() {
            self.outputs.push(Output::Resumed { after, view: stored.before.view().cloned() });
        }
        let mut delivery = delivery(self.identity, self.result, self.storage, self.outputs);
        let mut views = stored.views.iter().peekable();
        for (entry, batch) in &stored.result {
            while let Some(view) = views.next_if(|view| view.id() <= entry.view) {
                delivery.restored_view(view);
            }
            delivery.restored(entry, batch.clone());
        }
        views.for_each(|view| delivery.restored_view(view));
    }

    /// Restores this node's place in the latest view.
    pub(super) fn restore_place(&mut self, view: &Arc<View>, stored: &Stored) -> Result<(), StoredError> {
        let rank = view.rank_of(self.identity.me);
        let first = stored.first_of(view);
        // Without the result up to the view's first index the disk may not be the one that the listed incarnation wrote
        // to.
        if let Some(rank) = rank.filter(|_| !view.last && first.is_some()) {
            let passed = stored.passed.filter(|(of, _)| *of == view.id).map(|(_, passed)| passed);
            let of_view = stored.slots.iter().filter(|((of, ..), _)| *of == view.id);
            let slots = of_view.map(|((_, _, lane), slot)| (*lane, slot));
            let ends = stored.ends.as_ref().filter(|(of, _)| *of == view.id);
            let ends = ends.map(|(_, ends)| ends.as_slice()).unwrap_or_default();
            let member = Member::former(view, rank, first, self.now, self.identity.rules);
            let member = member.restored(slots, passed, ends);
            self.plane.enter_as_former(member.map_err(|lane| StoredError::Lane { view: view.id, lane })?);
        }
        Ok(())
    }
}
