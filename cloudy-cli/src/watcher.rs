//! Shows a running session as its master sees it, and keeps its views.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use cloudy_node::session::{Found, MasterEvent, Refusal};
use cloudy_node::{Durability, Index, NoCompleteMember, NodeId, Phase, ViewId};
use serde::Serialize;
use tokio::time::interval_at;

use crate::progress::Progress;

/// The time between two lines that name what a session waits for before SEND.
pub(crate) const WAITING_EVERY: Duration = Duration::from_secs(5);

/// Shows a running session.
pub(crate) struct Watcher {
    progress: Progress,
    /// Names of slaves by address; a slave without a name has its address.
    names: BTreeMap<String, String>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    slaves: BTreeMap<NodeId, (String, Found)>,
    /// Whether the search for slaves is over, and they have accepted.
    created: bool,
    phase: Phase,
    /// The start of SEND.
    send_at: Option<Instant>,
    /// The present ring.
    ring: BTreeSet<NodeId>,
    /// Reasons for which slaves will leave the ring.
    causes: BTreeMap<NodeId, &'static str>,
    views: Vec<ViewChange>,
}

/// A view that came into force after the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ViewChange {
    /// The time at which it was seen, from the start of SEND.
    pub(crate) at_us: u64,
    pub(crate) id: u64,
    /// The members of its ring, by name, in order.
    pub(crate) slaves: Vec<String>,
    /// Members of the former ring that are gone.
    pub(crate) without: Vec<Absent>,
    /// Members that returned or are new.
    pub(crate) back: Vec<String>,
}

/// A slave that left the ring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Absent {
    pub(crate) name: String,
    /// The reason, if the master reported it.
    pub(crate) cause: Option<&'static str>,
}

impl Watcher {
    /// A watcher with names for addresses.
    pub(crate) fn new(progress: Progress, names: BTreeMap<String, String>) -> Self {
        Self { progress, names, seen: RefCell::default() }
    }

    /// Prints a line that stays.
    pub(crate) fn line(&self, text: &str) {
        self.progress.line(text);
    }

    /// Prints a line that stays, with its time.
    pub(crate) fn line_at(&self, at: Instant, text: &str) {
        let since = self.since_send(at);
        self.line(&format!("{}.{:03} s  {text}", since.as_secs(), since.subsec_millis()));
    }

    /// The time from the start of SEND; zero before.
    pub(crate) fn since_send(&self, at: Instant) -> Duration {
        self.seen.borrow().send_at.map_or(Duration::ZERO, |send_at| at.saturating_duration_since(send_at))
    }

    /// The start of SEND.
    pub(crate) fn send_at(&self) -> Option<Instant> {
        self.seen.borrow().send_at
    }

    /// The name of a slave.
    pub(crate) fn name(&self, slave: &Found) -> String {
        self.names.get(&slave.name).unwrap_or(&slave.name).clone()
    }

    /// The participants.
    pub(crate) fn slaves(&self) -> Vec<Found> {
        self.seen.borrow().slaves.values().map(|(_, found)| found.clone()).collect()
    }

