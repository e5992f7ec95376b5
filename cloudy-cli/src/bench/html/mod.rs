//! A bench's findings as one page: plots as SVG and the table, without scripts or external files.

mod bars;
mod lines;
mod over_time;
mod sweeps;

use std::fmt::{Arguments, Write};

use super::report::Findings;
use super::row::Row;

const STYLE: &str = "body{font:14px sans-serif;max-width:64em;margin:2em auto;padding:0 1em}\
pre{overflow-x:auto;font-size:12px}svg{max-width:100%;height:auto}text{font:11px sans-serif;fill:#222}\
.charts{display:flex;flex-wrap:wrap;gap:8px}.grid{stroke:#ddd}polyline{fill:none;stroke-width:1.6}\
.cloudy{fill:#1668b0}.baseline{fill:#9aa5b1}.tail{fill:#7fb3dd}.baselinetail{fill:#d3d9de}\
polyline.cloudy,polyline.tail,polyline.baseline,polyline.baselinetail{fill:none}\
.cloudy,.line0{stroke:#1668b0}.baseline{stroke:#9aa5b1}.tail{stroke:#7fb3dd}.baselinetail{stroke:#d3d9de}\
.line1{stroke:#c2571a}.line2{stroke:#2e8540}.line3{stroke:#8250a8}.line4{stroke:#b8860b}.line5{stroke:#c03060}\
.dashed{stroke-dasharray:5 3}";

/// The first line of a page.
pub(crate) const START: &str = "<!DOCTYPE html>\n";

/// The page.
pub(crate) fn page(findings: &Findings) -> String {
    let bars = bars::section(&findings.rows);
    let over_time = over_time::section(&findings.rows);
    let sweeps = sweeps::section(&findings.rows);
    format!(
        "{START}<html lang=\"en\"><head><meta charset=\"utf-8\"><title>cloudy bench</title>\
         <style>{STYLE}</style></head><body>\n<h1>cloudy bench</h1>\n<pre>{}</pre>\n\
         {bars}{sweeps}{over_time}<h2>All figures</h2>\n<pre>{}</pre>\n</body></html>\n",
        escaped(&findings.conditions.lines()),
        escaped(&findings.text()),
    )
}

/// The settings of a row, with names and values.
fn settings(row: &Row) -> [(&'static str, String); 9] {
    // A setting that follows from another is not listed.
    let all_send = row.senders == row.nodes;
    [
        ("nodes", row.nodes.to_string()),
        ("senders", if all_send { "all".to_owned() } else { row.senders.to_string() }),
        ("size", format!("{} B", row.size_bytes)),
        ("rate", row.rate_per_s.map_or_else(|| "full".to_owned(), |rate| format!("{rate}/s"))),
        ("window", if row.window_adapts { "adapts".to_owned() } else { format!("{} KiB", row.window_bytes >> 10) }),
        ("ring", row.ring.to_owned()),
        ("durability", row.durability.to_owned()),
        ("loss", format!("{} %", row.loss * 100.0)),
        ("delay", format!("{} ms", row.delay_us as f64 / 1e3)),
    ]
}

/// A short label of a row.
fn label(row: &Row) -> String {
    let [nodes, senders, size, rest @ ..] = settings(row).map(|(name, value)| match (name, value.as_str()) {
        ("rate", "full") | ("window", "adapts") | ("durability", "memory") | ("loss", "0 %") | ("delay", "0 ms") => {
            String::new()
        }
        ("window" | "loss" | "delay", _) => format!(", {name} {value}"),
        ("nodes" | "senders" | "size", _) => value,
        _ => format!(", {value}"),
    });
    format!("{nodes} nodes, {senders} send {size}{}", rest.concat())
}

fn text(svg: &mut String, x: f64, y: f64, words: &str) {
    element(svg, format_args!(r#"<text x="{x:.1}" y="{y:.1}">{words}</text>"#));
}

fn element(svg: &mut String, element: Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = writeln!(svg, "{element}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::findings;
    use crate::bench::runs::tests::row;

    #[test]
    fn a_page_shows_every_row_and_fetches_nothing() {
        let mut findings = findings();
        findings.conditions.flags = "bench --html <b>&".to_owned();
        let page = page(&findings);
        for heading in ["Approved messages a second", "Latency in µs", "Over time", "All figures"] {
            assert!(page.contains(heading), "{heading}");
        }
        assert!(page.contains("bench --html &lt;b&gt;&amp;"), "{page}");
        for fetched in ["<script", "href", "src=", "url("] {
            assert!(!page.contains(fetched), "{fetched}");
        }
    }

    #[test]
    fn a_label_omits_default_values() {
        assert_eq!(label(&Row { window_adapts: true, ..row() }), "4 nodes, all send 100 B, pipelined");
        let other = Row { senders: 1, rate_per_s: Some(7), window_bytes: 1 << 20, loss: 0.05, ..row() };
        let other = Row { durability: "disk", delay_us: 2_500, ..other };
        let words = "4 nodes, 1 send 100 B, 7/s, window 1024 KiB, pipelined, disk, loss 5 %, delay 2.5 ms";
        assert_eq!(label(&other), words);
    }
}
