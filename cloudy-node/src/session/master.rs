//! A master: it finds its slaves, founds their group, watches the session, and compares the results.

use std::future::Future;
use std::time::Duration;

use cloudy_proto::{
    Durability, GroupId, Index, NobodyComplete, NodeId, OnFailure, Parameters, Phase, Rank, RingKind, SessionPlan,
    ViewId,
};
use serde::{Deserialize, Serialize};

use super::finding::{Crew, FindError, Found, Refusal, Search, find, lookup};
use super::master_watch::{Timing, watch};
use super::name::SessionName;
use super::sum::{ReportError, Summary};
use crate::discovery::Multicast;
use crate::group::{EventsError, GroupConfig};
use crate::{CloseReason, FoundError, Node};

/// What a master is to do.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// The session: slaves of others are left alone, and named with the reason.
    pub session: SessionName,
    /// The periods and the seed.
    pub plan: SessionPlan,
    /// When a slave may send.
    pub ring: RingKind,
    /// What the session does about a slave that fails or stalls. Who was evicted comes back only while others retain
    /// what it missed.
    pub on_failure: OnFailure,
    /// Where the session keeps its result. With [`Durability::Disk`] the master and every slave need a data directory.
    pub durability: Durability,
    /// A slave that is silent for longer counts as failed: [`Parameters::failure_timeout`].
    pub failure_timeout: Duration,
    /// To what the session's timeouts grow at most: [`Parameters::timeout_max`].
    pub timeout_max: Duration,
    /// Slaves by name, each `HOST:PORT`; all addresses of a name are tried. If there are any, nobody else is looked
    /// for.
    pub slaves: Vec<String>,
    /// Where to ask for slaves that are not named.
    pub multicast: Option<Multicast>,
    /// How many slaves there must be: the search ends with them, and fewer are an error. Without it the search ends
    /// once nobody else comes.
    pub expect: Option<usize>,
    /// How long to look for slaves. Those found by then get a few seconds more to answer.
    pub discovery_timeout: Duration,
    /// How long the slaves may take to reach each other.
    pub ready_timeout: Duration,
}

/// What a master sees, for whoever watches it, in another process too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MasterEvent {
    /// A slave takes part.
    Found(Found),
    /// Somebody does not.
    Refused(Refusal),
    /// All who take part are on the ring.
    Founded {
        /// The session's group: what a data directory holds of it is not needed once the result was shown
        /// ([`Node::forget_group`]).
        group: GroupId,
        /// How many.
        members: usize,
    },
    /// The next phase has begun.
    Phase(#[serde(with = "PhaseData")] Phase),
    /// Messages approved so far at each slave.
    Approved(Vec<(NodeId, Index)>),
    /// A slave gives no answer: the session goes on without it.
    Silent(NodeId),
    /// A slave answers, but others are out of its reach or held up by it: the session goes on until it is back.
    Blamed(NodeId),
    /// The session has stopped: nobody who answers has its whole result. Over with the next view.
    NobodyComplete(NobodyComplete),
    /// A slave leaves the session by its own wish: the others go on without it.
    Left(NodeId),
    /// Another view is in force.
    View {
        /// Which.
        id: ViewId,
        /// Who is on its ring, in order.
        members: Vec<NodeId>,
    },
    /// A slave's result is there.
    Reported(NodeId),
}

/// [`Phase`] as data.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Phase")]
enum PhaseData {
    Start,
    Send,
    Grace,
    Stop,
    Done,
}

/// What a slave ended with, as its master knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlaveResult {
    /// It reported its result.
    Reported(Summary),
    /// It reported something else.
    Unreadable(ReportError),
    /// What it added up is not what its node holds: a defect, or corrupt memory.
    Contradictory(Summary),
    /// It gave no answer: the session went on, and ended, without it.
    Silent,
    /// It left before the end, by its own wish.
    Left,
    /// It was there at STOP, and its report did not come in time.
    Missing,
}

impl SlaveResult {
    /// The result, if there is one to compare.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Reported(summary) => Some(summary),
            _ => None,
        }
    }
}

/// A slave of a session that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterRow {
    /// Which.
    pub slave: Found,
    /// Its position on the ring.
    pub rank: Rank,
    /// What it ended with.
    pub result: SlaveResult,
}

/// A session's end, as its master sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterOutcome {
    /// A row for each slave, by rank.
    pub rows: Vec<MasterRow>,
    /// Who was asked and did not take part.
    pub refusals: Vec<Refusal>,
}

impl MasterOutcome {
    /// Every slave reported, and all the same to the last bit.
    #[must_use]
    pub fn all_equal(&self) -> bool {
        let mut results = self.rows.iter().map(|row| row.result.summary());
        let Some(Some(first)) = results.next() else { return false };
        results.all(|result| result.is_some_and(|result| result.same_result(first)))
    }
}

