//! `get counters` and `get drops`: what was counted, and what was dropped and why.

use catena_api::types::{CountedKind, CounterReport, CountersReport, Packets, ResourceReport, UnreadElement};
use catena_control::Mode;

use crate::arguments::{Connection, Get};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, Table, WARN, styled};

pub async fn counters(connection: &Connection, arguments: &Get) -> Result<(), CliError> {
    let counters = asked_for(connection, arguments).await?;
    output::answer(arguments.output.output, &counters, |counters| shown(counters))
}

pub async fn drops(connection: &Connection, arguments: &Get) -> Result<(), CliError> {
    let mut drops = asked_for(connection, arguments).await?;
    drops.retain(|counter| counter.counted == CountedKind::Dropped);
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
    output::answer(arguments.output.output, &drops, |drops| match table_of_drops(drops) {
        table if table.is_empty() => "nothing has been dropped\n".to_owned(),
        table => table.to_string(),
    })
}

/// The counters of one chain, of one tenant, or all.
async fn asked_for(connection: &Connection, arguments: &Get) -> Result<Vec<CounterReport>, CliError> {
    let mut client = Client::connect(connection, Mode::Look).await?;
    let CountersReport { mut counters, unread } = client.get("counters").await?;
    for (kind, name) in [("chain", &arguments.name), ("tenant", &arguments.tenant)] {
        if let Some(name) = name {
            // One that is not there is another answer than one without counters.
            let _: ResourceReport = client.get(&format!("resources/{kind}/{}", segment(name))).await?;
        }
    }
    if let Some(name) = &arguments.name {
        counters.retain(|counter| counter.chain.as_ref().is_some_and(|chain| chain.as_str() == name));
    }
    if let Some(name) = &arguments.tenant {
        counters.retain(|counter| counter.tenant.as_ref().is_some_and(|tenant| tenant.as_str() == name));
    }
    warn(&unread);
    Ok(counters)
}

/// Says what could not be read. On standard error, so that the answer remains what it is.
pub fn warn(unread: &[UnreadElement]) {
    for UnreadElement { element, why } in unread {
        let warning = styled(WARN, "warning");
        anstream::eprintln!("{warning}: the counters of {element} could not be read: {why}");
    }
}

fn shown(counters: &[CounterReport]) -> String {
    let mut table = Table::new(["ELEMENT", "COUNTED", "OF", "DIRECTION", "PACKETS", "BYTES"]);
    for counter in counters {
        table.row([
            (&counter.element).into(),
            what(counter).into(),
            whose(counter).into(),
            counter.direction.map(|direction| direction.to_string()).unwrap_or_default().into(),
            counter.packets.into(),
            counter.bytes.into(),
        ]);
    }
    if table.is_empty() { "nothing has been counted\n".to_owned() } else { table.to_string() }
}

pub fn table_of_drops(drops: &[CounterReport]) -> Table {
    let mut table = Table::new(["ELEMENT", "OF", "REASON", "PACKETS", "BYTES", "MEANING"]);
    for drop in drops {
        let reason = drop.reason.map(|reason| (reason.word(), reason.meaning()));
        let (word, meaning) = reason.unwrap_or_default();
        let whose = whose(drop);
        table.row([
            (&drop.element).into(),
            if whose.is_empty() { "(no path)".into() } else { whose.into() },
            word.into(),
            drop.packets.into(),
            drop.bytes.into(),
            meaning.into(),
        ]);
    }
    table
}

/// How much was dropped in all, if anything was.
pub fn sum_of_drops(counters: &[CounterReport]) -> Option<String> {
    let drops = counters.iter().filter(|counter| counter.counted == CountedKind::Dropped);
    match drops.map(|drop| drop.packets).sum() {
        0 => None,
        sum => Some(format!("dropped so far: {}; `catena get drops` says where and why", Packets(sum))),
    }
}

fn what(counter: &CounterReport) -> String {
    let instance = counter.instance.as_ref().map_or("?", |name| name.as_str());
    match (counter.counted, counter.position) {
        (CountedKind::Hop, Some(position)) => format!("{}. {instance}", position + 1),
        (CountedKind::Hop, None) => format!("to {instance}, on paths that are gone"),
        (CountedKind::Returned, _) => format!("back from {instance}"),
        (CountedKind::Exit, _) => "exit".to_owned(),
        (CountedKind::Transit, _) => "unclaimed".to_owned(),
        (CountedKind::Claimed, _) => "claimed".to_owned(),
        (CountedKind::Encapsulated, _) => "encapsulated".to_owned(),
        (CountedKind::Decapsulated, _) => "decapsulated".to_owned(),
        (CountedKind::Dropped, _) => {
            format!("dropped: {}", counter.reason.map_or("?", |reason| reason.word()))
        }
    }
}

fn whose(counter: &CounterReport) -> String {
    let names = [
        counter.chain.as_ref().map(ToString::to_string),
        counter.site.as_ref().map(ToString::to_string),
        counter.generation.map(|generation| format!("generation {generation}")),
    ];
    names.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
