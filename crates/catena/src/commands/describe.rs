//! `describe`: one resource, and what has become of it.

use catena_api::types::{
    ChainSite, ChainStatus, CountedKind, CounterReport, CountersReport, ElementState, FunctionStatus,
    FunctionsReport, InstanceStatus, ResourceReport, StatusReport,
};
use catena_control::Mode;
use catena_model::forwarding::{Direction, InstanceState};

use super::{counters, status};
use crate::arguments::{Connection, Describe};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, BAD, Cell, FAINT, GOOD, STRONG, Table, WARN, styled};

pub async fn describe(connection: &Connection, arguments: &Describe) -> Result<(), CliError> {
    let mut client = Client::connect(connection, Mode::Look).await?;
    let kind = arguments.kind.to_lowercase();
    let resource: ResourceReport =
        client.get(&format!("resources/{}/{}", segment(&kind), segment(&arguments.name))).await?;
    let mut text = head(&resource);
    let mut report: StatusReport = client.get("status").await?;
    match resource.kind.as_str() {
        "Chain" => {
            let CountersReport { counters, unread } = client.get("counters").await?;
            counters::warn(&unread);
            for chain in report.chains.iter().filter(|chain| chain.name.as_str() == resource.name) {
                text += &described_chain(chain, &counters);
                text += &dropped(&counters, |drop| drop.chain.as_ref() == Some(&chain.name));
            }
        }
        "Element" => {
            report.elements.retain(|element| element.name.as_str() == resource.name);
            text += &format!("\n{}", status::elements(&report));
            let CountersReport { counters, unread } = client.get("counters").await?;
            counters::warn(&unread);
            text += &dropped(&counters, |drop| drop.element.as_str() == resource.name);
        }
        "ServiceFunction" => {
            let report: FunctionsReport = client.get("functions").await?;
            counters::warn(&report.unread);
            text += &report.function(&resource.name).map(described_function).unwrap_or_default();
        }
        _ => {}
    }
    text += &format!("\n{}\n{}\n", styled(STRONG, "As written:"), resource.text.trim());
    output::print(&text)
}

fn head(resource: &ResourceReport) -> String {
    let ResourceReport { kind, name, source, line, revision, .. } = resource;
    format!("{} ({source}:{line}, revision {revision})\n", styled(STRONG, format!("{kind} {name}")))
}

/// The drops that were asked for, under a heading; nothing if there are none.
fn dropped(counters: &[CounterReport], whose: impl Fn(&CounterReport) -> bool) -> String {
    let drops = counters.iter().filter(|counter| counter.counted == CountedKind::Dropped && whose(counter));
    let drops: Vec<CounterReport> = drops.cloned().collect();
    match counters::table_of_drops(&drops) {
        table if table.is_empty() => String::new(),
        table => format!("\n{}\n{}", styled(STRONG, "Dropped:"), table.indented(2)),
    }
}

fn described_function(function: &FunctionStatus) -> String {
    let uses = function.chains.iter().map(|using| format!("{} (hop {})", using.chain, using.position + 1));
    let uses: Vec<String> = uses.collect();
    let uses = if uses.is_empty() { "none".to_owned() } else { uses.join(", ") };
    let mut text = format!("insertion: {}\nchains: {uses}\n\n{}", function.insertion, passages(function));
    let imbalances = function.instances.iter().flat_map(|instance| instance.imbalances());
    let imbalances: String = imbalances.map(|sentence| format!("\n{}", styled(WARN, sentence))).collect();
    if !imbalances.is_empty() {
        text += &format!("{imbalances}\n");
    }
    text
}

/// The instances, with what went in and came out in either direction.
fn passages(function: &FunctionStatus) -> Table {
    let mut table = Table::new([
        "INSTANCE",
        "ELEMENT",
        "STATE",
        "DIRECTION",
        "PACKETS IN",
        "PACKETS OUT",
        "NOT OUT",
        "OWN",
        "BYTES IN",
        "BYTES OUT",
    ]);
    for instance in &function.instances {
        let whole = [(Direction::Up, instance.up), (Direction::Down, instance.down)];
        for (direction, passage) in whole {
            let amounts = match passage {
                None => [const { "?" }; 6].map(Cell::from),
                Some(passage) => [
                    passage.packets_in.into(),
                    passage.packets_out.into(),
                    passage.missing.into(),
                    passage.surplus.into(),
                    passage.bytes_in.into(),
                    passage.bytes_out.into(),
                ],
            };
            let named =
                [(&instance.name).into(), (&instance.element).into(), state(instance), direction.into()];
            table.row(named.into_iter().chain(amounts));
        }
    }
    table
}

fn state(instance: &InstanceStatus) -> Cell {
    match (instance.element_state, instance.state) {
        (_, None) => Cell::new(FAINT, "not in use"),
        (ElementState::Unreachable, _) => Cell::new(BAD, "element unreachable"),
        (ElementState::OutOfSync, _) => Cell::new(WARN, "element out of sync"),
        (ElementState::InSync, Some(InstanceState::Up)) => Cell::new(GOOD, "up"),
        (ElementState::InSync, Some(InstanceState::Draining)) => Cell::new(WARN, "draining"),
        (ElementState::InSync, Some(InstanceState::Down)) => Cell::new(BAD, "down"),
    }
}

fn described_chain(chain: &ChainStatus, counters: &[CounterReport]) -> String {
    let mut text = format!("state: {}", styled(status::style(chain.state), chain.state));
    if let Some(reason) = &chain.reason {
        text += &format!(", {reason}");
    }
    text.push('\n');
    for site in &chain.sites {
        let vlan = site.vlan.map(|vlan| format!(", vlan {}", vlan.get())).unwrap_or_default();
        text += &format!(
            "\nsite {}, path {}, generation {}{vlan}\n{}",
            styled(STRONG, &site.site),
            site.path,
            site.generation,
            hops(site, counters).indented(2)
        );
    }
    text
}

/// The functions in the order of the way up, and what passed each in either direction.
fn hops(site: &ChainSite, counters: &[CounterReport]) -> Table {
    let mut table =
        Table::new(["HOP", "FUNCTION", "INSTANCE", "UP PACKETS", "UP BYTES", "DOWN PACKETS", "DOWN BYTES"]);
    let sum = |direction: Direction, of: &dyn Fn(&CounterReport) -> bool| {
        let counted = counters.iter().filter(|counter| {
            counter.path == Some(site.path) && counter.direction == Some(direction) && of(counter)
        });
        counted.fold((0, 0), |(packets, bytes), counter| (packets + counter.packets, bytes + counter.bytes))
    };
    for (position, hop) in site.hops.iter().enumerate() {
        for instance in &hop.instances {
            let passed = |counter: &CounterReport| {
                counter.counted == CountedKind::Hop
                    && counter.position.map(usize::from) == Some(position)
                    && counter.instance.as_ref() == Some(instance)
            };
            let (up, down) = (sum(Direction::Up, &passed), sum(Direction::Down, &passed));
            table.row([
                (position + 1).into(),
                (&hop.function).into(),
                instance.into(),
                up.0.into(),
                up.1.into(),
                down.0.into(),
                down.1.into(),
            ]);
        }
    }
    let left = |counter: &CounterReport| counter.counted == CountedKind::Exit;
    let (up, down) = (sum(Direction::Up, &left), sum(Direction::Down, &left));
    table.row(["".into(), "(out)".into(), "".into(), up.0.into(), up.1.into(), down.0.into(), down.1.into()]);
    table
}
