//! The data plane of one view at one member: lanes, pending table, ring model and walk (`protocol.md` §3).

mod inbound;
mod outbound;
mod progress;
mod synced;
mod turn;

use core::time::Duration;
use std::sync::Arc;

use outbound::PeerFlow;
use progress::Progress;

use crate::delivery::Delivery;
use crate::digest::Checkpoint;
use crate::due::{Cause, Due};
use crate::id::{Incarnation, Index, Rank, Round};
use crate::io::WaitCause;
use crate::lane::{Held, Lane};
use crate::outbox::Outbox;
use crate::pending::{PendingTable, Record};
use crate::ring::{RingModel, RingState, Window, model_of};
use crate::rules::{Rule, Rules};
use crate::slot::{Batch, Slot};
use crate::time::Time;
use crate::view::{Place, View};
use crate::view_change::{Limits, Sight, Suspicion};
use crate::walk::Walk;
use crate::wire::{Findings, Stall};

/// This node as a member of one view.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) view: Arc<View>,
    pub(crate) rank: Rank,
    /// The index of the view's first message; zero while not complete.
    pub(crate) first: Index,
    /// The index before that, and the digest there.
    pub(crate) begins: Checkpoint,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) pending: PendingTable,
    model: &'static dyn RingModel,
    window: Window,
    walk: Walk,
    peers: Vec<PeerFlow>,
    /// The highest round of a message slot taken from another lane.
    taken_max: Option<Round>,
    /// Own slots may be sent: from the start, or in a session from the kickstart.
    pub(crate) open: bool,
    /// Nothing of this view is sent, confirmed, approved or taken.
    pub(crate) wedged: bool,
    /// The result is here up to the view's first index; until then nothing of this view enters it.
    pub(crate) complete: bool,
    suspicion: Suspicion,
    progress: Progress,
    /// The lane ends with the highest approved own message slot.
    approval_due: Round,
    /// When the turn came to this empty-handed member while others wait.
    turn_since: Option<Time>,
    /// Where the walk waits, and since when a message slot has waited behind that place; whether one does.
    waits: (Place, Time),
    lags: bool,
    /// Payloads of others that were confirmed to their owners.
    pub(crate) confirmations_given: u64,
    rules: Rules,
}

impl Member {
    pub(crate) fn new(view: Arc<View>, rank: Rank, first: Option<Index>, now: Time, rules: Rules) -> Self {
        let members = view.members();
        let mut recipients: Vec<Rank> = view.ranks().collect();
        if !rules.holds(Rule::OwnerIsRecipient) {
            recipients.retain(|&recipient| recipient != rank);
        }
        if !rules.holds(Rule::EveryConfirmation) {
            recipients.retain(|&recipient| recipient != view.parent(rank));
        }
        Self {
            rank,
            first: first.unwrap_or_default(),
            begins: Checkpoint::default(),
            complete: first.is_some(),
            suspicion: Suspicion::new(members, now),
            progress: Progress::new(members),
            lanes: view.ranks().map(|_| Lane::new(view.parameters.durability)).collect(),
            pending: PendingTable::new(members, recipients),
            model: model_of(view.parameters.ring),
            window: Window::new(&view.parameters, members),
            walk: Walk::default(),
            peers: view.ranks().map(|_| PeerFlow::default()).collect(),
            taken_max: None,
            open: !view.parameters.session,
            wedged: false,
            approval_due: Round(0),
            turn_since: None,
            waits: (Place::default(), now),
            lags: false,
            confirmations_given: 0,
            rules,
            view,
        }
    }

    /// This node's part in a view that lists an earlier incarnation of it: wedged from the start.
    pub(crate) fn former(view: &Arc<View>, rank: Rank, first: Option<Index>, now: Time, rules: Rules) -> Self {
        Self { wedged: true, ..Self::new(Arc::clone(view), rank, first, now, rules) }
    }

