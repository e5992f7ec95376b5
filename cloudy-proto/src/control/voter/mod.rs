//! One voter: the consensus library's state machine, without its own clock, thread or random numbers.

mod check;
mod compact;

use core::fmt;
use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Config, ProgressState, RawNode, Ready, StateRole};

use super::message::{change, change_of, command_of, conf_state, entry_from_wire, entry_to_wire, from_wire, to_wire};
use super::store::LogStore;
use crate::command::VoterRole;
use crate::config::Durability;
use crate::id::{ConsensusId, LogIndex};
use crate::limits::{CONSENSUS_ENTRIES_BYTES_MAX, ELECTION_TICKS_MAX, ELECTION_TICKS_MIN, VOTE_TICKS_MAX};
use crate::rules::{Rule, Rules};
use crate::stored::{LogBase, Record, Vote};
use crate::wire::{CommandError, ConsensusEntry, ConsensusKind, ConsensusMessage};

/// Maximum of messages to one voter in flight.
const INFLIGHT_MAX: usize = 64;

/// An output of a voter, in order.
#[derive(Debug)]
pub(crate) enum VoterOutput {
    /// Send to another voter.
    Send(ConsensusMessage),
    /// `Disk`: store it; [`Voter::persisted`] follows once it is synced.
    Keep(Record),
    /// An entry is committed, for good.
    Committed { index: LogIndex, term: u64, command: Bytes },
    /// Entries up to here are committed and not sent by any node: this is the state after them.
    Skipped { index: LogIndex, term: u64, state: Bytes },
    /// A committed change of the voters does not decode: nothing after it can be applied.
    Unreadable { index: LogIndex, error: CommandError },
}

/// A message that no correct voter sends; nothing of it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConsensusError {
    #[error("a consensus message without a term, or from its own receiver")]
    NoSender,
    #[error("entries of the control log that do not follow each other")]
    Entries,
    #[error("another entry of the control log where one is committed")]
    Committed,
    #[error("a position in the control log that was never reached")]
    Position,
    #[error("more of the control log than this voter ever confirmed")]
    Forgotten,
    #[error("a malformed snapshot of the control log: {0}")]
    State(CommandError),
    #[error("a snapshot of the control log without voters")]
    NoVoters,
}

#[derive(Debug)]
struct Proposal {
    command: Bytes,
    change: Option<(ConsensusId, VoterRole)>,
}

/// The progress of another voter behind the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Follower {
    /// Whether it answered recently.
    pub(crate) active: bool,
    /// Whether it has all committed entries.
    pub(crate) level: bool,
}

/// The waits of a voter for slow disks; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Number of additional ticks for which a candidate waits, because others store their votes.
    pub(crate) vote_ticks: usize,
    /// Whether answers to a leader's heartbeat wait for no sync of entries.
    pub(crate) answers_early: bool,
}

/// Outputs that follow once the consensus state so far is synced.
#[derive(Debug)]
struct Unsynced {
    number: u64,
    /// The term that is stored with it.
    term: u64,
    /// Whether it waits for a sync of its own; otherwise only for those before it.
    waits: bool,
    messages: Vec<Message>,
}

/// One voter.
pub(crate) struct Voter {
    raft: RawNode<LogStore>,
    durability: Durability,
    /// In order.
    unsynced: VecDeque<Unsynced>,
    /// The number of the record of a state that replaced the own log: nothing counts as applied before it is synced.
    skipped: Option<u64>,
    /// The latest term that is stored, and synced.
    synced_term: u64,
    patience: Patience,
    /// Ticks until such a state is sent again, in case it was lost.
    resend_ticks: usize,
    outputs: VecDeque<VoterOutput>,
    /// Proposals that the library does not accept yet, because the leader is handing over.
    proposals: VecDeque<Proposal>,
    /// Whether an input came after all outputs were taken.
    moved: bool,
    /// Number of role changes: no two elections have the same timeout.
    roles: u64,
    role: (u64, StateRole),
}

impl Voter {
    /// The first voter of a group, and its leader from the start.
    pub(crate) fn creator(durability: Durability) -> Self {
        let mut creator = Self::new(ConsensusId::CREATOR, durability);
        let elected = creator.raft.campaign();
        debug_assert!(elected.is_ok(), "a sole voter elects itself");
        creator
    }

    /// A voter without a log.
    pub(crate) fn new(id: ConsensusId, durability: Durability) -> Self {
        let vote = Vote { voter: id, ..Vote::default() };
        let mut voter = Self::restored(vote, None, Vec::new(), durability);
        if durability == Durability::Disk {
            voter.outputs.push_front(VoterOutput::Keep(Record::Vote(vote)));
        }
        voter
    }