/// A session that did not take place, or that the master cannot speak for. Slaves that were invited go on waiting, or
/// notice within two seconds, before the session has begun, that the master is gone.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Slaves cannot be looked for.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The group cannot be founded.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// Nobody takes part.
    #[error("no slave {}{}", if .refusals.is_empty() { "was found" } else { "takes part" }, listed(.refusals))]
    NoSlaves {
        /// Who was asked.
        refusals: Vec<Refusal>,
    },
    /// Fewer slaves than were expected.
    #[error("{found} of {expected} slaves were found{}", listed(.refusals))]
    TooFew {
        /// How many take part.
        found: usize,
        /// How many should.
        expected: usize,
        /// Who was asked and does not.
        refusals: Vec<Refusal>,
    },
    /// The slaves do not all reach each other.
    #[error(
        "not all slaves reached each other within {timeout:?}: {}", unready(.waited_for)
    )]
    NotReady {
        /// The time for it.
        timeout: Duration,
        /// The slaves that did not report it; none if the last report came while the time ran out.
        waited_for: Vec<String>,
    },
    /// There is no session to attach to.
    #[error("no session runs at any slave that was asked{}", listed(.refusals))]
    NoSession {
        /// Who was asked, and what it said.
        refusals: Vec<Refusal>,
    },
    /// It was told to stop before SEND: the slaves wait for the next master.
    #[error("stopped before a session began")]
    Stopped,
    /// A slave's digest differs from another's.
    #[error(
        "the results of two slaves differ, one of them {node}'s up to message {index}: memory or transport is corrupt"
    )]
    Diverged {
        /// One of the two.
        node: String,
        /// Where they were compared.
        index: Index,
    },
    /// The group ended in a way that a session does not.
    #[error("the session ended without results")]
    Ended,
    /// The master's node stopped taking part, or the master was too slow to follow what happened.
    #[error("the session cannot be followed to its end: {0}")]
    Events(#[from] EventsError),
    /// The master's node was closed while it looked for slaves.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The planned end of the session is over, and results are missing. The session may have ended without this master.
    #[error(
        "no result came from {} within {after:?} after the planned end of the session; the session may have ended without \
         this master: look at what its slaves printed", .missing.join(", ")
    )]
    Overdue {
        /// The time for it.
        after: Duration,
        /// The slaves that have not reported a result.
        missing: Vec<String>,
    },
}

fn unready(waited_for: &[String]) -> String {
    match waited_for {
        [] => "by now all report it, too late for the session to begin; start it again, and allow more time".to_owned(),
        names => format!("waited for {}; check that each can send UDP to each other", names.join(", ")),
    }
}

fn listed(refusals: &[Refusal]) -> String {
    let list: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) }
}

/// Runs one session, from finding the slaves to comparing their results.
///
/// When `stop` is ready, the session is ended early, with its results; before it began, [`MasterError::Stopped`] comes
/// at once, and within two seconds if the slaves have accepted. `observe` must return at once: the master waits for it.
///
/// # Errors
/// There was no session, or nothing to compare: see [`MasterError`]. Results that differ or are missing are no error
/// but in the [`MasterOutcome`].
pub async fn run_master(
    node: &Node,
    config: &MasterConfig,
    stop: impl Future<Output = ()>,
    observe: impl Fn(MasterEvent),
) -> Result<MasterOutcome, MasterError> {
    let mut stop = std::pin::pin!(stop);
    let (group, crew) = tokio::select! {
        biased;
        () = &mut stop => return Err(MasterError::Stopped),
        founded = found(node, config, &observe) => founded?,
    };
    observe(MasterEvent::Founded { group: group.id(), members: crew.found.len() });
    let Crew { found, refusals } = crew;
    let timing = Timing { plan: Some(config.plan), ready: Some(config.ready_timeout) };
    let rows = watch(&group, found, timing, stop, &observe).await?.rows;
    Ok(MasterOutcome { rows, refusals })
}

async fn found(
    node: &Node,
    config: &MasterConfig,
    observe: &impl Fn(MasterEvent),
) -> Result<(crate::Group, Crew), MasterError> {
    config.plan.validate().map_err(FoundError::from)?;
    let mut founding = node.found_group(&config.session.group_name(), group_config(config)).await?;
    let search = Search {
        session: &config.session,
        slaves: &config.slaves,
        multicast: config.multicast,
        expect: config.expect,
        timeout: config.discovery_timeout,
    };
    let crew = find(node, &mut founding, search, &|news| {
        observe(match news {
            Ok(found) => MasterEvent::Found(found.clone()),
            Err(refusal) => MasterEvent::Refused(refusal.clone()),
        });
    })
    .await?;
    if let Some(reason) = node.close_reason() {
        return Err(reason.into());
    }
    let found = crew.found.len();
    match config.expect {
        Some(expected) if found < expected => {
            return Err(MasterError::TooFew { found, expected, refusals: crew.refusals });
        }
        _ if found == 0 => return Err(MasterError::NoSlaves { refusals: crew.refusals }),
        _ => {}
    }
    let group = founding.found(Some(config.plan)).await?;
    // A slave may come back at another address.
    node.look_up(lookup(&config.slaves, config.multicast)).map_err(FindError::from)?;
    Ok((group, crew))
}

/// What a slave has outside its own result at most: less than a group's, for all of it has to be approved in GRACE.
const WINDOW_BYTES_MAX: u64 = 256 << 10;
const WINDOW_SLOTS_MAX: u32 = 64;

/// The master is no member: what it held up or lost would be in nobody's result.
fn group_config(config: &MasterConfig) -> GroupConfig {
    let defaults = Parameters::default();
    let slot_payloads_max = match config.ring {
        // Each turn of the token takes one message (`protocol.md` §9).
        RingKind::Token => 1,
        RingKind::Pipelined | RingKind::Relay => defaults.slot_payloads_max,
    };
    let parameters = Parameters {
        session: true,
        open: false,
        ring: config.ring,
        on_failure: config.on_failure,
        durability: config.durability,
        failure_timeout: config.failure_timeout,
        timeout_max: config.timeout_max,
        slot_payloads_max,
        window_bytes: WINDOW_BYTES_MAX,
        window_slots: WINDOW_SLOTS_MAX,
        ..defaults
    };
    GroupConfig { parameters, founder_is_member: false, ..GroupConfig::default() }
}
