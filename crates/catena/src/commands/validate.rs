//! `validate`: what is written, checked and rendered without touching anything.

use std::collections::BTreeMap;
use std::time::Instant;

use catena_model::count::counted;
use catena_model::numbering::Numbering;
use catena_model::resource::{Model, Source, load};
use serde::Serialize;

use crate::arguments::Validate;
use crate::error::CliError;
use crate::output;
use crate::sources;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validated {
    /// How many of each kind.
    resources: BTreeMap<&'static str, usize>,
    /// What the elements will be told, all together.
    objects: usize,
    validate_ms: f64,
    render_ms: f64,
}

pub fn validate(arguments: &Validate) -> Result<(), CliError> {
    let sources = sources::read(&arguments.files.files)?;
    let sources: Vec<Source> =
        sources.into_iter().map(|source| Source::new(source.name, source.text)).collect();
    let start = Instant::now();
    let model = load(&sources).map_err(CliError::Invalid)?;
    let validated = start.elapsed();
    let state = catena_render::render(&model, &mut Numbering::default()).map_err(CliError::NotRendered)?;
    let report = Validated {
        resources: counts(&model),
        objects: state.elements.values().map(|element| element.len()).sum(),
        validate_ms: validated.as_secs_f64() * 1000.0,
        render_ms: (start.elapsed() - validated).as_secs_f64() * 1000.0,
    };
    output::answer(arguments.output.output, &report, shown)
}

fn counts(model: &Model) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("elements", model.elements.len()),
        ("hosts", model.hosts.len()),
        ("links", model.links.len()),
        ("functions", model.functions.len()),
        ("tenants", model.tenants.len()),
        ("sites", model.sites.len()),
        ("chains", model.chains.len()),
    ])
}

fn shown(report: &Validated) -> String {
    let counts: Vec<String> = report
        .resources
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(kind, number)| counted(*number, kind.trim_end_matches('s')))
        .collect();
    let counts = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    format!(
        "valid: {counts}; {} on the elements (checked in {:.0} ms, rendered in {:.0} ms)\n",
        counted(report.objects, "object"),
        report.validate_ms,
        report.render_ms
    )
}
