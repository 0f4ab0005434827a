//! From the model to what every network element must do, in both directions. Pure: the same model and the same numbers
//! give the same forwarding state, and what is installed anywhere is not looked at.
//!
//! A site with a chain is rendered in three parts, each in a module of its own:
//!
//! - [`route`](mod@route): by which elements the site's packets go, from the links alone;
//! - [`haul`](mod@haul): the claims at both ends of that route, and the policy routing between them;
//! - [`steer`](mod@steer): the functions, on the switch.
//!
//! Start reading at [`render`].

mod error;
mod haul;
mod route;
mod steer;

use std::collections::{BTreeMap, BTreeSet};

use catena_model::forwarding::{ForwardingState, SiteId};
use catena_model::name::SiteName;
use catena_model::numbering::{Numbering, PathOwner};
use catena_model::resource::{Chain, Model, Site};
use catena_model::topology::{Topology, external_ports};

pub use error::{RenderError, Subject};
use route::Routes;

/// What every element must do so that each chain of `model` holds.
///
/// `numbering` keeps the numbers of what had one, gets numbers for what is new, and forgets what is not in the model. A
/// path whose content has changed gets a new number. On error it may have changed: render with a copy.
pub fn render(model: &Model, numbering: &mut Numbering) -> Result<ForwardingState, Vec<RenderError>> {
    let topology = Topology::of(model);
    let mut routes = Routes::new(model, &topology, external_ports(model, &topology).collect());
    let mut canvas = Canvas { state: ForwardingState::default(), numbering, owners: BTreeSet::new() };
    let mut errors = Vec::new();
    let mut served = BTreeSet::new();
    for (name, chains) in chains_by_site(model) {
        let Some(site) = model.sites.get(name) else { continue };
        served.insert(name);
        if let Err(error) = render_site(model, &topology, &mut routes, site, &chains, &mut canvas) {
            errors.push(error);
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let Canvas { state, owners, .. } = canvas;
    let instances = model
        .functions
        .values()
        .flat_map(|function| &function.instances)
        .map(|instance| &instance.name)
        .collect();
    numbering.keep(&served, &instances, &owners);
    Ok(state)
}

/// What has been rendered so far.
struct Canvas<'a> {
    state: ForwardingState,
    numbering: &'a mut Numbering,
    /// Of all paths that were rendered.
    owners: BTreeSet<PathOwner>,
}

/// A site whose chains are being rendered.
struct Served<'a> {
    site: &'a Site,
    id: SiteId,
    /// Those that come first claim first.
    chains: &'a [&'a Chain],
}

fn render_site<'a>(
    model: &Model,
    topology: &Topology,
    routes: &mut Routes<'a>,
    site: &'a Site,
    chains: &[&'a Chain],
    canvas: &mut Canvas,
) -> Result<(), RenderError> {
    let Some(route) = routes.of(site, chains)? else { return Ok(()) };
    let served = Served { site, id: canvas.numbering.site(&site.name), chains };
    haul::render(&served, &route, canvas)?;
    steer::render(model, topology, &served, &route, canvas)
}

/// The chains of each site that has any, in the order in which they claim: by priority, then by name.
fn chains_by_site(model: &Model) -> BTreeMap<&SiteName, Vec<&Chain>> {
    let mut by_site: BTreeMap<&SiteName, Vec<&Chain>> = BTreeMap::new();
    for chain in model.chains.values() {
        for site in &chain.sites {
            by_site.entry(site).or_default().push(chain);
        }
    }
    for chains in by_site.values_mut() {
        chains.sort_by_key(|chain| std::cmp::Reverse(chain.priority));
    }
    by_site
}
