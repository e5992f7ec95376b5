//! From one view to the next (`protocol.md` §6).

mod coordinator;
mod cut;

pub(crate) use coordinator::LastChange;
pub(crate) use cut::cut_of;
