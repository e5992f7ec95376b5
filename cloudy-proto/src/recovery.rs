//! A group as its stored records describe it, and its recovery by one node whose others are lost for good
//! (`docs/how-to/data.md`).

use std::sync::Arc;

use crate::command::VoterRole;
use crate::config::OnFailure;
use crate::control::ControlState;
use crate::id::{ConsensusId, Index, LogIndex, NodeId, ViewId};
use crate::read_back::{Stored, StoredError};
use crate::rules::Rules;
use crate::stored::{LogBase, Record, Vote};
use crate::view::{Place, View};
use crate::wire::{decode_log_state, encode_log_state};

/// The state of a stored group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// The latest view in the control log; none before the first one.
    pub view: Option<Arc<View>>,
    /// Whether the group is closed.
    pub closed: bool,
    /// Whether this node has the whole result up to that view: only then it was active in it.
    pub is_complete: bool,
    /// The last entry of the control log.
    pub log_last: LogIndex,
    /// The nodes that vote.
    pub voters: Vec<NodeId>,
    /// The index of the application's snapshot.
    pub snapshot: Option<Index>,
    /// Number of messages of that view that this node holds and that are not in its stored result.
    pub held: u64,
}

/// The reason for which a node cannot continue a stored group alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AloneError {
    /// The records are damaged.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The group is closed.
    #[error("the group is closed, so it has its final result: export that")]
    Closed,
    /// This node had no part in the latest view that it knows.
    #[error(
        "this node was not an active member of view {view}: the other members continued without it; recover from the data directory of a member, or export this one and import it into a new group"
    )]
    NotAMember {
        /// The view.
        view: ViewId,
    },
}

impl Stored {
    fn control_state(&self) -> Result<ControlState, StoredError> {
        let rules = Rules::default();
        let mut state = match &self.log {
            Some((index, encoded)) => {
                let error = |error| StoredError::Command { index: *index, error };
                let decoded = decode_log_state(encoded).map_err(error)?;
                ControlState::resumed(rules, *index, decoded, encoded.clone())
            }
            None => ControlState::new(rules),
        };
        for command in &self.commands {
            let index = state.next();
            state.apply(command.clone()).map_err(|error| StoredError::Command { index, error })?;
        }
        Ok(state)
    }

    /// The state of the group.
    ///
    /// # Errors
    /// An entry of the control log cannot be read.
    pub fn state(&self) -> Result<StoredState, StoredError> {
        let state = self.control_state()?;
        let voters = state.electors().filter(|(.., role)| *role == VoterRole::Voter).map(|(_, node, _)| node);
        Ok(StoredState {
            view: state.view().cloned(),
            closed: state.is_closed(),
            is_complete: state.view().is_some_and(|view| view.id == self.complete.0),
            log_last: self.log_last(),
            voters: voters.collect(),
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.index),
            held: state.view().map_or(0, |view| self.held_in(view.id)),
        })
    }

    fn held_in(&self, view: ViewId) -> u64 {
        let passed = self.passed.filter(|(of, _)| *of == view).map(|(_, place)| place);
        let of_view = self.slots.iter().filter(|((of, ..), _)| *of == view);
        let held = of_view.filter(|((_, round, rank), _)| Some(Place { round: *round, rank: *rank }) > passed);
        held.map(|(_, slot)| u64::from(slot.batch.count)).sum()
    }

    /// The records that replace the control log's, so that this node continues the group as its only voter. Its next
    /// view change excludes the other members like members that have failed, and keeps every slot that this node holds.
    /// Store them under another group id, so that no node of the old group accepts a frame of the new one.
    ///
    /// # Errors
    /// The group cannot be continued from these records.
    pub fn alone(&self, node: NodeId) -> Result<Vec<Record>, AloneError> {
        let state = self.control_state()?;
        let Some(view) = state.view().cloned() else { return Err(AloneError::NotAMember { view: ViewId(0) }) };
        if state.is_closed() || view.last {
            return Err(AloneError::Closed);
        }
        if view.rank_of(node).is_none() || self.complete.0 != view.id {
            return Err(AloneError::NotAMember { view: view.id });
        }
        let mut log = state.log_state();
        let voter = log.electors.iter().map(|(id, ..)| id.0).max().unwrap_or_default().max(self.voter().0) + 1;
        let voter = ConsensusId(voter);
        log.electors = vec![(voter, node, VoterRole::Voter)];
        if let Some(install) = &mut log.installed {
            install.parameters.ring_min = 1;
            install.parameters.on_failure = OnFailure::Evict;
        }
        let (index, term) = (self.log_last(), self.log_term);
        let vote = Vote {
            voter,
            term: self.vote.map_or(0, |vote| vote.term).max(term) + 1,
            voted_for: ConsensusId(0),
            commit: index,
        };
        let base = LogBase { index, term, electors: vec![(voter, VoterRole::Voter)] };
        Ok(vec![
            Record::Vote(vote),
            Record::Base { base, alone: true },
            Record::Log { index, term, state: encode_log_state(&log) },
        ])
    }
}
