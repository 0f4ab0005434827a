//! Figures as people read them.

use crate::figure::{Bar, Figure};
use crate::number::short;

/// As Markdown, which is as readable on a terminal.
pub fn table(figures: &[Figure]) -> String {
    let mut rows = vec![["key", "what", "measured", "95 % interval", "bar", "ok?"].map(str::to_owned)];
    rows.extend(figures.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    lines.insert(1, format!("|{}|", rule.join("|")));
    lines.join("\n")
}

fn row(figure: &Figure) -> [String; 6] {
    [
        format!("`{}`", figure.key.name),
        figure.key.what.to_owned(),
        measured(figure),
        format!("{} – {}", short(figure.estimate.low), short(figure.estimate.high)),
        bar(figure),
        if figure.is_ok() { "yes" } else { "no" }.to_owned(),
    ]
}

pub fn measured(figure: &Figure) -> String {
    let unit = figure.key.unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    format!("{}{unit}", short(figure.estimate.median))
}

pub fn bar(figure: &Figure) -> String {
    match figure.key.bar {
        Bar::AtLeast(bar) => format!("≥ {}", short(bar)),
        Bar::AtMost(bar) => format!("≤ {}", short(bar)),
    }
}

fn line(row: &[String; 6], widths: &[usize; 6]) -> String {
    let cells: Vec<String> =
        row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
    format!("|{}|", cells.join("|"))
}
