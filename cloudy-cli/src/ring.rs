//! The names of ring models (`protocol.md` §5) and failure policies (§6) on the command line.

use std::fmt;

use clap::ValueEnum;
use cloudy_node::{CatchUpPolicy, Durability, OnFailure, RingKind};

/// Ring model: when a slave may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingChoice {
    /// In its turn only: the naive ring, limited by the latency of the network
    Token,
    /// While its window is open: all send at once, limited by the CPU
    #[default]
    Pipelined,
    /// Like pipelined, but each member sends only to the next, which forwards it: for large messages and little upload
    /// bandwidth
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

/// The durability of the session's result.
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

/// The policy for a slave that fails or stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureChoice {
    /// Wait for it: nothing is approved until it returns, or until STOP ends the session without it
    #[default]
    Wait,
    /// Continue without it; it returns by itself while the others retain what it lacks
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

/// The session's policy for a slave that fetches its result more slowly than the result grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatchUpChoice {
    /// The slave waits until the load is lower
    #[default]
    Wait,
    /// The others send less until it has caught up, for at most a minute
    SlowDown,
}

impl fmt::Display for CatchUpChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::SlowDown => "slow-down",
        })
    }
}

impl From<CatchUpChoice> for CatchUpPolicy {
    fn from(choice: CatchUpChoice) -> Self {
        match choice {
            CatchUpChoice::Wait => Self::Wait,
            CatchUpChoice::SlowDown => Self::SlowDown,
        }
    }
}

impl From<RingChoice> for RingKind {
    fn from(choice: RingChoice) -> Self {
        match choice {
            RingChoice::Token => Self::Token,
            RingChoice::Pipelined => Self::Pipelined,
            RingChoice::Relay => Self::Relay,
        }
    }
}

impl From<RingKind> for RingChoice {
    fn from(choice: RingKind) -> Self {
        match choice {
            RingKind::Token => Self::Token,
            RingKind::Pipelined => Self::Pipelined,
            RingKind::Relay => Self::Relay,
        }
    }
}

impl From<DurabilityChoice> for Durability {
    fn from(choice: DurabilityChoice) -> Self {
        match choice {
            DurabilityChoice::Memory => Self::Memory,
            DurabilityChoice::Disk => Self::Disk,
        }
    }
}

impl From<FailureChoice> for OnFailure {
    fn from(choice: FailureChoice) -> Self {
        match choice {
            FailureChoice::Wait => Self::Wait,
            FailureChoice::Evict => Self::Evict,
        }
    }
}
