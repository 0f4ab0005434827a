//! Rates as lines under headings, and as many of them as a screen has room for.

use std::fmt;

use super::rates::{Rate, Rates};
use super::screen::Size;
use crate::arguments::View;
use crate::output::{BAD, Cell, FAINT, PLAIN, STRONG, Table, WARN, styled};

/// Lines of one kind.
pub struct Section {
    title: &'static str,
    /// What is said if there are no lines.
    nothing: &'static str,
    table: Table,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Section {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![styled(STRONG, self.title)];
        match self.table.is_empty() {
            true => lines.push(format!("  {}", styled(FAINT, self.nothing))),
            false => lines.extend(self.table.indented(2).lines().map(str::to_owned)),
        }
        lines
    }
}

pub fn sections(rates: &Rates, view: View) -> Vec<Section> {
    let mut sections = Vec::new();
    for (of, section) in [
        (View::Chains, chains as fn(&Rates) -> Section),
        (View::Hops, hops),
        (View::Instances, instances),
        (View::Drops, drops),
    ] {
        if view == View::All || view == of {
            sections.push(section(rates));
        }
    }
    sections
}

/// A whole screen: a headline, what has room of the sections, and the keys.
pub fn page(rates: Option<&Rates>, view: View, headline: &str, size: Size) -> Vec<String> {
    /// The headline with an empty line below it, and the keys with one above.
    const FRAME: usize = 4;
    const KEYS: &str = "q quit   tab next view   sort by: p packets  b bytes  d drops  n name";
    let mut lines = vec![styled(FAINT, headline), String::new()];
    let sections = rates.map(|rates| sections(rates, view)).unwrap_or_default();
    lines.extend(fitted(&sections, usize::from(size.rows).saturating_sub(FRAME)));
    lines.truncate(usize::from(size.rows).saturating_sub(1));
    lines.push(styled(FAINT, KEYS));
    lines
}

/// At most `room` lines: a section that needs less than its share leaves the rest to those after it.
fn fitted(sections: &[Section], room: usize) -> Vec<String> {
    let mut all: Vec<Vec<String>> = sections.iter().map(Section::lines).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|index| all[*index].len());
    let mut left = room;
    for (done, index) in order.iter().enumerate() {
        // An empty line follows each.
        let share = (left / (order.len() - done)).saturating_sub(1);
        let lines = &mut all[*index];
        if lines.len() > share {
            let hidden = lines.len().saturating_sub(share.saturating_sub(1));
            lines.truncate(share.saturating_sub(1));
            lines.push(styled(FAINT, format!("  … and {hidden} more lines")));
        }
        left = left.saturating_sub(lines.len() + 1);
    }
    all.join(&String::new())
}

fn chains(rates: &Rates) -> Section {
    let headings = [
        "CHAIN",
        "SITE",
        "UP IN pkt/s",
        "UP OUT",
        "UP bit/s",
        "DOWN IN pkt/s",
        "DOWN OUT",
        "DOWN bit/s",
        "DROPS/s",
    ];
    let mut table = Table::new(headings);
    for chain in &rates.chains {
        table.row([
            (&chain.chain).into(),
            (&chain.site).into(),
            packets(chain.up_in),
            packets(chain.up_out),
            bits(chain.up_in),
            packets(chain.down_in),
            packets(chain.down_out),
            bits(chain.down_in),
            alarming(chain.dropped.packets_per_second),
        ]);
    }
    Section { title: "Chains", nothing: "no chain has counted anything", table }
}

fn hops(rates: &Rates) -> Section {
    let mut table =
        Table::new(["CHAIN", "SITE", "HOP", "INSTANCE", "UP pkt/s", "UP bit/s", "DOWN pkt/s", "DOWN bit/s"]);
    for hop in &rates.hops {
        table.row([
            (&hop.chain).into(),
            (&hop.site).into(),
            (hop.position + 1).into(),
            (&hop.instance).into(),
            packets(hop.up),
            bits(hop.up),
            packets(hop.down),
            bits(hop.down),
        ]);
    }
    Section { title: "Hops", nothing: "no hop has counted anything", table }
}