    /// A voter with the stored state of an earlier incarnation: for others it is the same voter.
    pub(crate) fn restored(
        vote: Vote,
        base: Option<LogBase>,
        entries: Vec<ConsensusEntry>,
        durability: Durability,
    ) -> Self {
        let config = Config {
            id: vote.voter.0,
            election_tick: ELECTION_TICKS_MIN,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX + VOTE_TICKS_MAX,
            heartbeat_tick: 1,
            max_size_per_msg: CONSENSUS_ENTRIES_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MAX,
            // A voter that was cut off, or only receives, does not replace a leader that others follow.
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let after = |base: LogBase| LogStore::after((base.index.0, base.term), conf_state(&base.electors));
        let mut store = base.map_or_else(LogStore::new, after);
        store.append(&entries.into_iter().map(entry_from_wire).collect::<Vec<_>>());
        store.hard_state.term = vote.term;
        store.hard_state.vote = vote.voted_for.0;
        store.hard_state.commit = vote.commit.0.clamp(store.first() - 1, store.last());
        let raft = RawNode::new(&config, store, &logger).expect("a constant configuration is valid");
        let mut voter = Self {
            raft,
            durability,
            unsynced: VecDeque::new(),
            skipped: None,
            synced_term: vote.term,
            patience: Patience::default(),
            resend_ticks: 0,
            outputs: VecDeque::new(),
            proposals: VecDeque::new(),
            moved: true,
            roles: 0,
            role: (0, StateRole::Follower),
        };
        voter.stepped();
        voter
    }

    pub(crate) fn id(&self) -> ConsensusId {
        ConsensusId(self.raft.raft.id)
    }

    /// Its term, if it leads and has applied everything that was committed before.
    pub(crate) fn leads(&self, rules: Rules) -> Option<u64> {
        let raft = &self.raft.raft;
        let caught_up = raft.apply_to_current_term() || !rules.holds(Rule::CoordinatorIsCaughtUp);
        (raft.state == StateRole::Leader && caught_up).then_some(raft.term)
    }

    /// Notes that time has passed: at least [`CONSENSUS_TICK`](crate::limits::CONSENSUS_TICK).
    pub(crate) fn tick(&mut self, patience: Patience) {
        self.patience = patience;
        self.stepped();
        // A voter that waits for its own disk does not start an election: it could store nothing as a leader.
        let waits = self.unsynced.iter().any(|unsynced| unsynced.waits);
        if !waits || self.raft.raft.state == StateRole::Leader {
            self.raft.tick();
        }
        self.resend_skipped();
        self.stepped();
    }

    /// Proposes a command; it appears among the committed entries, or never.
    pub(crate) fn propose(&mut self, command: Bytes) {
        self.moved = true;
        self.proposals.push_back(Proposal { command, change: None });
    }

    /// Proposes a change of the voters. One at a time takes effect; one that comes too early is left out.
    pub(crate) fn propose_change(&mut self, id: ConsensusId, role: VoterRole, command: Bytes) {
        self.moved = true;
        self.proposals.push_back(Proposal { command, change: Some((id, role)) });
    }

    /// Whether a change of the voters is undecided.
    pub(crate) fn is_changing(&self) -> bool {
        self.raft.raft.has_pending_conf() || self.proposals.iter().any(|proposal| proposal.change.is_some())
    }

    /// Leader: hands over to another voter.
    pub(crate) fn hand_over(&mut self, to: ConsensusId) {
        self.raft.transfer_leader(to.0);
        self.stepped();
    }

    /// Leader: the progress of another voter.
    pub(crate) fn follower(&self, id: ConsensusId) -> Option<Follower> {
        let raft = &self.raft.raft;
        raft.prs().get(id.0).map(|progress| Follower {
            active: progress.recent_active && progress.state != ProgressState::Snapshot,
            level: progress.matched >= raft.raft_log.committed,
        })
    }

    /// Learns that an entry of this position and term is committed: so is the own one, if it is the same. A term of
    /// zero is none: the library returns it for positions that it does not hold.
    pub(crate) fn learn_committed(&mut self, index: LogIndex, term: u64) {
        let log = &mut self.raft.raft.raft_log;
        if term > 0 && index.0 > log.committed && log.match_term(index.0, term) {
            log.commit_to(index.0);
            self.moved = true;
        }
    }

    /// Handles a message of another voter.
    pub(crate) fn take(&mut self, message: ConsensusMessage) -> Result<(), ConsensusError> {
        self.check(&message)?;
        self.take_checked(message)
    }

    /// Handles a message that the library accepts.
    pub(crate) fn take_checked(&mut self, mut message: ConsensusMessage) -> Result<(), ConsensusError> {
        self.believe_named(&mut message);
        let electors = self.check_state(&message)?;
        // The remaining errors are answers of voters that were removed meanwhile.
        let _ = self.raft.step(from_wire(message, &electors));
        self.stepped();
        Ok(())
    }

    /// Whether no input came after the outputs were taken: it has no outputs, and leads or not as before.
    pub(crate) fn is_settled(&self) -> bool {
        !self.moved
    }

    /// The next output. The caller takes all of them after each message, proposal or tick.
    pub(crate) fn poll_output(&mut self) -> Option<VoterOutput> {
        loop {
            self.offer();
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if !self.raft.has_ready() {
                self.moved = false;
                return None;
            }
            let ready = self.raft.ready();
            self.take_ready(ready);
            self.stepped();
        }
    }

    /// The commands in its log that are not applied, for tests.
    #[cfg(feature = "mutations")]
    pub(crate) fn unapplied(&self) -> Vec<Bytes> {
        let log = &self.raft.raft.raft_log;
        let entries = log.entries(log.applied + 1, None, raft::GetEntriesContext::empty(false)).unwrap_or_default();
        entries.iter().map(command_of).filter(|command| !command.is_empty()).collect()
    }

    /// Passes proposals to the library, as far as it accepts them.
    fn offer(&mut self) {
        if self.raft.raft.state != StateRole::Leader {
            self.proposals.clear();
        }
        while let Some(proposal) = self.proposals.front() {
            let command = proposal.command.to_vec();
            let offered = match proposal.change {
                Some((id, role)) => self.raft.propose_conf_change(command, change(id, role)),
                None => self.raft.propose(Vec::new(), command),
            };
            if offered.is_err() {
                // It hands over; if that fails, it continues to lead.
                return;
            }
            self.proposals.pop_front();
        }
    }

    fn take_ready(&mut self, mut ready: Ready) {
        self.send(ready.take_messages());
        let committed = ready.take_committed_entries();
        if !ready.snapshot().is_empty() {
            self.skip(&ready);
        }
        let store = self.raft.mut_store();
        store.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            store.hard_state = hard_state.clone();
        }
        let waits = self.keep(&ready);
        let (number, messages) = (ready.number(), ready.take_persisted_messages());
        let term = self.raft.raft.term;
        let messages = self.send_signs_of_life(messages, term);
        self.commit(committed);
        self.raft.advance_append_async(ready);
        if self.skipped.is_none() {
            self.raft.advance_apply();
        }
        self.unsynced.push_back(Unsynced { number, term, waits, messages });
        self.release(0);
        self.leave_if_removed();
    }

