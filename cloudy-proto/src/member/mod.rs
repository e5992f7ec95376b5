//! The data plane of one view at one member: lanes, pending table, ring model and walk (`protocol.md` §3).

mod inbound;
mod limit;
mod liveness;
mod outbound;
mod progress;

use std::sync::Arc;

use limit::Senders;
use liveness::Liveness;
use outbound::Flows;

use crate::delivery::Delivery;
use crate::digest::Checkpoint;
use crate::due::{Cause, Due};
use crate::id::{Incarnation, Index, Rank, Round};
use crate::lane::{Held, Lane};
use crate::outbox::Outbox;
use crate::pending::{PendingTable, Record};
use crate::ring::{RingModel, RingState, Window, model_of};
use crate::rules::{Rule, Rules};
use crate::slot::{Batch, Slot};
use crate::time::Time;
use crate::view::{Place, View};
use crate::walk::Walk;

/// This node as a member of one view.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) view: Arc<View>,
    pub(crate) rank: Rank,
    /// None while the result here does not reach the view's first index: until then nothing of this view enters it.
    start: Option<Start>,
    lanes: Vec<Lane>,
    pending: PendingTable,
    model: &'static dyn RingModel,
    window: Window,
    walk: Walk,
    flows: Flows,
    /// The highest round of a message slot received from another lane.
    taken_max: Option<Round>,
    /// Whether own slots may be sent: from the start, or in a session from the kickstart.
    open: bool,
    /// Whether the view is wedged: nothing of it is sent, confirmed, approved or received.
    wedged: bool,
    liveness: Liveness,
    /// The time at which the turn came to this member without messages while others wait.
    turn_since: Option<Time>,
    /// Which members send, while the rate of the group is limited.
    senders: Senders,
    rules: Rules,
}

/// The start of a view in the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The index of the view's first message.
    pub(crate) first: Index,
    /// The end of the result before that.
    pub(crate) before: Checkpoint,
}

/// The watermarks of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneMarks {
    pub(crate) frontier: Round,
    pub(crate) approved: Round,
    /// The last round of the own lane that the lane's owner has confirmed.
    pub(crate) confirmed: Round,
}

