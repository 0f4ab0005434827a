//! What is installed, read back in our own words.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_model::address::Family;
use catena_model::forwarding::{ElementState, Object, PathId, Table};
use catena_model::name::PortName;

use crate::kernel::Kernel;
use crate::table::{NOWHERE, table_of};

/// All our rules and tables. A damaged table is read as one that leads nowhere ([`NOWHERE`]). A rule without its
/// guard, or a guard without its rule, is read as one that leads nowhere too ([`whole_rules`](crate::rules::OurRules::whole_rules)). A rule that was
/// changed cannot be told in our words and is left out; the next step that changes rules clears it away.
pub(crate) fn observe(kernel: &mut Kernel<'_>) -> Result<ElementState, DriverError> {
    let mut state = ElementState::default();
    state.extend(kernel.our_rules()?.whole_rules().into_iter().map(Object::Rule));
    for family in Family::BOTH {
        for path in our_paths(kernel, family)? {
            state.extend(observe_table(kernel, path, family)?.map(Object::Table));
        }
    }
    Ok(state)
}

/// The paths that have any route of ours in their table.
fn our_paths(kernel: &mut Kernel<'_>, family: Family) -> Result<BTreeSet<PathId>, DriverError> {
    let numbers = kernel.numbers;
    let routes = kernel.routes(family, numbers.protocol)?;
    let ours = routes.iter().filter(|route| route.header.protocol == numbers.protocol);
    Ok(ours.filter_map(|route| numbers.path(table_of(route))).collect())
}

fn observe_table(
    kernel: &mut Kernel<'_>,
    path: PathId,
    family: Family,
) -> Result<Option<Table>, DriverError> {
    let Some(number) = kernel.numbers.table(path) else { return Ok(None) };
    // All routes of the table, not ours alone: a foreign one would lead packets elsewhere.
    if let Some(way) = kernel.table(family, number)?.way()
        && let Some(port) = kernel.port_name(way.port)?
    {
        return Ok(Some(Table { path, family, port, via: way.via }));
    }
    Ok(PortName::new(NOWHERE).ok().map(|port| Table { path, family, port, via: None }))
}
