//! A view comes into force, and what is missing of the result before it is fetched (`protocol.md` §6.4).

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::{Checkpoint, Digest};
use crate::id::{Index, NodeId, Rank, Round, ViewId};
use crate::io::{Entry, Event, OlderDisk, Phase};
use crate::machine::Machine;
use crate::machine::join::Joining;
use crate::machine::snapshot::Incoming;
use crate::machine::timers::Timer;
use crate::member::Member;
use crate::rules::Rule;
use crate::slot::Batch;
use crate::stored::Record;
use crate::time::Time;
use crate::view::{Origin, View};
use crate::wire::{ControlFrame, Fetched};

/// Between two questions to a member whose result goes no further yet.
const FOLLOW_EVERY: Duration = Duration::from_millis(10);

/// A result that misses no more than this many messages is near its end: to fetch them takes far less than the stall
/// timeout.
const NEAR_MESSAGES: u64 = 10_000;

/// What is missing of the result: up to a joiner's first index, or, for who was evicted, whatever is added to it.
#[derive(Debug)]
pub(crate) struct Fetching {
    /// The view in force: who answers must know it, before its answer is complete.
    view: ViewId,
    /// Who has it.
    pub(super) sources: Vec<NodeId>,
    /// Who was asked last.
    pub(super) asked: Option<NodeId>,
    /// Little is missing.
    pub(super) near: bool,
    /// The result reaches the first index of the view in force.
    pub(super) reaches: bool,
    /// Who does not retain what is missing any more, and the first index that it does.
    truncated: BTreeMap<NodeId, Index>,
    truncated_since: Option<Time>,
    /// Who lacks the beginning of the view as well, and how far its result goes.
    behind: BTreeMap<NodeId, Index>,
    /// A snapshot that comes in place of what nobody retains.
    pub(super) snapshot: Option<Incoming>,
    /// Since when nothing has come.
    pub(super) stands_since: Option<Time>,
    /// That was reported.
    pub(super) missed: bool,
    /// The next part is asked for once the disk has taken enough of those before.
    held_back: bool,
}

impl Fetching {
    /// A node that is not of the view in force has the result.
    pub(super) fn add_source(&mut self, node: NodeId) {
        if !self.sources.contains(&node) {
            self.sources.push(node);
        }
    }
}

/// What came before a view that is installed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'a> {
    /// It is the first.
    Nothing,
    /// The view in force so far, which ended at the cut.
    View { view: &'a View, cut: &'a [Round] },
    /// Views that this node never heard of.
    Skipped,
}

impl Machine {
    /// The log installs a view.
    pub(super) fn install(&mut self, view: Arc<View>, before: Before<'_>) {
        let me = (self.me, self.delivery.incarnation);
        let was_member = match before {
            Before::Nothing => false,
            Before::View { view, .. } => view.rank_of_run(me.0, me.1).is_some(),
            Before::Skipped => self.joining.is_none() && self.state.was_member(self.me),
        };
        let rank = view.rank_of_run(me.0, me.1);
        let listed = view.rank_of(self.me);
        // Before the first view nothing is missing, but to who comes later.
        let complete = match before {
            Before::Nothing => self.joining.is_none() || (self.founded_with && listed.is_some()),
            Before::View { cut, .. } if self.member.is_some() => self.leave_view(rank.is_some(), cut),
            Before::View { view: before, cut } => {
                let answered = listed.is_some_and(|rank| view.member(rank).origin != Origin::Joiner);
                let survives = answered && self.disk_knows_answer(before.id);
                self.leave_view(survives, cut)
            }
            Before::Skipped => self.leave_view(false, &[]) || !self.rules.hold(Rule::SkippedViewIsIncomplete),
        };
        // The place of an earlier run that left what it held on this disk. Of one that did not nothing is known here.
        let former_rank = listed.filter(|_| complete && self.restored && rank.is_none());
        let first = complete.then(|| self.delivery.result.index().next());
        if complete {
            self.delivery.result.checkpoint();
        }
        if let Some(first) = first.filter(|_| rank.or(former_rank).is_some()) {
            self.delivery.keep(Record::Complete { view: view.id, first });
        }
        self.event(Event::ViewInstalled {
            view: Arc::clone(&view),
            first: first.unwrap_or_default(),
            active: rank.is_some(),
        });
        self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
        self.note_members(&view);
        let reads = self.joining.as_ref().is_some_and(Joining::reads);
        if self.joining.is_some() && !view.parameters.session {
            self.phase = self.phase.max(Phase::Send);
        }
        if let Some(rank) = rank.filter(|_| !view.last) {
            self.enter_view(&view, rank, first);
            self.arrive();
        }
        if let Some(rank) = former_rank.filter(|_| !view.last) {
            self.former = Some(self.former_member(&view, rank, first));
        }
        let follows = was_member || self.fetching.is_some() || rank.is_some() || reads;
        if view.last {
            self.last_installed();
        }
        if complete && view.last && follows {
            self.finish();
        } else if !complete && follows {
            self.start_fetching(&view);
        }
        if rank.is_none() && !view.last {
            if was_member && !self.wants_leave {
                self.event(Event::Evicted { view: view.id });
            }
            self.say_rejoin();
        }
        if view.last && self.observes() {
            self.say_report();
        }
        if self.is_coordinator() {
            self.change_over(&view);
            self.heard_early(&view);
        }
    }

