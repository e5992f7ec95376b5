//! The load-bearing rules by name, so that a test can switch one off and see a checker fail (`protocol.md` §11).

/// A rule that a checker must miss when it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A wedged member confirms nothing.
    WedgedConfirmsNothing,
    /// A wedged member sends no slot and approves nothing.
    WedgedSendsNothing,
    /// A member wedges before it answers `Wedged`.
    WedgedBeforeAnswer,
    /// The cut is the minimum of the survivors' frontiers.
    CutAtMinimum,
    /// A skipped round is never used.
    SkippedRoundUnused,
    /// The cursor waits at a slot that it does not know.
    CursorWaitsForUnknown,
    /// A slot is approved when every recipient has confirmed.
    EveryConfirmation,
    /// The owner is a recipient of its own lane.
    OwnerIsRecipient,
    /// A receiver never infers a skip from something missing.
    NoSkipFromGap,
    /// A skip that another member tells is taken by who holds all of the lane's slots before it.
    KnownSkipIsChained,
    /// The latest skip is repeated when a link comes back.
    ResumeRepeatsSkip,
    /// `Pipelined`: a stream that resumes tells its skips at once, whoever waits for them.
    ResumeTellsSkips,
    /// `Relay`: a forwarder resumes every lane where its successor says, not only its own.
    ForwardedIsResumed,
    /// The skip condition is standing, not only evaluated on arrival.
    SkipIsStanding,
    /// A cut is walked only by who holds every lane up to it.
    CutIsHeld,
    /// A final result is what the cut fixes, not what was there before.
    FinalReachesCut,
    /// The hold is evaluated again when the cursor moves.
    HoldFollowsCursor,
    /// The first slot outside the result is exempt from the hold.
    HoldExemptsFirst,
    /// A member with an empty hand and the turn learns that others wait.
    WaitingIsTold,
    /// Sequence numbers below the last in the result are passed over.
    Deduplicated,
    /// Each run of a node has numbers of its own.
    NumbersAreOfARun,
    /// A view follows the latest one only.
    FromIsLatest,
    /// Who was told what the log comes to, and nothing of the views before the one in force, is not complete in it.
    SkippedViewIsIncomplete,
    /// A coordinator acts once it has applied all that its predecessors may have got into the log.
    CoordinatorIsCaughtUp,
    /// A view follows only if a member that has the whole result survives.
    SurvivorIsComplete,
    /// `Disk`: a slot is confirmed once it is synced.
    ConfirmIsSynced,
    /// `Disk`: an answer to `Wedge` names what is synced.
    AnswerIsSynced,
    /// `Disk`: a fetched result counts once it is synced.
    CompleteIsSynced,
    /// `Disk`: a consensus message leaves once what it builds on is synced.
    VoteIsSynced,
    /// A view that lists an earlier run of a node is wedged there from the start.
    RestartedIsWedged,
    /// A restarted process does not send again what an earlier run broadcast.
    RestartedSendsNothingOld,
    /// A run is named after its place in the log, and not by a clock, which may show one time twice.
    RunIsNamedByLog,
    /// `Memory`: for a run that is over nobody answers, and what it answered does not count.
    StaleMemberIsVoid,
    /// `Disk`: while a complete member runs on, the cut is theirs who do, and disks do not count.
    RunningFixTheCut,
    /// `Disk`: a restarted process takes a cut from its disk only if that knows of the answer that the cut rests on.
    DiskKnowsItsAnswer,
    /// A snapshot is kept under the last index that its state knows.
    SnapshotIsOfItsIndex,
    /// The base at a view's first index knows the last numbers before it, and none of the entry that follows.
    BaseEndsAtItsIndex,
    /// `Disk`: where the beginning of a stored result is deleted, the rest begins with the last numbers before it.
    BeginKnowsItsNumbers,
    /// `Disk`: nothing of a stored result is deleted that a member of the view has not in its own.
    DeletesWhatAllHold,
    /// `Disk`: a snapshot is kept only if what is stored of the result follows it.
    StoredFollowsSnapshot,
    /// Who misses what nobody retains does not wait for others who miss it as well.
    BehindHelpsNobody,
    /// Who hears again and again that there is no coordinator seeks one all the same.
    SeekGoesOn,
    /// Who is asked for the log by somebody who has more of it asks back.
    AskedAsksBack,
    /// `Disk`: who fetched a final result stores that it is whole.
    FinalIsStoredWhole,
    /// Who begins with a snapshot has the last numbers that come with it.
    SnapshotHasLastNumbers,
    /// The last members that leave hand over to evicted nodes that follow, or wait for them.
    LastHandsOver,
    /// A node that is off the ring leaves once the log says so, and does not come onto the ring any more.
    LeftIsLogged,
    /// A node of a closed group tells peers of it that the group is closed.
    EndIsTold,
    /// A node that knows that most votes are lost says so.
    LostVotesAreTold,
    /// What a cut did not take goes back to the head of the outbox, before what was never sent.
    PutBackAtHead,
    /// A message id is rejected only if the log has listed its incarnation.
    RejectedIsListed,
    /// A message id is rejected only once no view can list its incarnation.
    RejectedIsOffRing,
    /// A message id is rejected only where the result reaches the first index of the view in force.
    RejectedIsReached,
    /// `Disk`: a group is kept whose first view is in the voter's own log only.
    VotersLogIsKept,
    /// A voter whose link went down counts as one that answers once it has answered again.
    LostLinkIsNoAnswer,
    /// A voter whose disk has forgotten what it confirmed gives up its name.
    ForgottenVoteIsGivenUp,
    /// `Disk`: a sync releases the consensus state that was given out with it, and none that came later.
    TicketIsOfItsState,
    /// No change of the voters leaves voters of whom a majority does not answer the leader.
    ChangeKeepsMajority,
    /// A consensus message that the library takes for impossible is refused before the library sees it.
    ConsensusIsChecked,
    /// Members compare the checkpoints of their results, and the minority stops.
    MembersCompare,
    /// A learner or observer compares its checkpoints with those of the members, and stops alone.
    ObserversCompare,
    /// Complete members of a view compare its first index and the digest before that, and the minority stops.
    BeginningsCompare,
    /// A coordinator compares the first index and digest in the answers to `Wedge`, and leaves the minority out.
    AnswersCompare,
    /// A final result is compared with those that members report, and a fetched one with its source's.
    FinalsCompare,
    /// A node that cannot decode a committed entry of the control log stops, says so and does not vote.
    UnreadableLogStops,
}

/// Which rules hold: all, outside tests of the tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    off: [Option<Rule>; 2],
}

impl Rules {
    /// All rules but one: for showing that a checker notices.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn all_but(rule: Rule) -> Self {
        Self { off: [Some(rule), None] }
    }

    /// All rules but two that stand in for each other.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn all_but_both(one: Rule, other: Rule) -> Self {
        Self { off: [Some(one), Some(other)] }
    }

    #[inline]
    pub(crate) fn hold(self, rule: Rule) -> bool {
        !self.off.contains(&Some(rule))
    }
}
