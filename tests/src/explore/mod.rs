//! Every order of events in a group of three, within bounds, of the real machine (`protocol.md` §11).
//!
//! A state consists of the state of each node, the frames in flight on each stream of each link, and the faults still
//! to come. A machine depends on its inputs only, so nodes are explored one by one ([`local`]), and states of the group
//! are combinations of theirs. Two histories of a node are equal if its machine shows the same. Clocks are not
//! compared: each stands still until a deadline or a spell is chosen, so that they may differ in any way.
//!
//! Not explored: signs of life, and the consensus library's frames where a scenario does not say otherwise, arrive at
//! once, each on its own stream; processes do not come back; `Memory` only.

pub mod facts;
pub mod group;
mod hash;
pub mod local;
pub mod scenario;
pub mod state;

use std::collections::HashSet;
use std::fmt;

pub use scenario::Scenario;

use facts::Broken;
use group::Group;
use state::{Choice, State};

/// The outcome of an exploration.
#[derive(Debug)]
pub struct Report {
    /// Different states of the group.
    pub states: usize,
    /// Choices taken.
    pub transitions: u64,
    /// Different states of single nodes.
    pub locals: usize,
    /// States in which nothing more can happen but faults and time.
    pub ends: usize,
    /// Of those, from how many a calm group was seen to settle.
    pub settled: usize,
    /// Choices in a row of which every order was followed.
    pub depth: usize,
    /// Everything was explored but the parts that the scenario leaves out.
    pub complete: bool,
    /// A promise that does not hold, and how it comes to that.
    pub counterexample: Option<Counterexample>,
}

/// The way to a broken promise.
#[derive(Debug)]
pub struct Counterexample {
    /// Which.
    pub broken: Broken,
    /// The choices from the created group on.
    pub choices: Vec<Choice>,
    /// Its frames and events, as text.
    pub story: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Explores a scenario, level by level, until a promise does not hold or nothing is left within its bounds.
///
/// # Panics
/// If the group cannot be created: then nothing was explored.
#[must_use]
pub fn explore(scenario: &Scenario) -> Report {
    let mut group = Group::new(scenario);
    let mut first =
        group.create().unwrap_or_else(|broken| panic!("the group of {} is created: {broken}", scenario.name));
    first = group.approve(&first, scenario.approved).unwrap_or_else(|broken| panic!("messages are approved: {broken}"));
    first = group.begin(&first, scenario.at_once).unwrap_or_else(|broken| panic!("members broadcast: {broken}"));
    first.budget = scenario.budget;
    group.transitions = 0;
    let mut search = Search {
        known: HashSet::from([hash::of(&first)]),
        paths: vec![(0, Choice::Broadcast(0))],
        level: vec![(0, first.clone())],
        ends: 0,
        settled: 0,
        depth: 0,
        complete: true,
    };
    let mut broken = None;
    while !search.level.is_empty() && broken.is_none() {
        broken = search.next_level(&mut group, scenario);
        // Once a state had to be left out, longer orders are followed in part only.
        search.depth += usize::from(search.complete);
    }
    let complete = search.complete && broken.is_none();
    Report {
        states: search.paths.len(),
        transitions: group.transitions,
        locals: group.locals.count(),
        ends: search.ends,
        settled: search.settled,
        // From the states of the last level nothing follows.
        depth: search.depth - usize::from(complete),
        complete,
        counterexample: broken.map(|(choices, broken)| {
            let story = tell(&mut group, &first, &choices);
            Counterexample { broken, choices, story }
        }),
    }
}

/// The states seen so far.
struct Search {
    known: HashSet<u128>,
    /// By state: the one before, and the choice that led here.
    paths: Vec<(u32, Choice)>,
    /// States whose choices are still to be taken.
    level: Vec<(u32, State)>,
    ends: usize,
    settled: usize,
    depth: usize,
    complete: bool,
}

impl Search {
    /// Takes every choice of every state of a level.
    fn next_level(&mut self, group: &mut Group, scenario: &Scenario) -> Option<(Vec<Choice>, Broken)> {
        for (at, state) in std::mem::take(&mut self.level) {
            let due = state.due().len();
            let mut ends = true;
            for (number, choice) in state.choices().into_iter().enumerate() {
                match group.next(&state, choice) {
                    Ok(Some(next)) => {
                        ends &= number >= due;
                        self.reached(at, choice, next, scenario);
                    }
                    Ok(None) => {}
                    Err(broken) => return Some((self.path(at, Some(choice)), broken)),
                }
            }
            if ends {
                self.ends += 1;
                if let Err(broken) = self.settles(group, scenario, &state) {
                    return Some((self.path(at, None), broken));
                }
            }
        }
        None
    }

    fn reached(&mut self, at: u32, choice: Choice, next: State, scenario: &Scenario) {
        if self.paths.len() >= scenario.states_max {
            self.complete = false;
        } else if self.known.insert(hash::of(&next)) {
            self.level.push((self.paths.len() as u32, next));
            self.paths.push((at, choice));
        }
    }

    /// Liveness: faults are over, and every broadcast is approved at every node (`protocol.md` P6).
    fn settles(&mut self, group: &mut Group, scenario: &Scenario, state: &State) -> Result<(), Broken> {
        if self.settled >= scenario.settles_max {
            return Ok(());
        }
        let before = group.transitions;
        let settled = group.calm(state, &Group::is_settled);
        group.transitions = before;
        self.settled += 1;
        settled.map(|_| ())
    }

    fn path(&self, mut at: u32, last: Option<Choice>) -> Vec<Choice> {
        let mut choices: Vec<Choice> = last.into_iter().collect();
        while at > 0 {
            let (before, choice) = self.paths[at as usize];
            choices.push(choice);
            at = before;
        }
        choices.reverse();
        choices
    }
}

/// A sequence of choices with the frames that they deliver.
fn tell(group: &mut Group, first: &State, choices: &[Choice]) -> Vec<String> {
    let mut state = first.clone();
    let mut story = Vec::new();
    for choice in choices {
        let frame = match choice {
            Choice::Deliver(channel) => {
                let packet = state.first(*channel).map(|(_, packet)| group.locals.packet(packet));
                packet.map_or(String::new(), |packet| format!(" on {:?}: {:?}", packet.stream, packet.frame))
            }
            _ => String::new(),
        };
        story.push(format!("{choice}{frame}"));
        match group.next(&state, *choice) {
            Ok(Some(next)) => state = next,
            Ok(None) | Err(_) => break,
        }
    }
    story
}