    /// Of an earlier run: its disk holds what that answered for a view, or it is older than what the group relies on.
    fn disk_knows_answer(&mut self, view: ViewId) -> bool {
        let of_view = self.former.as_ref().is_some_and(|former| former.view.id == view);
        if !of_view || self.wedged >= view || !self.rules.hold(Rule::DiskKnowsItsAnswer) {
            return true;
        }
        self.event(Event::OlderDisk(OlderDisk::Answer { view }));
        false
    }

    /// Ends this node's part in the view before, and puts back what the cut did not take. True if the result is here up
    /// to the next view's first index.
    fn leave_view(&mut self, survives: bool, cut: &[Round]) -> bool {
        let former = self.former.take();
        let restarted = self.member.is_none();
        let Some(mut member) = self.member.take().or(former) else { return false };
        self.confirmations_given += member.confirmations_given;
        // Of an earlier run the disk has every message below the cut that its answer led to, and no skips.
        let holds = restarted || member.holds(cut);
        let complete = (survives && member.complete && holds) || !self.rules.hold(Rule::CutIsHeld);
        let own = if !complete {
            member.take_own()
        } else if self.rules.hold(Rule::FinalReachesCut) {
            member.walk_cut(cut, &mut self.delivery)
        } else {
            Vec::new()
        };
        if restarted && self.rules.hold(Rule::RestartedSendsNothingOld) {
            return complete;
        }
        if self.rules.hold(Rule::PutBackAtHead) {
            self.outbox.put_back(own);
        } else {
            self.outbox.put_behind(own);
        }
        complete
    }

    fn enter_view(&mut self, view: &Arc<View>, rank: Rank, first: Option<Index>) {
        // Whatever the result holds by now need not be broadcast again.
        self.outbox.leave_out(self.last_approved());
        let mut member = Member::new(Arc::clone(view), rank, first, self.now, self.rules);
        member.begins = first.map(|first| self.ends_before(first)).unwrap_or_default();
        member.open |= self.plan.is_some();
        let linked = self.links.keys().filter_map(|&peer| view.rank_of(peer));
        linked.for_each(|rank| member.link_up(rank));
        self.member = Some(member);
        if !view.parameters.session {
            self.phase = self.phase.max(Phase::Send);
        }
    }

    pub(super) fn start_fetching(&mut self, view: &View) {
        let ring = view.ring.iter().map(|member| member.node).filter(|&node| node != self.me);
        let elsewhere = self.closing.told_by.filter(|node| view.rank_of(*node).is_none());
        let sources = ring.chain(elsewhere).collect();
        self.fetching = Some(Fetching {
            view: view.id,
            sources,
            asked: None,
            near: false,
            reaches: false,
            truncated: BTreeMap::new(),
            truncated_since: None,
            behind: BTreeMap::new(),
            snapshot: None,
            stands_since: None,
            missed: false,
            held_back: false,
        });
        self.fetch();
    }

    /// Asks the next source that is linked.
    pub(super) fn fetch(&mut self) {
        if self.hold_back() {
            return;
        }
        self.miss_final();
        let Some(fetching) = &mut self.fetching else { return };
        let after = fetching.asked.and_then(|asked| fetching.sources.iter().position(|&node| node == asked));
        let start = after.map_or(0, |at| at + 1);
        let in_turn = fetching.sources.iter().cycle().skip(start).take(fetching.sources.len());
        let source = in_turn.copied().find(|node| self.links.contains_key(node));
        fetching.asked = source;
        fetching.snapshot = None;
        if let Some(source) = source {
            let from = self.delivery.result.index().next();
            self.send_control(source, ControlFrame::Fetch { from });
        }
        let timeout = self.state.view().map_or(Duration::from_millis(100), |view| view.parameters.wedge_timeout);
        self.set_timer(Timer::Fetch, timeout);
    }

    /// Nothing more is fetched while too much of it waits for the disk.
    fn hold_back(&mut self) -> bool {
        let behind = self.disk_is_behind();
        if let Some(fetching) = self.fetching.as_mut().filter(|_| behind) {
            fetching.held_back = true;
            self.timers.stop(Timer::Fetch);
        }
        behind
    }

    /// The disk has taken more: what was held back is fetched.
    pub(super) fn fetch_held_back(&mut self) {
        let held_back = self.fetching.as_ref().is_some_and(|fetching| fetching.held_back);
        if !held_back || self.disk_is_behind() {
            return;
        }
        let Some(fetching) = &mut self.fetching else { return };
        fetching.held_back = false;
        match fetching.asked.filter(|node| self.links.contains_key(node)) {
            Some(source) => self.fetch_from(source),
            None => self.fetch(),
        }
    }

