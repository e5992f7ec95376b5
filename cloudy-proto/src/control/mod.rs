//! The control log: a replicated sequence of commands that alone decides views, incarnations and phases
//! (`protocol.md` §6).

mod log;
mod state;

pub(crate) use log::{ControlLog, SoleVoter};
pub(crate) use state::{Applied, ControlState};
