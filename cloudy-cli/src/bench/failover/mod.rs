//! The pause of a group at a failure, the catch-up of a newcomer, and the memory of a node over time.
//!
//! ```text
//!   commands/failover.rs ─► rounds   ─► cluster (a group under load) ─► fleet ═══ node.rs, a process each
//!                           catch_up ─►
//!                           soak     ─►
//! ```

pub(crate) mod catch_up;
pub(crate) mod cluster;
pub(crate) mod history;
pub(crate) mod node;
pub(crate) mod report;
pub(crate) mod rounds;
pub(crate) mod soak;
