//! Rates and latencies of all rows as bars.

use super::{element, escaped, label, text};
use crate::bench::row::Row;

/// Sizes in the plots, in pixels.
const LABEL_WIDTH: f64 = 280.0;
const PLOT_WIDTH: f64 = 560.0;
const VALUE_WIDTH: f64 = 110.0;
const BAR_HEIGHT: f64 = 12.0;
const ROW_GAP: f64 = 10.0;
const AXIS_HEIGHT: f64 = 22.0;

/// A bar: its class, its value, and its label.
struct Bar {
    class: &'static str,
    value: f64,
    text: String,
}

/// The section.
pub(super) fn section(rows: &[Row]) -> String {
    let (throughput, latency) = (plot(rows, rates), plot(rows, latencies));
    format!(
        "<h2>Approved messages a second</h2>\n<p>Blue: cloudy. Grey: the baseline, bare QUIC. The scale is \
         logarithmic.</p>\n{throughput}\
         <h2>Latency in µs, from due to approved</h2>\n<p>Dark: median; light: 99 %.</p>\n{latency}"
    )
}

fn rates(row: &Row) -> Vec<Bar> {
    let text = |value: f64| format!("{value:.0}");
    let ratio = row.ratio.map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
    let own = Bar { class: "cloudy", value: row.approved_per_s, text: text(row.approved_per_s) + &ratio };
    let baseline = row.baseline.as_ref().map(|baseline| baseline.approved_per_s);
    let baseline = baseline.map(|value| Bar { class: "baseline", value, text: text(value) });
    std::iter::once(own).chain(baseline).collect()
}

fn latencies(row: &Row) -> Vec<Bar> {
    let baseline = row.baseline.as_ref().and_then(|baseline| baseline.latency_us);
    let both = [(row.latency_us, "cloudy", "tail"), (baseline, "baseline", "baselinetail")];
    let bars = both.into_iter().filter_map(|(quantiles, middle, tail)| Some((quantiles?, middle, tail)));
    let bar = |class, value: u64| Bar { class, value: value as f64, text: value.to_string() };
    bars.flat_map(|(quantiles, middle, tail)| [bar(middle, quantiles.p50), bar(tail, quantiles.p99)]).collect()
}

/// Horizontal bars for each row, on a logarithmic scale of whole decades.
fn plot(rows: &[Row], bars: fn(&Row) -> Vec<Bar>) -> String {
    let groups: Vec<(String, Vec<Bar>)> = rows.iter().map(|row| (label(row), bars(row))).collect();
    let values = || groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value.max(1.0).log10());
    let low = values().fold(f64::INFINITY, f64::min).floor();
    let high = values().fold(f64::NEG_INFINITY, f64::max).floor() + 1.0;
    if !low.is_finite() {
        return "<p>Nothing was measured.</p>\n".to_owned();
    }
    let x = |decade: f64| LABEL_WIDTH + (decade - low) / (high - low) * PLOT_WIDTH;
    let (mut svg, mut y) = (String::new(), AXIS_HEIGHT);
    for (label, bars) in &groups {
        text(&mut svg, 0.0, y + BAR_HEIGHT - 2.0, &escaped(label));
        for Bar { class, value, text: words } in bars {
            // A shorter bar would not be visible.
            let width = (x(value.max(1.0).log10()) - LABEL_WIDTH).max(1.0);
            element(
                &mut svg,
                format_args!(
                    r#"<rect class="{class}" x="{LABEL_WIDTH}" y="{y}" width="{width:.1}" height="{BAR_HEIGHT}"/>"#
                ),
            );
            text(&mut svg, LABEL_WIDTH + width + 4.0, y + BAR_HEIGHT - 2.0, words);
            y += BAR_HEIGHT;
        }
        y += ROW_GAP;
    }
    let mut grid = String::new();
    for decade in low as i32..=high as i32 {
        let x = x(f64::from(decade));
        element(&mut grid, format_args!(r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{AXIS_HEIGHT}" y2="{y}"/>"#));
        text(&mut grid, x, AXIS_HEIGHT - 6.0, &format!("{:.0}", 10f64.powi(decade)));
    }
    let width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH;
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\">\n{grid}{svg}</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::findings;

    #[test]
    fn every_row_has_its_bars() {
        let section = section(&findings().rows);
        assert_eq!(section.matches("<svg").count(), 2);
        assert_eq!(section.matches(r#"<rect class="cloudy""#).count(), 3, "two rates and one latency");
        assert_eq!(section.matches(r#"<rect class="baseline""#).count(), 2);
        assert!(section.contains(">200000 (0.25)<"), "{section}");
    }

    #[test]
    fn bars_stay_on_the_page() {
        let section = section(&findings().rows);
        for width in section.split(r#"width=""#).skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok())
        {
            assert!((1.0..=PLOT_WIDTH).contains(&width), "{width}");
        }
    }

    #[test]
    fn no_rows_are_no_plot() {
        assert!(plot(&[], rates).contains("Nothing"));
    }
}
