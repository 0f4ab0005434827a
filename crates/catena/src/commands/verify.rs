//! `verify`: whether chains hold, and a packet for which one does not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use catena_api::types::{VerifiedNetwork, VerifyReport};
use catena_control::{Mode, UnknownTenant};
use catena_model::numbering::Numbering;
use catena_model::resource::{Source, load};
use catena_model::topology::Topology;
use catena_verify::{Coverage, Network, Undecided, Verdict, Violation};
use serde::Serialize;

use super::replay::{Original, Replays, replay};
use super::{trace, wait};
use crate::arguments::{Connection, Verify};
use crate::client::{Client, segment};
use crate::error::CliError;
use crate::output::{self, BAD, FAINT, GOOD, STRONG, WARN, styled};
use crate::sources;

/// Of this many mistakes the packets are shown.
const SHOWN: usize = 10;

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    report: VerifyReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<Replays>,
}

pub fn verify(connection: &Connection, arguments: &Verify) -> Result<ExitCode, CliError> {
    let (report, original) = match arguments.files.files.is_empty() {
        true => wait(asked(connection, arguments))?,
        false => of_files(arguments)?,
    };
    let (replay, failure) = match original.map(|original| replay(original, &report.violations)).transpose() {
        Ok(replay) => (replay, None),
        Err(error) => (None, Some(error)),
    };
    let answer = Answer { report, replay };
    output::answer(arguments.output.output, &answer, shown)?;
    // What holds was found out all the same.
    failure.map_or(Ok(()), Err)?;
    Ok(match answer.report.verdict {
        _ if answer.replay.as_ref().is_some_and(|replay| !replay.agree()) => ExitCode::from(2),
        Verdict::Proven => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(1),
        Verdict::Undecided => ExitCode::from(2),
    })
}

/// The report, and with `--replay` the network of which it is.
async fn asked(
    connection: &Connection,
    arguments: &Verify,
) -> Result<(VerifyReport, Option<Original>), CliError> {
    let mut query = format!("observed={}", arguments.observed);
    if let Some(tenant) = &arguments.tenant {
        query += &format!("&tenant={}", segment(tenant.as_str()));
    }
    let mut client = Client::connect(connection, Mode::Look).await?;
    if !arguments.replay {
        return Ok((client.get(&format!("verify?{query}")).await?, None));
    }
    let VerifiedNetwork { report, resources, state, base } =
        client.get(&format!("verify/network?{query}")).await?;
    let sources: Vec<Source> =
        resources.into_iter().map(|resource| Source::new(resource.source, resource.text)).collect();
    let model = load(&sources).map_err(CliError::Invalid)?;
    Ok((report, Some(Original::new(&sources, model, state, base))))
}

/// As the files ask for it, over the routing that the inventory in them knows of.
fn of_files(arguments: &Verify) -> Result<(VerifyReport, Option<Original>), CliError> {
    let sources = sources::read(&arguments.files.files)?;
    let sources: Vec<Source> =
        sources.into_iter().map(|source| Source::new(source.name, source.text)).collect();
    let model = load(&sources).map_err(CliError::Invalid)?;
    UnknownTenant::refuse(&model, arguments.tenant.as_ref())?;
    let mut numbering = Numbering::default();
    let state = catena_render::render(&model, &mut numbering).map_err(CliError::NotRendered)?;
    let (topology, base) = (Topology::of(&model), BTreeMap::new());
    let network =
        Network { model: &model, topology: &topology, state: &state, base: &base, numbering: &numbering };
    let report = catena_verify::verify(&network, arguments.tenant.as_ref());
    Ok((report, arguments.replay.then(|| Original::new(&sources, model, state, base))))
}

fn shown(answer: &Answer) -> String {
    let Answer { report: VerifyReport { verdict, coverage, violations, undecided }, replay } = answer;
    let style = match verdict {
        Verdict::Proven => GOOD,
        Verdict::Violated => BAD,
        Verdict::Undecided => WARN,
    };
    let mut text = match (coverage.chains, verdict) {
        (0, Verdict::Proven) => {
            "nothing to prove: there is no chain here that promises anything\n".to_owned()
        }
        _ => format!("{}: {coverage}\n", styled(style, verdict)),
    };
    for (nth, violation) in violations.iter().enumerate().take(SHOWN) {
        text += &violated(violation);
        text += &replay.as_ref().map(|replay| replay.shown(nth)).unwrap_or_default();
    }
    undecided.iter().take(SHOWN).for_each(|undecided| text += &not_decided(undecided));
    let hidden = violations.len().saturating_sub(SHOWN) + undecided.len().saturating_sub(SHOWN);
    if hidden > 0 {
        text += &format!("\nand {hidden} more: `-o json` has them all\n");
    }
    text += &replay.as_ref().map(Replays::summary).unwrap_or_default();
    text + &not_covered(coverage)
}

/// What no verdict is about, in lines below it.
fn not_covered(coverage: &Coverage) -> String {
    let except = coverage.except.iter().filter(|_| coverage.chains > 0);
    let lines: String = except.map(|except| styled(FAINT, format!("  {except}\n"))).collect();
    if lines.is_empty() { lines } else { styled(FAINT, "\nnot looked at:\n") + &lines }
}

/// The first of them, each with its packet.
pub fn all_violated(violations: &[Violation]) -> String {
    violations.iter().take(SHOWN).map(violated).collect()
}

/// The first of what may be broken.
pub fn all_feared(undecided: &[Undecided]) -> String {
    undecided.iter().take(SHOWN).map(feared).collect()
}

/// No example is told, and why.
fn feared(undecided: &Undecided) -> String {
    let why = "all packets together were walked, and no single one was found that shows it";
    format!("\n{}\n  no packet to show: {why}\n", styled(BAD, undecided))
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
