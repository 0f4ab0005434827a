//! What people see: tables, colours, and the same as JSON or YAML.
//!
//! Everything is written with ANSI colours and goes through [`print`], which takes them out where they do not belong.

use std::fmt;
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::arguments::Format;
use crate::error::CliError;

pub const PLAIN: Style = Style::new();
pub const STRONG: Style = Style::new().bold();
pub const FAINT: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();

/// Prints `value` in the asked format; `table` makes the one for people.
pub fn answer<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => json(value)? + "\n",
        Format::Yaml => yaml(value)?,
    };
    print(&text)
}

pub fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(CliError::unprintable)
}

pub fn yaml(value: &impl Serialize) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(CliError::unprintable)
}

/// Writes to standard output: with colours on a terminal only, and not if `NO_COLOR` is set.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `catena events | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::unprintable(error)),
        Ok(()) => Ok(()),
    }
}

/// `text` in a style.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Columns under headings, as kubectl prints them.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn new(style: Style, text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), style }
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(PLAIN, text)
    }
}

impl Table {
    pub fn new(headings: impl IntoIterator<Item = &'static str>) -> Self {
        Self { headings: headings.into_iter().collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table with every line set in by `indent` spaces.
    pub fn indented(&self, indent: usize) -> String {
        let headings: Vec<Cell> = self.headings.iter().map(|heading| Cell::new(FAINT, heading)).collect();
        let lines: Vec<&[Cell]> =
            std::iter::once(headings.as_slice()).chain(self.rows.iter().map(Vec::as_slice)).collect();
        let width = |column: usize| {
            let widths =
                lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.text.chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut written = " ".repeat(indent);
            for (cell, width) in line.iter().zip(&widths) {
                // The padding is outside of the style, so that trailing spaces can be cut off.
                let padding = width - cell.text.chars().count().min(*width);
                written += &styled(cell.style, &cell.text);
                written += &" ".repeat(padding + 3);
            }
            text += written.trim_end();
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.indented(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["acme-web".into(), Cell::new(GOOD, "installed")]);
        table.row(["x".into(), "".into()]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(plain, "NAME       STATE\nacme-web   installed\nx\n");
    }

    #[test]
    fn colours_are_only_around_the_text() {
        assert_eq!(styled(GOOD, "yes"), "\u{1b}[32myes\u{1b}[0m");
        assert_eq!(styled(PLAIN, "yes"), "yes");
    }
}
