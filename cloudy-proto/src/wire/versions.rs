//! The wire versions that a program speaks.

use core::fmt;

/// The newest wire version of this release. It is also the newest feature level of a group that this release supports.
pub const WIRE_VERSION: u16 = 7;

/// The version that the test build with the feature `next-version` speaks beside [`WIRE_VERSION`].
#[cfg(feature = "next-version")]
pub const NEXT_VERSION: u16 = WIRE_VERSION + 1;

/// A range of wire versions: a program speaks each of them. Two programs use the highest version that both speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireVersions {
    /// The oldest version.
    pub min: u16,
    /// The newest version.
    pub max: u16,
}

impl WireVersions {
    /// The versions that this release speaks.
    pub const CURRENT: Self = Self { min: WIRE_VERSION, max: WIRE_VERSION };
    /// The versions that the test build speaks as the next release.
    #[cfg(feature = "next-version")]
    pub const NEXT: Self = Self { min: WIRE_VERSION, max: NEXT_VERSION };

    /// The highest version in both ranges; none if they have none in common.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// `7`, or `7 to 8`.
impl fmt::Display for WireVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.max) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_use_the_highest_version_that_both_speak() {
        let range = |min, max| WireVersions { min, max };
        assert_eq!(range(7, 8).common(range(8, 9)), Some(8));
        assert_eq!(range(7, 9).common(range(6, 8)), Some(8));
        assert_eq!(range(7, 7).common(range(8, 9)), None);
        assert_eq!(range(9, 9).common(range(7, 8)), None);
        assert_eq!([range(7, 7).to_string(), range(7, 8).to_string()], ["7", "7 to 8"]);
    }
}