    /// Outputs the records to store; true if later outputs have to wait for their sync.
    fn keep(&mut self, ready: &Ready) -> bool {
        if self.durability == Durability::Memory {
            return false;
        }
        if !ready.entries().is_empty() {
            let entries = ready.entries().iter().cloned().map(entry_to_wire).collect();
            self.outputs.push_back(VoterOutput::Keep(Record::Entries(entries)));
        }
        if let Some(hard_state) = ready.hs() {
            let vote = Vote {
                voter: self.id(),
                term: hard_state.term,
                voted_for: ConsensusId(hard_state.vote),
                commit: LogIndex(hard_state.commit),
            };
            self.outputs.push_back(VoterOutput::Keep(Record::Vote(vote)));
        }
        ready.must_sync()
    }

    /// Makes a leader apply its own removal, which its predecessor proposed. The library would let it lead on, and
    /// accept nothing from it.
    fn leave_if_removed(&mut self) {
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader && !raft.prs().conf().voters().contains(raft.id) {
            raft.become_follower(raft.term, raft::INVALID_ID);
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        let log = &self.raft.raft.raft_log;
        let named = |mut message: ConsensusMessage| {
            if message.kind == ConsensusKind::Heartbeat {
                // Zero, which is not a term, for a position that is not in the log: a voter that lacks it receives a
                // state.
                message.commit_term = log.term(message.commit.0).unwrap_or_default();
            }
            message
        };
        self.outputs.extend(messages.into_iter().filter_map(to_wire).map(named).map(VoterOutput::Send));
    }

    fn commit(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let (index, command) = (LogIndex(entry.index), command_of(&entry));
            let change = match change_of(&entry) {
                Ok(change) => change,
                Err(error) => return self.outputs.push_back(VoterOutput::Unreadable { index, error }),
            };
            if let Some(change) = change
                && let Ok(conf_state) = self.raft.apply_conf_change(&change)
            {
                self.raft.mut_store().conf_state = conf_state;
            }
            self.outputs.push_back(VoterOutput::Committed { index, term: entry.term, command });
        }
    }