    /// Does all that can be done without hearing more: send, skip, confirm, approve, deliver.
    pub(crate) fn settle(&mut self, now: Time, outbox: &mut Outbox, delivery: &mut Delivery<'_>, due: &mut Due) {
        let arrived = due.take(Cause::LaneFrame);
        loop {
            let mut moved = self.send(now, outbox, delivery);
            if arrived || self.rules.holds(Rule::SkipIsStanding) {
                moved |= self.skip(outbox);
            }
            if due.take(Cause::Confirmable) {
                self.extend_confirmations();
            }
            self.approve(now);
            let walked = self.deliver(now, delivery);
            due.set_if(Cause::Confirmable, walked && self.rules.holds(Rule::HoldFollowsCursor));
            moved |= walked;
            if !moved {
                break;
            }
        }
        self.watch_turn(now, outbox);
        let cursor = self.walk.cursor();
        let lags = self.result_lags();
        let lagged = core::mem::replace(&mut self.lags, lags);
        if cursor != self.waits.0 || !lagged {
            self.waits = (cursor, now);
        }
    }

    fn frozen(&self, rule: Rule) -> bool {
        self.wedged && self.rules.holds(rule)
    }

    fn ring_state(&self) -> RingState<'_> {
        RingState {
            view: &self.view,
            me: self.rank,
            lanes: &self.lanes,
            pending: &self.pending,
            window: &self.window,
            taken_max: self.taken_max,
        }
    }

    /// §3.1: takes slots from the outbox while the ring model lets it.
    fn send(&mut self, now: Time, outbox: &mut Outbox, delivery: &mut Delivery<'_>) -> bool {
        let mut moved = false;
        while self.open && !self.frozen(Rule::WedgedSendsNothing) {
            let Some(batch) = outbox.peek() else { break };
            let cost_bytes = batch.cost_bytes();
            let Some(round) = self.model.round_for(self.ring_state(), cost_bytes) else {
                if !self.window.has_room(self.pending.bytes(), cost_bytes) {
                    self.window.is_short();
                }
                break;
            };
            let Some(batch) = outbox.pop() else { break };
            let own = &mut self.lanes[self.rank.at()];
            let round = if self.rules.holds(Rule::SkippedRoundUnused) { round } else { own.unskip() };
            self.pending.record(round, (batch.first_seq, batch.count), cost_bytes, now);
            self.window.sent(round, now);
            let taken = own.take_slot(Slot { round, prev: own.message_end(), batch }, false);
            delivery.records.keep_slot(self.view.id, self.rank, own.newest());
            debug_assert_eq!(taken, Ok(true), "an own slot continues the own lane");
            moved = true;
        }
        moved
    }

    /// §3.3: an empty-handed member skips what others are past.
    fn skip(&mut self, outbox: &Outbox) -> bool {
        if self.wedged || !outbox.is_empty() {
            return false;
        }
        let Some(frontier) = self.model.skip_to(self.ring_state()) else { return false };
        self.skip_own_to(frontier);
        true
    }

    fn skip_own_to(&mut self, frontier: Round) {
        let own = &mut self.lanes[self.rank.at()];
        let skipped = own.take_skip(own.message_end(), frontier, false);
        debug_assert_eq!(skipped, Ok(()), "an own skip continues the own lane");
    }

    /// §3.2 rule 4: confirms as far as the hold allows, the first slot outside the result in any case.
    fn extend_confirmations(&mut self) {
        if self.frozen(Rule::WedgedConfirmsNothing) {
            return;
        }
        let cursor = self.walk.cursor();
        let first = self.first_held();
        let hold_bytes = self.view.parameters.hold_bytes();
        let members = self.lanes.len();
        let others = (0..members).map(|step| (cursor.rank.at() + step) % members).filter(|&at| at != self.rank.at());
        let mut used: u64 = others.clone().map(|at| self.lanes[at].confirmed_bytes()).sum();
        for at in others {
            let lane = &mut self.lanes[at];
            let end = if self.rules.holds(Rule::ConfirmIsSynced) { lane.stored() } else { lane.frontier() };
            while let Some(held) = lane.first_unconfirmed().filter(|held| held.round < end) {
                let exempt = Some((held.round, at)) == first && self.rules.holds(Rule::HoldExemptsFirst);
                if !exempt && used + held.batch.cost_bytes() > hold_bytes {
                    break;
                }
                used += held.batch.cost_bytes();
                self.confirmations_given += u64::from(held.batch.count);
                lane.confirm_one();
            }
        }
    }

    /// §3.1 rules 2 and 3: confirms to itself what it holds, and approves what all have confirmed.
    fn approve(&mut self, now: Time) {
        if self.frozen(Rule::WedgedSendsNothing) {
            return;
        }
        let own = &self.lanes[self.rank.at()];
        let end = if self.rules.holds(Rule::ConfirmIsSynced) { own.stored() } else { own.frontier() };
        let own_confirmed = self.pending.confirm(self.rank, end, end, now);
        debug_assert_eq!(own_confirmed, Ok(()));
        let before = self.lanes[self.rank.at()].approved();
        let after = self.pending.approved();
        if after > before {
            let own = &mut self.lanes[self.rank.at()];
            if own.held_from(before).next().is_some_and(|held| held.round < after) {
                self.approval_due = after;
            }
            own.approve(after);
        }
    }

    /// §3.4: walks on, and lets in what is approved. True if the cursor moved, if only past skips: the hold follows it.
    fn deliver(&mut self, now: Time, delivery: &mut Delivery<'_>) -> bool {
        if !self.complete {
            return false;
        }
        let before = self.walk.cursor();
        while let Some((rank, held)) = self.walk.step(&mut self.lanes, self.rules) {
            if let Some(record) = self.enter(rank, held, delivery) {
                self.window.entered(&record, now);
            }
        }
        self.walk.cursor() != before
    }

    /// A slot enters the result. Gives back what was pending of an own one.
    fn enter(&mut self, rank: Rank, held: Held, delivery: &mut Delivery<'_>) -> Option<Record> {
        let record = (rank == self.rank).then(|| self.pending.pop(held.round)).flatten();
        delivery.enter(&self.view, (rank, held.round), held.batch, record.as_ref());
        record
    }

    /// The own window at this moment.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.window.bytes()
    }

    /// A frame of a member arrived.
    pub(crate) fn heard(&mut self, rank: Rank, now: Time) {
        self.suspicion.heard(rank, now);
    }

    /// Datagrams of a member came after some time.
    pub(crate) fn alive(&mut self, rank: Rank, since: Time) {
        self.suspicion.alive(rank, since);
    }

    /// The other members of which no frame has come for so long.
    pub(crate) fn unheard_for(&self, time: Duration, now: Time) -> impl Iterator<Item = Rank> {
        self.suspicion.unheard_for(time, self.rank, now)
    }

    /// Bytes of an unfinished slot of a lane came.
    pub(crate) fn arrive(&mut self, lane: Rank, bytes: u64, now: Time) {
        self.progress.arrive(lane, bytes, now);
    }

    /// §6.3: finds again, from what is so at this moment; what stalled cannot be told of a wedged view.
    pub(crate) fn find_again(&mut self, limits: &[Limits], now: Time) {
        self.suspicion.find_again(self.rank, limits, now);
    }

    /// §6.2: the members that were not heard of for a while.
    pub(crate) fn quiet(&self, limits: &[Limits], now: Time) -> Vec<Rank> {
        self.suspicion.quiet(self.rank, limits, now)
    }

    /// What was found against others in this view.
    pub(crate) fn findings(&self) -> &Findings {
        self.suspicion.findings()
    }

    pub(crate) fn cursor(&self) -> Place {
        self.walk.cursor()
    }

    /// §6.1: looks for members that have failed or stall; true if there is news to report.
    pub(crate) fn suspect(&mut self, limits: &[Limits], now: Time) -> bool {
        let cursor = self.walk.cursor();
        let own_end = self.lanes[self.rank.at()].frontier();
        let reached = if self.rank <= cursor.rank { cursor.round.next() } else { cursor.round };
        let pending = &self.pending;
        let confirmed = |rank: Rank| (reached.min(own_end), pending.confirmed(rank));
        let confirmed_here = self.lanes[cursor.rank.at()].confirmed() > cursor.round;
        let stall = match self.wait_cause(cursor) {
            WaitCause::Slot => Some(Stall::Missing(cursor)),
            WaitCause::OwnDisk => Some(Stall::Unsynced),
            WaitCause::Approval | WaitCause::Confirmation => confirmed_here.then_some(Stall::Unapproved(cursor)),
        };
        let who = if stall == Some(Stall::Unsynced) { self.rank } else { cursor.rank };
        let moved_at = self.progress.moved_at().filter(|_| stall != Some(Stall::Unsynced));
        let since = moved_at.map_or(self.waits.1, |at| at.max(self.waits.1));
        let waits = stall.filter(|_| self.result_lags() && self.complete).map(|stall| (who, stall, since));
        let (heartbeat, progress) = (self.view.parameters.heartbeat, &self.progress);
        let taken_at = |rank: Rank| progress.taken_at(rank);
        let sight = Sight { me: self.rank, heartbeat, limits, confirmed: &confirmed, taken_at: &taken_at, waits };
        self.suspicion.check(&sight, now)
    }

    /// The run of the node that this is.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.view.member(self.rank).incarnation
    }

    /// §6.2: freezes the view; final.
    pub(crate) fn wedge(&mut self) {
        self.wedged |= self.rules.holds(Rule::WedgedBeforeAnswer);
    }

    /// By rank: what is stored of each lane.
    pub(crate) fn frontiers(&self) -> Vec<Round> {
        let end = if self.rules.holds(Rule::AnswerIsSynced) { Lane::stored } else { Lane::frontier };
        self.lanes.iter().map(end).collect()
    }

    /// It holds every lane up to a cut.
    pub(crate) fn holds(&self, cut: &[Round]) -> bool {
        cut.len() == self.lanes.len() && self.lanes.iter().zip(cut).all(|(lane, &cut)| lane.frontier() >= cut)
    }

    /// §6.4: takes every message slot below the cut as approved and the rest as skipped, and walks to the end of that.
    /// Gives back the own payloads that were not taken.
    pub(crate) fn walk_cut(&mut self, cut: &[Round], delivery: &mut Delivery<'_>) -> Vec<Batch> {
        self.wedged = true;
        let mut own = Vec::new();
        for (at, (lane, &cut)) in self.lanes.iter_mut().zip(cut).enumerate() {
            let dropped = lane.cut(cut);
            if at == self.rank.at() {
                own = dropped.collect();
            }
        }
        while let Some((rank, held)) = self.next_below_cut() {
            self.enter(rank, held, delivery);
        }
        own
    }

    /// The own payloads that are not in the result, whatever became of them: this node is no survivor.
    pub(crate) fn take_own(&mut self) -> Vec<Batch> {
        self.wedged = true;
        self.lanes[self.rank.at()].cut(Round(0)).collect()
    }

    /// In slot order; no unknown slot can lie in between, since every lane is known up to the cut.
    fn next_below_cut(&mut self) -> Option<(Rank, Held)> {
        let (_, at) = self.first_held()?;
        self.lanes[at].pop().map(|held| (Rank(at as u16), held))
    }

    /// The first slot in order that is held, and not in the result.
    fn first_held(&self) -> Option<(Round, usize)> {
        let waiting = self.lanes.iter().enumerate().filter(|(_, lane)| lane.held_slots() > 0);
        waiting.map(|(at, lane)| (lane.first_open(), at)).min()
    }

    /// The node that holds the result up at its cursor, what is missing, and since when; none if every message known is in it.
    pub(crate) fn waits_at(&self) -> Option<(Rank, WaitCause, Time)> {
        let cursor = self.walk.cursor();
        let cause = self.wait_cause(cursor);
        let rank = match cause {
            WaitCause::OwnDisk => self.rank,
            WaitCause::Slot | WaitCause::Approval => cursor.rank,
            WaitCause::Confirmation => {
                let unconfirmed = |rank: &Rank| *rank != self.rank && self.pending.confirmed(*rank) <= cursor.round;
                self.view.ranks().find(unconfirmed).unwrap_or(self.rank)
            }
        };
        self.result_lags().then_some((rank, cause, self.waits.1))
    }

    fn wait_cause(&self, cursor: Place) -> WaitCause {
        let lane = &self.lanes[cursor.rank.at()];
        if lane.frontier() <= cursor.round {
            WaitCause::Slot
        } else if lane.stored() <= cursor.round {
            WaitCause::OwnDisk
        } else if cursor.rank == self.rank {
            WaitCause::Confirmation
        } else {
            WaitCause::Approval
        }
    }

    fn result_lags(&self) -> bool {
        self.lanes.iter().any(|lane| lane.held_slots() > 0)
    }

    /// The order of all watermarks.
    pub(crate) fn validate(&self) {
        self.lanes.iter().for_each(Lane::validate);
        let own = &self.lanes[self.rank.at()];
        assert!(self.pending.approved() <= own.frontier());
        if self.rules.holds(Rule::WedgedSendsNothing) && !self.wedged {
            assert_eq!(
                own.held_slots(),
                self.pending.slots(),
                "an own slot outside the result is in the pending table"
            );
        }
        let window = self.view.parameters.window_bytes;
        let is_bounded = self.model.bounds_window_bytes() && self.pending.slots() > 1;
        assert!(!is_bounded || self.pending.bytes() <= window);
    }
}
