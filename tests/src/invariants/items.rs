//! The items of the result: messages and views, one sequence of both at all nodes, wherever they read it from
//! (`protocol.md` §2, *item*).

use cloudy_proto::{ApprovedItem, InstalledView, ViewId};

use super::{Broken, Failure, Judge};

/// All nodes read the same items in the same order.
pub const ONE_SEQUENCE: &str = "all nodes read one sequence of messages and views";

/// The views of the longest result, in order: the first node that reads one says where it begins.
#[derive(Debug, Default)]
pub(super) struct ViewItems(Vec<InstalledView>);

impl ViewItems {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The view of an id.
    fn get(&self, id: ViewId) -> Option<&InstalledView> {
        self.0.get((id.0 as usize).checked_sub(1)?)
    }

    /// The view in force at an index.
    fn at(&self, index: u64) -> Option<&InstalledView> {
        self.0.iter().rfind(|view| view.first.0 <= index)
    }

    pub(super) fn all(&self) -> &[InstalledView] {
        &self.0
    }
}

impl Judge {
    /// A node's readers are given a view.
    pub(super) fn read_view(&mut self, node: usize, view: &InstalledView) -> Result<(), Failure> {
        if self.is_tainted(node) {
            return Ok(());
        }
        let seen = &self.nodes[node];
        let (after, here) = (seen.read_view, seen.index + 1);
        let broken = |what: String| Err(self.failure(ONE_SEQUENCE, node, what));
        if view.id() != after.next() || view.first.0 != here {
            return broken(format!("view {} of index {} after view {after} at {here}", view.id(), view.first));
        }
        match self.view_items.get(view.id()) {
            Some(known) if known == view => {}
            Some(known) => return broken(format!("{view:?}, elsewhere {known:?}")),
            None if self.view_items.len() as u64 + 1 != view.id().0 => return broken("a view is missing".to_owned()),
            None => {
                self.ghost.begins_at(view.id(), here).map_err(|(rule, what)| self.failure(rule, node, what))?;
                self.view_items.0.push(view.clone());
            }
        }
        self.nodes[node].read_view = view.id();
        Ok(())
    }

    /// A message is read after its view.
    pub(super) fn follows_its_view(&self, node: usize, view: ViewId) -> Result<(), Broken> {
        let read = self.nodes[node].read_view;
        if read == view {
            return Ok(());
        }
        Err((ONE_SEQUENCE, format!("a message of view {view} after view {read}")))
    }

    /// A node's readers begin after an index, with the view that they are told is in force there.
    pub(super) fn begins_with(&mut self, node: usize, index: u64, view: Option<&InstalledView>) -> Result<(), Failure> {
        let in_force = self.view_items.at(index);
        if in_force != view && !self.is_tainted(node) {
            return Err(self.failure(
                ONE_SEQUENCE,
                node,
                format!("{view:?} in force at {index}, where {in_force:?} is"),
            ));
        }
        self.nodes[node].read_view = in_force.map_or(ViewId(0), InstalledView::id);
        Ok(())
    }

    /// A node with the whole result has not read all its views. Of a group that has ended only a final result is whole.
    #[must_use]
    pub fn lacks_views(&self, node: usize) -> Option<String> {
        let (read, all) = (self.nodes[node].read_view.0, self.view_items.len() as u64);
        let ends = self.view().is_some_and(|view| view.last);
        let is_whole = self.nodes[node].index == self.ghost.index() && (!ends || self.final_of(node).is_some());
        (read != all && is_whole).then(|| format!("has read {read} of {all} views"))
    }

    /// What a reader of a disk is given is a part of the sequence.
    ///
    /// # Errors
    /// A view is missing, or is another, or stands elsewhere.
    pub fn are_items(&self, node: usize, items: &[ApprovedItem]) -> Result<(), Failure> {
        let mut last: Option<ViewId> = None;
        for (at, item) in items.iter().enumerate() {
            let broken = |what: String| Err(self.failure(ONE_SEQUENCE, node, what));
            match item {
                ApprovedItem::View(view) if self.is_tainted(node) => last = Some(view.id()),
                ApprovedItem::View(view) => {
                    if self.view_items.get(view.id()) != Some(view) {
                        return broken(format!("the disk has {view:?}, others {:?}", self.view_items.get(view.id())));
                    }
                    // The first is the one in force.
                    let begins = items.get(at + 1..).unwrap_or_default().iter().find_map(ApprovedItem::entry);
                    let misplaced = begins.is_some_and(|entry| entry.first_index != view.first && last.is_some());
                    let skipped = last.is_some_and(|last| last.next() != view.id());
                    if misplaced || skipped {
                        return broken(format!("the disk gives {view:?} after {last:?}"));
                    }
                    last = Some(view.id());
                }
                ApprovedItem::Batch(entry) if last != Some(entry.view) => {
                    return broken(format!("the disk gives a message of view {} after view {last:?}", entry.view));
                }
                ApprovedItem::Batch(_) => {}
            }
        }
        Ok(())
    }
}
