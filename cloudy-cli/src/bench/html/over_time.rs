//! Rate and latency of each row over the parts of the measured time.

use super::lines::{Chart, Line, Scale};
use super::{escaped, label};
use crate::bench::row::Row;
use crate::bench::timeline::Moment;

/// Maximum of rows in the section: a page of a long sweep would be slow to open.
const ROWS_MAX: usize = 40;

/// The section; rows with one part are left out.
pub(super) fn section(rows: &[Row]) -> String {
    let courses: Vec<&Row> = rows.iter().filter(|row| row.over_time.len() > 1).collect();
    if courses.is_empty() {
        return String::new();
    }
    let left_out = match courses.len().saturating_sub(ROWS_MAX) {
        0 => String::new(),
        more => format!(" Of {more} more rows, --json has it."),
    };
    let charts: String = courses.into_iter().take(ROWS_MAX).map(charts).collect();
    format!(
        "<h2>Over time</h2>\n<p>Of each row, the run with the median rate: messages approved in each part of the measured \
         time, at a node, and the latency of those due in it.{left_out}</p>\n{charts}"
    )
}

fn charts(row: &Row) -> String {
    let baseline = row.baseline.as_ref().map(|baseline| baseline.over_time.as_slice()).unwrap_or_default();
    let rate = |moment: &Moment| Some(moment.approved_per_s);
    let p50 = |moment: &Moment| moment.p50_us.map(|value| value as f64);
    let p99 = |moment: &Moment| moment.p99_us.map(|value| value as f64);
    let rates = vec![line("cloudy", "cloudy", &row.over_time, rate), line("baseline", "baseline", baseline, rate)];
    let latencies = vec![
        line("cloudy", "cloudy, median", &row.over_time, p50),
        line("tail", "cloudy, 99 %", &row.over_time, p99),
        line("baseline", "baseline, median", baseline, p50),
        line("baselinetail", "baseline, 99 %", baseline, p99),
    ];
    let end_ms = row.over_time.last().map_or(0, |moment| moment.at_ms);
    let marks: Vec<(f64, String)> = [0.0, 0.5, 1.0].map(|at| (at, format!("{:.1} s", at * end_ms as f64 / 1e3))).into();
    let chart = |title, lines: Vec<Line>| {
        let lines = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
        Chart { title, scale: Scale::Linear, marks: &marks, lines }.svg()
    };
    format!(
        "<h3>{}</h3>\n<div class=\"charts\">{}{}</div>\n",
        escaped(&label(row)),
        chart("approved a second", rates),
        chart("latency in µs", latencies),
    )
}

/// The value of each part is in its middle.
fn line(class: &str, name: &str, timeline: &[Moment], of: impl Fn(&Moment) -> Option<f64>) -> Line {
    let parts = timeline.len() as f64;
    let points = timeline.iter().enumerate();
    let points = points.filter_map(|(at, moment)| Some(((at as f64 + 0.5) / parts, of(moment)?))).collect();
    Line { class: class.to_owned(), name: name.to_owned(), points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::runs::tests::row;

    #[test]
    fn a_row_has_its_rate_and_latency_beside_the_baselines() {
        let section = section(&[row()]);
        assert_eq!(section.matches("<svg").count(), 2);
        for name in [">cloudy<", ">baseline<", ">cloudy, median<", ">cloudy, 99 %<", ">baseline, 99 %<", ">0.2 s<"] {
            assert!(section.contains(name), "{name}: {section}");
        }
        let bare = charts(&Row { baseline: None, ..row() });
        assert!(bare.contains("cloudy, median") && !bare.contains("baseline"), "{bare}");
    }

    #[test]
    fn a_long_sweep_names_omitted_points_and_one_interval_is_no_timeline() {
        let long = section(&vec![row(); ROWS_MAX + 3]);
        assert_eq!(long.matches("<h3").count(), ROWS_MAX);
        assert!(long.contains("Of 3 more rows"), "{long}");
        let short = Row { over_time: row().over_time[..1].to_vec(), ..row() };
        assert_eq!(section(&[short]), "");
    }
}
