//! Faults of a demo at given times: `--kill`, `--pause` and `--partition`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::SLAVES_MAX;
use crate::duration::{self, DurationError};

/// A process of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A slave by its number, from 1.
    Slave(u16),
    /// The master.
    Master,
}

/// Groups of processes that do not reach each other; a process in no group reaches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sides(pub(crate) Vec<Vec<Who>>);

/// A fault between two times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct During<T> {
    pub(crate) what: T,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// A fault at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) what: T,
    pub(crate) at: Duration,
}

/// An action of a demo on its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// `SIGKILL`.
    Kill(Who),
    /// `SIGSTOP`.
    Pause(Who),
    /// `SIGCONT`.
    Resume(Who),
    /// From then on the sides do not reach each other.
    Partition(Sides),
    /// The sides reach each other again.
    Heal(Sides),
}

/// The fault in the text of one fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaultTextError {
    #[error("not WHO@TIME; write for example slave2@500ms or master@1s")]
    NoTime,
    #[error("not {what}@FROM..TO; write for example {example}")]
    NoTimes { what: &'static str, example: &'static str },
    #[error("`{0}` is not a process of the demo; write master, or a slave as 2, slave2 or slave-2")]
    NoNode(String),
    #[error("`{text}`: {cause}")]
    Time { text: String, cause: DurationError },
    #[error("it ends at {}, not after it begins at {}; write the earlier time first", duration::show(*.to), duration::show(*.from))]
    EndsEarly { from: Duration, to: Duration },
    #[error("a partition has two sides or more; write / between them, for example 1,2/3,4,master@1s..2s")]
    OneSide,
    #[error("{0} is named twice; name each process at most once, on one side")]
    Twice(Who),
}

/// Faults that contradict each other, or are impossible in this demo. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    #[error("there is no {who}: the demo has {nodes}; name one of those, or start more with --nodes")]
    NoSuchSlave { who: Who, nodes: u16 },
    #[error(
        "{deed} at {}: STOP begins at {}; choose an earlier time, or a longer --send", duration::show(*.at),
        duration::show(*.stop_at)
    )]
    TooLate { deed: Deed, at: Duration, stop_at: Duration },
    #[error("{who} is killed at {}: no other fault is possible after that; leave out one of the two", duration::show(*.at))]
    Dead { who: Who, at: Duration },
    #[error("{who} is paused while it is paused already; make it one pause, or one after the other")]
    PausedTwice { who: Who },
    #[error("all slaves are killed; leave one alive, so that there is a result")]
    NoneLeft,
    #[error("this system cannot pause a process; leave out --pause")]
    NoPause,
}

/// The actions of a demo, by time from the start of SEND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule(pub(crate) Vec<At<Deed>>);

impl Schedule {
    /// Orders the faults, for a demo with this number of slaves in which STOP begins at that time.
    ///
    /// # Errors
    /// The first impossible fault.
    pub(crate) fn new(
        kills: &[At<Who>],
        pauses: &[During<Who>],
        partitions: &[During<Sides>],
        nodes: u16,
        stop_at: Duration,
    ) -> Result<Self, ScheduleError> {
        if !pauses.is_empty() && !cfg!(unix) {
            return Err(ScheduleError::NoPause);
        }
        let at = |what, at| At { what, at };
        let mut deeds = Vec::new();
        // Of two actions at one time, the one that ends a fault comes first.
        deeds.extend(pauses.iter().map(|pause| at(Deed::Resume(pause.what), pause.to)));
        deeds.extend(partitions.iter().map(|partition| at(Deed::Heal(partition.what.clone()), partition.to)));
        deeds.extend(partitions.iter().map(|partition| at(Deed::Partition(partition.what.clone()), partition.from)));
        deeds.extend(pauses.iter().map(|pause| at(Deed::Pause(pause.what), pause.from)));
        deeds.extend(kills.iter().map(|kill| at(Deed::Kill(kill.what), kill.at)));
        deeds.sort_by_key(|deed| deed.at);
        for At { what, at } in &deeds {
            if let Some(who) = what.whom().into_iter().find(|who| matches!(who, Who::Slave(number) if *number > nodes))
            {
                return Err(ScheduleError::NoSuchSlave { who, nodes });
            }
            if *at >= stop_at {
                return Err(ScheduleError::TooLate { deed: what.clone(), at: *at, stop_at });
            }
        }
        possible(&deeds)?;
        let killed = kills.iter().filter(|kill| kill.what != Who::Master).count();
        if killed == usize::from(nodes) { Err(ScheduleError::NoneLeft) } else { Ok(Self(deeds)) }
    }