fn instances(rates: &Rates) -> Section {
    let headings = [
        "INSTANCE",
        "FUNCTION",
        "UP IN pkt/s",
        "UP OUT",
        "UP bit/s",
        "DOWN IN pkt/s",
        "DOWN OUT",
        "DOWN bit/s",
        "NOT OUT/s",
    ];
    let mut table = Table::new(headings);
    for instance in &rates.instances {
        let not_out = instance.not_out();
        table.row([
            (&instance.instance).into(),
            instance.function.as_ref().map_or("", |function| function.as_str()).into(),
            packets(instance.up_in),
            packets(instance.up_out),
            bits(instance.up_in),
            packets(instance.down_in),
            packets(instance.down_out),
            bits(instance.down_in),
            Cell::new(if not_out > 0.0 { WARN } else { PLAIN }, short(not_out)),
        ]);
    }
    Section { title: "Instances", nothing: "no instance has counted anything", table }
}

fn drops(rates: &Rates) -> Section {
    let mut table = Table::new(["ELEMENT", "CHAIN", "SITE", "REASON", "pkt/s", "bit/s", "MEANING"]);
    for drop in &rates.drops {
        table.row([
            (&drop.element).into(),
            drop.chain.as_ref().map_or("(no path)", |chain| chain.as_str()).into(),
            drop.site.as_ref().map_or("", |site| site.as_str()).into(),
            drop.reason.into(),
            alarming(drop.dropped.packets_per_second),
            bits(drop.dropped),
            drop.reason.meaning().into(),
        ]);
    }
    Section { title: "Drops", nothing: "nothing has been dropped", table }
}

fn packets(rate: Rate) -> Cell {
    short(rate.packets_per_second).into()
}

fn bits(rate: Rate) -> Cell {
    short(rate.bits_per_second).into()
}

fn alarming(rate: f64) -> Cell {
    Cell::new(if rate > 0.0 { BAD } else { PLAIN }, short(rate))
}

/// Three digits and an SI prefix: `0`, `0.5`, `12.3k`, `1.00G`.
fn short(number: f64) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    if number == 0.0 {
        return "0".to_owned();
    }
    let mut number = number;
    let mut prefixes = PREFIXES.iter();
    let mut prefix = prefixes.next();
    // What would be rounded to 1000 belongs to the next prefix.
    while number >= 999.5 && prefixes.len() > 0 {
        number /= 1000.0;
        prefix = prefixes.next();
    }
    let prefix = prefix.copied().unwrap_or_default();
    match number {
        ..9.995 => format!("{number:.2}{prefix}"),
        ..99.95 => format!("{number:.1}{prefix}"),
        _ => format!("{number:.0}{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.5, 9.994, 9.996, 99.96, 999.4, 999.6, 12_345.0, 1e9, 2.5e15].map(short);
        assert_eq!(shown, ["0", "0.50", "9.99", "10.0", "100", "999", "1.00k", "12.3k", "1.00G", "2500T"]);
    }

    fn section(lines: usize) -> Section {
        let mut table = Table::new(["NAME"]);
        (0..lines).for_each(|number| table.row([number.into()]));
        Section { title: "Title", nothing: "none", table }
    }

    #[test]
    fn a_page_is_no_longer_than_the_screen() {
        for rows in 0..60 {
            let room = fitted(&[section(30), section(0), section(5), section(40)], rows);
            assert!(room.len() <= rows.max(8), "{rows} rows: {} lines", room.len());
            let page = page(None, View::All, "measuring", Size { rows: rows as u16 });
            assert!(page.len() <= rows.max(1), "{rows} rows: {} lines", page.len());
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let shown = fitted(&[section(3), section(30)], 20);
        assert_eq!(shown.iter().filter(|line| line.contains("more lines")).count(), 1);
        // Nothing of the one that is short.
        assert_eq!(shown.iter().position(String::is_empty), Some(5));
        assert!(shown.last().unwrap().contains("20 more lines"), "{shown:#?}");
    }
}
