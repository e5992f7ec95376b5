//! The events of a run: a campaign in which a required fault never happened proves nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Something that a run may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// A link between two members was cut, and frames in flight were lost.
    LinkCut,
    /// A link of the coordinator was cut.
    CoordinatorLinkCut,
    /// A link was cut and repaired several times in a row.
    LinkFlapped,
    /// A link was cut and repaired several times, long enough each time to be missed.
    LinkFlappedSlowly,
    /// A link was heard in one direction only.
    LinkOneWay,
    /// A link was replaced by a newer one without a word that the old one is gone.
    LinkReplaced,
    /// All links of a node were cut at once.
    NodeIsolated,
    /// All links between two sides were cut.
    Partitioned,
    /// The coordinator was on the smaller side.
    CoordinatorInMinority,
    /// One node kept its links to both sides.
    PartitionBridged,
    /// A node received everything, and its own frames reached no other.
    NodeMute,
    /// Something went wrong before the first view.
    FaultBeforeView,
    /// A node asked to join before the first view.
    JoinBeforeView,
    /// A round trip between some nodes took 260 ms or more.
    LongPath,
    /// A payload of the maximum size was broadcast.
    PayloadMaximum,
    /// Applications broadcast on after the faults, and the gaps in the approvals were judged.
    LoadJudged,
    /// A link carried only so many bytes a second for a while.
    LinkNarrowed,
    /// A frame waited for those before it on such a link.
    FrameQueued,
    /// More waited for such a link than its queue takes, and the link broke.
    QueueOverflowed,
    /// A node was told of bytes of a slot that was not complete.
    BytesReported,
    /// A member told another that bytes of unfinished slots have come.
    ProgressSaid,
    /// A node was told that datagrams of a member come whose frames are late.
    DatagramsReported,
    /// Frames were lost because their link went down.
    FrameLostWithLink,
    /// A frame came before its receiver knew of the link.
    FrameBeforeLinkUp,
    /// A frame took far longer than usual, and others overtook it.
    FrameLate,
    /// One frame vanished from a stream, which transports promise not to do.
    FrameLostFromStream,
    /// A link was closed for a breach that such a loss causes.
    LinkClosed,
    /// A node did not run for a while.
    NodeSlow,
    /// The coordinator did not run for a while.
    CoordinatorPaused,
    /// A process died for good.
    MemberKilled,
    /// A process did not die yet, since the group could not do without it.
    KillSpared,
    /// An application asked its node to leave.
    LeaveAsked,
    /// A node left by itself.
    Left,
    /// A node announced that it stops.
    SuspendAsked,
    /// The others continue without a node that announced that it stops.
    Suspended,
    /// Payloads waited without numbers for a slot.
    WaitedOutside,
    /// The creator was killed.
    CreatorKilled,
    /// The coordinator died before there was a view.
    CoordinatorKilledBeforeView,
    /// The coordinator of a session died between its first view and its kickstart.
    CoordinatorKilledBeforeKickstart,
    /// The coordinator died while members broadcast.
    CoordinatorKilledInSend,
    /// The coordinator died between its first `Wedge` and the next view's proposal.
    CoordinatorKilledAtWedge,
    /// The coordinator died when the next view was proposed and not in force everywhere.
    CoordinatorKilledAtInstall,
    /// The coordinator died at STOP.
    CoordinatorKilledAtStop,
    /// The coordinator died when some result was final.
    CoordinatorKilledBeforeClose,
    /// Another node coordinates.
    CoordinatorChanged,
    /// Two nodes held themselves for the coordinator.
    TwoCoordinators,
    /// A node received the state of the control log in place of entries that it missed.
    LogSkipped,
    /// A node that came later was.
    LogBegunLate,
    /// A node's clock went forward at once.
    ClockJumped,
    /// A broadcast was rejected for good, by its message id.
    OutcomeRejected,
    /// The run ended without a majority of the voters.
    Stuck,
    /// The run ended without a node that has the result up to the view in force.
    Lost,
    /// A node reported that no complete member is left.
    NobodyCompleteSaid,
    /// A process died, and its node was started again.
    ProcessRestarted,
    /// The coordinator's process was one of those.
    CoordinatorRestarted,
    /// A process started from its node's disk.
    RestartedFromDisk,
    /// A process started again with nothing, as one that joins.
    RestartedInMemory,
    /// All processes died at once.
    PowerCut,
    /// A process died, and its node's disk was lost.
    DiskLost,
    /// An operation of a disk failed with an input/output error, and its process ended.
    DiskFailed,
    /// … because the disk was full.
    DiskFull,
    /// … after a part of the data was written.
    DiskWroteShort,
    /// … in a store that nodes use.
    StoreFailed,
    /// A process came back with an older copy of its node's disk.
    StaleDisk,
    /// It found that out.
    OlderDiskFound,
    /// A node that is corrupt has stopped, and said so.
    Corrupted,
    /// A slot that a member received was altered.
    SlotAltered,
    /// An entry of the result that a node fetched was altered.
    FetchedAltered,
    /// A record of the result was altered on its way to a disk.
    StoredAltered,
    /// An entry of the control log was altered, as one node knows it.
    CommandAltered,
    /// The state of the control log was altered, as one node received it.
    LogStateAltered,
    /// An answer to `Wedge` was altered.
    AnswerAltered,
    /// A node took a part of the result or of the log from one that is altered.
    AlteredPassedOn,
    /// A process died with records that were not synced.
    KilledUnsynced,
    /// A write to a node's store was not synced when its process died: it was lost.
    WriteLost,
    /// … its first part was kept.
    WriteTorn,
    /// … it was kept, with another bit.
    WriteFlipped,
    /// … it was kept, and an earlier one was lost.
    WriteOvertook,
    /// A disk synced nothing for a while.
    DiskSlow,
    /// Records were given out to be stored.
    Persisted,
    /// A member read a part of its result from its disk, for a node that misses it.
    ResultRead,
    /// A disk was told to keep no more than the newest part of the result.
    StoredTruncated,
    /// A process started with a disk that had only that.
    RestartedTruncated,
    /// A process began with the newest part of the result on its disk.
    ResumedLate,
    /// The member died before the disk had read that.
    KilledReading,
    /// A part of an entry was sent that is not its first.
    EntryInParts,
    /// A part of a snapshot was sent that is not its first.
    SnapshotInParts,
    /// A member read a part of a snapshot from its disk.
    SnapshotRead,
    /// … and did not find it: a newer snapshot had replaced it.
    SnapshotGone,
    /// A byte of a snapshot was altered on its way.
    SnapshotAltered,
    /// A part that was read from the disk was sent to a node that misses it.
    ServedFromDisk,
    /// A member said that it answers `Wedge` later, once it has synced.
    WedgingSaid,
    /// A process that came back answered `Wedge` from its disk.
    WedgedFromDisk,
    /// A process that came back took the cut of the view before from its disk.
    TakenFromDisk,
    /// A node came newly into the running group, and asked for a place on the ring.
    NewcomerCame,
    /// A node came newly, to read along.
    ObserverCame,
    /// A node kept a snapshot of its application's state.
    SnapshotTaken,
    /// An application began with a snapshot that its node's disk held.
    RestoredFromDisk,
    /// An application went on from a snapshot of another member's.
    RestoredFromOther,
    /// A node missed a part that no other retains, and no snapshot could replace it.
    Truncated,
    /// The creator closed the group early.
    EndedByCreator,
    /// A member ended the group early.
    EndedByMember,
    /// A live member was silent at STOP, was dropped from the last view, and fetched the result.
    DroppedAlive,
    /// A member gave the coordinator up.
    CoordinatorLost,
    /// The run evicts who fails.
    Evicts,
    /// A member sent less, since a node could not keep up.
    SlowedDown,
    /// … until that node was on the ring.
    SlowDownJoined,
    /// … until the time for that node had expired.
    SlowDownExpired,
    /// A view followed another, at a node.
    ViewChanged,
    /// A live member learnt that it was evicted.
    Evicted,
    /// A member was dropped because of reports of others.
    Blamed,
    /// An evicted member came back.
    Rejoined,
    /// A stream of a view not yet installed had to wait.
    StreamWaited,
    /// A stream of a view that is over was stopped.
    StreamStopped,
    /// A payload was larger than the window.
    LargePayload,
    /// The application had to wait for the outbox.
    OutboxFull,
    /// A confirmation was held back.
    HoldBit,
    /// Several inputs were handled before the outputs were taken.
    InputsBatched,
    /// Every frame of the run went through the wire's encoding.
    WireEncoded,
    /// A session ran.
    Session,
    /// A group without a session ran.
    Group,
    /// The ring was `Token`.
    Token,
    /// The ring was `Pipelined`.
    Pipelined,
    /// The ring was `Relay`.
    Relay,
    /// A member passed a slot of another on.
    SlotForwarded,
    /// A member told another of a third one's skips.
    SkipPassedOn,
    /// A view followed one with a `Relay` ring that had stalled: the ring is `Pipelined` now.
    RelayFellBack,
    /// A message entered a result by the walk.
    Walked,
    /// A message entered a result by the cut alone.
    TakenByCut,
    /// Own payloads were told to be in no result.
    Rejected,
    /// A step: a node was handed something, and its outputs were taken.
    Step,
    /// A frame was sent.
    Frame,
    /// A payload was broadcast.
    Broadcast,
    /// A payload entered the result.
    Approved,
}

