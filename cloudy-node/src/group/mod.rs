//! The state that the driver shares with the users of a group: receipts, readers, the outbox.

mod approvals;
mod approved;
mod config;
pub(crate) mod expiring;
pub(crate) mod feed;
mod outbox;
mod receipt;
pub(crate) mod saved;
pub(crate) mod shared;
#[cfg(feature = "admin")]
pub(crate) mod stats;

pub use approved::{Approved, ApprovedError, Events, EventsError};
pub use cloudy_proto::ApprovedItem;
pub use config::GroupConfig;
pub use receipt::{Approval, Receipt, ReceiptError};
pub use shared::{Divergence, EndReason, SUSPEND_TIMEOUT};