    /// Replaces the library's random election timeouts: equal runs need equal ones.
    fn stepped(&mut self) {
        self.moved = true;
        let raft = &mut self.raft.raft;
        let role = (raft.term, raft.state);
        if role != self.role {
            self.role = role;
            self.roles += 1;
        }
        let spread = (ELECTION_TICKS_MAX - ELECTION_TICKS_MIN) as u64;
        let drawn = mixed(raft.id ^ raft.term.rotate_left(24) ^ self.roles.rotate_left(48)) % spread;
        let stands = matches!(raft.state, StateRole::PreCandidate | StateRole::Candidate);
        let waits = if stands { self.patience.vote_ticks.min(VOTE_TICKS_MAX) } else { 0 };
        raft.set_randomized_election_timeout(ELECTION_TICKS_MIN + drawn as usize + waits);
    }
}

/// `Disk`: what a voter sends once its state is synced (`protocol.md` §6).
impl Voter {
    /// The number of the newest stored state without a sync, if there is one.
    pub(crate) fn unsynced(&self) -> Option<u64> {
        self.unsynced.iter().rev().find(|unsynced| unsynced.waits).map(|unsynced| unsynced.number)
    }

    /// Notes that all state up to this number is synced: outputs that waited for it follow.
    pub(crate) fn persisted(&mut self, number: u64) {
        self.release(number);
        self.stepped();
    }

    /// Sends answers to a leader's heartbeat. They depend on the voter's term alone: once that is synced they wait for
    /// no entry, or a leader would take followers with slow disks for failed. Returns the other messages.
    fn send_signs_of_life(&mut self, messages: Vec<Message>, term: u64) -> Vec<Message> {
        if !self.patience.answers_early || term != self.synced_term {
            return messages;
        }
        let is_sign = |message: &Message| message.get_msg_type() == MessageType::MsgHeartbeatResponse;
        let (signs, others) = messages.into_iter().partition(is_sign);
        self.send(signs);
        others
    }

    fn release(&mut self, number: u64) {
        let due = |front: &Unsynced| front.number <= number || !front.waits;
        while self.unsynced.front().is_some_and(due) {
            let Some(front) = self.unsynced.pop_front() else { break };
            self.raft.on_persist_ready(front.number);
            self.synced_term = self.synced_term.max(front.term);
            if self.skipped.take_if(|number| *number <= front.number).is_some() {
                self.raft.advance_apply();
            }
            self.send(front.messages);
        }
    }
}

/// The complete state of a voter that decides its next actions, as text: two voters with equal texts behave alike. The
/// library's hidden state follows from it here: a leader's heartbeat is due at each tick, and nothing is limited by
/// size.
impl fmt::Debug for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raft = &self.raft.raft;
        let log = &raft.raft_log;
        let mut followers: Vec<_> = raft.prs().iter().collect();
        followers.sort_by_key(|(id, _)| **id);
        // The library does not list the votes: a second vote of the same voter changes nothing.
        let tally = raft.prs().tally_votes();
        let has_voted = |id: u64| {
            let mut progress = raft.prs().clone();
            progress.record_vote(id, false);
            progress.tally_votes() == tally
        };
        let voted: Vec<u64> = followers.iter().map(|(id, _)| **id).filter(|id| has_voted(*id)).collect();
        f.debug_struct("Voter")
            .field("id", &(raft.id, raft.term, raft.vote, raft.leader_id, raft.lead_transferee))
            .field("state", &(raft.state, raft.election_elapsed, raft.promotable(), raft.pending_conf_index))
            .field("log", &(&log.store, log.committed, log.persisted, log.applied, &log.unstable.entries))
            .field("conf", raft.prs().conf())
            .field("votes", &(tally, voted))
            .field("followers", &followers)
            .field("messages", &raft.msgs)
            .field("waits", &(&self.unsynced, &self.outputs, &self.proposals))
            .field("role", &(self.roles, self.role))
            .finish()
    }
}

/// Spreads values that differ in a few bits over all bits (the finaliser of SplitMix64).
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    #[test]
    fn a_missing_entry_does_not_count_as_committed() {
        let mut voter = Voter::creator(Durability::Memory);
        while voter.poll_output().is_some() {}
        assert_eq!(voter.leads(Rules::default()), Some(1));
        let held = voter.raft.raft.raft_log.committed;
        // Beyond the log, with no term and with one.
        for term in [0, 1] {
            voter.learn_committed(LogIndex(held + 100), term);
            assert_eq!(voter.raft.raft.raft_log.committed, held);
        }
    }
}