/// Everything that a full campaign must meet. `Lost` is too rare for one of 2,000 seeds: a story covers it.
pub const REQUIRED: &[Met] = &[
    Met::LinkCut,
    Met::CoordinatorLinkCut,
    Met::LinkFlapped,
    Met::LinkFlappedSlowly,
    Met::LinkOneWay,
    Met::LinkReplaced,
    Met::NodeIsolated,
    Met::Partitioned,
    Met::CoordinatorInMinority,
    Met::PartitionBridged,
    Met::NodeMute,
    Met::FaultBeforeView,
    Met::JoinBeforeView,
    Met::LongPath,
    Met::PayloadMaximum,
    Met::LoadJudged,
    Met::LinkNarrowed,
    Met::FrameQueued,
    Met::QueueOverflowed,
    Met::BytesReported,
    Met::ProgressSaid,
    Met::DatagramsReported,
    Met::FrameLostWithLink,
    Met::FrameBeforeLinkUp,
    Met::FrameLate,
    Met::FrameLostFromStream,
    Met::LinkClosed,
    Met::NodeSlow,
    Met::CoordinatorPaused,
    Met::MemberKilled,
    Met::LeaveAsked,
    Met::Left,
    Met::SuspendAsked,
    Met::Suspended,
    Met::WaitedOutside,
    Met::CreatorKilled,
    Met::CoordinatorKilledBeforeView,
    Met::CoordinatorKilledBeforeKickstart,
    Met::CoordinatorKilledInSend,
    Met::CoordinatorKilledAtWedge,
    Met::CoordinatorKilledAtInstall,
    Met::CoordinatorKilledAtStop,
    Met::CoordinatorKilledBeforeClose,
    Met::CoordinatorChanged,
    Met::TwoCoordinators,
    Met::ClockJumped,
    Met::LogSkipped,
    Met::LogBegunLate,
    Met::OutcomeRejected,
    Met::Stuck,
    Met::NobodyCompleteSaid,
    Met::ProcessRestarted,
    Met::CoordinatorRestarted,
    Met::RestartedFromDisk,
    Met::RestartedInMemory,
    Met::PowerCut,
    Met::DiskLost,
    Met::DiskFailed,
    Met::DiskFull,
    Met::DiskWroteShort,
    Met::StoreFailed,
    Met::StaleDisk,
    Met::OlderDiskFound,
    Met::KilledUnsynced,
    Met::WriteLost,
    Met::WriteTorn,
    Met::WriteFlipped,
    Met::WriteOvertook,
    Met::DiskSlow,
    Met::Persisted,
    Met::ResultRead,
    Met::EntryInParts,
    Met::SnapshotInParts,
    Met::SnapshotRead,
    Met::ServedFromDisk,
    Met::StoredTruncated,
    Met::RestartedTruncated,
    Met::ResumedLate,
    Met::WedgingSaid,
    Met::WedgedFromDisk,
    Met::TakenFromDisk,
    Met::NewcomerCame,
    Met::ObserverCame,
    Met::SnapshotTaken,
    Met::RestoredFromDisk,
    Met::RestoredFromOther,
    Met::Truncated,
    Met::EndedByCreator,
    Met::EndedByMember,
    Met::DroppedAlive,
    Met::CoordinatorLost,
    Met::Evicts,
    Met::ViewChanged,
    Met::Evicted,
    Met::Blamed,
    Met::Rejoined,
    Met::StreamWaited,
    Met::StreamStopped,
    Met::LargePayload,
    Met::OutboxFull,
    Met::HoldBit,
    Met::InputsBatched,
    Met::WireEncoded,
    Met::Session,
    Met::Group,
    Met::Token,
    Met::Pipelined,
    Met::Relay,
    Met::SlotForwarded,
    Met::SkipPassedOn,
    Met::RelayFellBack,
    Met::Walked,
    Met::TakenByCut,
    Met::Rejected,
];

/// The number of times that each was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<Met, u64>);

impl Stats {
    /// Counts one.
    pub fn met(&mut self, what: Met) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&mut self, what: Met, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    /// The number of times that something was met.
    #[must_use]
    pub fn count(&self, what: Met) -> u64 {
        self.0.get(&what).copied().unwrap_or_default()
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(&what, &times)| self.add(what, times));
    }

    /// The events that a campaign should have met and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<Met> {
        REQUIRED.iter().copied().filter(|&what| self.count(what) == 0).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{:>12}  {what:?}", times))
    }
}
