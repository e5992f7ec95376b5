//! The control log at this node: its state, and this node's part in the consensus on it (`protocol.md` §6).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::command::{Command, VoterRole};
use crate::control::{Applied, ControlState, Voter};
use crate::id::{ConsensusId, Incarnation, LogIndex, NodeId};
use crate::io::VotesLost;
use crate::limits::{LOG_ENTRIES_PER_FRAME_MAX, MEMBERS_MAX};
use crate::machine::identity::Identity;
use crate::records::Records;
use crate::rules::Rules;
use crate::stored::Record;
use crate::wire::{CommandError, ControlFrame, WireVersions, decode_log_state, encode_command, encode_log_state};

/// Maximum of voters whose ids are kept before the log lists them.
const EARLY_NAMES_MAX: usize = 2 * MEMBERS_MAX;

/// The control log at this node.
#[derive(Debug)]
pub(super) struct ControlLog {
    state: ControlState,
    /// The term of the last entry; zero if it is unknown.
    term: u64,
    entries_max: usize,
    /// This node's part in the consensus, if it has one.
    voter: Option<Voter>,
    /// Voters that sent before the log listed them.
    early_names: BTreeMap<ConsensusId, NodeId>,
    /// Voters that have sent nothing after their link went down.
    quiet: BTreeSet<ConsensusId>,
    /// Voters that run without their votes, by their nodes' reports.
    lost_votes: BTreeSet<ConsensusId>,
    /// The loss of most votes in the last notification of the application.
    loss_reported: Option<VotesLost>,
}

/// The effect of a state that replaces entries.
pub(super) struct Skipped {
    /// Whether the log was closed before.
    pub(super) was_closed: bool,
    /// Nodes whose reports were known before.
    pub(super) known_reports: Vec<NodeId>,
}

/// Entries.
impl ControlLog {
    pub(super) fn new(rules: Rules, entries_max: usize, voter: Option<Voter>) -> Self {
        Self {
            state: ControlState::new(rules),
            term: 0,
            entries_max,
            voter,
            early_names: BTreeMap::new(),
            quiet: BTreeSet::new(),
            lost_votes: BTreeSet::new(),
            loss_reported: None,
        }
    }

    /// The state of the log so far.
    #[inline]
    pub(super) fn state(&self) -> &ControlState {
        &self.state
    }

    /// The feature level of the group: a log that sets none has the oldest level that this release supports.
    pub(super) fn level(&self) -> u16 {
        self.state.level().max(WireVersions::CURRENT.min)
    }

    /// Checks whether this node supports the feature level of the group.
    pub(super) fn check_level(&self, identity: &Identity) -> Result<(), CommandError> {
        let (level, supported) = (self.state.level(), identity.level_max);
        if level > supported { Err(CommandError::Level { level, supported }) } else { Ok(()) }
    }

    /// Whether the log lists an incarnation of the node, or the node as the creator.
    pub(super) fn lists(&self, node: NodeId) -> bool {
        self.state.incarnation(node).is_some() || self.state.creator() == Some(node)
    }

