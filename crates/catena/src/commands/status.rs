//! `status`: whether everything is installed as asked for.

use catena_api::types::{
    ChainState, ChainStatus, ChainVerdict, ControllerState, CounterReport, CountersReport, ElementState,
    FunctionsReport, GivenUp, Hold, Promise, StatusReport, Timestamp,
};
use catena_control::Mode;
use catena_verify::Verdict;

use super::apply::shown_drain;
use super::counters;
use super::verify::{all_feared, all_violated};
use crate::arguments::{Connection, Format, OutputArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, BAD, Cell, FAINT, GOOD, Table, WARN, styled};

pub async fn status(connection: &Connection, arguments: OutputArgs) -> Result<(), CliError> {
    let mut client = Client::connect(connection, Mode::Look).await?;
    let report: StatusReport = client.get("status").await?;
    output::answer(arguments.output, &report, shown)?;
    if arguments.output == Format::Table {
        let functions: FunctionsReport = client.get("functions").await?;
        let CountersReport { counters, unread } = client.get("counters").await?;
        counters::warn(&unread);
        output::print(&notes(&functions, &counters))?;
    }
    Ok(())
}

/// What the counters say that somebody should know who asks whether all is well.
fn notes(functions: &FunctionsReport, counters: &[CounterReport]) -> String {
    let instances = functions.functions.iter().flat_map(|function| &function.instances);
    let dead = instances.filter(|instance| instance.swallows_everything()).map(|instance| {
        let sentence = format!("nothing comes out of {}: is it alive, and does it forward?", instance.name);
        styled(WARN, sentence)
    });
    let notes: Vec<String> = dead.chain(counters::sum_of_drops(counters)).collect();
    match notes.is_empty() {
        true => String::new(),
        false => format!("\n{}\n", notes.join("\n")),
    }
}

fn shown(report: &StatusReport) -> String {
    let mut text = if report.converged {
        styled(GOOD, "everything is installed as asked for")
    } else {
        styled(BAD, "not everything is installed as asked for")
    };
    text += &styled(FAINT, format!(" (revision {})", report.revision));
    text.push('\n');
    if report.controller == ControllerState::None {
        text += "no controller runs here: nothing is repaired until `catena serve` runs\n";
    }
    if let Some(hold) = &report.hold {
        text += &held(hold);
    }
    if !report.elements.is_empty() {
        text += &format!("\n{}", elements(report));
    }
    if !report.chains.is_empty() {
        text += &format!("\n{}", verified_chains(report));
    }
    for drain in &report.draining {
        text += &format!("\n{}", shown_drain(drain));
    }
    if !report.given_up.is_empty() {
        text += &format!(
            "\n{}\n{}",
            styled(WARN, "given up, and broken by what was asked for:"),
            given_up(report)
        );
    }
    text
}

/// Why nothing is installed, with packets that show it, and the way out.
fn held(hold: &Hold) -> String {
    let Hold { since, why, help, violations, undecided } = hold;
    let broken = all_violated(violations) + &all_feared(undecided);
    let held = styled(BAD, format!("everything is left as it is, for {}", age(*since)));
    format!("{held}: {why}\n{broken}\n  {}: {help}\n", styled(FAINT, "help"))
}

pub fn elements(report: &StatusReport) -> Table {
    let mut table = Table::new(["ELEMENT", "ROLE", "STATE", "SINCE", "OBJECTS", "LAST ERROR"]);
    for element in &report.elements {
        let style = match element.state {
            ElementState::InSync => GOOD,
            ElementState::OutOfSync => WARN,
            ElementState::Unreachable => BAD,
        };
        table.row([
            (&element.name).into(),
            element.role.into(),
            Cell::new(style, element.state),
            age(element.since).into(),
            element.objects.into(),
            element.last_error.clone().unwrap_or_default().into(),
        ]);
    }
    table
}

/// The promises that somebody gave up.
fn given_up(report: &StatusReport) -> Table {
    let mut table = Table::new(["PROPERTY", "CHAIN", "SITE", "DIRECTION", "BY", "SINCE"]);
    for GivenUp { promise, by, at } in &report.given_up {
        let Promise { property, chain, site, direction } = promise;
        table.row([property.into(), chain.into(), site.into(), direction.into(), by.into(), age(*at).into()]);
    }
    table
}

pub fn chains(report: &StatusReport) -> Table {
    let mut table = Table::new(CHAIN);
    report.chains.iter().for_each(|chain| table.row(named(chain).into_iter().chain([reason(chain)])));
    table
}

