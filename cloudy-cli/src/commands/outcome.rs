//! The end of a session, as the commands that run one print it.

use std::process::ExitCode;

use cloudy_node::session::{FindError, MasterError};
use miette::Report;

use crate::interrupts::Stop;
use crate::output::{EXIT_EQUAL, EXIT_FAILED, failure};
use crate::report::Session;

/// Prints the end of a session; status 0 only if all results are there and equal.
pub(crate) async fn present(session: &Session, json: bool, stop: &Stop) -> Result<ExitCode, Report> {
    stop.print(&if json { format!("{}\n", session.json()) } else { session.text() }).await?;
    Ok(ExitCode::from(if session.is_good() { EXIT_EQUAL } else { EXIT_FAILED }))
}

/// The error, with its remedy.
pub(crate) fn with_remedy(error: &MasterError) -> Report {
    let remedy = match error {
        // Their answers were shown when they arrived.
        MasterError::NoSlaves { refusals } if !refusals.is_empty() => {
            let problem = "no slave takes part: those that were asked said why not, each above";
            return failure(
                problem,
                "end what keeps them busy, or wait for it; compare cluster keys by `cloudy key show`",
            );
        }
        MasterError::NoSlaves { .. } | MasterError::TooFew { .. } => {
            "start slaves first, for example `cloudy slave 127.0.0.1 10502 &`; where multicast does not reach them, name \
             each by --slave HOST:PORT; all need the same cluster key (`cloudy key show`)"
        }
        MasterError::Find(FindError::Discovery(_)) => {
            "name the slaves: --slave HOST:PORT, as often as there are slaves"
        }
        MasterError::Find(FindError::Seeds(_)) => "check the name, or give an IP address",
        MasterError::Gone { .. } => "`--on-failure evict` continues without slaves that fail",
        MasterError::NoReports { .. } => "see why the slaves ended, on their stderr",
        MasterError::NotReady { apart, .. } if !apart.is_empty() => return Report::msg(error.to_string()),
        MasterError::NotReady { .. } => "every slave must be reachable from every other; listen on an address that is",
        // Their texts name the remedy.
        MasterError::Create(_) | MasterError::Closed(_) => return Report::msg(error.to_string()),
        MasterError::Diverged { .. } => "run a memory test on both machines, and keep their result files",
        _ => "see what the slaves say on their stderr, and run it again with -v",
    };
    failure(error, remedy)
}