    /// Views after the first.
    pub(crate) fn views(&self) -> Ref<'_, [ViewChange]> {
        Ref::map(self.seen.borrow(), |seen| seen.views.as_slice())
    }

    /// Shows an event.
    pub(crate) fn observe(&self, event: MasterEvent) {
        let now = Instant::now();
        match event {
            MasterEvent::Found(slave) => {
                let name = self.name(&slave);
                self.progress.line(&format!("found {name}"));
                let mut seen = self.seen.borrow_mut();
                seen.ring.insert(slave.node);
                seen.slaves.insert(slave.node, (name, slave));
            }
            MasterEvent::Refused(Refusal { name, reason }) => {
                let name = self.names.get(&name).unwrap_or(&name);
                self.progress.line(&format!("without {name}: {reason}"));
            }
            MasterEvent::Created { members, .. } => {
                self.seen.borrow_mut().created = true;
                match members {
                    1 => self.progress.line("1 slave takes part"),
                    members => self.progress.line(&format!("{members} slaves take part")),
                }
            }
            MasterEvent::Phase(phase) => {
                let mut seen = self.seen.borrow_mut();
                seen.phase = phase;
                if phase == Phase::Send {
                    seen.send_at = Some(now);
                }
                self.progress.line(phase_name(phase));
            }
            MasterEvent::Approved(indexes) => self.progress.state(self.seen.borrow().state(&indexes)),
            MasterEvent::Silent(node) => {
                let name = self.leaves(node, "no answer");
                self.line_at(now, &format!("{name} does not answer: the session continues without it"));
            }
            MasterEvent::Left(node) => {
                let name = self.leaves(node, "left");
                self.line_at(now, &format!("{name} has left: the session continues without it"));
            }
            MasterEvent::Blamed(node) => {
                let name = self.leaves(node, "held others up");
                self.line_at(now, &format!("{name} delays others: they continue without it until it is back"));
            }
            MasterEvent::NoCompleteMember(stopped) => self.line_at(now, &stopped_words(&stopped)),
            MasterEvent::View { id, members } => self.view(now, id, &members),
            MasterEvent::Reported(node) => {
                self.progress.state(format!("{} has reported", self.seen.borrow().name(node)));
            }
            _ => {}
        }
    }

    /// Runs the work, and reports at intervals what the session waits for before SEND.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut waiting = interval_at(tokio::time::Instant::now() + WAITING_EVERY, WAITING_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = waiting.tick() => self.report_waiting(),
            }
        }
    }

    /// Reports what the session waits for, if SEND has not begun.
    pub(crate) fn report_waiting(&self) {
        let waiting = {
            let seen = self.seen.borrow();
            let found = seen.slaves.len();
            match (seen.phase, seen.created) {
                (Phase::Start, true) => format!("waiting until {found} slave{} reach each other", plural(found)),
                (Phase::Start, false) => format!("waiting for slaves: {found} found so far"),
                _ => return,
            }
        };
        self.progress.line(&waiting);
    }

    /// Shows a view that has come into force, once.
    pub(crate) fn view(&self, at: Instant, id: ViewId, members: &[NodeId]) {
        let at_us = self.since_send(at).as_micros() as u64;
        let change = {
            let mut seen = self.seen.borrow_mut();
            if seen.views.last().is_some_and(|last| last.id >= id.0) {
                return;
            }
            let change = seen.change(at_us, id, members);
            seen.views.push(change.clone());
            change
        };
        self.line_at(at, &change.words());
    }

    fn leaves(&self, node: NodeId, cause: &'static str) -> String {
        let mut seen = self.seen.borrow_mut();
        seen.causes.insert(node, cause);
        seen.name(node)
    }
}

impl Seen {
    fn name(&self, node: NodeId) -> String {
        self.slaves.get(&node).map_or_else(|| node.short(), |(name, _)| name.clone())
    }

    fn state(&self, indexes: &[(NodeId, Index)]) -> String {
        let furthest = indexes.iter().map(|(_, index)| index.0).max().unwrap_or_default();
        let each: Vec<String> = indexes.iter().map(|(node, index)| format!("{} {index}", self.name(*node))).collect();
        format!("{}: approved {furthest} ({})", short_phase(self.phase), each.join(", "))
    }

    /// Puts another ring into force.
    fn change(&mut self, at_us: u64, id: ViewId, members: &[NodeId]) -> ViewChange {
        let ring: BTreeSet<NodeId> = members.iter().copied().collect();
        let before = std::mem::replace(&mut self.ring, ring);
        let mut without: Vec<Absent> = before
            .difference(&self.ring)
            .map(|node| Absent { name: self.name(*node), cause: self.causes.get(node).copied() })
            .collect();
        without.sort_by(|a, b| a.name.cmp(&b.name));
        let mut back: Vec<String> = self.ring.difference(&before).map(|node| self.name(*node)).collect();
        back.sort();
        self.causes.clear();
        ViewChange { at_us, id: id.0, slaves: members.iter().map(|node| self.name(*node)).collect(), without, back }
    }
}

