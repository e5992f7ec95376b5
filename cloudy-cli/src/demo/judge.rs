//! The verdict on a demo: compares the master's report with the output of each slave.

use std::collections::BTreeMap;

use cloudy_node::Rank;
use cloudy_node::session::{Found, MasterOutcome, MasterRow, SlaveResult, Summary};

use super::Played;
use crate::args::Who;
use crate::duration;
use crate::report::Session;
use crate::watcher::Watcher;

/// The finished session; `session` makes it from an outcome.
///
/// Without an outcome, because the master was killed, the slaves' own results count.
pub(crate) fn judge(mut played: Played, watcher: &Watcher, session: impl FnOnce(MasterOutcome) -> Session) -> Session {
    let results: BTreeMap<String, Summary> =
        played.results.iter().map(|(who, summary)| (who.to_string(), *summary)).collect();
    let told_by_master = played.outcome.is_some();
    let outcome = played.outcome.take().unwrap_or_else(|| by_slaves(watcher, &results));
    let mut session = session(outcome);
    session.rows.sort_by_key(|(name, _)| name.parse::<Who>().ok());
    session.killed = played.killed.iter().map(Who::to_string).collect();
    session.faults = std::mem::take(&mut played.faults);
    // Killed slaves need no result, and a slave with its own result is not missing.
    session.row_problems.retain(|name, _| told_by_master && !session.killed.contains(name));
    if told_by_master {
        session.problems.extend(contradictions(&session.rows, &results));
    }
    session.problems.extend(troubles(&played));
    session
}

/// A row for each slave, from its own result.
fn by_slaves(watcher: &Watcher, results: &BTreeMap<String, Summary>) -> MasterOutcome {
    let row = |slave: Found| {
        let result = results.get(&watcher.name(&slave));
        let result = result.map_or(SlaveResult::Missing, |summary| SlaveResult::Reported(*summary));
        MasterRow { slave, rank: Rank::default(), result }
    };
    MasterOutcome { rows: watcher.slaves().into_iter().map(row).collect(), refusals: Vec::new() }
}

/// Slaves whose output differs from their report.
fn contradictions(rows: &[(String, MasterRow)], results: &BTreeMap<String, Summary>) -> Vec<String> {
    let differing = |(name, row): &(String, MasterRow)| {
        let (printed, reported) = (results.get(name)?, row.result.summary()?);
        let problem = || format!("{name} printed a result other than the reported one: {printed:?}");
        (!printed.same_result(reported)).then(problem)
    };
    rows.iter().filter_map(differing).collect()
}

