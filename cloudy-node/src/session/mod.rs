//! Sessions: a master coordinates slaves, which broadcast random numbers and add up the approved ones (`protocol.md`
//! §9).
//!
//! It is an application on the library: [`run_slave`] joins a group that [`run_master`] creates, and [`attach_master`]
//! watches one that runs. A current-thread runtime is enough for all of them.
//!
//! - [`numbers`]: the random numbers m in (0, 1], and their encoding.
//! - [`Sum`]: (count, Σ i·mᵢ), equal to the last bit wherever the result is equal.
//! - [`ResultFile`]: the result as JSON lines, written while the session runs.

mod attach;
mod awake;
mod dials;
mod finding;
mod master;
mod name;
pub mod numbers;
mod result_file;
mod slave;
mod sum;

#[cfg(test)]
mod tests;

pub use crate::discovery::Multicast;
pub use attach::{AttachConfig, AttachOutcome, attach_master, resume_master};
pub use finding::{FindError, Found, Refusal};
pub use master::{MasterConfig, MasterError, MasterEvent, MasterOutcome, MasterRow, SlaveResult, run_master};
pub use name::{SESSION_NAME_BYTES_MAX, SessionName, SessionNameError};
pub use result_file::{FileChange, RESULT_PENDING_BYTES_MAX, RESULT_WRITE_EVERY, ResultFile, ResultFileError};
pub use slave::{
    NotBegun, SlaveConfig, SlaveError, SlaveEvent, SlaveOutcome, SlaveStop, Timings, ended_sessions, resumed_session,
    run_slave, stored_result,
};
pub use sum::{ReportError, Sum, Summary};

/// The name of the group of a session with the default name; see [`SessionName::group_name`].
pub const GROUP_NAME: &str = "session";