impl ViewChange {
    fn words(&self) -> String {
        let mut words = format!("view {}: {} slave{}", self.id, self.slaves.len(), plural(self.slaves.len()));
        if !self.without.is_empty() {
            let absent = |absent: &Absent| match absent.cause {
                Some(cause) => format!("{} ({cause})", absent.name),
                None => absent.name.clone(),
            };
            let names: Vec<String> = self.without.iter().map(absent).collect();
            words.push_str(&format!(", without {}", names.join(", ")));
        }
        for name in &self.back {
            words.push_str(&format!(", {name} is back"));
        }
        words
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The name of a phase in `protocol.md` §9.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "START",
        Phase::Send => "SEND: slaves broadcast",
        Phase::Grace => "GRACE: slaves finish",
        Phase::Stop => "STOP: the results are cut and compared",
        Phase::Done => "DONE",
    }
}

/// The remedy for a session that no process can continue; the log names the missing nodes.
pub(crate) fn stopped_words(stopped: &NoCompleteMember) -> String {
    let waits = match (stopped.missing.is_empty(), stopped.durability) {
        (false, Durability::Disk) => {
            "it continues once a missing slave is started again with its --data directory, host and port"
        }
        (false, Durability::Memory) => "it continues only if a missing slave still runs and is reached again",
        (true, _) => "it cannot continue",
    };
    format!(
        "the session has stopped, because no slave with its whole result answers: {waits}; to start again, end the slaves and the master and start another session"
    )
}

/// The phase in one word.
fn short_phase(phase: Phase) -> &'static str {
    phase_name(phase).split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Three slaves, in SEND.
    fn watcher() -> Watcher {
        let watcher = Watcher::new(Progress::start(), BTreeMap::new());
        for number in 1..=3 {
            let address = SocketAddr::from(([127, 0, 0, 1], u16::from(number)));
            watcher.observe(MasterEvent::Found(Found { node: id(number), address, name: format!("slave-{number}") }));
        }
        watcher.observe(MasterEvent::Phase(Phase::Send));
        watcher
    }

    fn id(number: u8) -> NodeId {
        // The order of ids differs from that of names.
        NodeId([u8::MAX - number; 32])
    }

    fn words(watcher: &Watcher) -> Vec<String> {
        watcher.views().iter().map(ViewChange::words).collect()
    }

    #[test]
    fn view_changes_name_departed_members_with_reasons_and_returned_members() {
        let watcher = watcher();
        let view = |number, members: &[u8]| MasterEvent::View {
            id: ViewId(number),
            members: members.iter().map(|number| id(*number)).collect(),
        };
        watcher.observe(MasterEvent::Silent(id(2)));
        watcher.observe(MasterEvent::Blamed(id(3)));
        watcher.observe(view(2, &[1]));
        watcher.observe(view(3, &[1, 3, 2]));
        watcher.observe(view(4, &[1, 2]));
        watcher.observe(MasterEvent::Left(id(2)));
        watcher.observe(view(5, &[1]));
        assert_eq!(
            words(&watcher),
            [
                "view 2: 1 slave, without slave-2 (no answer), slave-3 (held others up)",
                "view 3: 3 slaves, slave-2 is back, slave-3 is back",
                "view 4: 2 slaves, without slave-3",
                "view 5: 1 slave, without slave-2 (left)"
            ]
        );
        assert_eq!(watcher.views()[1].slaves, ["slave-1", "slave-3", "slave-2"]);
    }

    #[test]
    fn a_view_is_shown_once_for_all_reporters() {
        let watcher = watcher();
        watcher.view(Instant::now(), ViewId(2), &[id(1), id(2)]);
        watcher.view(Instant::now(), ViewId(2), &[id(1), id(2)]);
        watcher.view(Instant::now(), ViewId(1), &[id(1), id(2), id(3)]);
        assert_eq!(words(&watcher), ["view 2: 2 slaves, without slave-3"]);
    }
}
