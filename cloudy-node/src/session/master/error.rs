//! The reasons for which a session has no outcome at its master.

use std::time::Duration;

use cloudy_proto::Index;

use crate::error::CreateGroupError;
use crate::group::EventsError;
use crate::health::CloseReason;
use crate::session::finding::{FindError, Refusal};

/// The reason for which a session did not take place, or has no outcome. Invited slaves continue to wait, or notice
/// within two seconds, before the session has begun, that the master is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// No search for slaves is possible.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The group cannot be created.
    #[error(transparent)]
    Create(#[from] CreateGroupError),
    /// No slave takes part.
    #[error("no slave {}{}", if .refusals.is_empty() { "was found" } else { "takes part" }, listed(.refusals))]
    NoSlaves {
        /// The invited nodes.
        refusals: Vec<Refusal>,
    },
    /// Fewer slaves than were expected.
    #[error("{found} of {expected} slaves were found{}", listed(.refusals))]
    TooFew {
        /// Number of slaves that take part.
        found: usize,
        /// The expected number.
        expected: usize,
        /// The invited slaves that take no part.
        refusals: Vec<Refusal>,
    },
    /// The slaves do not all reach each other.
    #[error(
        "not all slaves reached each other within {timeout:?}: {}", unready(.waited_for, .apart)
    )]
    NotReady {
        /// The timeout.
        timeout: Duration,
        /// The slaves that did not report it; none if the last report came when the timeout passed.
        waited_for: Vec<String>,
        /// Pairs of slaves without an address of one family, IPv4 or IPv6, in common.
        apart: Vec<(String, String)>,
    },
    /// Before SEND, a slave stopped answering, and the session waits for failed slaves.
    #[error(
        "{} gave no sign of life for {silence:?} before SEND, so the session does not begin; start it again, or let it continue \
         without slaves that fail", .silent.join(", ")
    )]
    Gone {
        /// The slaves.
        silent: Vec<String>,
        /// For how long at least.
        silence: Duration,
    },
    /// The session is over, and no slave is in reach that could report a result.
    #[error(
        "no slave is in reach at the end of the session: {}; a session in memory is lost with its slaves, and one on disk \
         continues once slaves and master are started again with their data directories", .silent.join(", ")
    )]
    NoReports {
        /// The slaves.
        silent: Vec<String>,
    },
    /// There is no session to attach to.
    #[error("no queried slave has a running session{}", listed(.refusals))]
    NoSession {
        /// The queried nodes, with their answers.
        refusals: Vec<Refusal>,
    },
    /// It was stopped before SEND: the slaves wait for the next master.
    #[error("stopped before a session began")]
    Stopped,
    /// A slave's digest differs from another's.
    #[error(
        "the results of two slaves differ, one of them {node}'s up to message {index}: memory or transport is corrupt"
    )]
    Diverged {
        /// One of the two.
        node: String,
        /// The index of the comparison.
        index: Index,
    },
    /// The group closed in a way that is impossible for a session.
    #[error("the session ended without results")]
    Ended,
    /// The master's node left the group, or the master was too slow for its events.
    #[error("the session cannot be followed to its end: {0}")]
    Events(EventsError),
    /// The master's node was closed while it searched for slaves.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The planned end of the session is over, and results are missing. The session may have ended without this master.
    #[error(
        "no result came from {} within {after:?} after the planned end of the session; the session may have ended without this master: read the output of its slaves", .missing.join(", ")
    )]
    Overdue {
        /// The timeout.
        after: Duration,
        /// The slaves that have not reported a result.
        missing: Vec<String>,
    },
}

fn unready(waited_for: &[String], apart: &[(String, String)]) -> String {
    if !apart.is_empty() {
        let pairs: Vec<String> = apart.iter().map(|(one, other)| format!("{one} and {other}")).collect();
        return format!(
            "these have no address of one family (IPv4 or IPv6) in common: {}; let all listen on `::`, or all on addresses \
             of one family",
            pairs.join("; ")
        );
    }
    match waited_for {
        [] => "by now all report it, too late for the session; start it again, with more time".to_owned(),
        names => format!("waited for {}; check that each can send UDP to each other", names.join(", ")),
    }
}

fn listed(refusals: &[Refusal]) -> String {
    let list: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) }
}
