//! Embed cloudy: nodes, groups, approved messages over QUIC.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod cluster_key;
pub mod discovery;
pub mod endpoint;
pub mod identity;
pub mod key_file;
pub mod tls;
#[cfg(feature = "fault")]
pub mod fault;