    /// Whether the log lists a node as part of this group, at present or earlier.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.lists(node) || self.state.was_member(node)
    }

    /// The incarnation under which the log lists this process.
    pub(super) fn incarnation_of(&self, identity: &Identity) -> Option<Incarnation> {
        let listed = self.state.incarnation(identity.me);
        listed.filter(|_| self.state.is_latest_run(identity.me, identity.run))
    }

    /// The answer to a node that requests the group by its name; none before the log begins.
    pub(super) fn running_frame(&self, identity: &Identity) -> Option<ControlFrame> {
        let (name, durability) = (identity.name.clone(), identity.durability);
        self.state.creator().map(|creator| ControlFrame::Running { name, creator, durability })
    }

    #[cfg(feature = "mutations")]
    pub(super) fn take_history(&mut self) -> Vec<(LogIndex, Bytes)> {
        core::mem::take(&mut self.state.history.0)
    }

    /// Sets the term of the last entry, once it is known.
    pub(super) fn set_term(&mut self, term: u64) {
        self.term = term;
    }

    /// Applies the next entry, and keeps it.
    pub(super) fn apply(&mut self, entry: Bytes, term: u64, records: &mut Records) -> Result<Applied, CommandError> {
        self.term = term;
        let index = self.state.next();
        let applied = self.state.apply(entry.clone())?;
        records.keep(Record::Command { index, term, command: entry });
        Ok(applied)
    }

    /// Applies an entry that is stored already.
    pub(super) fn replay(&mut self, entry: Bytes) -> Result<Applied, CommandError> {
        self.state.apply(entry)
    }

    /// Continues from the state that replaces all entries up to an index.
    pub(super) fn skip_to(&mut self, index: LogIndex, encoded: Bytes, rules: Rules) -> Result<Skipped, CommandError> {
        let resumed = ControlState::resumed(rules, index, decode_log_state(&encoded)?, encoded);
        let before = core::mem::replace(&mut self.state, resumed);
        let skipped = Skipped {
            was_closed: before.is_closed(),
            known_reports: before.reports().map(|(node, ..)| node).collect(),
        };
        #[cfg(feature = "mutations")]
        {
            self.state.history = before.history;
        }
        Ok(skipped)
    }

    /// Replaces older entries by a state, once there are many, and offers it to a voter that lacks some of them. True
    /// if the voter has outputs.
    #[inline]
    pub(super) fn compact(&mut self, records: &mut Records) -> bool {
        let too_many = |voter: &Voter| voter.kept() > self.entries_max as u64 || voter.wants_state();
        let is_due = self.state.kept() > self.entries_max || self.voter.as_ref().is_some_and(too_many);
        is_due && self.compact_now(records)
    }

    fn compact_now(&mut self, records: &mut Records) -> bool {
        let last = LogIndex(self.state.next().0 - 1);
        let voter = self.voter.as_ref().filter(|voter| self.state.elector(voter.id()).is_some());
        // If others know more of the log than this voter has applied, the log has no state to replace the voter's own
        // entries.
        let in_step = voter.is_none_or(|voter| voter.applied() == last);
        let voter_full = voter.is_some_and(|voter| voter.kept() > self.entries_max as u64);
        let full = self.state.kept() > self.entries_max || voter_full;
        let wanted = voter.is_some_and(|voter| voter.wants_state());
        if !in_step || !(full || wanted) {
            return false;
        }
        let state = encode_log_state(&self.state.log_state());
        let keep = self.entries_max / 2;
        let votes = voter.is_some();
        if let Some(voter) = self.voter.as_mut().filter(|_| votes && wanted) {
            voter.offer_state(state.clone());
        }
        if full {
            records.keep(Record::Log { index: last, term: self.term, state: state.clone() });
            if let Some(voter) = self.voter.as_mut().filter(|_| votes) {
                voter.compact(state.clone(), keep as u64);
            }
            self.state.compact(state, keep);
        }
        full && votes
    }

    /// The frames that bring a node from an entry to the end of the log. `next` is raised to the end.
    #[inline]
    pub(super) fn frames_after(&self, next: &mut LogIndex) -> Vec<ControlFrame> {
        let mut frames = Vec::new();
        if self.state.next() <= *next {
            return frames;
        }
        let compacted = self.state.compacted().filter(|_| self.state.tail(*next).is_none()).cloned();
        if let Some((index, state)) = compacted {
            let term = if index.next() == self.state.next() { self.term } else { 0 };
            frames.push(ControlFrame::LogState { index, term, state });
            *next = index.next();
        }
        let tail: Vec<Bytes> = self.state.tail(*next).into_iter().flatten().cloned().collect();
        for entries in tail.chunks(LOG_ENTRIES_PER_FRAME_MAX) {
            let first = *next;
            next.0 += entries.len() as u64;
            let term = if *next == self.state.next() { self.term } else { 0 };
            frames.push(ControlFrame::Log { first, entries: entries.to_vec(), term });
        }
        frames
    }
}

/// This node's voter.
impl ControlLog {
    #[inline]
    pub(super) fn voter(&self) -> Option<&Voter> {
        self.voter.as_ref()
    }

    #[inline]
    pub(super) fn voter_mut(&mut self) -> Option<&mut Voter> {
        self.voter.as_mut()
    }

    /// The request for missing entries, with the id of this node's voter.
    pub(super) fn follow_frame(&self, incarnation: Incarnation, level: u16) -> ControlFrame {
        let votes = self.votes(incarnation);
        let voter = self.voter.as_ref().filter(|_| votes).map_or(ConsensusId(0), Voter::id);
        ControlFrame::Follow { next: self.state.next(), voter, level }
    }

    /// Coordinator: proposes a command. It appears in the log, or this node stops coordinating.
    pub(super) fn propose(&mut self, command: &Command) {
        if let Some(voter) = &mut self.voter {
            voter.propose(encode_command(command));
        }
    }

    pub(super) fn begin_voting(&mut self, voter: Voter) {
        self.voter = Some(voter);
    }

    pub(super) fn stop_voting(&mut self) {
        self.voter = None;
    }

    /// The voter, if it has this name.
    pub(super) fn voter_as(&self, id: ConsensusId) -> Option<&Voter> {
        self.voter.as_ref().filter(|voter| voter.id() == id)
    }

