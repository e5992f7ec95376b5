//! Processes of the example `kv`, and what their clients may rely on.

#![cfg(unix)]

mod client;
mod cluster;
mod history;
mod load;
#[cfg(target_os = "linux")]
mod network;
mod watches;
