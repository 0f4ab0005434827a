//! `explain`: what a chain does with whose traffic, in words and a picture, and what is known of it.

use catena_api::types::{ChainVerdict, ExplainedFunction, ExplainedSite, Explanation, GivenUp, Stage};
use catena_control::Mode;
use catena_model::forwarding::{Insertion, OnFailure};
use catena_model::resource::{Attachment, FunctionInstance};
use catena_verify::{Property, Verdict};

use super::status::age;
use crate::arguments::{Connection, Explain};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, BAD, GOOD, STRONG, Table, WARN, styled};

pub async fn explain(connection: &Connection, arguments: &Explain) -> Result<(), CliError> {
    let path = format!("explain/{}", segment(arguments.chain.as_str()));
    let explanation: Explanation = Client::connect(connection, Mode::Look).await?.get(&path).await?;
    output::answer(arguments.output.output, &explanation, shown)
}

fn shown(explanation: &Explanation) -> String {
    let Explanation { chain, functions, sites, .. } = explanation;
    let mut text = format!("{}\n{}\n", styled(STRONG, format!("Chain {chain}")), claim(explanation));
    text += "\nEach packet passes these, in this order, and the answer passes the same instances the other way round:\n";
    text += &table_of(functions).indented(2);
    for site in sites {
        text += &format!("\n{}", of_site(site, functions));
    }
    text + &format!("\n{}", known(explanation))
}

/// Whose traffic, and which.
fn claim(explanation: &Explanation) -> String {
    let Explanation { tenant, matches, claims_everything, sites, .. } = explanation;
    let whose = tenant.as_ref().map_or_else(|| "the sites".to_owned(), ToString::to_string);
    let sites: Vec<&str> = sites.iter().map(|site| site.site.as_str()).collect();
    let at = sites.join(", ");
    match claims_everything {
        true => format!("takes all traffic of {whose} at {at} with the Internet."),
        false => format!(
            "takes of the traffic of {whose} at {at} with the Internet: {}. What no chain takes goes the way that it went \
             before.",
            matches.join("; ")
        ),
    }
}

fn table_of(functions: &[ExplainedFunction]) -> Table {
    let mut table = Table::new(["", "FUNCTION", "INSERTED", "INSTANCES", "IF ALL FAIL"]);
    for (index, function) in functions.iter().enumerate() {
        let instances: Vec<String> = function.instances.iter().map(instance).collect();
        let failing = match (function.insertion, function.on_failure) {
            (Insertion::Tap, _) => "packets go on: it only looks",
            (_, OnFailure::Closed) => "packets are dropped",
            (_, OnFailure::Skip) => "packets go on without it",
        };
        let inserted = match function.changes_addresses {
            true => format!("{}, changes addresses", inserted(function.insertion)),
            false => inserted(function.insertion).to_owned(),
        };
        table.row([
            (index + 1).into(),
            (&function.name).into(),
            inserted.into(),
            instances.join(", ").into(),
            failing.into(),
        ]);
    }
    table
}

fn inserted(insertion: Insertion) -> &'static str {
    match insertion {
        Insertion::L3 => "as a router",
        Insertion::L2 => "in the wire",
        Insertion::Tap => "gets a copy",
        Insertion::Vlan => "in the wire, by VLAN",
        Insertion::Nsh(_) => "by NSH",
    }
}

fn instance(instance: &FunctionInstance) -> String {
    let FunctionInstance { name, weight, drain, .. } = instance;
    let share = if weight.get() == 1 { String::new() } else { format!("×{weight}") };
    let drains = if *drain { " (draining)" } else { "" };
    format!("{name}{share}{drains}")
}

fn of_site(site: &ExplainedSite, functions: &[ExplainedFunction]) -> String {
    let ExplainedSite { site: name, prefixes, attachment, there, back } = site;
    let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    let functions: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    let reversed: Vec<&str> = functions.iter().rev().copied().collect();
    format!(
        "{}: {}, attached {}\n\n{}\n{}",
        styled(STRONG, format!("Site {name}")),
        prefixes.join(", "),
        attached(attachment),
        picture("there", name.as_str(), there, "Internet", &functions),
        picture("back ", "Internet", back, name.as_str(), &reversed),
    )
}

fn attached(attachment: &Attachment) -> String {
    match attachment {
        Attachment::L2 { link } => format!("by the cable {link}"),
        Attachment::Gre(gre) => {
            let key = gre.key.map(|key| format!(", key {key}")).unwrap_or_default();
            let claims = match gre.customer.element {
                Some(_) => "",
                None => "; what goes into the tunnel is for the customer's device to say",
            };
            format!("by GRE from {} to {}{key} (═){claims}", gre.customer.address, gre.cloud.address)
        }
    }
}

/// The elements in a line, and the functions below the one that steers.
fn picture(title: &str, from: &str, way: &[Stage], to: &str, functions: &[&str]) -> String {
    let mut line = format!("  {title}  {from}");
    let mut below = String::new();
    for Stage { element, by_tunnel, steers } in way {
        line += if *by_tunnel { " ═ " } else { " ─ " };
        if *steers {
            below = format!("{}└ {} ┘\n", " ".repeat(line.chars().count()), functions.join(" ─ "));
        }
        line += element.as_str();
    }
    format!("{line} ─ {to}\n{below}")
}

/// What was found out of what is installed, and what nobody promises any more.
fn known(explanation: &Explanation) -> String {
    let Explanation { verdict, given_up, state, reason, .. } = explanation;
    let mut text = match verdict {
        None => "What is installed was not verified since it was last changed: `catena verify --observed` does it now.\n"
            .to_owned(),
        Some(ChainVerdict { verdict, since, why, more, .. }) => {
            let age = age(*since);
            let more = match more {
                0 => String::new(),
                more => format!("And {more} more: `catena verify --observed` has them all.\n"),
            };
            match (verdict, why) {
                (Verdict::Violated, Some(why)) => {
                    format!("{} for {age}: {why}\n{more}", styled(BAD, "Violated"))
                }
                (Verdict::Undecided, Some(why)) => {
                    format!("{} for {age}: {why}\n", styled(WARN, "Undecided"))
                }
                _ => format!(
                    "{} for {age}, of what is installed, for all addresses, protocols and ports, fragments and ICMP errors \
                     included, but for what `catena verify` names: {}.\n",
                    styled(GOOD, "Proven"),
                    Property::ALL.map(Property::name).join(", ")
                ),
            }
        }
    };
    let reason = reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    text += &format!("State: {}{reason}\n", styled(super::status::style(*state), state));
    for GivenUp { promise, by, at } in given_up {
        text += &format!("{} {promise}, by {by}, at {at:.0}\n", styled(WARN, "Given up:"));
    }
    text
}
