//! `verify`: whether chains hold, and a packet for which one does not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use catena_api::types::VerifyReport;
use catena_control::Mode;
use catena_model::numbering::Numbering;
use catena_model::resource::{Source, load};
use catena_model::topology::Topology;
use catena_verify::{Network, Undecided, Verdict, Violation};

use super::{trace, wait};
use crate::arguments::{Connection, Verify};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, BAD, GOOD, STRONG, WARN, styled};
use crate::sources;

/// Of this many mistakes the packets are shown.
const SHOWN: usize = 10;

pub fn verify(connection: &Connection, arguments: &Verify) -> Result<ExitCode, CliError> {
    let report = match arguments.files.files.is_empty() {
        true => wait(asked(connection, arguments))?,
        false => of_files(arguments)?,
    };
    output::answer(arguments.output.output, &report, shown)?;
    Ok(match report.verdict {
        Verdict::Proven => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(1),
        Verdict::Undecided => ExitCode::from(2),
    })
}

async fn asked(connection: &Connection, arguments: &Verify) -> Result<VerifyReport, CliError> {
    let mut path = format!("verify?observed={}", arguments.observed);
    if let Some(tenant) = &arguments.tenant {
        path += &format!("&tenant={}", segment(tenant.as_str()));
    }
    Client::connect(connection, Mode::Look).await?.get(&path).await
}

/// As the files ask for it, over the routing that the inventory in them knows of.
fn of_files(arguments: &Verify) -> Result<VerifyReport, CliError> {
    let sources = sources::read(&arguments.files.files)?;
    let sources: Vec<Source> =
        sources.into_iter().map(|source| Source::new(source.name, source.text)).collect();
    let model = load(&sources).map_err(CliError::Invalid)?;
    let mut numbering = Numbering::default();
    let state = catena_render::render(&model, &mut numbering).map_err(CliError::NotRendered)?;
    let (topology, base) = (Topology::of(&model), BTreeMap::new());
    let network =
        Network { model: &model, topology: &topology, state: &state, base: &base, numbering: &numbering };
    Ok(catena_verify::verify(&network, arguments.tenant.as_ref()))
}

fn shown(report: &VerifyReport) -> String {
    let VerifyReport { verdict, coverage, violations, undecided } = report;
    let style = match verdict {
        Verdict::Proven => GOOD,
        Verdict::Violated => BAD,
        Verdict::Undecided => WARN,
    };
    let mut text = format!("{}: {coverage}\n", styled(style, verdict));
    text += &all_violated(violations);
    undecided.iter().take(SHOWN).for_each(|undecided| text += &not_decided(undecided));
    let hidden = violations.len().saturating_sub(SHOWN) + undecided.len().saturating_sub(SHOWN);
    if hidden > 0 {
        text += &format!("\nand {hidden} more: `-o json` has them all\n");
    }
    text
}

/// The first of them, each with its packet.
pub fn all_violated(violations: &[Violation]) -> String {
    violations.iter().take(SHOWN).map(violated).collect()
}

fn violated(violation: &Violation) -> String {
    let entry = format!("enters by {}: ", violation.entry);
    format!("\n{}\n  {entry}{}", styled(BAD, violation), trace::hops(&violation.walk))
}

fn not_decided(undecided: &Undecided) -> String {
    let entry = undecided.entry.as_ref().map(|entry| format!("enters by {entry}: ")).unwrap_or_default();
    let way = undecided.walk.as_ref().map(|walk| format!("  {entry}{}", trace::hops(walk)));
    format!("\n{} {}\n{}", styled(WARN, "not decided:"), styled(STRONG, undecided), way.unwrap_or_default())
}
