//! The results of a session's slaves as a table, and the verdict on them.

use std::fmt;

use crate::table::{self, Column};

/// The result of one slave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// The slave's name.
    pub(crate) node: String,
    /// It was killed on purpose, so no result is expected.
    pub(crate) killed: bool,
    /// Its result; `None` if it reported none.
    pub(crate) outcome: Option<Outcome>,
    /// Number of approved messages that it broadcast.
    pub(crate) own: u64,
    /// Number of its confirmations for others.
    pub(crate) confirmations: u64,
}

/// A result in short.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Approved messages.
    pub(crate) count: u64,
    /// Σ i·mᵢ over them.
    pub(crate) sum: f64,
    /// The digest over them, as text.
    pub(crate) digest: String,
}

impl Outcome {
    /// Equal to the last bit.
    fn equals(&self, other: &Self) -> bool {
        self.count == other.count && self.sum.to_bits() == other.sum.to_bits() && self.digest == other.digest
    }
}

const COLUMNS: [Column; 6] = [
    Column::text("node"),
    Column::number("count"),
    Column::number("sum"),
    Column::text("digest"),
    Column::number("own"),
    Column::number("confirmations"),
];

/// Renders the rows as a table. Sums are the shortest text that parses to the same f64.
pub(crate) fn render(rows: &[Row]) -> String {
    table::render(&COLUMNS, rows.iter().map(|row| cells(row).to_vec()))
}

fn cells(row: &Row) -> [String; 6] {
    let [count, sum, digest] = match &row.outcome {
        Some(outcome) => [outcome.count.to_string(), outcome.sum.to_string(), outcome.digest.clone()],
        None => [if row.killed { "killed" } else { "-" }, "-", "-"].map(str::to_owned),
    };
    [row.node.clone(), count, sum, digest, row.own.to_string(), row.confirmations.to_string()]
}

/// Whether all slaves have the same result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// All slaves that were not killed have it.
    Equal {
        /// Number of results.
        nodes: usize,
        /// The result.
        outcome: Outcome,
    },
    /// At least two results differ.
    Unequal {
        /// Slaves whose result is not the first slave's.
        differing: Vec<String>,
    },
    /// The reported results agree, and some are missing.
    Missing {
        /// Slaves without a result.
        missing: Vec<String>,
    },
    /// There is only one result: of one slave, or of the only one that was not killed.
    Single {
        /// The result.
        outcome: Outcome,
    },
    /// No message was approved.
    Nothing,
    /// There was no slave.
    Empty,
}

