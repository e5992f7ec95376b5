//! The control log: a replicated sequence of commands that alone decides views, incarnations and phases
//! (`protocol.md` §6).

mod message;
mod state;
mod store;
mod voter;
mod voters;

pub(crate) use state::{Applied, ControlState};
pub(crate) use voter::{ConsensusError, Patience, Voter, VoterOutput};
pub(crate) use voters::{Elector, Electorate, VoterChange};
