//! Which ring model a session runs (`protocol.md` §5) and what it does about failures (§6), as a user names them.

use std::fmt;

use clap::ValueEnum;

/// When a slave may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingChoice {
    /// In its turn only: the naive ring, bounded by the wire's latency
    Token,
    /// While its window is open: all send at once, bounded by the CPU
    #[default]
    Pipelined,
    /// As pipelined, but each sends to the next only, which passes it on: for large messages where upload is short
    Relay,
}

impl fmt::Display for RingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Pipelined => "pipelined",
            Self::Relay => "relay",
        })
    }
}

/// Where the session keeps its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityChoice {
    /// In memory: it survives as long as one slave that has all of it
    #[default]
    Memory,
    /// On disk, synced before it is confirmed: it survives the death of all processes
    Disk,
}

impl fmt::Display for DurabilityChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

/// What the session does about a slave that fails or stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureChoice {
    /// Wait for it: approvals stand still until it is back, or until STOP ends the session without it
    #[default]
    Wait,
    /// Go on without it; it comes back by itself while the others still retain what it missed
    Evict,
}

impl fmt::Display for FailureChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Evict => "evict",
        })
    }
}
