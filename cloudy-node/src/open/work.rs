//! One call that opens a group: it follows seeds and reports, and executes the plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::wire::{NamedGroup, ReportedSeed};
use cloudy_proto::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::driver::attempt::{Aim, Attempt, Stage};
use crate::driver::{Command, Known, OpenName};
use crate::error::JoinError;
use crate::group::GroupConfig;
use crate::group::shared::Shared;
use crate::handle::Group;
use crate::node::{Answered, Node};
use crate::open::Progress;
use crate::open::plan::{Plan, Terms, Waits, differences, others, plan};
use crate::open::progress::{NotOpened, OpenEvent, OpenGroupError, SeedAnswer, SettingDifference};
use crate::open::seeds::{SeedState, follow, reported};
use crate::wait::{Backoff, jittered};

/// Between two questions to all linked nodes.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// For how long two groups have to be seen: reports of one that has just ended are out of date.
const TWO_GROUPS_FOR: Duration = Duration::from_millis(1_500);
/// Maximum of attempts that are not reported again.
const ATTEMPTS_MAX: usize = 64;

/// The subject of an event. Each is reported when it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Seed(usize),
    Node(NodeId),
    Settings(NodeId),
    Waits,
    Attempt,
}

/// The question to a node: to be let into the group.
struct Asked {
    node: NodeId,
    answer: Answered,
}

/// One call in progress.
pub(super) struct Work<'a> {
    pub(super) node: &'a Node,
    pub(super) name: String,
    pub(super) config: GroupConfig,
    seeds: Vec<String>,
    expect: u16,
    progress: Option<Progress<'a>>,
    reported: BTreeMap<About, OpenEvent>,
    /// Reported attempts after the last other event.
    attempts: Vec<OpenEvent>,
    /// How the last question to a node went.
    stage: Stage,
    /// Why the last attempt to join or create failed.
    failed: Option<String>,
    waits_for: String,
    /// The answer of each seed, for the error.
    states: watch::Sender<Vec<SeedState>>,
    known: Option<watch::Receiver<Known>>,
    two_groups_since: Option<Instant>,
}

