//! Charts of lines, with axes and a legend.

use super::{element, escaped, text};

/// Sizes in pixels.
const WIDTH: f64 = 440.0;
const PLOT_HEIGHT: f64 = 190.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const LEGEND_LINE: f64 = 14.0;
const MARK_WIDTH: f64 = 18.0;
/// Number of marks of a linear axis, beside the zero.
const LINEAR_MARKS: u32 = 4;

/// The scale of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero on.
    Linear,
    /// In whole decades.
    Logarithmic,
}

/// A line through points: a position from 0 at the left to 1 at the right, and a value.
pub(super) struct Line {
    pub(super) class: String,
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// The content of a chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) scale: Scale,
    /// Marks below: position from 0 to 1, and text.
    pub(super) marks: &'a [(f64, String)],
    pub(super) lines: Vec<Line>,
}

/// The range of an axis.
#[derive(Clone, Copy)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Chart<'_> {
    /// The chart as SVG; empty without points.
    pub(super) fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let Some(axis) = Axis::over(self.scale, values()) else { return String::new() };
        let height = TOP + PLOT_HEIGHT + LEGEND_LINE * (self.lines.len() as f64 + 1.5);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\">\n"
        );
        text(&mut svg, 0.0, 12.0, &escaped(self.title));
        for value in axis.marks() {
            let y = axis.y(value);
            let right = WIDTH - RIGHT;
            element(&mut svg, format_args!(r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#));
            text(&mut svg, 0.0, y + 4.0, &short(value));
        }
        for (at, words) in self.marks {
            text(&mut svg, x(*at) - 3.0 * words.chars().count() as f64, TOP + PLOT_HEIGHT + 13.0, &escaped(words));
        }
        let legend = TOP + PLOT_HEIGHT + 1.5 * LEGEND_LINE;
        for (line, at) in self.lines.iter().zip(1..) {
            line.draw(&mut svg, axis, legend + LEGEND_LINE * f64::from(at) - 4.0);
        }
        svg + "</svg>\n"
    }
}

impl Line {
    fn draw(&self, svg: &mut String, axis: Axis, legend_y: f64) {
        let Self { class, name, points } = self;
        let points: Vec<String> =
            points.iter().map(|&(at, value)| format!("{:.1},{:.1}", x(at), axis.y(value))).collect();
        element(svg, format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
        let (end, y) = (LEFT + MARK_WIDTH, legend_y - 4.0);
        element(svg, format_args!(r#"<polyline class="{class}" points="{LEFT},{y:.1} {end},{y:.1}"/>"#));
        text(svg, end + 6.0, legend_y, &escaped(name));
    }
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let greatest = values.clone().reduce(f64::max)?.max(1.0);
        Some(match scale {
            Scale::Linear => Self { scale, low: 0.0, high: rounded_up(greatest) },
            Scale::Logarithmic => {
                let least = values.fold(greatest, f64::min).max(1.0);
                Self { scale, low: least.log10().floor(), high: greatest.log10().floor() + 1.0 }
            }
        })
    }

    fn y(self, value: f64) -> f64 {
        let at = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1.0).log10(),
        };
        TOP + PLOT_HEIGHT * (1.0 - (at - self.low) / (self.high - self.low))
    }

    fn marks(self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => (0..=LINEAR_MARKS).map(|at| self.high * f64::from(at) / f64::from(LINEAR_MARKS)).collect(),
            Scale::Logarithmic => (self.low as i32..=self.high as i32).map(|decade| 10f64.powi(decade)).collect(),
        }
    }
}

fn x(at: f64) -> f64 {
    LEFT + at * (WIDTH - LEFT - RIGHT)
}

/// The next number whose quarters have few digits.
fn rounded_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * decade).find(|&step| step >= value).unwrap_or(10.0 * decade)
}

/// A value beside an axis.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e3.. => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(scale: Scale, points: &[(f64, f64)]) -> String {
        let line = Line { class: "cloudy".to_owned(), name: "a <b>".to_owned(), points: points.to_vec() };
        Chart { title: "rate", scale, marks: &[(0.0, "0 s".to_owned())], lines: vec![line] }.svg()
    }

    #[test]
    fn values_become_heights() {
        let linear = svg(Scale::Linear, &[(0.0, 0.0), (1.0, 350.0)]);
        assert!(linear.contains(r#"points="62.0,216.0 426.0,49.8""#), "{linear}");
        for mark in [">0<", ">100<", ">400<", ">0 s<", ">a &lt;b&gt;<"] {
            assert!(linear.contains(mark), "{mark}: {linear}");
        }
        let decades = svg(Scale::Logarithmic, &[(0.5, 10.0), (1.0, 1_000.0)]);
        assert!(decades.contains(r#"points="244.0,216.0 426.0,89.3""#), "{decades}");
        assert!(decades.contains(">10 k<") && decades.contains(">1 k<"), "{decades}");
    }

    #[test]
    fn without_a_point_there_is_no_chart_and_zeros_are_one() {
        assert_eq!(svg(Scale::Linear, &[]), "");
        for scale in [Scale::Linear, Scale::Logarithmic] {
            assert!(!svg(scale, &[(0.0, 0.0)]).contains("NaN"));
        }
    }
}