/// Problems of the processes.
fn troubles(played: &Played) -> Vec<String> {
    let mut troubles = Vec::new();
    for (who, ending) in played.endings.iter().filter(|(who, _)| !played.killed.contains(who)) {
        let silent = *who != Who::Master && !played.results.contains_key(who);
        let silent = silent.then(|| format!("{who} ended without printing a result"));
        troubles.extend(ending.trouble(*who).or(silent));
    }
    let undone = played
        .undone
        .iter()
        .map(|fault| format!("{} at {} was not done: the session was over", fault.what, duration::show(fault.at)));
    troubles.extend(undone);
    troubles
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use cloudy_node::session::MasterEvent;
    use cloudy_node::{Digest, NodeId};

    use super::*;
    use crate::args::{At, Deed};
    use crate::children::Ending;
    use crate::periods::Periods;
    use crate::progress::Progress;
    use crate::ring::RingChoice;

    const SLAVES: [Who; 3] = [Who::Slave(1), Who::Slave(2), Who::Slave(3)];

    fn summary(count: u64) -> Summary {
        Summary { count, sum: 1.5, digest: Digest(9), own: 1, confirmations: 1, left: None }
    }

    fn found(who: Who) -> Found {
        let Who::Slave(number) = who else { panic!("a slave") };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], number));
        Found { node: NodeId([number as u8; 32]), address, name: who.to_string() }
    }

    /// A session of three slaves with equal results, and with the master's report.
    fn played() -> Played {
        let row = |who| MasterRow { slave: found(who), rank: Rank(0), result: SlaveResult::Reported(summary(5)) };
        Played {
            outcome: Some(MasterOutcome { rows: SLAVES.map(row).into(), refusals: Vec::new() }),
            results: SLAVES.map(|who| (who, summary(5))).into(),
            endings: SLAVES.into_iter().chain([Who::Master]).map(|who| (who, ended(0))).collect(),
            ..Played::default()
        }
    }

    /// The value that `wait` returns for a process: the exit status shifted by eight, or a signal.
    fn ended(raw: i32) -> Ending {
        Ending { status: Some(ExitStatus::from_raw(raw)), ..Ending::default() }
    }

    fn judged(played: Played) -> Session {
        let watcher = Watcher::new(Progress::start(), BTreeMap::new());
        SLAVES.into_iter().for_each(|who| watcher.observe(MasterEvent::Found(found(who))));
        let none = std::time::Duration::ZERO;
        let what = (Periods::new(none, none), RingChoice::Token, 0);
        judge(played, &watcher, |outcome| Session::new(what, outcome, &watcher, none))
    }

    #[test]
    fn equal_results_pass_for_every_reporter() {
        assert!(judged(played()).is_good());
        let dead_master = Played {
            outcome: None,
            killed: [Who::Master].into(),
            endings: played()
                .endings
                .into_keys()
                .map(|who| (who, ended(if who == Who::Master { 9 } else { 0 })))
                .collect(),
            ..played()
        };
        let session = judged(dead_master);
        assert!(session.is_good(), "{}", session.text());
        assert!(session.text().contains("EQUAL: all 3 results are the same: 5 messages"), "{}", session.text());
    }

    #[test]
    fn a_slave_that_was_killed_owes_nothing_and_one_that_died_does() {
        let mut died = played();
        died.outcome.as_mut().expect("an outcome").rows[1].result = SlaveResult::Silent;
        died.results.remove(&Who::Slave(2));
        died.endings.insert(Who::Slave(2), ended(9));
        let killed = Played {
            killed: [Who::Slave(2)].into(),
            endings: SLAVES.map(|who| (who, ended(if who == Who::Slave(2) { 9 } else { 0 }))).into(),
            outcome: died.outcome.clone(),
            results: died.results.clone(),
            ..Played::default()
        };
        let session = judged(killed);
        assert!(session.is_good(), "{}", session.text());
        assert!(session.text().contains("slave-2  killed"), "{}", session.text());
        let session = judged(died);
        assert!(!session.is_good());
        for words in ["slave-2 gave no answer", "slave-2 ended (signal: 9", "INCOMPLETE: no result from slave-2"] {
            assert!(session.text().contains(words), "{words}: {}", session.text());
        }
    }

    #[test]
    fn each_defect_is_named_and_fails() {
        let mut other_result = played();
        other_result.results.insert(Who::Slave(3), summary(6));
        let mut no_result = played();
        no_result.results.remove(&Who::Slave(1));
        let mut failed = played();
        failed.endings.insert(Who::Slave(1), ended(1 << 8));
        let mut given_up = played();
        given_up.endings.insert(Who::Master, Ending::default());
        let mut undone = played();
        undone.undone.push(At { what: Deed::Kill(Who::Slave(2)), at: std::time::Duration::from_secs(1) });
        let mut without_master = played();
        without_master.outcome = None;
        without_master.results.insert(Who::Slave(2), summary(6));
        for (played, words) in [
            (other_result, "slave-3 printed a result other than the reported one"),
            (no_result, "slave-1 ended without printing a result"),
            (failed, "slave-1 ended (exit status: 1) without a word"),
            (given_up, "master did not end after the session and was killed"),
            (undone, "kill slave-2 at 1s was not done: the session was over"),
            (without_master, "UNEQUAL: these results differ from the first: slave-2"),
        ] {
            let session = judged(played);
            assert!(!session.is_good() && session.text().contains(words), "{words}: {}", session.text());
        }
    }
}
