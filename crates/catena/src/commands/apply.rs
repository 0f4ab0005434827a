//! `plan`, `apply`, `delete`: what a change does, before and after it is done.

use std::collections::BTreeSet;
use std::fmt::Display;

use catena_api::types::{
    ApplyReport, ApplyRequest, ChangeReport, DeleteRequest, DrainReport, ElementState, NotInstalled, Outcome,
    PlanReport, Promise, Property, ResourceName, Timestamp, Undecided, VerifyReport, Violation,
};
use catena_control::Mode;
use catena_model::forwarding::Change;
use catena_verify::Verdict;

use crate::arguments::{Allowance, Apply, Connection, Delete, Plan};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, BAD, FAINT, GOOD, PLAIN, STRONG, WARN, styled};
use crate::sources;

pub async fn plan(connection: &Connection, arguments: &Plan) -> Result<(), CliError> {
    let sources = sources::read(&arguments.files.files)?;
    let request = ApplyRequest { sources, dry_run: true, allow: allowed(&arguments.allowance) };
    let report: ApplyReport = Client::connect(connection, Mode::Look).await?.post("apply", &request).await?;
    output::answer(arguments.output.output, &report, shown_plan)?;
    warn(&report, &arguments.allowance);
    Ok(())
}

pub async fn apply(connection: &Connection, arguments: &Apply) -> Result<(), CliError> {
    let request = ApplyRequest {
        sources: sources::read(&arguments.files.files)?,
        dry_run: arguments.dry_run,
        allow: allowed(&arguments.allowance),
    };
    let mode = mode(arguments.dry_run);
    let report: ApplyReport = Client::connect(connection, mode).await?.post("apply", &request).await?;
    output::answer(arguments.output.output, &report, shown)?;
    warn(&report, &arguments.allowance);
    if lacks_something(&report) && !arguments.dry_run { Err(CliError::NotInstalled) } else { Ok(()) }
}

pub async fn delete(connection: &Connection, arguments: &Delete) -> Result<(), CliError> {
    let named =
        |name: &String| ResourceName { kind: arguments.kind.clone().unwrap_or_default(), name: name.clone() };
    let request = DeleteRequest {
        sources: sources::read(&arguments.files.files)?,
        resources: arguments.names.iter().map(named).collect(),
        dry_run: arguments.dry_run,
        allow: allowed(&arguments.allowance),
    };
    let mode = mode(arguments.dry_run);
    let report: ApplyReport = Client::connect(connection, mode).await?.post("delete", &request).await?;
    output::answer(arguments.output.output, &report, shown)?;
    warn(&report, &arguments.allowance);
    Ok(())
}

fn allowed(allowance: &Allowance) -> BTreeSet<Property> {
    allowance.allow.iter().copied().collect()
}

/// Whether something that was asked for, now or before, is not installed.
fn lacks_something(report: &ApplyReport) -> bool {
    report.not_installed.iter().any(|element| element.objects > 0)
}

/// Says what is not as it must be. On standard error, so that the answer remains what it is.
fn warn(report: &ApplyReport, allowance: &Allowance) {
    let warnings = warnings(&report.not_installed).into_iter().chain(broken(report));
    for warning in warnings.chain(needless(report, allowance)) {
        anstream::eprintln!("{}: {warning}", styled(WARN, "warning"));
    }
}

/// The promises that do not hold, although the change was not refused.
fn broken(report: &ApplyReport) -> Vec<String> {
    let by = |is_it: &dyn Fn(&Promise) -> bool| {
        report.given_up.iter().find(|given_up| is_it(&given_up.promise)).map(|given_up| &given_up.by)
    };
    let told = |by: Option<&String>, what: &dyn Display| match by {
        Some(by) => format!("given up by {by}: {what}"),
        None => format!("broken before this already: {what}"),
    };
    let violated = |violation: &Violation| told(by(&|promise| promise.is_broken_by(violation)), violation);
    let feared = |undecided: &Undecided| {
        undecided.property?;
        Some(told(by(&|promise| promise.is_feared_by(undecided)), undecided))
    };
    let verified = report.verified.iter();
    let broken = verified.flat_map(|verified| {
        verified.violations.iter().map(violated).chain(verified.undecided.iter().filter_map(feared))
    });
    shortened(broken.collect(), "`catena verify` has them all")
}

/// What was given up and is not broken.
fn needless(report: &ApplyReport, allowance: &Allowance) -> Vec<String> {
    let is_used = |property| report.given_up.iter().any(|given_up| given_up.promise.property == property);
    let needless = allowed(allowance).into_iter().filter(|property| !is_used(*property));
    needless.map(|property| format!("`--allow {property}` was not needed: nothing breaks it")).collect()
}

/// What was verified and what could not be; nothing where there is no chain.
fn shown_verdict(report: &ApplyReport) -> String {
    let Some(verified) = report.verified.as_ref().filter(|verified| verified.coverage.chains > 0) else {
        return String::new();
    };
    let VerifyReport { verdict, coverage, undecided, .. } = verified;
    // What may be broken is warned of, too.
    let undecided: Vec<&Undecided> = undecided.iter().filter(|it| it.property.is_none()).collect();
    let lines = match verdict {
        // These are warned of.
        Verdict::Violated | Verdict::Undecided if undecided.is_empty() => return String::new(),
        Verdict::Proven => vec![format!("{}: {coverage}", styled(GOOD, "proven"))],
        Verdict::Violated | Verdict::Undecided => {
            let undecided =
                undecided.iter().map(|undecided| format!("{}: {undecided}", styled(WARN, "undecided")));
            shortened(undecided.collect(), "`catena verify` has them all")
        }
    };
    lines.join("\n") + "\n"
}

