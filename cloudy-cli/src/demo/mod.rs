//! A running demo: it follows the reports of its processes, carries out its schedule, and judges their results.

mod judge;
mod processes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::session::{MasterEvent, MasterOutcome, Summary};
use cloudy_node::{NodeId, Phase, ViewId};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::args::{At, Deed, Schedule, Sides, Who};
use crate::children::{Control, Ending, News};
use crate::interrupts::Stop;
use crate::orders::{Order, Said};
use crate::watcher::{WAITING_EVERY, Watcher};

pub(crate) use judge::judge;
pub(crate) use processes::{Launch, Processes};

/// The timeout for a process to end after its session.
const END_TIMEOUT: Duration = Duration::from_secs(8);
/// The same for a session that the user has stopped: a slave that was cut off may find no node to end with.
const STOPPED_END_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout for a session beyond its periods: longer than the limits of master and slaves.
const OVERTIME: Duration = Duration::from_secs(20);
/// The timeout for the master's report of a view that a slave has reported: the master knows more, but may be killed,
/// paused or cut off.
const MASTER_FIRST: Duration = Duration::from_millis(100);

/// A running demo.
pub(crate) struct Demo<'a> {
    pub(crate) processes: Processes,
    pub(crate) watcher: &'a Watcher,
    pub(crate) stop: &'a Stop,
    /// The remaining actions.
    due: VecDeque<At<Deed>>,
    /// The present partitions.
    partitions: Vec<Sides>,
    paused: BTreeSet<Who>,
    /// The sum of all three periods.
    session_max: Duration,
    /// The time at which the remaining processes are given up.
    end_by: Option<Instant>,
    /// Views that slaves have reported, and the master has not, with their times.
    heard: BTreeMap<ViewId, (Instant, Vec<NodeId>)>,
    played: Played,
}

/// The outcome of a demo.
#[derive(Default)]
pub(crate) struct Played {
    /// The master's outcome.
    pub(crate) outcome: Option<MasterOutcome>,
    /// The result of each slave.
    pub(crate) results: BTreeMap<Who, Summary>,
    pub(crate) endings: BTreeMap<Who, Ending>,
    /// The processes that the schedule killed.
    pub(crate) killed: BTreeSet<Who>,
    /// Actions on the processes, for programs.
    pub(crate) faults: Vec<Value>,
    /// Actions that were left out because the session was over.
    pub(crate) undone: Vec<At<Deed>>,
}

impl<'a> Demo<'a> {
    /// A demo of processes that listen.
    pub(crate) fn new(
        processes: Processes,
        schedule: Schedule,
        session_max: Duration,
        watcher: &'a Watcher,
        stop: &'a Stop,
    ) -> Self {
        let (partitions, paused, heard, played) = Default::default();
        let due = schedule.0.into();
        Self { processes, watcher, stop, due, partitions, paused, session_max, end_by: None, heard, played }
    }

    /// Follows it until all processes have ended.
    pub(crate) async fn play(mut self) -> Played {
        let mut stopping = false;
        let mut waiting = interval_at(Instant::now() + WAITING_EVERY, WAITING_EVERY);
        while !self.is_over() {
            let fault_at = self.fault_at();
            let view_at = self.heard.values().map(|(at, _)| *at + MASTER_FIRST).min();
            tokio::select! {
                (who, news) = self.processes.news() => self.take(who, news),
                () = until(fault_at) => self.next_fault(),
                () = until(view_at) => self.show_heard(Instant::now() - MASTER_FIRST),
                () = until(self.end_by) => self.give_up(),
                _ = waiting.tick() => self.watcher.report_waiting(),
                () = self.stop.asked(), if !stopping => {
                    stopping = true;
                    self.end_early();
                }
            }
        }
        self.show_heard(Instant::now());
        self.played.undone = self.due.into();
        self.played
    }

    /// Whether all have ended, or there will be no session.
    fn is_over(&self) -> bool {
        let ended = |who| self.played.endings.contains_key(&who);
        let without_master = self.watcher.send_at().is_none() && self.played.outcome.is_none() && ended(Who::Master);
        without_master || self.processes.all().all(|(who, _)| ended(who))
    }

    fn take(&mut self, who: Who, news: News<Said>) {
        match news {
            News::Said(Said::Saw(event)) => self.saw(event),
            News::Said(Said::View { id, members }) => {
                self.heard.entry(id).or_insert_with(|| (Instant::now(), members));
            }
            News::Said(Said::Result(summary)) => {
                self.played.results.insert(who, summary);
            }
            News::Said(Said::Outcome(outcome)) => self.played.outcome = Some(outcome),
            News::Said(Said::Listening { .. }) => {}
            News::Wrote(line) => {
                // The output of the slaves is shown only if they fail; so are the master's last lines.
                if who == Who::Master && !line.starts_with("error: ") && !line.starts_with("help: ") {
                    self.watcher.line(&line);
                }
            }
            News::Ended(ending) => self.ended(who, ending),
        }
    }

    fn saw(&mut self, event: MasterEvent) {
        match &event {
            MasterEvent::Phase(Phase::Send) => self.end_within(self.session_max + OVERTIME),
            MasterEvent::View { id, .. } => {
                let later = self.heard.split_off(id);
                self.show_heard(Instant::now());
                self.heard = later;
                self.heard.remove(id);
            }
            _ => {}
        }
        self.watcher.observe(event);
    }