impl Verdict {
    /// The verdict on the rows.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let names = |chosen: &dyn Fn(&Row) -> bool| -> Vec<String> {
            rows.iter().filter(|row| chosen(row)).map(|row| row.node.clone()).collect()
        };
        let missing = names(&|row| row.outcome.is_none() && !row.killed);
        let Some(first) = rows.iter().find_map(|row| row.outcome.as_ref()) else {
            return if rows.is_empty() { Self::Empty } else { Self::Missing { missing } };
        };
        let differing = names(&|row| row.outcome.as_ref().is_some_and(|outcome| !outcome.equals(first)));
        if !differing.is_empty() {
            Self::Unequal { differing }
        } else if !missing.is_empty() {
            Self::Missing { missing }
        } else if first.count == 0 {
            Self::Nothing
        } else {
            match rows.iter().filter(|row| row.outcome.is_some()).count() {
                1 => Self::Single { outcome: first.clone() },
                nodes => Self::Equal { nodes, outcome: first.clone() },
            }
        }
    }

    /// Whether all expected results are there and equal: only these verdicts end with status 0.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Equal { .. } | Self::Single { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal { nodes, outcome } => {
                let Outcome { count, sum, digest } = outcome;
                write!(f, "EQUAL: all {nodes} results are the same: {count} messages, sum {sum}, digest {digest}")
            }
            Self::Unequal { differing } => {
                write!(f, "UNEQUAL: these results differ from the first: {}", differing.join(", "))
            }
            Self::Missing { missing } => write!(f, "INCOMPLETE: no result from {}", missing.join(", ")),
            Self::Single { outcome: Outcome { count, sum, digest } } => {
                write!(f, "ONE RESULT, and no other to compare it with: {count} messages, sum {sum}, digest {digest}")
            }
            Self::Nothing => f.write_str("NOTHING TO COMPARE: no message was approved; was SEND too short?"),
            Self::Empty => f.write_str("INCOMPLETE: there was no slave"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str, count: u64, sum: f64) -> Row {
        let outcome = Some(Outcome { count, sum, digest: "9f86d081".to_owned() });
        Row { node: node.to_owned(), killed: false, outcome, own: count / 4, confirmations: count }
    }

    fn silent(node: &str) -> Row {
        Row { node: node.to_owned(), killed: false, outcome: None, own: 0, confirmations: 7 }
    }

    #[test]
    fn columns_are_aligned_and_numbers_end_flush() {
        let table = render(&[row("slave-1", 262_144, 17_179_900_000.25), row("größer", 8, 0.1 + 0.2), silent("c")]);
        let expected = "\
node      count                  sum  digest      own  confirmations
slave-1  262144       17179900000.25  9f86d081  65536         262144
größer        8  0.30000000000000004  9f86d081      2              8
c             -                    -  -             0              7
";
        assert_eq!(table, expected);
    }

    #[test]
    fn of_the_killed_no_result_is_expected() {
        let killed = || Row { killed: true, ..silent("b") };
        assert_eq!(cells(&killed()), ["b", "killed", "-", "-", "0", "7"]);
        let equal = Verdict::of(&[row("a", 5, 1.0), killed(), row("c", 5, 1.0)]);
        assert!(matches!(equal, Verdict::Equal { nodes: 2, .. }), "{equal}");
        assert_eq!(Verdict::of(&[silent("a"), killed()]), Verdict::Missing { missing: vec!["a".to_owned()] });
        // A result that it had before it was killed counts.
        let late = Row { killed: true, ..row("b", 6, 1.0) };
        assert!(matches!(Verdict::of(&[row("a", 5, 1.0), late]), Verdict::Unequal { .. }));
        assert!(!Verdict::of(&[killed()]).is_good());
        let only = Verdict::of(&[row("a", 5, 1.0), killed()]);
        assert!(only.is_good() && only.to_string().starts_with("ONE RESULT"), "{only}");
    }

    #[test]
    fn sums_read_back_to_the_same_bits() {
        for sum in [0.0, 0.1 + 0.2, 1.0 / 3.0, 1e300, f64::MIN_POSITIVE, 123_456_789.123_456_79] {
            let cell = &cells(&row("a", 1, sum))[2];
            assert_eq!(cell.parse::<f64>().expect("a number").to_bits(), sum.to_bits(), "{cell}");
        }
    }

    #[test]
    fn equal_means_every_result_is_there_and_the_same_to_the_last_bit() {
        let sum = 0.1 + 0.2;
        let equal = Verdict::of(&[row("a", 5, sum), row("b", 5, sum)]);
        assert!(equal.is_good());
        assert_eq!(
            equal.to_string(),
            "EQUAL: all 2 results are the same: 5 messages, sum 0.30000000000000004, digest 9f86d081"
        );
        let next = f64::from_bits(sum.to_bits() + 1);
        let mut other_digest = row("b", 5, sum);
        other_digest.outcome.as_mut().expect("a result").digest = "00".to_owned();
        for odd in [row("b", 6, sum), row("b", 5, next), other_digest] {
            let verdict = Verdict::of(&[row("a", 5, sum), odd, silent("c")]);
            assert_eq!(verdict, Verdict::Unequal { differing: vec!["b".to_owned()] });
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn nothing_is_equal_to_nothing() {
        let nothing = Verdict::of(&[row("a", 0, 0.0), row("b", 0, 0.0)]);
        assert_eq!(nothing, Verdict::Nothing);
        assert!(!nothing.is_good());
        let single = Verdict::of(&[row("a", 5, 1.0)]);
        assert!(single.is_good());
        for verdict in [nothing, single] {
            assert!(!verdict.to_string().contains("EQUAL"), "{verdict}");
        }
    }

    #[test]
    fn a_missing_result_is_not_equal() {
        let verdict = Verdict::of(&[silent("a"), row("b", 5, 1.0), silent("c")]);
        assert_eq!(verdict.to_string(), "INCOMPLETE: no result from a, c");
        assert!(!verdict.is_good());
        assert!(!Verdict::of(&[silent("a")]).is_good());
        assert_eq!(Verdict::of(&[]), Verdict::Empty);
    }
}
