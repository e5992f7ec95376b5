//! The change from one view to the next (`protocol.md` §6).

mod coordinator;
mod cut;
mod suspicion;

pub(crate) use coordinator::ViewChange;
pub(crate) use cut::{Cut, cut_of};
pub(crate) use suspicion::{Limits, Observation, Suspicion};
