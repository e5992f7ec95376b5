//! A view comes into force, and what is missing of the result before it is fetched (`protocol.md` §6.4).

use std::sync::Arc;

use crate::catch_up::Part;
use crate::id::{Index, NodeId, Round, ViewId};
use crate::io::{Entry, Event, Phase};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::member::Member;
use crate::rules::Rule;
use crate::slot::Batch;
use crate::view::View;
use crate::wire::{ControlFrame, Fetched};

/// What is missing of the result up to a view's first index.
#[derive(Debug)]
pub(crate) struct Fetching {
    /// The view.
    view: ViewId,
    /// Who has it.
    sources: Vec<NodeId>,
    /// Who was asked last.
    pub(super) asked: Option<NodeId>,
}

impl Machine {
    /// The log installs a view; the one before ended at the cut.
    pub(super) fn install(&mut self, view: Arc<View>, before: Option<&View>, cut: &[Round]) {
        let mut complete = true;
        if let Some(mut member) = self.member.take() {
            let survives = view.rank_of_run(self.me, self.delivery.incarnation).is_some();
            complete = (survives && member.holds(cut)) || !self.rules.hold(Rule::CutIsHeld);
            if complete && self.rules.hold(Rule::FinalReachesCut) {
                member.walk_cut(cut, &mut self.delivery);
            }
            self.confirmations_given += member.confirmations_given;
        }
        let was_member = before.is_some_and(|before| before.rank_of_run(self.me, self.delivery.incarnation).is_some());
        let rank = view.rank_of_run(self.me, self.delivery.incarnation);
        let first = self.delivery.result.index().next();
        self.event(Event::ViewInstalled { view: Arc::clone(&view), first, active: rank.is_some() });
        self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
        self.checkpoints.forget(&view);
        if view.last {
            self.last_installed();
            if was_member && !complete {
                self.start_fetching(&view);
            } else if was_member {
                self.finish();
            }
        } else if let Some(rank) = rank {
            let mut member = Member::new(Arc::clone(&view), rank, first, self.now, self.rules);
            let linked = self.links.keys().filter_map(|&peer| view.rank_of(peer));
            linked.for_each(|rank| member.link_up(rank));
            self.member = Some(member);
            self.phase = if view.parameters.session { Phase::Start } else { Phase::Send };
        }
    }

    fn start_fetching(&mut self, view: &View) {
        let sources = view.ring.iter().map(|member| member.node).filter(|&node| node != self.me).collect();
        self.fetching = Some(Fetching { view: view.id, sources, asked: None });
        self.fetch();
    }

    /// Asks the next source that is linked.
    pub(super) fn fetch(&mut self) {
        let Some(fetching) = &mut self.fetching else { return };
        let after = fetching.asked.and_then(|asked| fetching.sources.iter().position(|&node| node == asked));
        let start = after.map_or(0, |at| at + 1);
        let in_turn = fetching.sources.iter().cycle().skip(start).take(fetching.sources.len());
        let source = in_turn.copied().find(|node| self.links.contains_key(node));
        fetching.asked = source;
        if let Some(source) = source {
            let from = self.delivery.result.index().next();
            self.send_control(source, ControlFrame::Fetch { from });
        }
        let timeout =
            self.state.view().map_or(core::time::Duration::from_millis(100), |view| view.parameters.wedge_timeout);
        self.set_timer(Timer::Fetch, timeout);
    }

    /// Somebody misses a part of the result.
    pub(super) fn serve(&mut self, to: NodeId, from: Index) {
        let view = self.state.view().map_or(ViewId(0), |view| view.id);
        match self.delivery.retained.part_from(from) {
            Part::Truncated(first) => self.send_control(to, ControlFrame::Fetched(Fetched::Truncated { first })),
            Part::Entries(entries) => {
                let index = self.delivery.result.index();
                entries.into_iter().for_each(|entry| self.send_control(to, ControlFrame::Fetched(fetched(entry))));
                self.send_control(to, ControlFrame::Fetched(Fetched::End { index, view }));
            }
        }
    }

    pub(super) fn take_fetched(&mut self, from: NodeId, fetched: Fetched) {
        let Some(view) = self.fetching.as_ref().filter(|fetching| fetching.asked == Some(from)).map(|f| f.view) else {
            return;
        };
        match fetched {
            Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, body } => {
                if first_index == self.delivery.result.index().next() {
                    let batch = Batch { first_seq, count, body };
                    self.delivery.fetched(Entry { first_index, view, origin, incarnation, batch });
                }
            }
            Fetched::End { index, view: installed } => {
                if self.delivery.result.index() < index {
                    let next = self.delivery.result.index().next();
                    self.send_control(from, ControlFrame::Fetch { from: next });
                } else if installed >= view && self.final_result.is_none() {
                    self.fetching = None;
                    self.timers.stop(Timer::Fetch);
                    self.finish();
                }
            }
            // Another source may retain more; the timer asks it.
            Fetched::Truncated { .. } => {}
        }
    }
}

fn fetched(entry: Entry) -> Fetched {
    Fetched::Entry {
        first_index: entry.first_index,
        view: entry.view,
        origin: entry.origin,
        incarnation: entry.incarnation,
        first_seq: entry.batch.first_seq,
        count: entry.batch.count,
        body: entry.batch.body,
    }
}