/// Tasks that end with the call.
#[derive(Default)]
struct Dials {
    tasks: JoinSet<Option<SocketAddr>>,
    /// Addresses of nodes that a peer has reported.
    open: Vec<SocketAddr>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        node: &'a Node,
        name: String,
        (seeds, expect): (Vec<String>, u16),
        mut config: GroupConfig,
        progress: Option<Progress<'a>>,
    ) -> Self {
        config.creator_is_member = true;
        let states = watch::Sender::new(vec![SeedState::Untried; seeds.len()]);
        Self {
            node,
            name,
            config,
            seeds,
            expect,
            progress,
            reported: BTreeMap::new(),
            attempts: Vec::new(),
            stage: Stage::default(),
            failed: None,
            waits_for: "this node has not begun".to_owned(),
            states,
            known: None,
            two_groups_since: None,
        }
    }

    pub(super) async fn run(&mut self) -> Result<Group, OpenGroupError> {
        let mut backoff = Backoff::default();
        let (here, known) = loop {
            let parameters = Box::new(self.config.parameters.clone());
            let (name, expect) = (self.name.clone(), self.expect);
            let seeds = reported(&self.seeds, &self.states.borrow(), self.node.id());
            let asked = self.node.mailbox.ask(|reply| Command::OpenName { name, expect, parameters, seeds, reply });
            let name = self.name.clone();
            match asked.await? {
                OpenName::Opens { here, known } => break (here, known),
                OpenName::Busy => {
                    let why = "another call at this node creates, joins, opens or leaves a group of that name";
                    self.wait(why.to_owned());
                }
                OpenName::Observed => return Err(OpenGroupError::Observed { name }),
                OpenName::InMemory => return Err(JoinError::InMemory { name }.into()),
                OpenName::NeedsDataDir => return Err(OpenGroupError::NeedsDataDir { name }),
                OpenName::Ended(group) => return self.ended(group),
                OpenName::Two(one, other) => {
                    let me = self.node.id();
                    return Err(OpenGroupError::TwoGroups { name, one, at_one: me, other, at_other: me });
                }
            }
            backoff.pause().await;
        };
        self.known = Some(known.clone());
        let opened = self.come_in(here, known).await;
        // The driver stops reporting the name.
        self.known = None;
        self.node.mailbox.wake();
        if opened.is_ok() {
            self.node.look_up_seeds(&self.seeds);
        }
        opened
    }

    /// A group that ended before this process was started is there to be read; another one of that name would be
    /// confused with it.
    fn ended(&self, group: GroupId) -> Result<Group, OpenGroupError> {
        let resumed = self.node.resumed_groups().iter().find(|resumed| resumed.id() == group);
        resumed.cloned().ok_or_else(|| OpenGroupError::Ended { name: self.name.clone(), group })
    }

    async fn come_in(
        &mut self,
        here: Option<Arc<Shared>>,
        mut known: watch::Receiver<Known>,
    ) -> Result<Group, OpenGroupError> {
        let here = here.map(|shared| self.node.handle(shared));
        if let Some(group) = &here {
            if missing(group).await.is_none() {
                return Ok(group.clone());
            }
            self.node.look_up_seeds(&self.seeds);
            self.attempt(OpenEvent::Resuming { group: group.id() });
        }
        let mut dials = self.follow_seeds(&known);
        let (mut states, mut asked) = (self.states.subscribe(), None);
        let (mut ask_at, mut try_at) = (Instant::now() + ASK_EVERY, Instant::now());
        let (mut backoff, mut told) = (Backoff::default(), Vec::new());
        loop {
            let seen = known.borrow_and_update().clone();
            let seeds = states.borrow_and_update().clone();
            dials.reach(self.node, &seen);
            self.report(&seen, &seeds);
            let seeds = reported(&self.seeds, &seeds, self.node.id());
            if seeds != told {
                told.clone_from(&seeds);
                self.node.mailbox.send(Command::SetSeeds { name: self.name.clone(), seeds: seeds.clone() }).await;
            }
            if let Some(group) = &here
                && self.is_back(group).await?
            {
                return Ok(group.clone());
            }
            let plan = self.plan(&seen, &seeds)?;
            let failed = match self.next(plan, &mut asked, try_at, &mut known).await? {
                Next::Opened(group) => return Ok(group),
                Next::Failed => true,
                Next::Waits => false,
            };
            if failed {
                try_at = Instant::now() + backoff.next();
                continue;
            }
            tokio::select! {
                biased;
                answer = answered(self.node, &mut asked) => {
                    asked = None;
                    match self.take_answer(answer)? {
                        Some(group) => return Ok(group),
                        None => try_at = Instant::now() + backoff.next(),
                    }
                }
                changed = known.changed() => if changed.is_err() {
                    return Err(self.node.closed().await.into());
                },
                _ = states.changed() => {}
                Some(dialled) = dials.tasks.join_next() => dials.ended(dialled),
                () = sleep_until(try_at), if try_at > Instant::now() => {}
                // sleep: a node that does not open the group does not announce a change.
                () = sleep_until(ask_at) => {
                    ask_at = Instant::now() + jittered(ASK_EVERY);
                    self.node.mailbox.send(Command::ReportAgain { name: self.name.clone() }).await;
                }
            }
        }
    }

    /// Tries all seeds until the tasks are dropped.
    fn follow_seeds(&self, known: &watch::Receiver<Known>) -> Dials {
        let mut dials = Dials::default();
        for (at, seed) in self.seeds.iter().enumerate() {
            let (node, seed, states) = (self.node.clone(), seed.clone(), self.states.clone());
            let known = known.clone();
            dials.tasks.spawn(async move {
                follow((node, known), at, seed, states).await;
                None
            });
        }
        dials
    }

    /// Whether a resumed group is ready; notes whom it waits for.
    async fn is_back(&mut self, group: &Group) -> Result<bool, OpenGroupError> {
        match missing(group).await {
            None => return Ok(true),
            Some(why) => self.wait(why),
        }
        if group.has_ended() {
            let reason = group.shared.ended().await;
            return Err(JoinError::of_end(self.name.clone(), reason).into());
        }
        Ok(false)
    }

    fn terms(&self) -> Terms<'_> {
        Terms { me: self.node.id(), expect: self.expect, parameters: &self.config.parameters }
    }

    /// The next step, or the reason why there is none.
    fn plan(&mut self, known: &Known, seeds: &[ReportedSeed]) -> Result<Plan, OpenGroupError> {
        let plan = plan(self.terms(), known, seeds);
        let Plan::Two([(one, at_one), (other, at_other)]) = plan else {
            self.two_groups_since = None;
            if let Plan::Wait(Waits::TooFew { expect, seeds }) = plan
                && known.peers.values().all(Option::is_some)
                && self.states.borrow().iter().all(SeedState::is_reached)
            {
                return Err(OpenGroupError::TooFewExpected { expect: expect.into(), seeds });
            }
            return Ok(plan);
        };
        let since = *self.two_groups_since.get_or_insert_with(Instant::now);
        if since.elapsed() < TWO_GROUPS_FOR {
            return Ok(plan);
        }
        Err(OpenGroupError::TwoGroups { name: self.name.clone(), one, at_one, other, at_other })
    }

    async fn next(
        &mut self,
        plan: Plan,
        asked: &mut Option<Asked>,
        try_at: Instant,
        known: &mut watch::Receiver<Known>,
    ) -> Result<Next, OpenGroupError> {
        let contact = match &plan {
            // In rotation: one may be on its way into the group itself.
            Plan::Join(nodes) if asked.as_ref().is_none_or(|asked| !nodes.contains(&asked.node)) => {
                let before = self.stage.reached().map(|answer| answer.from);
                let next = nodes.iter().find(|&&node| Some(crate::wait::Awaited::Node(node)) > before);
                Some(*next.unwrap_or(&nodes[0]))
            }
            Plan::Wait(Waits::Creator(creator)) if asked.as_ref().is_none_or(|asked| asked.node != *creator) => {
                Some(*creator)
            }
            // The answer is on its way.
            Plan::Join(_) | Plan::Wait(Waits::Creator(_) | Waits::Invited { .. } | Waits::Ring) => None,
            Plan::Create(_) | Plan::Two(_) | Plan::Wait(_) => {
                *asked = None;
                None
            }
        };
        self.explain(&plan);
        if try_at > Instant::now() {
            return Ok(Next::Waits);
        }
        if let Plan::Create(others) = plan {
            return self.create(others, known).await;
        }
        if let Some(contact) = contact {
            *asked = None;
            self.attempt(OpenEvent::Joining { node: contact });
            self.stage.reach(contact, "it was asked for the group, and has not answered");
            let aim = (Aim::Member, &self.stage);
            match self.node.ask_to_join(&self.name, Some(contact), aim, &self.config).await {
                Ok(answer) => *asked = Some(Asked { node: contact, answer }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Next::Waits)
    }

    /// The node that was asked has answered: the group, or why it is asked again.
    fn take_answer(&mut self, answer: Result<Group, Attempt>) -> Result<Option<Group>, OpenGroupError> {
        match answer {
            Ok(group) => Ok(Some(group)),
            // An earlier call at this node, or its attempt, is not over.
            Err(Attempt::Failed(JoinError::NameTaken { .. })) => {
                self.not_joined("an earlier attempt at this node is not over".to_owned());
                Ok(None)
            }
            Err(Attempt::Failed(error)) => Err(error.into()),
            Err(Attempt::NotYet(answer)) => {
                self.not_joined(answer.to_string());
                Ok(None)
            }
        }
    }

    fn not_joined(&mut self, why: String) {
        self.failed = Some(why.clone());
        self.attempt(OpenEvent::NotJoined { why });
    }

    pub(super) fn not_created(&mut self, why: String) -> Next {
        self.failed = Some(why.clone());
        self.attempt(OpenEvent::NotCreated { why });
        Next::Failed
    }

    /// The text of the deadline's error, and the last event.
    fn explain(&mut self, plan: &Plan) {
        match plan {
            // Names of missing members are more helpful.
            Plan::Wait(Waits::Ring) => {}
            Plan::Wait(waits) => self.wait(waits.to_string()),
            Plan::Two([(one, at_one), (other, at_other)]) => self.wait(format!(
                "two groups have the name: {one} at node {}, {other} at node {}",
                at_one.short(),
                at_other.short()
            )),
            Plan::Join(_) => self.waits_for = "a node of the group has not let this node join".to_owned(),
            Plan::Create(_) => self.waits_for = "the nodes that were invited have not all accepted".to_owned(),
        }
    }

    fn wait(&mut self, why: String) {
        self.waits_for.clone_from(&why);
        self.tell(About::Waits, OpenEvent::Waits { why });
    }

    pub(super) fn attempt(&mut self, event: OpenEvent) {
        self.tell(About::Attempt, event);
    }

    /// Reports an event, unless the last one about the same was equal. An attempt that is repeated is reported again
    /// only after another event.
    fn tell(&mut self, about: About, event: OpenEvent) {
        let is_attempt = about == About::Attempt;
        if self.reported.get(&about) == Some(&event) || is_attempt && self.attempts.contains(&event) {
            return;
        }
        if !is_attempt || self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.clear();
        }
        if is_attempt {
            self.attempts.push(event.clone());
        }
        self.reported.insert(about, event.clone());
        match &mut self.progress {
            Some(progress) => progress(event),
            None => tracing::info!(group = self.name, "{event}"),
        }
    }

    fn report(&mut self, known: &Known, seeds: &[SeedState]) {
        for (at, state) in seeds.iter().enumerate() {
            let seed = self.seeds[at].clone();
            let event = match state.clone() {
                SeedState::Untried => continue,
                SeedState::Unresolved(why) => OpenEvent::SeedUnresolved { seed, why },
                SeedState::Unreachable(why) => OpenEvent::SeedUnreachable { seed, why },
                SeedState::Itself => OpenEvent::SeedReached { seed, node: self.node.id() },
                SeedState::Node(node) => OpenEvent::SeedReached { seed, node },
            };
            self.tell(About::Seed(at), event);
        }
        for (node, report) in known.reports() {
            if report.opening.is_none() && report.group == NamedGroup::Absent {
                self.tell(About::Node(node), OpenEvent::KnowsNoGroup { node });
            }
        }
        let others: Vec<_> = others(known, self.terms())
            .map(|(node, opening)| (node, named(differences(opening, self.terms()))))
            .collect();
        for (node, differences) in others {
            self.tell(About::Settings(node), OpenEvent::SettingsDiffer { node, differences });
        }
    }

    /// The error of a call that was not finished in time.
    pub(super) fn late(&self, waited: Duration) -> NotOpened {
        let known = self.known.as_ref().map(|known| known.borrow().clone());
        let states = self.states.borrow().clone();
        let mut answers = Vec::new();
        let mut named = Vec::new();
        for (seed, state) in self.seeds.iter().zip(&states) {
            let words = match state {
                SeedState::Node(node) => {
                    named.push(*node);
                    format!("{state}, {}", self.words_of(*node, known.as_ref()))
                }
                state => state.to_string(),
            };
            answers.push(SeedAnswer { from: seed.clone(), words });
        }
        let known_nodes = known.iter().flat_map(|known| known.peers.keys());
        for node in known_nodes.filter(|node| !named.contains(node)) {
            let from = format!("node {}", node.short());
            answers.push(SeedAnswer { from, words: self.words_of(*node, known.as_ref()) });
        }
        let mut waits_for = self.waits_for.clone();
        if let Some(failed) = &self.failed {
            waits_for = format!("{waits_for} ({failed})");
        }
        NotOpened { name: self.name.clone(), waited, waits_for, answers }
    }

    /// The report of a linked node, as text.
    fn words_of(&self, node: NodeId, known: Option<&Known>) -> String {
        let Some(report) = known.and_then(|known| known.peers.get(&node)?.as_ref()) else {
            return "which has not answered".to_owned();
        };
        match (report.group, &report.opening) {
            (NamedGroup::Runs { group }, _) => format!("which is in group {group}"),
            (NamedGroup::Forming { creator, .. }, _) if creator == node => "which creates the group".to_owned(),
            (NamedGroup::Forming { creator, .. }, _) => {
                format!("which has accepted the invitation of node {}", creator.short())
            }
            (NamedGroup::Absent, None) => "which knows no group of that name and does not open one".to_owned(),
            (NamedGroup::Absent, Some(opening)) => {
                let differences = named(differences(opening, self.terms()));
                if differences.is_empty() {
                    return format!("which opens the group too, linked to {} others", opening.linked.len());
                }
                let words = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("which opens the group with other settings: {words}")
            }
        }
    }
}

