//! The events that nodes report to their applications.

use cloudy_proto::{Checkpoint, Event};

use super::{Failure, Judge};
use crate::sim::plan::Plan;
use crate::sim::stats::{Met, Stats};

impl Judge {
    pub(super) fn event(&mut self, node: usize, event: &Event, stats: &mut Stats) -> Result<(), Failure> {
        match event {
            Event::ViewInstalled { view, first, active } => self.installed(node, view, first.0, *active, stats)?,
            Event::Send { stream, .. } => {
                self.kicked_off = true;
                let logged = self.control.stream_of(node);
                let none = stream.is_none() && !self.nodes[node].active;
                if *stream != logged && !none {
                    let what = format!("stream {stream:?}, by the log {logged:?}");
                    return Err(self.failure("random streams go by the log", node, what));
                }
            }
            Event::Coordinator { node: whose } => {
                self.control.said(node, false);
                if self.place_of(*whose) == node && node != Plan::CREATOR {
                    stats.met(Met::CoordinatorChanged);
                }
            }
            Event::CoordinatorLost { .. } => self.control.said(node, true),
            Event::NoCompleteMember(said) => {
                stats.met(Met::NobodyCompleteSaid);
                self.nodes[node].nobody_complete = Some(said.clone());
            }
            Event::StaleDisk(found) => {
                stats.met(Met::OlderDiskFound);
                if !self.taken_back.contains(&self.home_of[node]) {
                    return Err(self.failure("only an older disk is taken for one", node, format!("{found:?}")));
                }
            }
            Event::Left { node: whose } if self.place_of(*whose) == node => {
                self.left.insert(node);
            }
            Event::Evicted { .. } => stats.met(Met::Evicted),
            Event::Blamed { .. } => stats.met(Met::Blamed),
            Event::Final { result } => self.ends_with(node, result)?,
            Event::Rejected { from } => {
                stats.met(Met::Rejected);
                self.nodes[node].rejected_from = Some(*from);
            }
            Event::Reported { node: whose, result, report } => {
                let whose = self.home_of(*whose);
                let runs = (0..self.nodes.len()).filter(|&place| self.home_of[place] == whose);
                let said: Vec<Checkpoint> = runs.filter_map(|place| self.nodes[place].final_result).collect();
                if !said.contains(result) || report[..] != result.index.0.to_le_bytes() {
                    let what = format!("{result:?}, but node {whose} said {said:?}");
                    return Err(self.failure("reports are what members found", node, what));
                }
            }
            Event::Diverged { .. } => {
                self.nodes[node].diverged = true;
                if self.tainted.is_empty() {
                    return Err(self.failure("healthy results do not differ", node, format!("{event:?}")));
                }
            }
            Event::UnreadableLog { .. } => {
                self.nodes[node].diverged = true;
                if !self.is_tainted(node) {
                    return Err(self.failure("a log that nobody altered is readable", node, format!("{event:?}")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A node's result is final.
    fn ends_with(&mut self, node: usize, result: &Checkpoint) -> Result<(), Failure> {
        self.nodes[node].final_result = Some(*result);
        if self.is_tainted(node) {
            return Ok(());
        }
        let checked = self.ghost.is_final(result, self.view_items.all()).and_then(|()| self.reached_cut(node));
        checked.map_err(|(rule, what)| self.failure(rule, node, what))
    }
}
