//! `events`: what happened, and with `--follow` what happens.

use catena_api::types::{EventKind, EventReport};
use catena_control::Mode;

use crate::arguments::{Connection, Events, Format};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, BAD, FAINT, GOOD, PLAIN, WARN, styled};

pub async fn events(connection: &Connection, arguments: &Events) -> Result<(), CliError> {
    let path = if arguments.follow { "events?follow=true" } else { "events" };
    let mut client = Client::connect(connection, Mode::Look).await?;
    let mut lines = client.lines(path).await?;
    while let Some(event) = lines.next::<EventReport>().await? {
        let text = match arguments.output.output {
            Format::Table => shown(&event),
            // One a line, so that the reader need not wait for the end.
            Format::Json => serde_json::to_string(&event).map_err(CliError::unprintable)? + "\n",
            Format::Yaml => format!("---\n{}", output::yaml(&event)?),
        };
        output::print(&text)?;
    }
    Ok(())
}

fn shown(event: &EventReport) -> String {
    let style = match event.kind {
        EventKind::Applied
        | EventKind::Repaired
        | EventKind::Reachable
        | EventKind::Drained
        | EventKind::HoldsAgain
        | EventKind::Proven => GOOD,
        EventKind::Drift
        | EventKind::Draining
        | EventKind::RolledBack
        | EventKind::GivenUp
        | EventKind::Undecided => WARN,
        EventKind::Held
        | EventKind::ApplyFailed
        | EventKind::RepairFailed
        | EventKind::Unreachable
        | EventKind::Violated => BAD,
        EventKind::Started => PLAIN,
    };
    // To the millisecond; a column of its own width.
    let time = format!("{:.3}", event.time);
    let kind = styled(style, format!("{:<12}", event.kind));
    let named =
        [event.element.as_ref().map(ToString::to_string), event.chain.as_ref().map(ToString::to_string)];
    // Most messages say themselves what they are about.
    let unsaid = named.into_iter().flatten().filter(|name| !event.message.contains(name.as_str()));
    let about: String = unsaid.map(|name| format!("{name}: ")).collect();
    format!("{}  {kind}  {about}{}\n", styled(FAINT, time), event.message)
}
