//! `get`: resources; counters and drops are in [`counters`].

use catena_api::types::{FunctionsReport, Passage, ResourceReport, StatusReport};
use catena_control::Mode;
use serde_json::{Value, json};

use super::{counters, status};
use crate::arguments::{Connection, Format, Get};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, Table};

pub async fn get(connection: &Connection, arguments: &Get) -> Result<(), CliError> {
    let format = arguments.output.output;
    let kind = arguments.kind.as_deref().map(str::to_lowercase);
    match kind.as_deref() {
        Some("counter" | "counters") => return counters::counters(connection, arguments).await,
        Some("drop" | "drops") => return counters::drops(connection, arguments).await,
        _ if arguments.tenant.is_some() => return Err(CliError::NoTenantOf(kind)),
        _ => {}
    }
    let mut client = Client::connect(connection, Mode::Look).await?;
    match (kind.as_deref(), &arguments.name) {
        (Some(kind), Some(name)) => {
            let path = format!("resources/{}/{}", segment(kind), segment(name));
            let one: ResourceReport = client.get(&path).await?;
            match format {
                Format::Table => output::print(&table(&mut client, &[one]).await?.to_string()),
                _ => output::answer(format, &one.document, |_| String::new()),
            }
        }
        (kind, _) => {
            let path = kind.map_or("resources".to_owned(), |kind| format!("resources/{}", segment(kind)));
            let all: Vec<ResourceReport> = client.get(&path).await?;
            output::print(&match format {
                Format::Table if all.is_empty() => "there are none\n".to_owned(),
                Format::Table if kind.is_none() => written(&all).to_string(),
                Format::Table => table(&mut client, &all).await?.to_string(),
                Format::Json => {
                    let items: Vec<&Value> = all.iter().map(|resource| &resource.document).collect();
                    let list = json!({"apiVersion": "catena/v1alpha1", "kind": "List", "items": items});
                    output::json(&list)? + "\n"
                }
                // As files are written, so that it can be applied again.
                Format::Yaml => {
                    let documents: Result<Vec<String>, CliError> =
                        all.iter().map(|resource| output::yaml(&resource.document)).collect();
                    documents?.join("---\n")
                }
            })
        }
    }
}

/// Resources of one kind. Of chains, elements and functions, more can be said than what was written.
async fn table(client: &mut Client, resources: &[ResourceReport]) -> Result<Table, CliError> {
    let names: Vec<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
    Ok(match resources.first().map(|first| first.kind.as_str()) {
        Some("Chain") => {
            let mut report: StatusReport = client.get("status").await?;
            report.chains.retain(|chain| names.contains(&chain.name.as_str()));
            status::chains(&report)
        }
        Some("Element") => {
            let mut report: StatusReport = client.get("status").await?;
            report.elements.retain(|element| names.contains(&element.name.as_str()));
            status::elements(&report)
        }
        Some("ServiceFunction") => {
            let mut report: FunctionsReport = client.get("functions").await?;
            counters::warn(&report.unread);
            report.functions.retain(|function| names.contains(&function.name.as_str()));
            functions(&report)
        }
        _ => written(resources),
    })
}

fn functions(report: &FunctionsReport) -> Table {
    let mut table = Table::new([
        "FUNCTION",
        "INSERTION",
        "INSTANCES",
        "CHAINS",
        "PACKETS IN",
        "PACKETS OUT",
        "NOT OUT",
        "OWN",
    ]);
    for function in &report.functions {
        let mut chains: Vec<&str> = function.chains.iter().map(|using| using.chain.as_str()).collect();
        chains.dedup();
        let instances: Vec<&str> = function.instances.iter().map(|instance| instance.name.as_str()).collect();
        let passages = || function.instances.iter().flat_map(|instance| instance.passages());
        let sum = |of: fn(Passage) -> u64| passages().map(|(_, passage)| of(passage)).sum::<u64>();
        table.row([
            (&function.name).into(),
            function.insertion.into(),
            instances.join(" ").into(),
            chains.join(" ").into(),
            sum(|passage| passage.packets_in).into(),
            sum(|passage| passage.packets_out).into(),
            sum(|passage| passage.missing).into(),
            sum(|passage| passage.surplus).into(),
        ]);
    }
    table
}

/// What was written about each, and where.
fn written(resources: &[ResourceReport]) -> Table {
    let mut table = Table::new(["NAME", "SPEC", "REVISION", "SOURCE"]);
    for resource in resources {
        table.row([
            format!("{}/{}", resource.kind, resource.name).into(),
            gist(&resource.document["spec"]).into(),
            resource.revision.into(),
            format!("{}:{}", resource.source, resource.line).into(),
        ]);
    }
    table
}

/// A spec in short: `tenant: acme, prefixes: 172.16.1.0/24 2001:db8:a1::/64`.
fn gist(spec: &Value) -> String {
    const LIMIT: usize = 60;
    let mut parts = Vec::new();
    for (field, value) in spec.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => parts.push(format!("{field}: …")),
            Value::Array(items) => {
                let called: Option<Vec<String>> = items.iter().map(item).collect();
                let called = called.map_or_else(|| items.len().to_string(), |items| items.join(" "));
                parts.push(format!("{field}: {called}"));
            }
            value => parts.push(format!("{field}: {}", plain(value).lines().next().unwrap_or_default())),
        }
    }
    let text = parts.join(", ");
    match text.char_indices().nth(LIMIT) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// One of a list: itself, or what it is called if it is called something.
fn item(value: &Value) -> Option<String> {
    match (value.get("name"), value.get("node"), value.get("port")) {
        (Some(name), _, _) => Some(plain(name)),
        (None, Some(node), Some(port)) => Some(format!("{}/{}", plain(node), plain(port))),
        _ if value.is_object() => None,
        _ => Some(plain(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_told_in_short() {
        let spec = json!({"tenant": "acme", "prefixes": ["10.0.0.0/8"], "attachment": {"gre": {}}});
        assert_eq!(gist(&spec), "attachment: …, prefixes: 10.0.0.0/8, tenant: acme");
        let spec =
            json!({"ends": [{"node": "a", "port": "x"}, {"name": "b"}], "routes": [{"to": "default"}]});
        assert_eq!(gist(&spec), "ends: a/x b, routes: 1");
        assert_eq!(gist(&json!({"a": "x".repeat(100)})).chars().count(), 61);
    }
}