    fn fetch_from(&mut self, source: NodeId) {
        let from = self.delivery.result.index().next();
        self.send_control(source, ControlFrame::Fetch { from });
        let timeout = self.state.view().map_or(Duration::from_millis(100), |view| view.parameters.wedge_timeout);
        self.set_timer(Timer::Fetch, timeout);
    }

    pub(super) fn take_fetched(&mut self, from: NodeId, fetched: Fetched) {
        let Some(fetching) = &self.fetching else { return };
        // Who was asked before may take its time: what it has is as good as anybody's.
        let answers = fetching.asked == Some(from);
        let may_continue = matches!(fetched, Fetched::Entry { .. }) && fetching.sources.contains(&from);
        if !answers && !may_continue {
            return;
        }
        let before = self.delivery.result.index();
        self.take_part_of_result(from, fetched);
        if self.delivery.result.index() > before
            && let Some(fetching) = &mut self.fetching
        {
            (fetching.stands_since, fetching.missed) = (None, false);
        }
    }

    fn take_part_of_result(&mut self, from: NodeId, fetched: Fetched) {
        match fetched {
            Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, body } => {
                if first_index == self.delivery.result.index().next() {
                    let batch = Batch { first_seq, count, body };
                    self.delivery.fetched(Entry { first_index, view, origin, incarnation, batch });
                }
            }
            Fetched::End { index, view, first, digest } => self.fetched_to(from, index, view, (first, digest)),
            Fetched::Truncated { first } => self.truncated(from, first),
            Fetched::Snapshot { index, base, length, offset, part } => {
                self.take_part(from, (index, length, offset), base, &part);
            }
        }
    }

    /// A source does not retain what is missing any more. Another one may; once none is left, this node cannot follow.
    pub(super) fn truncated(&mut self, source: NodeId, first: Index) {
        let failure_timeout = self.state.view().map(|view| view.parameters.failure_timeout).unwrap_or_default();
        let (now, here) = (self.now, self.delivery.result.index());
        let Some(fetching) = &mut self.fetching else { return };
        let fresh = fetching.truncated.insert(source, first).is_none();
        let since = *fetching.truncated_since.get_or_insert(now);
        let left: Vec<NodeId> =
            fetching.sources.iter().filter(|node| !fetching.truncated.contains_key(node)).copied().collect();
        let reached: Vec<&NodeId> = left.iter().filter(|node| self.links.contains_key(node)).collect();
        let helps = |node: &&NodeId| fetching.behind.get(node).is_none_or(|end| *end > here);
        let helped = reached.iter().any(helps);
        if fresh && !reached.is_empty() {
            return self.fetch();
        }
        // Who is out of reach for so long may not come back, and who misses the same gets it from nobody either.
        if left.is_empty() || (!helped && now.since(since) > failure_timeout) {
            let first = fetching.truncated.values().min().copied().unwrap_or(first);
            self.fetching = None;
            self.timers.stop(Timer::Fetch);
            self.event(Event::Truncated { first });
        }
    }

    /// A source has given what it has for now.
    fn fetched_to(&mut self, from: NodeId, index: Index, installed: ViewId, (first, digest): (Index, Digest)) {
        let here = self.delivery.result.index();
        let Some(fetching) = self.fetching.as_mut() else { return };
        let knows_view = installed == fetching.view && first > Index(0);
        let target = if self.member.is_some() && knows_view { Index(first.0 - 1) } else { index };
        if first == Index(0) && self.rules.hold(Rule::BehindHelpsNobody) {
            fetching.behind.insert(from, index);
        } else {
            fetching.behind.remove(&from);
        }
        fetching.near |= target.0 <= here.0 + NEAR_MESSAGES;
        fetching.reaches |= knows_view && here.next() >= first;
        if here < target {
            if !self.hold_back() {
                self.send_control(from, ControlFrame::Fetch { from: here.next() });
            }
            return;
        }
        let last = self.state.view().is_some_and(|view| view.last);
        match &self.member {
            Some(member) if knows_view => {
                if here.next() == first {
                    self.delivery.result.checkpoint();
                }
                let view = member.view.id;
                self.fetching = None;
                self.timers.stop(Timer::Fetch);
                self.fetched_all(view, first);
            }
            None if last && knows_view => {
                let theirs = Checkpoint { index: Index(first.0 - 1), digest };
                if !self.agrees_with_source(from, theirs) {
                    return;
                }
                // With `Disk` it knows after a restart that nothing is missing.
                if self.rules.hold(Rule::FinalIsStoredWhole) {
                    self.delivery.keep(Record::Complete { view: installed, first });
                }
                self.fetching = None;
                self.timers.stop(Timer::Fetch);
                self.finish_with(theirs);
            }
            _ => self.set_timer(Timer::Fetch, FOLLOW_EVERY),
        }
    }
}
