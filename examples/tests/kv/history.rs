//! Histories of clients, and the check of each key's history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use todc_utils::Specification;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};

/// A value that one write has, or none for an absent key.
type Value = Option<u64>;

/// What a write requires of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    Anything,
    This(Value),
}

/// An operation on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write { value: Value, expects: Expects },
}

/// What an operation returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A value, with its revision.
    Is(Value, Option<u64>),
    /// The write took effect and has this revision; the key had that one before.
    Written { revision: Option<u64>, before: Option<u64> },
    /// The condition did not hold: the key had this revision.
    Conflict { before: Option<u64> },
    /// It did not take effect.
    Nothing,
    /// It may have taken effect, or may do so later.
    Unknown,
}

/// An operation with its times, which order the events of all clients.
#[derive(Clone, Copy, Debug)]
struct Record {
    key: usize,
    operation: Operation,
    called: usize,
    answered: Option<(usize, Outcome)>,
}

/// The operations of all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<(usize, Vec<Record>)>>);

impl Recorder {
    /// Records the beginning of an operation.
    pub(crate) fn call(&self, key: usize, operation: Operation) -> usize {
        let (clock, records) = &mut *self.0.lock().unwrap();
        *clock += 1;
        records.push(Record { key, operation, called: *clock, answered: None });
        records.len() - 1
    }

    /// Records its end.
    pub(crate) fn answer(&self, operation: usize, outcome: Outcome) {
        let (clock, records) = &mut *self.0.lock().unwrap();
        *clock += 1;
        records[operation].answered = Some((*clock, outcome));
    }

    /// The number of operations that have an outcome.
    pub(crate) fn answered(&self) -> usize {
        let (_, records) = &*self.0.lock().unwrap();
        let known = |record: &&Record| {
            record.answered.is_some_and(|(_, outcome)| !matches!(outcome, Outcome::Unknown | Outcome::Nothing))
        };
        records.iter().filter(known).count()
    }

    /// The keys whose histories are not linearizable.
    pub(crate) fn violations(&self) -> Vec<usize> {
        let (_, records) = &*self.0.lock().unwrap();
        let mut of_key: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
        records.iter().for_each(|record| of_key.entry(record.key).or_default().push(*record));
        of_key.retain(|_, records| !is_linearizable(records));
        of_key.into_keys().collect()
    }
}

/// An operation as the check sees it. Nothing known matches anything.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(Value),
    Write { value: Value, expects: Expects, took_effect: Option<bool>, before: Option<Value> },
}

/// A key: absent at first.
struct Register;

impl Specification for Register {
    type State = Value;
    type Operation = Step;

    fn init() -> Value {
        None
    }

    fn apply(step: &Step, state: &Value) -> (bool, Value) {
        match *step {
            Step::Read(value) => (value == *state, *state),
            Step::Write { value, expects, took_effect, before } => {
                let holds = expects == Expects::Anything || expects == Expects::This(*state);
                let agrees = took_effect.is_none_or(|effect| effect == holds);
                let agrees = agrees && before.is_none_or(|before| before == *state);
                (agrees, if holds { value } else { *state })
            }
        }
    }
}

/// The value of each revision that a client knows.
fn values(records: &[Record]) -> BTreeMap<u64, u64> {
    let value = |record: &Record| match (record.answered?.1, record.operation) {
        (Outcome::Is(value, revision), _) => Some((revision?, value?)),
        (Outcome::Written { revision, .. }, Operation::Write { value, .. }) => Some((revision?, value?)),
        _ => None,
    };
    records.iter().filter_map(value).collect()
}

