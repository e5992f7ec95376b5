//! The report of a checker on a promise that does not hold.

use std::fmt;

/// A checker found something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule that should hold, as a text.
    pub rule: &'static str,
    /// The node at which it does not.
    pub node: usize,
    /// When.
    pub at_us: u64,
    /// The observation.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" fails at node {} after {} us: {}", self.rule, self.node, self.at_us, self.what)
    }
}
