//! `trace`: the way of one packet, and of its reply.

use catena_api::types::{Packet, Trace};
use catena_control::Mode;
use catena_verify::{Decision, End, Walk};

use crate::arguments::{self, Connection};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, BAD, FAINT, GOOD, PLAIN, STRONG, WARN, styled};

pub async fn trace(connection: &Connection, arguments: &arguments::Trace) -> Result<(), CliError> {
    let packet = Packet {
        source: arguments.from,
        destination: arguments.to,
        protocol: arguments.protocol,
        source_port: arguments.source_port,
        destination_port: arguments.port,
        dscp: arguments.dscp,
    };
    let trace: Trace = Client::connect(connection, Mode::Look).await?.post("trace", &packet).await?;
    output::answer(arguments.output.output, &trace, shown)
}

fn shown(trace: &Trace) -> String {
    format!("{}\n{}", way("request", &trace.request), way("reply", &trace.reply))
}

fn way(what: &str, walk: &Walk) -> String {
    format!("{}: {}", styled(STRONG, what), hops(walk))
}

/// The packet, where it goes, and what decided.
pub fn hops(walk: &Walk) -> String {
    let packet = &walk.packet;
    // 0 is no port: none was given.
    let port = |port: u16| if port == 0 { String::new() } else { format!(" port {port}") };
    let mut text = format!(
        "{}{} {}{} → {}{}\n",
        if walk.kind.is_whole() { String::new() } else { format!("{}: ", walk.kind) },
        packet.protocol,
        packet.source,
        port(packet.source_port),
        packet.destination,
        port(packet.destination_port),
    );
    for (index, visit) in walk.visits.iter().enumerate() {
        let by = visit.in_port.as_ref().map(|port| format!(" by {port}")).unwrap_or_default();
        text += &format!("{:>3}  {}{}\n", index + 1, styled(STRONG, &visit.node), styled(FAINT, by));
        for decision in &visit.decisions {
            text += &format!("       {}\n", styled(style(decision), decision));
        }
    }
    let end = match &walk.end {
        End::Delivered { .. } | End::Internet { .. } | End::Link { .. } | End::Site { .. } => GOOD,
        End::Undecided { .. } => WARN,
        End::Dropped { .. } | End::Loop { .. } | End::NoStart { .. } => BAD,
    };
    text += &format!("     {}\n", styled(end, &walk.end));
    let functions = walk.functions();
    if !functions.is_empty() {
        text += &format!("     functions passed: {}\n", functions.join(" → "));
    }
    text
}

/// What is ours stands out against what would happen without us.
fn style(decision: &Decision) -> anstyle::Style {
    match decision {
        Decision::Function { .. } | Decision::Copied { .. } => GOOD,
        Decision::Skipped { .. } | Decision::Kept { .. } => WARN,
        Decision::Base { .. } | Decision::Transit { .. } => FAINT,
        _ => PLAIN,
    }
}