fn is_linearizable(records: &[Record]) -> bool {
    let values = values(records);
    // A revision that no client has read is of a write whose outcome is unknown.
    let before = |revision: Option<u64>| match revision {
        None => Some(None),
        Some(revision) => values.get(&revision).map(|value| Some(*value)),
    };
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for record in records {
        let step = |took_effect, before| match record.operation {
            Operation::Read => None,
            Operation::Write { value, expects } => Some(Step::Write { value, expects, took_effect, before }),
        };
        match record.answered {
            Some((at, Outcome::Is(value, _))) => known.push((record.called, at, Step::Read(value))),
            Some((at, Outcome::Written { before: revision, .. })) => {
                known.extend(step(Some(true), before(revision)).map(|step| (record.called, at, step)));
            }
            // It changed nothing, and what it says is of no use.
            Some((_, Outcome::Conflict { before: revision })) if before(revision).is_none() => {}
            Some((at, Outcome::Conflict { before: revision })) => {
                known.extend(step(Some(false), before(revision)).map(|step| (record.called, at, step)));
            }
            Some((_, Outcome::Nothing)) => {}
            Some((_, Outcome::Unknown)) | None => unknown.extend(step(None, None).map(|step| (record.called, step))),
        }
    }
    let observed = observations(&known);
    let mut events = Vec::new();
    let mut add = |called, answered, step| {
        let number = events.len() / 2;
        events.extend([(called, (number, Action::Call(step))), (answered, (number, Action::Response(step)))]);
    };
    known.iter().for_each(|(called, answered, step)| add((*called, 1), (*answered, 1), *step));
    for (called, step) in unknown {
        match step {
            // It took effect before the first answer that shows it. One that no answer shows changes no answer.
            Step::Write { value: Some(value), .. } => {
                if let Some(first) = observed.get(&value) {
                    add((called, 1), (*first, 0), step);
                }
            }
            // At any time, or never.
            _ => add((called, 1), (usize::MAX, 0), step),
        }
    }
    events.sort_by_key(|(at, _)| *at);
    let actions: Vec<_> = events.into_iter().map(|(_, event)| event).collect();
    actions.is_empty() || WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
}

/// The first answer that shows each value.
fn observations(known: &[(usize, usize, Step)]) -> BTreeMap<u64, usize> {
    let mut first = BTreeMap::new();
    for (_, answered, step) in known {
        let shown = match step {
            Step::Read(value) | Step::Write { before: Some(value), .. } => *value,
            Step::Write { before: None, .. } => None,
        };
        if let Some(value) = shown {
            first.entry(value).and_modify(|first: &mut usize| *first = (*first).min(*answered)).or_insert(*answered);
        }
    }
    first
}

/// Records operations that follow each other.
fn recorded(operations: &[(Operation, Outcome)]) -> Recorder {
    let recorder = Recorder::default();
    for (operation, outcome) in operations {
        let call = recorder.call(0, *operation);
        recorder.answer(call, *outcome);
    }
    recorder
}

fn write(value: u64) -> Operation {
    Operation::Write { value: Some(value), expects: Expects::Anything }
}

const DONE: Outcome = Outcome::Written { revision: Some(1), before: None };

#[test]
fn the_check_finds_an_old_value_a_lost_write_and_a_swap_that_took_effect_twice() {
    let old = [(write(1), DONE), (Operation::Read, Outcome::Is(None, None))];
    assert_eq!(recorded(&old).violations(), [0]);
    let swap = |value| Operation::Write { value: Some(value), expects: Expects::This(Some(1)) };
    let swapped = |revision| Outcome::Written { revision: Some(revision), before: Some(1) };
    assert_eq!(recorded(&[(write(1), DONE), (swap(2), swapped(2))]).violations(), [0; 0]);
    assert_eq!(recorded(&[(write(1), DONE), (swap(2), swapped(2)), (swap(3), swapped(3))]).violations(), [0]);
}

#[test]
fn a_write_with_an_unknown_outcome_may_take_effect_once_and_late() {
    let shows = |value| (Operation::Read, Outcome::Is(Some(value), None));
    let late = [(write(1), DONE), (write(2), Outcome::Unknown), shows(1), shows(1), shows(2)];
    assert_eq!(recorded(&late).violations(), [0; 0]);
    assert_eq!(recorded(&[&late[..], &[shows(1)]].concat()).violations(), [0], "it cannot be undone");
    let refused = [(write(1), DONE), (write(2), Outcome::Nothing), shows(2)];
    assert_eq!(recorded(&refused).violations(), [0]);
}