/// The outcome of a step.
pub(super) enum Next {
    Opened(Group),
    /// It is tried again after a pause.
    Failed,
    /// Something is in progress, or is waited for.
    Waits,
}

impl Dials {
    /// Dials other nodes that open the group, at addresses from linked nodes.
    fn reach(&mut self, node: &Node, known: &Known) {
        for &address in known.located.values() {
            if !self.open.contains(&address) {
                self.open.push(address);
                let node = node.clone();
                self.tasks.spawn(async move {
                    // Which node it leads to is what the driver knows; it may be another one.
                    drop(node.connect_beside(address, true).await);
                    // sleep: paces attempts at an address that leads elsewhere.
                    tokio::time::sleep(jittered(ASK_EVERY)).await;
                    Some(address)
                });
            }
        }
    }

    fn ended(&mut self, dialled: Result<Option<SocketAddr>, tokio::task::JoinError>) {
        match dialled {
            Ok(address) => self.open.retain(|open| Some(*open) != address),
            Err(failed) => {
                if let Ok(panic) = failed.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

fn named(differences: Vec<(String, String, String)>) -> Vec<SettingDifference> {
    differences.into_iter().map(|(setting, there, here)| SettingDifference { setting, there, here }).collect()
}

/// Waits for the answer of the node that was asked, if one was. Cancel safe.
async fn answered(node: &Node, asked: &mut Option<Asked>) -> Result<Group, Attempt> {
    match asked {
        Some(asked) => node.answer_of(&mut asked.answer).await,
        None => std::future::pending().await,
    }
}

/// Whom a node waits for that is in the group; none if it is on the ring of the view in force, or the result is final.
async fn missing(group: &Group) -> Option<String> {
    if group.shared.lock().final_index.is_some() {
        return None;
    }
    let status = group.status().await;
    if status.as_ref().is_some_and(|status| status.rank.is_some()) {
        return None;
    }
    if let Some(missing) = status.as_ref().and_then(|status| status.missing_voters.as_ref()) {
        return Some(format!("this node resumes the group, and no coordinator is in reach; {missing}"));
    }
    let view = status.as_ref().and_then(|status| status.view.as_ref());
    let linked = |node| {
        let mut members = status.iter().flat_map(|status| &status.members);
        members.any(|member| member.node == node && member.linked)
    };
    let members = view.into_iter().flat_map(|view| &view.ring).filter(|member| !linked(member.node));
    let missing = members.map(|member| {
        let name = member.advertised.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let address = member.addresses.first().map(|address| format!(", last at {address}")).unwrap_or_default();
        format!("node {}{name}{address}", member.node.short())
    });
    let missing = missing.collect::<Vec<_>>().join("; ");
    Some(match missing.is_empty() {
        true => "this node resumes the group, and the others have not let it back onto the ring yet".to_owned(),
        false => format!("this node resumes the group, and these members are not linked: {missing}"),
    })
}
