//! What one group's users and the driver share: its state, its receipts and its readers.

mod approvals;
mod approved;
mod config;
pub(crate) mod feed;
mod outbox;
mod receipt;
pub(crate) mod shared;

pub use approved::{Approved, ApprovedError, Events, EventsError};
pub use config::GroupConfig;
pub use feed::ApprovedItem;
pub use receipt::{Approval, Receipt, ReceiptError};
pub use shared::{Divergence, EndReason};
