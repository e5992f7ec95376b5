//! The report of a bench: a table, or one JSON object.

use serde::Serialize;

use super::latency::Quantiles;
use super::machine::Conditions;
use super::row::{Row, Verdict};
use crate::table::{self, Column};

const COLUMNS: [Column; 22] = [
    Column::number("row"),
    Column::number("nodes"),
    Column::number("senders"),
    Column::number("bytes"),
    Column::number("window"),
    Column::number("ring"),
    Column::number("durability"),
    Column::number("loss"),
    Column::number("delay"),
    Column::number("rate"),
    Column::number("approved/s"),
    Column::number("MB/s"),
    Column::number("cpu ns"),
    Column::number("packets"),
    Column::number("MiB"),
    Column::number("p50"),
    Column::number("p99"),
    Column::number("p999"),
    Column::number("max"),
    Column::number("of baseline"),
    Column::number("latency"),
    Column::number("target"),
];
/// The column of a row's rate, and of its median latency.
const RATE_AT: usize = 10;
const LATENCY_AT: usize = 15;

/// All findings of a bench.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    #[serde(flatten)]
    pub(crate) conditions: Conditions,
    pub(crate) rows: Vec<Row>,
}

impl Findings {
    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        // Numbers and text only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Conditions, table, and the meaning of its columns.
    pub(crate) fn text(&self) -> String {
        let mut text = self.conditions.lines();
        let rows = self.rows.iter().zip(1..);
        let lines = rows.flat_map(|(row, number)| std::iter::once(cells(row, number)).chain(baseline_cells(row)));
        text.push_str(&table::render(&COLUMNS, lines.map(Vec::from)));
        text.push_str("EQUAL: in every run all nodes ended with the same result\n");
        text.push_str("cpu ns, packets: of all nodes, a message; p50 … max: µs from due to approved, at all nodes\n");
        text
    }
}

fn cells(row: &Row, number: usize) -> [String; COLUMNS.len()] {
    let [p50, p99, p999, max] = latency(row.latency_us);
    let ratio = row.ratio.zip(row.ratio_min.zip(row.ratio_max));
    [
        number.to_string(),
        row.nodes.to_string(),
        row.senders.to_string(),
        row.size_bytes.to_string(),
        format!("{}{} KiB", if row.window_adapts { "~" } else { "" }, row.window_bytes >> 10),
        row.ring.to_owned(),
        row.durability.to_owned(),
        unless_zero(row.loss, format!("{} %", row.loss * 100.0)),
        unless_zero(row.delay_us as f64, format!("{} ms", row.delay_us as f64 / 1e3)),
        row.rate_per_s.map_or_else(|| "full".to_owned(), |rate| format!("{rate}/s")),
        format!("{:.0}", row.approved_per_s),
        format!("{:.2}", row.mb_per_s),
        format!("{:.0}", row.cpu_ns_per_message),
        format!("{:.3}", row.packets_per_message),
        format!("{:.0}", row.memory_mib_max),
        p50,
        p99,
        p999,
        max,
        ratio.map_or_else(String::new, |(ratio, (min, max))| format!("{ratio:.2} ({min:.2}..{max:.2})")),
        row.latency_ratio.map_or_else(String::new, |ratio| format!("{:.2} / {:.2}", ratio.p50, ratio.p99)),
        row.target.as_ref().map_or_else(String::new, Verdict::in_short),
    ]
}

fn unless_zero(value: f64, words: String) -> String {
    if value == 0.0 { String::new() } else { words }
}

/// The line below a row.
fn baseline_cells(row: &Row) -> Option<[String; COLUMNS.len()]> {
    let baseline = row.baseline.as_ref()?;
    let mut cells: [String; COLUMNS.len()] = std::array::from_fn(|_| String::new());
    let figures = [
        format!("{:.0}", baseline.approved_per_s),
        format!("{:.2}", baseline.approved_per_s * row.size_bytes as f64 / 1e6),
        format!("{:.0}", baseline.cpu_ns_per_message),
        format!("{:.3}", baseline.packets_per_message),
    ];
    cells[RATE_AT - 1] = "baseline".to_owned();
    for (cell, value) in cells[RATE_AT..].iter_mut().zip(figures) {
        *cell = value;
    }
    for (cell, value) in cells[LATENCY_AT..].iter_mut().zip(latency(baseline.latency_us)) {
        *cell = value;
    }
    Some(cells)
}

fn latency(quantiles: Option<Quantiles>) -> [String; 4] {
    match quantiles {
        Some(Quantiles { p50, p99, p999, max }) => [p50, p99, p999, max].map(|value| value.to_string()),
        None => ["-"; 4].map(str::to_owned),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::machine::Machine;
    use crate::bench::runs::tests::row;
    use crate::bench::targets::Target;

    /// Two rows, the second without a baseline.
    pub(crate) fn findings() -> Findings {
        let machine = Machine { cpu: "Fast CPU".to_owned(), cores: 2, kernel: "Linux 6.1".to_owned() };
        let conditions = Conditions {
            version: "0.1.0",
            build: "release",
            commit: "0123456789ab".to_owned(),
            flags: "bench --baseline".to_owned(),
            machine,
        };
        let bare = Row {
            size_bytes: 4,
            durability: "disk",
            loss: 0.05,
            delay_us: 20_000,
            rate_per_s: Some(100),
            latency_us: None,
            baseline: None,
            ratio: None,
            ratio_min: None,
            ratio_max: None,
            latency_ratio: None,
            ..row()
        };
        let target = Target::OfBaseline(0.8).judge(&row(), &[]);
        Findings { conditions, rows: vec![Row { target, ..row() }, bare] }
    }

    #[test]
    fn the_json_has_all_fields() {
        let json = findings().json();
        assert_eq!(json.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).expect("text"));
    }

    #[test]
    fn a_column_without_anything_is_left_out() {
        let with = findings();
        let without = Findings { rows: vec![row()], ..findings() };
        for head in ["loss", "delay", "target"] {
            assert!(with.text().contains(head) && !without.text().contains(head), "{head}");
        }
    }

    #[test]
    fn the_table_is_aligned() {
        insta::assert_snapshot!(findings().text());
    }
}
