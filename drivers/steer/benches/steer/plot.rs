//! Figures as a picture: each one a dot on a line, its interval, and its bar.
//!
//! Colours are given for light and for dark surroundings; the picture itself has no background.

use std::fmt::Write as _;

use crate::figure::{Bar, Figure};
use crate::table::{bar, measured};

const WIDTH: f64 = 860.0;
/// Where names end and axes begin and end.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 640.0;
/// Where the columns of numbers end.
const MEASURED: f64 = 760.0;
const BARS: f64 = 844.0;
const ROW: f64 = 30.0;
const TOP: f64 = 64.0;
const BELOW: f64 = 58.0;

const STYLE: &str = "
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .small { font-size: 11.5px; fill: #656d76; }
  .name { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12px; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .bar { stroke: #9a6700; stroke-width: 2.5; }
  .interval { stroke-width: 4; stroke-linecap: round; opacity: .45; }
  .yes { fill: #1a7f37; stroke: #1a7f37; }
  .no { fill: #cf222e; stroke: #cf222e; }
  circle { stroke: none !important; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .bar { stroke: #d29922; }
    .yes { fill: #3fb950; stroke: #3fb950; }
    .no { fill: #f85149; stroke: #f85149; }
  }
";

/// How many times better than its bar a figure is: all have that scale in common.
fn relative(bar: Bar, value: f64) -> f64 {
    match bar {
        Bar::AtLeast(bar) => value / bar,
        Bar::AtMost(bar) => bar / value,
    }
}

pub fn plot(figures: &[Figure], machine: &str) -> String {
    let scale = Scale::around(figures);
    let bottom = TOP + ROW * figures.len() as f64;
    let height = bottom + BELOW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"Each figure as a multiple of its bar\">\n<style>{STYLE}</style>\n"
    );
    // Writing to a string does not fail.
    let _ =
        writeln!(svg, "<text class=\"title\" x=\"16\" y=\"24\">Measured, as a multiple of the bar</text>");
    let _ = writeln!(svg, "<text class=\"small\" x=\"16\" y=\"42\">{}</text>", escaped(machine));
    for (x, name) in [(MEASURED, "measured"), (BARS, "bar")] {
        let y = TOP - 6.0;
        let _ = writeln!(svg, "<text class=\"small\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{name}</text>");
    }
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let class = if tick == 1.0 { "bar" } else { "grid" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"
        );
        let label = if tick == 1.0 { "bar".to_owned() } else { format!("× {tick}") };
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (row, figure) in figures.iter().enumerate() {
        svg += &line(figure, &scale, TOP + ROW * (row as f64 + 0.5));
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"16\" y=\"{}\">Dots are medians, lines 95 % intervals; to the right of the bar is better.</text>\n</svg>",
        bottom + 42.0
    );
    svg
}

fn line(figure: &Figure, scale: &Scale, y: f64) -> String {
    let at = |value| scale.x(relative(figure.key.bar, value));
    let (low, dot, high) = (at(figure.estimate.low), at(figure.estimate.median), at(figure.estimate.high));
    let class = if figure.is_ok() { "yes" } else { "no" };
    let text_y = y + 4.0;
    format!(
        "<text class=\"name\" x=\"{}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>\n\
         <line class=\"interval {class}\" x1=\"{low:.1}\" y1=\"{y:.1}\" x2=\"{high:.1}\" y2=\"{y:.1}\"/>\n\
         <circle class=\"{class}\" cx=\"{dot:.1}\" cy=\"{y:.1}\" r=\"5.5\"/>\n\
         <text x=\"{MEASURED}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>\n\
         <text class=\"small\" x=\"{BARS}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>\n",
        LEFT - 16.0,
        escaped(figure.key.name),
        escaped(&measured(figure)),
        escaped(&bar(figure)),
    )
}

/// A logarithmic one.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn around(figures: &[Figure]) -> Self {
        let values = figures.iter().flat_map(|figure| {
            [figure.estimate.low, figure.estimate.high].map(|value| relative(figure.key.bar, value))
        });
        let (mut low, mut high) = (0.8_f64, 1.6_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            low = low.min(value * 0.92);
            high = high.max(value * 1.15);
        }
        Self { low, high }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let all = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        all.into_iter().filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
