//! `describe`: one resource, and what has become of it.

use catena_api::types::{ChainSite, ChainStatus, CountedKind, CounterReport, ResourceReport, StatusReport};
use catena_control::Mode;
use catena_model::forwarding::Direction;

use super::status;
use crate::arguments::{Connection, Describe};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, STRONG, Table, styled};

pub async fn describe(connection: &Connection, arguments: &Describe) -> Result<(), CliError> {
    let mut client = Client::connect(connection, Mode::Look).await?;
    let kind = arguments.kind.to_lowercase();
    let resource: ResourceReport =
        client.get(&format!("resources/{}/{}", segment(&kind), segment(&arguments.name))).await?;
    let mut text = head(&resource);
    let mut report: StatusReport = client.get("status").await?;
    match resource.kind.as_str() {
        "Chain" => {
            let counters: Vec<CounterReport> = client.get("counters").await?;
            for chain in report.chains.iter().filter(|chain| chain.name.as_str() == resource.name) {
                text += &described_chain(chain, &counters);
            }
        }
        "Element" => {
            report.elements.retain(|element| element.name.as_str() == resource.name);
            text += &format!("\n{}", status::elements(&report));
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