    /// Whether this node has a part in the consensus or could take it up again, as far as it knows; that of an earlier
    /// incarnation that was removed does not count. A creator without a place on the ring has no incarnation and keeps
    /// its first id, also after its removal: it still has everything that it promised under that id.
    pub(super) fn votes(&self, incarnation: Incarnation) -> bool {
        let own = match incarnation {
            Incarnation(0) => ConsensusId::CREATOR,
            Incarnation(own) => ConsensusId(own),
        };
        self.voter.as_ref().is_some_and(|voter| voter.id() == own || self.state.elector(voter.id()).is_some())
    }

    /// Whether others know more of the log than this voter holds, and by that it does not vote. Its own part of the log
    /// still lists it: a voter whose disk has forgotten could elect it, and one that forgot that it is not alone elects
    /// itself.
    pub(super) fn knows_of_removal(&self, incarnation: Incarnation) -> bool {
        let is_behind = |voter: &&Voter| voter.applied().next() < self.state.next();
        let Some(voter) = self.voter.as_ref().filter(is_behind) else { return false };
        let is_unlisted = self.state.elector(voter.id()).is_none();
        !self.votes(incarnation) || (incarnation == Incarnation(0) && is_unlisted)
    }

    /// Whether the log lists a voter of the node.
    pub(super) fn lists_voter_of(&self, node: NodeId) -> bool {
        self.state.electors().any(|(_, of, _)| of == node)
    }
}

/// Other voters.
impl ControlLog {
    /// The node of a voter, by the log or by the voter's own report.
    pub(super) fn node_of(&self, id: ConsensusId) -> Option<NodeId> {
        self.state.elector(id).or_else(|| self.early_names.get(&id).copied())
    }

    /// Notes a message of a voter.
    pub(super) fn on_voter_spoke(&mut self, id: ConsensusId) {
        self.quiet.remove(&id);
    }

    /// Keeps the id of a voter. If there are too many, those that the log lists are dropped, and else the one that
    /// began to vote first.
    pub(super) fn keep_name(&mut self, id: ConsensusId, node: NodeId) {
        self.early_names.insert(id, node);
        if self.early_names.len() > EARLY_NAMES_MAX {
            self.early_names.retain(|id, _| self.state.elector(*id).is_none());
        }
        if self.early_names.len() > EARLY_NAMES_MAX {
            self.early_names.pop_first();
        }
    }