    /// Shows the views that were reported by that time.
    fn show_heard(&mut self, by: Instant) {
        while let Some(entry) = self.heard.first_entry().filter(|entry| entry.get().0 <= by) {
            let (id, (at, members)) = entry.remove_entry();
            self.watcher.view(at.into_std(), id, &members);
        }
    }

    fn ended(&mut self, who: Who, ending: Ending) {
        if !self.played.killed.contains(&who) {
            if who == Who::Master {
                // The session is over, even if actions remain.
                self.end_within(if self.stop.was_asked() { STOPPED_END_TIMEOUT } else { END_TIMEOUT });
                self.release();
            }
            // Before a session its error is the demo's.
            let said_later = who == Who::Master && self.watcher.send_at().is_none();
            ending.trouble(who).filter(|_| !said_later).into_iter().for_each(|trouble| self.watcher.line(&trouble));
        }
        self.played.endings.insert(who, ending);
        self.end_without_slaves();
    }

    /// No slave is left to report a result: the master does not wait for the planned end.
    fn end_without_slaves(&mut self) {
        let mut slaves = self.processes.all().map(|(who, _)| who).filter(|who| *who != Who::Master);
        let all_ended = slaves.all(|who| self.played.endings.contains_key(&who));
        if all_ended && self.played.results.is_empty() {
            self.due.clear();
            self.processes.control(Who::Master, Control::Order(Order::Stop));
        }
    }

    fn end_within(&mut self, time: Duration) {
        let by = Instant::now() + time;
        self.end_by = Some(self.end_by.map_or(by, |end_by| end_by.min(by)));
    }

    /// Gives up the processes that have not ended.
    fn give_up(&mut self) {
        for (who, _) in self.processes.all() {
            self.played.endings.entry(who).or_default();
        }
    }

    fn end_early(&mut self) {
        self.due.clear();
        self.release();
        self.end_within(self.session_max.min(OVERTIME) + OVERTIME);
        let master_lives =
            !self.played.endings.contains_key(&Who::Master) && !self.played.killed.contains(&Who::Master);
        for (who, _) in self.processes.all() {
            if who == Who::Master || !master_lives {
                self.processes.control(who, Control::Order(Order::Stop));
            }
        }
    }

    /// The time of the next action; none before SEND.
    fn fault_at(&self) -> Option<Instant> {
        let send_at = self.watcher.send_at()?;
        self.due.front().map(|fault| Instant::from_std(send_at) + fault.at)
    }

    fn next_fault(&mut self) {
        let Some(At { what: deed, .. }) = self.due.pop_front() else { return };
        let now = Instant::now().into_std();
        match &deed {
            Deed::Kill(who) => {
                self.played.killed.insert(*who);
                self.paused.remove(who);
                self.processes.control(*who, Control::Kill);
            }
            Deed::Pause(who) => {
                self.paused.insert(*who);
                self.processes.control(*who, Control::Pause);
            }
            Deed::Resume(who) => {
                self.paused.remove(who);
                self.processes.control(*who, Control::Resume);
            }
            Deed::Partition(sides) => self.cut_off(|partitions| partitions.push(sides.clone())),
            Deed::Heal(sides) => self.cut_off(|partitions| {
                let healed = partitions.iter().position(|other| other == sides);
                healed.map(|at| partitions.swap_remove(at));
            }),
        }
        self.watcher.line_at(now, &deed.to_string());
        let at_us = self.watcher.since_send(now).as_micros() as u64;
        self.played.faults.push(in_json(at_us, &deed));
    }

    /// Changes the partitions, and orders all processes to apply them.
    fn cut_off(&mut self, change: impl FnOnce(&mut Vec<Sides>)) {
        change(&mut self.partitions);
        for (who, _) in self.processes.all() {
            let beyond: BTreeSet<SocketAddr> = self
                .partitions
                .iter()
                .flat_map(|sides| sides.beyond(who))
                .filter_map(|who| self.processes.address(who))
                .collect();
            self.processes.control(who, Control::Order(Order::CutOff(beyond.into_iter().collect())));
        }
    }

    /// Ends all faults that have an end.
    fn release(&mut self) {
        for who in std::mem::take(&mut self.paused) {
            self.processes.control(who, Control::Resume);
        }
        if !self.partitions.is_empty() {
            self.cut_off(Vec::clear);
        }
    }
}

/// Returns at that time; never without one.
async fn until(at: Option<Instant>) {
    match at {
        // sleep: a schedule consists of times.
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn in_json(at_us: u64, deed: &Deed) -> Value {
    let names = |side: &[Who]| side.iter().map(Who::to_string).collect::<Vec<_>>();
    let mut fault = json!({ "at_us": at_us, "kind": deed.kind(), "nodes": names(&deed.whom()) });
    if let Deed::Partition(Sides(sides)) | Deed::Heal(Sides(sides)) = deed {
        fault["sides"] = json!(sides.iter().map(|side| names(side)).collect::<Vec<_>>());
    }
    fault
}
