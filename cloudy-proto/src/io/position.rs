//! A place in the result.

use serde::{Deserialize, Serialize};

use super::{ApprovedItem, Entry};
use crate::id::{Index, ViewId};
use crate::view::InstalledView;

/// A place between two items of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The index of the next message.
    pub next: Index,
    /// The last view before it. Zero with a later index than 1: what is read begins there, with the view in force.
    pub view: ViewId,
}

impl Position {
    /// What is read begins at an index: if that is not the first one, with the view that is in force there.
    #[must_use]
    pub fn beginning_at(next: Index) -> Self {
        Self { next: next.max(Index(1)), view: ViewId(0) }
    }

    /// It begins in the middle of the result.
    #[must_use]
    pub fn begins_late(self) -> bool {
        self.view == ViewId(0) && self.next > Index(1)
    }

    /// Passes an item that comes next.
    pub fn pass(&mut self, item: &ApprovedItem) {
        match item {
            ApprovedItem::Batch(entry) => *self = Self { next: entry.last_index().next(), view: entry.view },
            ApprovedItem::View(view) => self.view = view.id(),
        }
    }

    /// Entries that follow it without a gap, with the views that begin among them and right after them. None if one of
    /// these views is not among the known ones, which are in order.
    #[must_use]
    pub fn with_views(self, entries: Vec<Entry>, views: &[InstalledView]) -> Option<Vec<ApprovedItem>> {
        let mut items = Vec::with_capacity(entries.len() + 1);
        let mut next = self.next;
        let known = |id: ViewId| views.binary_search_by_key(&id, InstalledView::id).ok().map(|at| &views[at]);
        if entries.is_empty() && self.begins_late() {
            return Some(items);
        }
        let mut last = match entries.first() {
            // The view in force comes first.
            Some(first) if self.begins_late() => ViewId(first.view.0.checked_sub(1)?),
            _ => self.view,
        };
        for entry in entries {
            while last < entry.view {
                last = last.next();
                items.push(ApprovedItem::View(known(last)?.clone()));
            }
            next = entry.last_index().next();
            items.push(ApprovedItem::Batch(entry));
        }
        while let Some(view) = known(last.next()).filter(|view| view.first == next) {
            last = view.id();
            items.push(ApprovedItem::View(view.clone()));
        }
        Some(items)
    }
}
