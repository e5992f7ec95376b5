//! Rows that differ in one setting, as lines over its values.

use super::lines::{Chart, Line, Scale};
use super::settings;
use crate::bench::row::Row;

/// Number of colours of lines; then they repeat.
const COLOURS: usize = 6;
/// Maximum of lines in a chart, beside the baseline: more cannot be distinguished.
const LINES_MAX: usize = 12;

/// Rows that are equal in all settings but one.
struct Series<'a> {
    /// The other settings, with their values.
    others: Vec<String>,
    /// By the value of the varied setting.
    rows: Vec<(&'a str, &'a Row)>,
}

/// A figure of a row, and of the baseline beside it.
struct Figure {
    title: &'static str,
    of: fn(&Row) -> Option<f64>,
    of_baseline: Option<fn(&Row) -> Option<f64>>,
}

const FIGURES: [Figure; 4] = [
    Figure {
        title: "approved a second",
        of: |row| Some(row.approved_per_s),
        of_baseline: Some(|row| Some(row.baseline.as_ref()?.approved_per_s)),
    },
    Figure {
        title: "median latency in µs",
        of: |row| Some(row.latency_us?.p50 as f64),
        of_baseline: Some(|row| Some(row.baseline.as_ref()?.latency_us?.p50 as f64)),
    },
    Figure { title: "99 % latency in µs", of: |row| Some(row.latency_us?.p99 as f64), of_baseline: None },
    Figure {
        title: "CPU of all nodes for a message, in ns",
        of: |row| Some(row.cpu_ns_per_message),
        of_baseline: Some(|row| Some(row.baseline.as_ref()?.cpu_ns_per_message)),
    },
];

/// A chart for each setting in which rows differ.
pub(super) fn section(rows: &[Row]) -> String {
    let all: Vec<_> = rows.iter().map(|row| (row, settings(row))).collect();
    let settings_count = all.first().map_or(0, |(_, settings)| settings.len());
    (0..settings_count).map(|at| charts(&all, at)).collect()
}

fn charts<const N: usize>(all: &[(&Row, [(&'static str, String); N])], at: usize) -> String {
    let mut groups: Vec<Series<'_>> = Vec::new();
    for (row, settings) in all {
        let value = settings[at].1.as_str();
        let others = settings.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<String> = others.map(|(_, (name, value))| format!("{name} {value}")).collect();
        match groups.iter_mut().find(|known| known.others == others) {
            Some(series) => series.rows.push((value, row)),
            None => groups.push(Series { others, rows: vec![(value, row)] }),
        }
    }
    // A single value makes no line.
    groups.retain(|series| series.rows.iter().any(|(value, _)| *value != series.rows[0].0));
    let mut values: Vec<&str> = Vec::new();
    let swept = groups.iter().flat_map(|series| &series.rows).map(|(value, _)| *value);
    swept.for_each(|value| {
        if !values.contains(&value) {
            values.push(value);
        }
    });
    sort(&mut values);
    let series: Vec<(String, &Series<'_>)> = names(&groups).into_iter().zip(&groups).take(LINES_MAX).collect();
    if series.is_empty() {
        return String::new();
    }
    let name = all[0].1[at].0;
    let charts: String = FIGURES.iter().map(|figure| figure.chart(&series, &values)).collect();
    format!("<h2>By {name}</h2>\n<p>Dashed: the baseline.</p>\n<div class=\"charts\">{charts}</div>\n")
}

/// Sorts by number if all begin with one; else keeps the order.
fn sort(values: &mut [&str]) {
    let number = |value: &str| value.split(' ').next()?.trim_end_matches("/s").parse::<f64>().ok();
    if values.iter().all(|value| number(value).is_some()) {
        values.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(std::cmp::Ordering::Equal));
    }
}

/// Names by the settings in which they differ from each other.
fn names(groups: &[Series<'_>]) -> Vec<String> {
    let differs = |at: usize| groups.iter().any(|series| series.others[at] != groups[0].others[at]);
    let name = |series: &Series<'_>| {
        let all = series.others.iter().enumerate();
        let words: Vec<&str> = all.filter(|(at, _)| differs(*at)).map(|(_, value)| value.as_str()).collect();
        if words.is_empty() { "cloudy".to_owned() } else { words.join(", ") }
    };
    groups.iter().map(name).collect()
}

impl Figure {
    fn chart(&self, series: &[(String, &Series<'_>)], values: &[&str]) -> String {
        let place = |value: &str| {
            let at = values.iter().position(|known| *known == value).unwrap_or(0);
            (at as f64 + 0.5) / values.len() as f64
        };
        let line = |series: &Series<'_>, class: String, name: String, of: fn(&Row) -> Option<f64>| {
            let points = series.rows.iter().filter_map(|(value, row)| Some((place(value), of(row)?)));
            let mut points: Vec<(f64, f64)> = points.collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line { class, name, points }
        };
        let mut lines = Vec::new();
        for ((name, series), at) in series.iter().zip(0..) {
            let colour = at % COLOURS;
            lines.push(line(series, format!("line{colour}"), name.clone(), self.of));
            if let Some(of_baseline) = self.of_baseline {
                let name = format!("baseline: {name}");
                lines.push(line(series, format!("line{colour} dashed"), name, of_baseline));
            }
        }
        lines.retain(|line| !line.points.is_empty());
        let marks: Vec<(f64, String)> = values.iter().map(|value| (place(value), (*value).to_owned())).collect();
        Chart { title: self.title, scale: Scale::Logarithmic, marks: &marks, lines }.svg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::runs::tests::row;

    #[test]
    fn each_swept_setting_has_its_lines() {
        let rows: Vec<Row> = [(8, 8), (2, 8), (2, 100), (8, 100), (4, 8)]
            .map(|(nodes, size_bytes)| Row { nodes, senders: nodes, size_bytes, ..row() })
            .into();
        let section = section(&rows);
        assert_eq!(section.matches("<h2>").count(), 2, "nodes and size, not senders: all send");
        assert!(section.contains("By nodes") && section.contains("By size"), "{section}");
        assert!(
            section.contains(">8 B<") && section.contains(">baseline: size 100 B<"),
            "by nodes there are two sizes"
        );
        let [by_nodes, _] = section.split("By size").collect::<Vec<_>>()[..] else { panic!("{section}") };
        let at = |mark: &str| by_nodes.find(mark).expect(mark);
        assert!(at(">2</text>") < at(">4</text>") && at(">4</text>") < at(">8</text>"), "{by_nodes}");
    }

    #[test]
    fn rows_that_differ_in_two_settings_are_no_sweep() {
        let other = Row { nodes: 8, senders: 8, size_bytes: 8, ..row() };
        assert_eq!(section(&[row(), other]), "");
        assert_eq!((section(&[]), section(&[row(), row()])), (String::new(), String::new()));
    }
}
