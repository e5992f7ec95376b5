//! The seeded single-thread simulator of `cloudy-proto`'s machine: virtual time, links that drop, delay, reorder across
//! streams and come back, and checkers that look at every step (`protocol.md` §11).

pub mod campaign;
pub mod codec;
pub mod corruption;
pub mod dice;
pub mod disk;
mod faults;
mod load;
pub mod narrow;
pub mod network;
pub mod node;
mod outputs;
pub mod plan;
mod processes;
pub mod queue;
pub mod run;
mod signs;
pub mod slowness;
mod stale_disk;
pub mod state;
pub mod stats;
mod steps;
pub mod transcript;
pub mod world;
