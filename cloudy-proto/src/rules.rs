//! The load-bearing rules by name, so that a test can switch one off and expect a checker to fail (`protocol.md` §11).

/// A rule of the protocol; when it is off, a checker must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A wedged member sends no confirmation.
    WedgedConfirmsNothing,
    /// A wedged member sends no slot and approves nothing.
    WedgedSendsNothing,
    /// A member wedges its view before it answers `Wedged`.
    WedgedBeforeAnswer,
    /// The cut of a lane is the minimum of the survivors' frontiers.
    CutAtMinimum,
    /// A skipped round is never used.
    SkippedRoundUnused,
    /// The cursor waits at a slot that the member does not know.
    CursorWaitsForUnknown,
    /// A slot is approved only after every recipient has confirmed it.
    EveryConfirmation,
    /// The owner of a lane is a recipient of its own slots.
    OwnerIsRecipient,
    /// A receiver never infers a skip from a missing slot.
    NoSkipFromGap,
    /// A receiver accepts another lane's skip only if it holds all slots of that lane before the skip.
    KnownSkipIsChained,
    /// A resumed stream repeats the latest skip.
    ResumeRepeatsSkip,
    /// `Pipelined`: a resumed stream sends its skips at once, whichever member waits for them.
    ResumeSendsSkips,
    /// `Relay`: a forwarder resumes every lane at the round that its successor names, not only its own lane.
    ForwardedIsResumed,
    /// The skip condition is evaluated after every change, not only on arrival of a slot.
    SkipIsStanding,
    /// A member applies a cut only if it holds every lane up to the cut.
    CutIsHeld,
    /// A final result reaches the cut of the last view.
    FinalReachesCut,
    /// The hold is evaluated again whenever the cursor moves.
    HoldFollowsCursor,
    /// The first slot outside the result is exempt from the hold.
    HoldExemptsFirst,
    /// `Token`: a member whose outbox is not empty reports that to the idle holder of the turn.
    WaitingIsReported,
    /// A message whose sequence number is not above the last one in the result does not enter the result.
    Deduplicated,
    /// Each incarnation of a node has sequence numbers of its own.
    NumbersAreOfAnIncarnation,
    /// A view follows only the latest view.
    FromIsLatest,
    /// A node that received a log snapshot, and none of the views before the latest one, is not complete in the latest
    /// view.
    SkippedViewIsIncomplete,
    /// A coordinator acts only after it has applied every entry that its predecessors may have committed.
    CoordinatorIsCaughtUp,
    /// A view change needs a survivor that has the whole result.
    SurvivorIsComplete,
    /// A view change relies on a complete member that is in reach. An answer from before its member's link went down
    /// counts only together with the answer of such a member.
    AnswerIsInReach,
    /// `Disk`: a slot is confirmed only after the sync that covers it.
    ConfirmIsSynced,
    /// `Disk`: an answer to `Wedge` names only synced frontiers.
    AnswerIsSynced,
    /// `Disk`: a node counts as complete by a fetched result only after the sync of that result.
    CompleteIsSynced,
    /// `Disk`: a consensus message is sent only after the state that it relies on is synced.
    VoteIsSynced,
    /// A process is wedged from its start in a view that lists an earlier incarnation of its node.
    RestartedIsWedged,
    /// A restarted process does not re-send messages of an earlier incarnation.
    RestartedSendsNothingOld,
    /// An incarnation is the index of its entry in the control log, and never comes from a clock.
    IncarnationIsNamedByLog,
    /// `Memory`: a place on the ring whose incarnation has ended has no answer and no survivor.
    StaleMemberIsVoid,
    /// `Disk`: while a complete member runs on (without a restart), only members that run on determine the cut.
    RunningFixTheCut,
    /// `Disk`: a restarted process applies a cut from its disk only if the disk has the answer that the cut relies on.
    DiskKnowsItsAnswer,
    /// A snapshot is stored under the last index that its state contains.
    SnapshotIsOfItsIndex,
    /// A source sends each view at its place, and a node that fetches accepts an entry only after its view.
    ViewsAreServed,
    /// `Disk`: a view is stored at its place in the result.
    ViewsAreStored,
    /// A snapshot carries the view in force at its index.
    SnapshotHasItsView,
    /// `Disk`: a stored result whose beginning was deleted starts with the last sequence numbers before it.
    BaseHasLastNumbers,
    /// `Disk`: an entry is deleted only after every member of the view has it in its result.
    DeletesWhatAllHold,
    /// `Disk`: a fetched snapshot is installed only after the sync of all its parts.
    SnapshotIsSynced,
    /// A fetched snapshot is installed only if it has the digest that its source named.
    SnapshotIsVerified,
    /// `Disk`: a snapshot is kept only if the stored result follows it.
    StoredFollowsSnapshot,
    /// When fetching, a node does not wait for peers that lack the same entries.
    LaggingSourceIsSkipped,
    /// A node that repeatedly receives reports of no coordinator continues to search, and reports that it has none.
    SeekContinues,
    /// A node that receives a request for log entries from a node with a longer log requests entries in return.
    ShorterLogRequestsBack,
    /// `Disk`: a node stores the final marker after it has fetched a final result.
    FinalIsStoredWhole,
    /// A snapshot carries the last sequence numbers of its index.
    SnapshotHasLastNumbers,
    /// The last members that leave hand over to evicted nodes that follow the result, or wait for them.
    LastHandsOver,
    /// If all members of the ring leave, and no other node can take over, the coordinator stays until the others have
    /// left.
    OneStays,
    /// A coordinator that stops and will return does so once another node coordinates.
    StopHandsOver,
    /// A node that leaves and is not in the last view has left once none of that view's members is linked.
    CloseFreesLeaver,
    /// A node that is off the ring finishes leaving only once the log records it, and does not return to the ring.
    LeftIsLogged,
    /// A node leaves only while another one coordinates without its vote.
    LeaverHasALeader,
    /// A node of a closed group notifies its peers in the group that the group is closed.
    CloseIsReported,
    /// A node that knows that most votes are lost reports it.
    LostVotesAreReported,
    /// Messages that a cut did not include return to the head of the outbox.
    PutBackAtHead,
    /// A message id is rejected only if the log has listed its incarnation.
    RejectedIsListed,
    /// A message id is rejected only once no view can list its incarnation.
    RejectedIsOffRing,
    /// A message id is rejected only where the result reaches the first index of the latest view.
    RejectedIsReached,
    /// `Disk`: a group is kept if its first view is in the voter's own log only.
    VotersLogIsKept,
    /// A voter whose link went down counts as an answering voter only after it has answered again.
    LostLinkIsNoAnswer,
    /// A voter whose disk has forgotten what it confirmed gives up its consensus id.
    ForgottenVoteIsGivenUp,
    /// `Disk`: a sync releases the consensus state that was submitted with it, and no later state.
    TicketIsOfItsState,
    /// For one tick, a coordinator whose process was stopped bases no decision on messages that queued meanwhile.
    SleeperWaits,
    /// After every change of the voters, a majority of them answers the leader.
    ChangeKeepsMajority,
    /// Evicted nodes leave the voters before members, and members before nodes that leave the group.
    EvictedLeaveFirst,
    /// A consensus message that the consensus library treats as impossible is rejected before it reaches that library.
    ConsensusIsChecked,
    /// Members compare the checkpoints of their results, and the minority stops.
    MembersCompare,
    /// A learner or observer compares its checkpoints with those of the members, and stops alone.
    ObserversCompare,
    /// Complete members of a view compare its first index and the digest before that, and the minority stops.
    BeginningsCompare,
    /// A coordinator compares the first index and digest in the answers to `Wedge`, and excludes the minority.
    AnswersCompare,
    /// A final result is compared with the final results that members report, and a fetched final result with that of
    /// its source.
    FinalsCompare,
    /// A node that cannot decode a committed entry of the control log stops, reports it and does not vote.
    UnreadableLogStops,
}

/// The rules that hold: all of them, except in tests of the checkers. Without the feature `mutations` it has no size,
/// and no rule is ever looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    #[cfg(feature = "mutations")]
    off: [Option<Rule>; 2],
}

impl Rules {
    /// All rules but one, to show that a checker fails.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn all_but(rule: Rule) -> Self {
        Self { off: [Some(rule), None] }
    }

    /// All rules but two that can replace each other.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn all_but_both(one: Rule, other: Rule) -> Self {
        Self { off: [Some(one), Some(other)] }
    }

    #[cfg(feature = "mutations")]
    #[inline]
    pub(crate) fn holds(self, rule: Rule) -> bool {
        !self.off.contains(&Some(rule))
    }

    #[cfg(not(feature = "mutations"))]
    #[inline]
    pub(crate) const fn holds(self, _rule: Rule) -> bool {
        true
    }
}

#[cfg(all(test, not(feature = "mutations")))]
mod tests {
    use super::*;

    #[test]
    fn rules_cost_a_release_build_nothing() {
        const HOLDS: bool = Rules {}.holds(Rule::EveryConfirmation);
        assert_eq!((size_of::<Rules>(), HOLDS), (0, true));
    }
}