    /// Whether there are any faults.
    pub(crate) fn has_faults(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether there are partitions.
    pub(crate) fn has_partitions(&self) -> bool {
        self.0.iter().any(|deed| matches!(deed.what, Deed::Partition(_)))
    }
}

/// Checks that no process is killed or paused twice, and that only partitions include killed ones.
fn possible(deeds: &[At<Deed>]) -> Result<(), ScheduleError> {
    let (mut dead, mut paused) = (Vec::new(), BTreeSet::new());
    for At { what, at } in deeds {
        if let Deed::Kill(who) | Deed::Pause(who) | Deed::Resume(who) = *what
            && let Some((who, at)) = dead.iter().copied().find(|(other, _)| *other == who)
        {
            return Err(ScheduleError::Dead { who, at });
        }
        match *what {
            Deed::Kill(who) => dead.push((who, *at)),
            Deed::Pause(who) if !paused.insert(who) => return Err(ScheduleError::PausedTwice { who }),
            Deed::Resume(who) => {
                paused.remove(&who);
            }
            _ => {}
        }
    }
    Ok(())
}

impl Deed {
    /// The kind, in one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Partition(_) => "partition",
            Self::Heal(_) => "heal",
        }
    }

    /// The affected processes, in the given order.
    pub(crate) fn whom(&self) -> Vec<Who> {
        match self {
            Self::Kill(who) | Self::Pause(who) | Self::Resume(who) => vec![*who],
            Self::Partition(Sides(sides)) | Self::Heal(Sides(sides)) => sides.concat(),
        }
    }
}

impl Sides {
    /// The processes that `who` does not reach.
    pub(crate) fn beyond(&self, who: Who) -> impl Iterator<Item = Who> {
        let somewhere = self.0.iter().any(|side| side.contains(&who));
        self.0.iter().filter(move |side| somewhere && !side.contains(&who)).flatten().copied()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slave(number) => write!(f, "slave-{number}"),
            Self::Master => f.write_str("master"),
        }
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |side: &Vec<Who>| side.iter().map(Who::to_string).collect::<Vec<_>>().join(",");
        f.write_str(&self.0.iter().map(names).collect::<Vec<_>>().join(" / "))
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        match self {
            Self::Kill(who) | Self::Pause(who) | Self::Resume(who) => who.fmt(f),
            Self::Partition(sides) | Self::Heal(sides) => sides.fmt(f),
        }
    }
}

impl FromStr for Who {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<Self, FaultTextError> {
        if text == "master" {
            return Ok(Self::Master);
        }
        let number = text.strip_prefix("slave").map_or(text, |rest| rest.strip_prefix('-').unwrap_or(rest));
        // Rust's numbers accept a sign, and a slave has none.
        let digits = number.chars().all(|c| c.is_ascii_digit());
        match number.parse() {
            Ok(number) if digits && (1..=SLAVES_MAX).contains(&number) => Ok(Self::Slave(number)),
            _ => Err(FaultTextError::NoNode(text.to_owned())),
        }
    }
}

/// Parses `WHO@TIME`.
pub(crate) fn kill(text: &str) -> Result<At<Who>, FaultTextError> {
    let (who, at) = text.split_once('@').ok_or(FaultTextError::NoTime)?;
    Ok(At { what: who.parse()?, at: time(at)? })
}

/// Parses `WHO@FROM..TO`.
pub(crate) fn pause(text: &str) -> Result<During<Who>, FaultTextError> {
    let error = FaultTextError::NoTimes { what: "WHO", example: "slave3@1s..1500ms" };
    let (who, from, to) = during(text).ok_or(error)?;
    let what = who.parse()?;
    let (from, to) = in_order(from, to)?;
    Ok(During { what, from, to })
}

/// Parses `SIDE/SIDE@FROM..TO`, each side `WHO,WHO`.
pub(crate) fn partition(text: &str) -> Result<During<Sides>, FaultTextError> {
    let error = FaultTextError::NoTimes { what: "SIDE/SIDE", example: "1,2/3,4,master@700ms..1200ms" };
    let (sides, from, to) = during(text).ok_or(error)?;
    let side = |side: &str| side.split(',').map(str::parse).collect::<Result<Vec<Who>, _>>();
    let sides = sides.split('/').map(side).collect::<Result<Vec<_>, _>>()?;
    if sides.len() < 2 {
        return Err(FaultTextError::OneSide);
    }
    let mut named = BTreeSet::new();
    if let Some(who) = sides.iter().flatten().find(|who| !named.insert(**who)) {
        return Err(FaultTextError::Twice(*who));
    }
    let (from, to) = in_order(from, to)?;
    Ok(During { what: Sides(sides), from, to })
}

fn during(text: &str) -> Option<(&str, &str, &str)> {
    let (what, times) = text.split_once('@')?;
    let (from, to) = times.split_once("..")?;
    Some((what, from, to))
}

fn in_order(from: &str, to: &str) -> Result<(Duration, Duration), FaultTextError> {
    let (from, to) = (time(from)?, time(to)?);
    if from < to { Ok((from, to)) } else { Err(FaultTextError::EndsEarly { from, to }) }
}

fn time(text: &str) -> Result<Duration, FaultTextError> {
    duration::parse(text).map_err(|cause| FaultTextError::Time { text: text.to_owned(), cause })
}

#[cfg(test)]
mod tests;