/// With what was found out of them as they are installed.
fn verified_chains(report: &StatusReport) -> Table {
    let [chain, tenant, functions, sites, state, reason] = CHAIN;
    let mut table = Table::new([chain, tenant, functions, sites, state, "VERDICT", "SINCE", reason]);
    let unknown = match report.controller {
        ControllerState::None => "not watched",
        _ => "not yet",
    };
    for chain in &report.chains {
        let found = chain.verdict.as_ref();
        let verdict = found.map_or_else(|| Cell::new(FAINT, unknown), verdict);
        let since = found.map_or_else(String::new, |found| age(found.since));
        let why = found.filter(|_| chain.reason.is_none()).and_then(reason_of);
        let why = why.map_or_else(|| self::reason(chain), Cell::from);
        table.row(named(chain).into_iter().chain([verdict, since.into(), why]));
    }
    table
}

/// Why a chain is not proven, and how much more there is.
fn reason_of(found: &ChainVerdict) -> Option<String> {
    let why = brief(found.why.as_deref()?);
    Some(if found.more == 0 { why } else { format!("{why}, and {} more", found.more) })
}

/// What fits into a line; `catena explain` has the packet that shows it.
fn brief(why: &str) -> String {
    const MOST: usize = 120;
    let said = why.split_once("; such as").map_or(why, |(said, _)| said);
    match said.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &said[..end]),
        None => said.to_owned(),
    }
}

const CHAIN: [&str; 6] = ["CHAIN", "TENANT", "FUNCTIONS", "SITES", "STATE", "REASON"];

fn named(chain: &ChainStatus) -> [Cell; 5] {
    let functions: Vec<&str> = chain.functions.iter().map(|function| function.as_str()).collect();
    let sites: Vec<&str> = chain.sites.iter().map(|site| site.site.as_str()).collect();
    [
        (&chain.name).into(),
        chain.tenant.as_ref().map_or("", |tenant| tenant.as_str()).into(),
        functions.join(" → ").into(),
        sites.join(", ").into(),
        Cell::new(style(chain.state), chain.state),
    ]
}

fn reason(chain: &ChainStatus) -> Cell {
    chain.reason.clone().unwrap_or_default().into()
}

fn verdict(found: &ChainVerdict) -> Cell {
    let style = match found.verdict {
        Verdict::Proven => GOOD,
        Verdict::Violated => BAD,
        Verdict::Undecided => WARN,
    };
    Cell::new(style, found.verdict)
}

pub fn style(state: ChainState) -> anstyle::Style {
    match state {
        ChainState::Installed => GOOD,
        ChainState::Pending => WARN,
        ChainState::Degraded => BAD,
    }
}

/// How long ago, as kubectl says it.
pub fn age(since: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(hold: Hold) -> StatusReport {
        StatusReport {
            revision: 1,
            converged: false,
            controller: ControllerState::Running,
            elements: Vec::new(),
            chains: Vec::new(),
            draining: Vec::new(),
            given_up: Vec::new(),
            hold: Some(hold),
        }
    }

    #[test]
    fn why_nothing_is_installed_is_said_with_the_way_out() {
        let hold = Hold {
            since: Timestamp::now() - Duration::from_secs(5),
            why: "it would break order of chain web".to_owned(),
            help: "apply what holds".to_owned(),
            violations: Vec::new(),
            undecided: Vec::new(),
        };
        let report = report(hold);
        let said = anstream::adapter::strip_str(&shown(&report)).to_string();
        assert!(said.starts_with("not everything is installed as asked for"), "{said}");
        for line in [
            "everything is left as it is, for 5s: it would break order of chain web\n",
            "  help: apply what holds\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }

    #[test]
    fn a_reason_fits_into_a_line() {
        let why =
            "order: chain web, site hq, up: past fw; such as tcp 172.16.1.1 → 9.9.9.9, which enters by lan";
        assert_eq!(brief(why), "order: chain web, site hq, up: past fw");
        let long = "a reason ".repeat(20);
        assert_eq!(brief(&long).chars().count(), 121);
        assert!(brief(&long).ends_with('…'));
    }

    #[test]
    fn ages_are_short() {
        let ago = |seconds| age(Timestamp::now() - Duration::from_secs(seconds));
        assert_eq!([5, 119, 120, 7200, 200_000].map(ago), ["5s", "119s", "2m", "2h", "2d"]);
    }
}