/// At most so many lines, and how many there are besides.
fn shortened(mut lines: Vec<String>, where_all_are: &str) -> Vec<String> {
    const MOST: usize = 10;
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("and {more} more; {where_all_are}"));
    }
    lines
}

fn warnings(not_installed: &[NotInstalled]) -> Vec<String> {
    let (away, differing): (Vec<_>, Vec<_>) =
        not_installed.iter().partition(|element| element.state == ElementState::Unreachable);
    let mut warnings: Vec<String> =
        differing.iter().map(|found| format!("not installed on {}: {}", found.element, found.why)).collect();
    match &away[..] {
        [] => {}
        [one] => warnings.push(format!("element {} cannot be reached: {}", one.element, one.why)),
        [first, ..] => {
            let names: Vec<&str> = away.iter().map(|found| found.element.as_str()).collect();
            let NotInstalled { element, why, .. } = first;
            let (number, names) = (away.len(), names.join(", "));
            warnings.push(format!("{number} elements cannot be reached: {names} ({element}: {why})"));
        }
    }
    warnings
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::Look } else { Mode::Control }
}

fn shown(report: &ApplyReport) -> String {
    let mut text = String::new();
    for resource in &report.resources {
        let style = match resource.outcome {
            Outcome::Created | Outcome::Deleted => GOOD,
            Outcome::Changed => WARN,
            Outcome::Unchanged | Outcome::Absent => FAINT,
        };
        let name = format!("{}/{}", resource.kind, resource.name);
        text += &format!("{name} {}\n", styled(style, resource.outcome));
    }
    if report.dry_run {
        text += &format!("\n{}", shown_plan(report));
        text += &styled(FAINT, "this was a dry run: nothing was changed\n");
    } else if report.plan.0.is_empty() && lacks_something(report) {
        text += "this changes nothing of what must be installed\n";
    } else if report.plan.0.is_empty() {
        text += "nothing had to be installed or removed\n";
    } else {
        text += &format!("done and confirmed: {}\n", summary(&report.plan));
    }
    if !report.dry_run {
        text += &shown_verdict(report);
    }
    for drain in &report.draining {
        text += &shown_drain(drain);
    }
    text
}

fn shown_plan(report: &ApplyReport) -> String {
    steps(report) + &shown_verdict(report)
}

/// Every step under its phase and element, and what it amounts to.
fn steps(report: &ApplyReport) -> String {
    let plan = &report.plan;
    if plan.0.is_empty() && lacks_something(report) {
        return "this changes nothing of what must be installed\n".to_owned();
    }
    if plan.0.is_empty() {
        return "nothing to do: what is installed is what was asked for\n".to_owned();
    }
    let mut text = String::new();
    let mut last_phase = None;
    for step in &plan.0 {
        if last_phase != Some(step.phase) {
            text += &format!("{}\n", styled(STRONG, step.phase));
            last_phase = Some(step.phase);
        }
        text += &format!("  {}\n", step.element);
        for change in &step.changes {
            text += &format!("    {}\n", shown_change(change));
        }
    }
    text + &format!("{}\n", summary(plan))
}

fn shown_change(change: &ChangeReport) -> String {
    let style = match change.words.chars().next() {
        Some('+') => GOOD,
        Some('~') => WARN,
        Some('-') => BAD,
        _ => PLAIN,
    };
    styled(style, &change.words)
}

/// How much changes, on how many elements.
fn summary(plan: &PlanReport) -> String {
    let mut elements: Vec<_> = plan.0.iter().map(|step| &step.element).collect();
    elements.sort();
    elements.dedup();
    let changes = || plan.0.iter().flat_map(|step| &step.changes).map(|change| &change.change);
    let new = changes().filter(|change| matches!(change, Change::Put { old: None, .. })).count();
    let replaced = changes().filter(|change| matches!(change, Change::Put { old: Some(_), .. })).count();
    let gone = changes().filter(|change| matches!(change, Change::Delete { .. })).count();
    let on = match elements.len() {
        1 => "1 element".to_owned(),
        number => format!("{number} elements"),
    };
    format!("{new} new, {replaced} replaced, {gone} removed, on {on}")
}

/// A path that waits for its last flows.
pub fn shown_drain(drain: &DrainReport) -> String {
    let DrainReport { element, chain, site, generation, flows, .. } = drain;
    let flows = match flows {
        None => "its flows".to_owned(),
        Some(1) => "1 flow".to_owned(),
        Some(number) => format!("{number} flows"),
    };
    let left = drain.deadline.duration_since(Timestamp::now()).as_secs().max(0);
    format!(
        "generation {generation} of {chain} for {site} stays on {element} until {flows} end, at most for {left} s\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_told_in_few_lines() {
        let found = |name: &str, state, why: &str| NotInstalled {
            element: name.parse().unwrap(),
            state,
            why: why.to_owned(),
            since: Timestamp::now(),
            objects: 1,
        };
        let all = [
            found("access-a", ElementState::Unreachable, "no namespace"),
            found("br-int", ElementState::OutOfSync, "there is no port web1-in"),
            found("edge", ElementState::Unreachable, "no namespace"),
        ];
        assert_eq!(
            warnings(&all),
            [
                "not installed on br-int: there is no port web1-in",
                "2 elements cannot be reached: access-a, edge (access-a: no namespace)",
            ]
        );
        assert_eq!(warnings(&all[2..]), ["element edge cannot be reached: no namespace"]);
        assert!(warnings(&[]).is_empty());
    }
}
