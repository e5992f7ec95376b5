//! The checkers' record of one node.

use cloudy_proto::{Approval, Checkpoint, Incarnation, NoCompleteMember, Seq, ViewId};

/// The checkers' record of one node.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The length of its result.
    pub(super) index: u64,
    /// Its own incarnation, as it says; zero before it has one.
    pub(super) incarnation: Incarnation,
    /// The last view that its readers were given, or begin with.
    pub(super) read_view: ViewId,
    /// The last index that it knows from a snapshot.
    pub(super) restored_to: u64,
    /// An approval whose entry has to follow.
    pub(super) approval: Option<Approval>,
    /// The view in force there.
    pub(super) view: ViewId,
    /// The state of the log that it received in place of entries, with the view in force there.
    pub(super) skipped_to: Option<ViewId>,
    /// It is a member of it.
    pub(super) active: bool,
    /// An earlier run of its node is a member of it, and left its state on the disk.
    pub(super) was_member: bool,
    /// It restarted from its disk, with a result of this length.
    pub(super) restored: Option<u64>,
    /// The number of its last own payload that is synced.
    pub(super) synced_seq: u64,
    /// It came into it without knowing where it begins.
    pub(super) joined: bool,
    /// The last view of which it was told where it begins.
    pub(super) told_first: ViewId,
    /// The last view that it may have wedged without a word: it coordinated in it, or was asked to.
    pub(super) may_wedge: ViewId,
    /// It has reported that no complete member of a view is left.
    pub(super) nobody_complete: Option<NoCompleteMember>,
    pub(super) final_result: Option<Checkpoint>,
    /// It has stopped, because its result differs from the others'.
    pub(super) diverged: bool,
    /// From where on its payloads are in no result.
    pub(super) rejected_from: Option<Seq>,
}
