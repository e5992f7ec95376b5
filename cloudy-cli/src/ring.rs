//! Which ring model a session runs (`protocol.md` §5), as a user names it.

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
}

impl fmt::Display for RingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Pipelined => "pipelined",
        })
    }
}
