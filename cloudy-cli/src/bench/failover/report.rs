//! The reports of these benches: a table, or one JSON object.

use serde::Serialize;

use super::catch_up::CatchUp;
use super::rounds::Row;
use super::soak::{Look, Soak};
use crate::bench::latency::Quantiles;
use crate::bench::machine::Conditions;
use crate::table::{self, Column};

const COLUMNS: [Column; 11] = [
    Column::number("failure"),
    Column::number("rounds"),
    Column::number("view p50"),
    Column::number("p99"),
    Column::number("max"),
    Column::number("still p50"),
    Column::number("p99"),
    Column::number("max"),
    Column::number("before/s"),
    Column::number("during/s"),
    Column::number("after/s"),
];
/// Maximum of memory readings in the table.
const LOOKS_SHOWN: usize = 12;

/// The findings of `cloudy bench failover`.
#[derive(Debug, Serialize)]
pub(crate) struct FailoverFindings {
    #[serde(flatten)]
    pub(crate) conditions: Conditions,
    /// Number of processes of a group.
    pub(crate) nodes: usize,
    pub(crate) size_bytes: usize,
    /// For each member.
    pub(crate) rate_per_s: u64,
    pub(crate) failures: Vec<Row>,
    pub(crate) catch_up: Option<CatchUp>,
}

/// The findings of `cloudy bench soak`.
#[derive(Debug, Serialize)]
pub(crate) struct SoakFindings {
    #[serde(flatten)]
    pub(crate) conditions: Conditions,
    pub(crate) nodes: usize,
    pub(crate) size_bytes: usize,
    /// For each node.
    pub(crate) rate_per_s: u64,
    #[serde(flatten)]
    pub(crate) soak: Soak,
}

impl FailoverFindings {
    /// Conditions, table, and the meaning of its columns.
    pub(crate) fn text(&self) -> String {
        let mut text = self.conditions.lines();
        let Self { nodes, size_bytes, rate_per_s, .. } = self;
        text.push_str(&format!("{nodes} nodes, each member {rate_per_s}/s of {size_bytes} B\n"));
        if !self.failures.is_empty() {
            text.push_str(&table::render(&COLUMNS, self.failures.iter().map(|row| cells(row).to_vec())));
            text.push_str(
                "view: ms from the failure to a survivor's first approval of its own in the new view; still: the \
                 longest time\nwithout any approval, ms; /s: approved a second\n",
            );
        }
        if let Some(CatchUp { joins, messages, took_us, messages_per_s, mb_per_s }) = &self.catch_up {
            text.push_str(&format!(
                "catching up: {messages} messages in {} ms: {messages_per_s:.0}/s, {mb_per_s:.1} MB/s (median of \
                 {joins})\n",
                took_us / 1_000
            ));
        }
        text.push_str("EQUAL: every group ended with the same result at all its members\n");
        text
    }
}

impl SoakFindings {
    /// Conditions, the memory at some times, and the result.
    pub(crate) fn text(&self) -> String {
        let mut text = self.conditions.lines();
        let Self { nodes, size_bytes, rate_per_s, soak, .. } = self;
        text.push_str(&format!("{nodes} nodes, each {rate_per_s}/s of {size_bytes} B\n"));
        match &soak.memory {
            None => text.push_str("memory: not available on this system\n"),
            Some(memory) => {
                let shown = memory.looks.iter().skip(memory.looks.len() / LOOKS_SHOWN - 1);
                shown.step_by(memory.looks.len() / LOOKS_SHOWN).for_each(|look| text.push_str(&line(look)));
                text.push_str(&format!(
                    "the largest process: {:.1} MiB at a quarter of the time, {:.1} at the end, {:.1} at most\n",
                    memory.quarter_mib, memory.end_mib, memory.max_mib
                ));
            }
        }
        text.push_str(&format!(
            "EQUAL: all {nodes} results are the same: {} messages, {:.0}/s\n",
            soak.messages, soak.approved_per_s
        ));
        text
    }
}

fn line(look: &Look) -> String {
    let each: Vec<String> = look.mib.iter().map(|mib| format!("{mib:>6.1}")).collect();
    format!("{:>6} s: {} MiB\n", look.at_us / 1_000_000, each.join(" "))
}

/// One line of JSON.
pub(crate) fn json(findings: &impl Serialize) -> String {
    // Numbers and text only: this cannot fail.
    serde_json::to_string(findings).unwrap_or_default() + "\n"
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let [view_p50, view_p99, view_max] = millis(row.new_view_us);
    let [still_p50, still_p99, still_max] = millis(row.still_us);
    [
        row.failure.to_owned(),
        row.rounds.to_string(),
        view_p50,
        view_p99,
        view_max,
        still_p50,
        still_p99,
        still_max,
        format!("{:.0}", row.before_per_s),
        format!("{:.0}", row.during_per_s),
        format!("{:.0}", row.after_per_s),
    ]
}

fn millis(quantiles: Option<Quantiles>) -> [String; 3] {
    match quantiles {
        Some(Quantiles { p50, p99, max, .. }) => [p50, p99, max].map(|value| (value / 1_000).to_string()),
        None => ["-"; 3].map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::failover::soak::Memory;
    use crate::bench::machine::Machine;

    fn conditions() -> Conditions {
        let machine = Machine { cpu: "Fast CPU".to_owned(), cores: 2, kernel: "Linux 6.1".to_owned() };
        Conditions {
            version: "0.1.0",
            build: "release",
            commit: "0123456789ab".to_owned(),
            flags: "bench failover".to_owned(),
            machine,
        }
    }

    #[test]
    fn a_reader_sees_milliseconds() {
        let quantiles = |p50| Some(Quantiles { p50, p99: 2 * p50, p999: 3 * p50, max: 4 * p50 });
        let row = |failure, new_view_us, p50| Row {
            failure,
            rounds: 50,
            new_view_us,
            still_us: quantiles(p50),
            before_per_s: 2_500.0,
            during_per_s: 12.0,
            after_per_s: 3_900.0,
            each: Vec::new(),
        };
        let findings = FailoverFindings {
            conditions: conditions(),
            nodes: 5,
            size_bytes: 100,
            rate_per_s: 500,
            failures: vec![row("member", quantiles(200_000), 190_000), row("master", None, 9_000)],
            catch_up: Some(CatchUp {
                joins: 5,
                messages: 300_000,
                took_us: 1_500_000,
                messages_per_s: 200_000.0,
                mb_per_s: 20.0,
            }),
        };
        insta::assert_snapshot!(findings.text());
    }

    #[test]
    fn a_reader_sees_the_memory_now_and_then() {
        let looks: Vec<Look> = (1..=60).map(|at| Look { at_us: at * 10_000_000, mib: vec![12.5, at as f64] }).collect();
        let memory = Some(Memory { quarter_mib: 15.0, end_mib: 60.0, max_mib: 60.0, looks });
        let soak = Soak { duration_us: 600_000_000, messages: 6_000_000, approved_per_s: 10_000.0, memory };
        let findings = SoakFindings { conditions: conditions(), nodes: 2, size_bytes: 100, rate_per_s: 5_000, soak };
        insta::assert_snapshot!(findings.text());
        let soak = Soak { memory: None, ..findings.soak };
        assert!(SoakFindings { soak, ..findings }.text().contains("not available"));
    }
}