    /// Notes that the voters of a node are quiet, until their next message.
    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.quiet.retain(|id| self.state.elector(*id).is_some());
        let voters = self.state.electors().filter(|(_, of, _)| *of == node);
        self.quiet.extend(voters.map(|(id, ..)| id));
    }

    pub(super) fn is_quiet(&self, id: ConsensusId) -> bool {
        self.quiet.contains(&id)
    }

    /// Notes the id under which a node's process votes, if it does.
    pub(super) fn on_voter_named(&mut self, node: NodeId, said: ConsensusId) {
        self.lost_votes.retain(|id| self.state.elector(*id).is_some());
        let current = self.state.incarnation(node).map(|Incarnation(own)| ConsensusId(own));
        for id in self.votes_of(node) {
            if id == said {
                self.lost_votes.remove(&id);
            } else if Some(id) != current {
                // A voter of this incarnation may not know yet that it is one.
                self.lost_votes.insert(id);
            }
        }
    }

    /// Notes that a node has no vote that the log lists.
    pub(super) fn on_votes_lost(&mut self, node: NodeId) {
        let ids = self.votes_of(node);
        self.lost_votes.extend(ids);
    }

    fn votes_of(&self, node: NodeId) -> Vec<ConsensusId> {
        self.voters().filter(|(_, of)| *of == node).map(|(id, _)| id).collect()
    }

    fn voters(&self) -> impl Iterator<Item = (ConsensusId, NodeId)> + '_ {
        self.state.electors().filter(|(.., role)| *role == VoterRole::Voter).map(|(id, node, _)| (id, node))
    }

    /// The number of voters, and those that are out of reach or have lost their votes.
    pub(super) fn voters_out_of_reach(&self, is_in_reach: impl Fn(NodeId) -> bool) -> (usize, Vec<NodeId>) {
        let is_missing = |(id, node): &(ConsensusId, NodeId)| !is_in_reach(*node) || self.lost_votes.contains(id);
        (self.voters().count(), self.voters().filter(is_missing).map(|(_, node)| node).collect())
    }

    /// The nodes with lost votes and the number of voters, if most votes are lost.
    pub(super) fn lost_majority(&self) -> Option<(Vec<NodeId>, usize)> {
        let lost: Vec<NodeId> =
            self.voters().filter(|(id, _)| self.lost_votes.contains(id)).map(|(_, node)| node).collect();
        let count = self.voters().count();
        ((count - lost.len()) * 2 <= count && count > 0).then_some((lost, count))
    }

    /// Notes that the loss of most votes is reported. True if the application does not know of it.
    pub(super) fn report_loss(&mut self, lost: &VotesLost) -> bool {
        let is_new = self.loss_reported.as_ref() != Some(lost);
        if is_new {
            self.loss_reported = Some(lost.clone());
        }
        is_new
    }

    /// Notes that a coordinator is in reach: the reported loss is over.
    pub(super) fn on_coordinator_found(&mut self) {
        self.loss_reported = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Durability;
    use crate::limits::LOG_ENTRIES_MAX;

    const NODE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([2; 32]);

    fn log() -> (ControlLog, Records) {
        (ControlLog::new(Rules::default(), LOG_ENTRIES_MAX, None), Records::new(Durability::Disk))
    }

    fn apply(log: &mut ControlLog, records: &mut Records, command: &Command) {
        log.apply(encode_command(command), 1, records).expect("it decodes");
    }

    fn with_voters(nodes: &[NodeId]) -> ControlLog {
        let (mut log, mut records) = log();
        for (at, node) in nodes.iter().enumerate() {
            let id = ConsensusId(at as u64 + 10);
            apply(&mut log, &mut records, &Command::Voter { id, node: *node, role: VoterRole::Voter });
        }
        log
    }

    #[test]
    fn a_follower_gets_each_missing_entry_once() {
        let (mut log, mut records) = log();
        apply(&mut log, &mut records, &Command::Created { creator: NODE });
        apply(&mut log, &mut records, &Command::Incarnate { node: OTHER, run: 7 });
        let mut next = LogIndex(2);
        let frames = log.frames_after(&mut next);
        let [ControlFrame::Log { first: LogIndex(2), entries, term: 1 }] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((entries.len(), next), (1, LogIndex(3)));
        assert!(log.frames_after(&mut next).is_empty());
    }

    #[test]
    fn each_entry_is_kept_and_one_that_does_not_decode_is_not() {
        let (mut log, mut records) = log();
        apply(&mut log, &mut records, &Command::Created { creator: NODE });
        assert!(log.apply(Bytes::from_static(b"\xff"), 1, &mut records).is_err());
        assert_eq!((records.waiting().len(), log.state().next()), (1, LogIndex(2)));
    }

    #[test]
    fn a_voter_is_quiet_from_the_end_of_its_link_until_it_speaks() {
        let mut log = with_voters(&[NODE, OTHER]);
        log.on_link_down(OTHER);
        assert!(log.is_quiet(ConsensusId(11)) && !log.is_quiet(ConsensusId(10)));
        log.on_voter_spoke(ConsensusId(11));
        assert!(!log.is_quiet(ConsensusId(11)));
    }

    #[test]
    fn a_creator_whose_disk_has_forgotten_its_removal_does_not_campaign() {
        let (_, mut records) = log();
        let mut log = ControlLog::new(Rules::default(), LOG_ENTRIES_MAX, Some(Voter::creator(Durability::Disk)));
        let role = |role| Command::Voter { id: ConsensusId::CREATOR, node: NODE, role };
        apply(&mut log, &mut records, &role(VoterRole::Voter));
        assert!(!log.knows_of_removal(Incarnation(0)));
        apply(&mut log, &mut records, &role(VoterRole::Gone));
        assert!(log.knows_of_removal(Incarnation(0)));
        assert!(log.votes(Incarnation(0)), "others may need its vote");
    }

    #[test]
    fn votes_are_lost_once_no_majority_has_its_votes() {
        let mut log = with_voters(&[NODE, OTHER, NodeId([3; 32])]);
        log.on_votes_lost(NODE);
        assert_eq!(log.lost_majority(), None, "two of three are left");
        log.on_voter_named(OTHER, ConsensusId(0));
        assert_eq!(log.lost_majority(), Some((vec![NODE, OTHER], 3)));
        log.on_voter_named(OTHER, ConsensusId(11));
        assert_eq!(log.lost_majority(), None, "it has its vote after all");
    }

    #[test]
    fn the_names_of_voters_have_a_bound_and_the_newest_is_known() {
        let (mut log, _) = log();
        (1..=1_000).for_each(|id| log.keep_name(ConsensusId(id), NODE));
        assert_eq!((log.early_names.len(), log.node_of(ConsensusId(1_000))), (EARLY_NAMES_MAX, Some(NODE)));
    }
}