impl Member {
    pub(crate) fn new(view: Arc<View>, rank: Rank, start: Option<Start>, now: Time, rules: Rules) -> Self {
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
            start,
            liveness: Liveness::new(members, now),
            lanes: view.ranks().map(|_| Lane::new(view.parameters.durability)).collect(),
            pending: PendingTable::new(members, recipients),
            model: model_of(view.parameters.ring),
            window: Window::new(&view.parameters, members),
            walk: Walk::default(),
            flows: Flows::new(members),
            taken_max: None,
            open: !view.parameters.session,
            wedged: false,
            turn_since: None,
            senders: Senders::default(),
            rules,
            view,
        }
    }

    /// This node's part in a view that lists an earlier incarnation of it: wedged from the start.
    pub(crate) fn former(view: &Arc<View>, rank: Rank, first: Option<Index>, now: Time, rules: Rules) -> Self {
        let start = first.map(|first| Start { first, before: Checkpoint::default() });
        Self { wedged: true, ..Self::new(Arc::clone(view), rank, start, now, rules) }
    }

    /// The result here reaches the view's first index.
    pub(crate) fn is_complete(&self) -> bool {
        self.start.is_some()
    }

    /// The index of the view's first message; zero while not complete.
    pub(crate) fn first(&self) -> Index {
        self.start.map(|start| start.first).unwrap_or_default()
    }

    /// The end of the result before the view's first index; the default value while this member is not complete.
    pub(crate) fn before(&self) -> Checkpoint {
        self.start.map(|start| start.before).unwrap_or_default()
    }

    /// The result here reaches the view's first index from here on.
    pub(crate) fn complete(&mut self, start: Start) {
        self.start = Some(start);
    }

    /// Own slots may be sent from here on.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    pub(crate) fn is_wedged(&self) -> bool {
        self.wedged
    }

    /// The watermarks of a member's lane.
    pub(crate) fn marks(&self, rank: Rank) -> LaneMarks {
        let lane = &self.lanes[rank.at()];
        LaneMarks { frontier: lane.frontier(), approved: lane.approved(), confirmed: self.pending.confirmed(rank) }
    }

    /// The own slots that are not approved, in order.
    pub(crate) fn unapproved(&self) -> impl Iterator<Item = &Record> {
        self.pending.unapproved()
    }

    /// Number of messages of others that were confirmed to their owners.
    pub(crate) fn confirmations_given(&self) -> u64 {
        self.flows.confirmations_given
    }

    /// Carries out all actions that need no further input: send, skip, confirm, approve, deliver.
    pub(crate) fn settle(&mut self, now: Time, outbox: &mut Outbox, delivery: &mut Delivery<'_>, due: &mut Due) {
        let arrived = due.take(Cause::LaneFrame);
        if outbox.is_limited() {
            self.share_limit(now, outbox);
        }
        loop {
            let mut moved = self.send(now, outbox, delivery);
            if arrived || self.rules.holds(Rule::SkipIsStanding) {
                moved |= self.skip(now, outbox);
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
        self.liveness.on_walk(cursor, lags, now);
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

    /// §3.1: takes slots from the outbox while the ring model allows it.
    fn send(&mut self, now: Time, outbox: &mut Outbox, delivery: &mut Delivery<'_>) -> bool {
        let mut moved = false;
        while self.open && !self.frozen(Rule::WedgedSendsNothing) {
            let Some(batch) = outbox.peek_due(now) else {
                self.note_shortage_outside(now, outbox);
                break;
            };
            let cost_bytes = batch.cost_bytes();
            let Some(round) = self.model.round_for(self.ring_state(), cost_bytes) else {
                if !self.window.has_capacity(self.pending.bytes(), cost_bytes) {
                    self.window.on_shortage();
                }
                break;
            };
            let Some(batch) = outbox.pop_sent(now) else { break };
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

    /// Whether a slot of this cost may be sent at this moment.
    pub(crate) fn takes_at_once(&self, cost_bytes: u64) -> bool {
        self.open && !self.wedged && self.model.round_for(self.ring_state(), cost_bytes).is_some()
    }

    /// A payload at the driver waits for the window as one in the outbox does.
    fn note_shortage_outside(&mut self, now: Time, outbox: &Outbox) {
        if outbox.outside_due(now).is_some_and(|cost_bytes| !self.window.has_capacity(self.pending.bytes(), cost_bytes))
        {
            self.window.on_shortage();
        }
    }

    /// §3.3: skips rounds that others have passed, if this member has no messages.
    fn skip(&mut self, now: Time, outbox: &Outbox) -> bool {
        if self.wedged || outbox.has_due(now) {
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

    /// §3.2 rule 4: extends the confirmations up to the hold, including the first slot outside the result in any case.
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
                self.flows.confirmations_given += u64::from(held.batch.count);
                lane.confirm_one();
            }
        }
    }

    /// §3.1 rules 2 and 3: confirms its own slots to itself, and approves slots that all have confirmed.
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
                self.flows.approval_due = after;
            }
            own.approve(after);
        }
    }

    /// §3.4: moves the cursor, and adds approved slots to the result. True if the cursor moved, even only past skips:
    /// the hold follows it.
    fn deliver(&mut self, now: Time, delivery: &mut Delivery<'_>) -> bool {
        if self.start.is_none() {
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

    /// Adds a slot to the result. Returns the pending record of an own one.
    fn enter(&mut self, rank: Rank, held: Held, delivery: &mut Delivery<'_>) -> Option<Record> {
        let record = (rank == self.rank).then(|| self.pending.pop(held.round)).flatten();
        delivery.enter(&self.view, (rank, held.round), held.batch, record.as_ref());
        record
    }

    /// The present window.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.window.bytes()
    }

    pub(crate) fn cursor(&self) -> Place {
        self.walk.cursor()
    }

    /// The incarnation of this node.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.view.member(self.rank).incarnation
    }

    /// §6.2: freezes the view, for good.
    pub(crate) fn wedge(&mut self) {
        self.wedged |= self.rules.holds(Rule::WedgedBeforeAnswer);
    }

    /// Stops all of this view at once: the result here differs from the others'.
    pub(crate) fn stop(&mut self) {
        self.wedged = true;
    }

    /// Without the rule [`Rule::RestartedIsWedged`]: an earlier incarnation continues in the view.
    pub(crate) fn unwedge(&mut self) {
        self.wedged = false;
    }

    /// By rank: the stored frontier of each lane.
    pub(crate) fn frontiers(&self) -> Vec<Round> {
        let end = if self.rules.holds(Rule::AnswerIsSynced) { Lane::stored } else { Lane::frontier };
        self.lanes.iter().map(end).collect()
    }

    /// Whether it holds every lane up to a cut.
    pub(crate) fn holds(&self, cut: &[Round]) -> bool {
        cut.len() == self.lanes.len() && self.lanes.iter().zip(cut).all(|(lane, &cut)| lane.frontier() >= cut)
    }

    /// §6.4: takes every message slot below the cut as approved and the others as skips, and walks to the end. Returns
    /// the own payloads that are not included.
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

    /// Removes the own payloads outside the result, with any outcome: this node is no survivor.
    pub(crate) fn take_own(&mut self) -> Vec<Batch> {
        self.wedged = true;
        self.lanes[self.rank.at()].cut(Round(0)).collect()
    }

    /// In slot order; no unknown slot can lie in between, because every lane is known up to the cut.
    fn next_below_cut(&mut self) -> Option<(Rank, Held)> {
        let (_, at) = self.first_held()?;
        self.lanes[at].pop().map(|held| (Rank(at as u16), held))
    }

    /// The first slot in order that is held, and not in the result.
    fn first_held(&self) -> Option<(Round, usize)> {
        let waiting = self.lanes.iter().enumerate().filter(|(_, lane)| lane.held_slots() > 0);
        waiting.map(|(at, lane)| (lane.first_open(), at)).min()
    }

    /// By rank: the end of each lane's messages. The records that were output reach up to there.
    pub(crate) fn message_ends(&self) -> Vec<Round> {
        self.lanes.iter().map(Lane::message_end).collect()
    }

    /// Notes that message slots below these rounds are synced.
    pub(crate) fn synced(&mut self, ends: &[Round], due: &mut Due) {
        due.set(Cause::Confirmable);
        self.lanes.iter_mut().zip(ends).for_each(|(lane, &end)| lane.sync(end));
    }

    /// Restores the view that an earlier incarnation stored: wedged from its creation. `passed` is the last slot in the
    /// result.
    ///
    /// # Errors
    /// The first lane whose slots do not follow each other.
    pub(crate) fn restored<'a>(
        mut self,
        slots: impl Iterator<Item = (Rank, &'a Slot)>,
        passed: Option<Place>,
        ends: &[Round],
    ) -> Result<Self, Rank> {
        self.wedged = true;
        self.walk = Walk::at(passed.unwrap_or_default());
        for (rank, slot) in slots {
            let lane = self.lanes.get_mut(rank.at()).ok_or(rank)?;
            if passed.is_some_and(|passed| Place { round: slot.round, rank } <= passed) {
                *lane = Lane::restored(slot.round.next());
            } else {
                if lane.message_end() == Round(0) {
                    // Earlier slots of its lane are behind a snapshot.
                    *lane = Lane::restored(slot.prev);
                }
                let taken = lane.take_slot(slot.clone(), false).map_err(|_| rank)?;
                lane.sync(lane.message_end());
                taken.then_some(()).ok_or(rank)?;
            }
        }
        // Lanes whose slots are all included in a snapshot.
        for (lane, &end) in self.lanes.iter_mut().zip(ends).filter(|(lane, _)| lane.message_end() == Round(0)) {
            *lane = Lane::restored(end);
        }
        Ok(self)
    }

    /// `Token`: notes the time from which a member without messages holds the turn while another one waits for it.
    pub(super) fn watch_turn(&mut self, now: Time, outbox: &Outbox) {
        let holds = self.open
            && !self.wedged
            && !outbox.has_due(now)
            && self.model.holds_turn(self.ring_state())
            && (self.flows.peers.iter().any(|peer| peer.waiting) || self.result_lags());
        self.turn_since = if holds { self.turn_since.or(Some(now)) } else { None };
    }

    /// The time at which a turn without messages is passed on.
    pub(crate) fn turn_ends_at(&self) -> Option<Time> {
        self.turn_since.map(|since| since + self.view.parameters.token_tick)
    }

    /// Passes the turn on, because the tick is over.
    pub(crate) fn pass_turn(&mut self) {
        if self.turn_since.take().is_some() {
            let frontier = self.lanes[self.rank.at()].frontier().next();
            self.skip_own_to(frontier);
        }
    }

    /// Checks the order of all watermarks.
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
