//! A master that watches a running session: the one that began it is gone, or on another host (`protocol.md` §9).

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use cloudy_proto::{RingKind, SessionPlan};
use tokio::time::{Instant, sleep_until};

use super::dials::{Dialled, Dials};
use super::finding::{FindError, Refusal, Refusals, belongs_elsewhere, lookup, next_hint};
use super::master::{DISCOVERY_TIMEOUT, MasterError, MasterEvent, MasterOutcome, Timing, watch};
use super::name::SessionName;
use crate::discovery::{Finder, Multicast, seeds};
use crate::handle::Group;
use crate::node::Node;

/// The time that a found slave has beyond the discovery timeout: for a handshake on a lossy network, and an answer.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// The configuration of a search for a running session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AttachConfig {
    /// The session.
    pub session: SessionName,
    /// Slaves by name, each `HOST:PORT`: any one that is in the session is enough. If there are any, no others are
    /// sought.
    pub slaves: Vec<String>,
    /// The multicast group in which slaves without a name are sought.
    pub multicast: Option<Multicast>,
    /// The discovery timeout. Slaves that are found by then have a few more seconds to answer.
    pub discovery_timeout: Duration,
}

impl Default for AttachConfig {
    fn default() -> Self {
        let (session, slaves, multicast) = Default::default();
        Self { session, slaves, multicast, discovery_timeout: DISCOVERY_TIMEOUT }
    }
}

impl AttachConfig {
    cloudy_proto::setters! {
        session: SessionName,
        slaves: Vec<String>,
        multicast: Option<Multicast>,
        discovery_timeout: Duration,
    }
}

/// The end of a session that was attached to.
#[derive(Clone, Debug, PartialEq)]
pub struct AttachOutcome {
    /// The plan of the session; none if it ended before it began.
    pub plan: Option<SessionPlan>,
    /// The ring model of the session.
    pub ring: RingKind,
    /// The outcome, as for its own master.
    pub outcome: MasterOutcome,
}

/// Finds a running session, and watches it to its end like the master that began it. It takes no part in the session.
///
/// When `stop` is ready, the session is ended early, with its results. `observe` must return at once.
///
/// Not cancel safe: dropped, it leaves the node as an observer of the session, which continues.
///
/// # Errors
/// There is no session ([`MasterError::NoSession`]), or nothing to compare: see [`MasterError`].
pub async fn attach_master(
    node: &Node,
    config: &AttachConfig,
    stop: impl Future<Output = ()>,
    observe: impl Fn(MasterEvent),
) -> Result<AttachOutcome, MasterError> {
    let mut stop = std::pin::pin!(stop);
    let group = tokio::select! {
        biased;
        () = &mut stop => return Err(MasterError::Stopped),
        found = find(node, config, &observe) => found?,
    };
    node.look_up(lookup(&config.slaves, config.multicast)).map_err(FindError::from)?;
    follow(&group, stop, &observe).await
}

/// Continues the session from a master's data directory, and watches it to its end. Its slaves are dialled at their
/// former addresses, and sought by the names in `slaves`, or by multicast if there are none. The master sends the
/// addresses of the others to each slave.
///
/// When `stop` is ready, the session is ended early, with its results. `observe` must return at once.
///
/// Cancel safe: dropped, it can be called again, and the session continues.
///
/// # Errors
/// There is nothing to compare: see [`MasterError`].
pub async fn resume_master(
    node: &Node,
    group: &Group,
    (slaves, multicast): (&[String], Option<Multicast>),
    stop: impl Future<Output = ()>,
    observe: impl Fn(MasterEvent),
) -> Result<AttachOutcome, MasterError> {
    node.look_up(lookup(slaves, multicast)).map_err(FindError::from)?;
    follow(group, std::pin::pin!(stop), &observe).await
}

async fn follow(
    group: &Group,
    stop: impl Future<Output = ()>,
    observe: &impl Fn(MasterEvent),
) -> Result<AttachOutcome, MasterError> {
    if let Some(view) = group.status().await.and_then(|status| status.view) {
        observe(MasterEvent::Created { group: group.id(), members: view.members() });
    }
    let watched = watch(group, Vec::new(), Timing::default(), stop, observe).await?;
    let outcome = MasterOutcome { rows: watched.rows, refusals: Vec::new() };
    Ok(AttachOutcome { plan: watched.plan, ring: watched.ring, outcome })
}

/// Queries one slave after the other for its session.
async fn find(node: &Node, config: &AttachConfig, observe: &impl Fn(MasterEvent)) -> Result<Group, MasterError> {
    let ends_at = Instant::now() + config.discovery_timeout;
    seeds::check(&config.slaves).map_err(FindError::from)?;
    let mut finder = match config.multicast.filter(|_| config.slaves.is_empty()) {
        Some(place) => {
            let started = Finder::start(node.discovery_keys(), place, config.discovery_timeout);
            Some(started.map_err(FindError::from)?)
        }
        None => None,
    };
    let (mut dials, mut asked, mut refusals) = (Dials::new(node, ends_at), BTreeSet::new(), Refusals::default());
    let mut refuse = |refusal: Refusal| {
        observe(MasterEvent::Refused(refusal.clone()));
        refusals.add(refusal);
    };
    let group_name = config.session.group_name();
    config.slaves.iter().for_each(|name| dials.by_name(name));
    while finder.is_some() || !dials.is_empty() {
        let over_at = if dials.is_empty() { ends_at } else { ends_at + ANSWER_MAX };
        tokio::select! {
            hint = next_hint(&mut finder), if !dials.is_full() => match hint {
                Some(hint) => match belongs_elsewhere(&hint, &config.session) {
                    Some(refusal) => refuse(refusal),
                    None => dials.by_hint(hint.node, hint.address),
                },
                None => if let Some(error) = finder.take().and_then(|mut finder| finder.failure()) {
                    return Err(FindError::from(error).into());
                },
            },
            Some(Dialled { name, answer, .. }) = dials.next() => {
                let reason = match answer {
                    Ok((contact, _)) if asked.insert(contact) => match node.observe(&group_name, contact, None).await {
                        Ok(group) => return Ok(group),
                        Err(reason) => reason,
                    },
                    // The same node by another name.
                    Ok(_) => continue,
                    Err(why) => why.words,
                };
                refuse(Refusal { name, reason });
            },
            () = sleep_until(over_at) => break,
        }
    }
    Err(MasterError::NoSession { refusals: refusals.listed() })
}
