//! What the maps hold and others decide: whether a port leads into another namespace, and who answers for a next hop. It is
//! looked at again with every sweep of flows, and at once when netlink tells of links or neighbours (`events`).

use catena_driver::DriverError;
use catena_model::forwarding::Delivery;

use crate::layout::{Instance, Side};
use crate::maps::Maps;
use crate::neighbours;
use crate::ports::Finder;
use crate::words;

/// In the element's namespace, while nobody applies a change.
pub(crate) fn refresh(maps: &Maps) -> Result<(), DriverError> {
    let mut finder = Finder::open()?;
    let mut instances = maps.instances.entries()?;
    instances.retain(|(_, instance)| instance.handle != 0);
    for (slot, instance) in &mut instances {
        let delivery = words::read_delivery(instance.delivery).unwrap_or_default();
        let inside = lead(&instance.inside, delivery, &mut finder)?;
        let outside = lead(&instance.outside, delivery, &mut finder)?;
        let now = Instance { inside, outside, ..*instance };
        if now != *instance {
            maps.instances.put(slot, &now)?;
            *instance = now;
        }
    }
    let mut exits = maps.exits.entries()?;
    exits.retain(|(_, exit)| exit.ifindex != 0);
    for (slot, exit) in &mut exits {
        let now = lead(exit, Delivery::Direct, &mut finder)?;
        if now != *exit {
            maps.exits.put(slot, &now)?;
            *exit = now;
        }
    }
    let functions = instances.iter().flat_map(|(_, instance)| [&instance.inside, &instance.outside]);
    neighbours::refresh(
        (&maps.neighbours, &maps.attended),
        functions.chain(exits.iter().map(|(_, exit)| exit)),
    )
}

/// The side as its port is now. One whose port is gone, or another, is left to whoever observes it.
pub(crate) fn lead(side: &Side, delivery: Delivery, finder: &mut Finder) -> Result<Side, DriverError> {
    let port = match words::read_port_name(&side.name) {
        Some(name) => finder.look(&name)?.filter(|port| port.ifindex == side.ifindex),
        None => None,
    };
    Ok(port.map_or(*side, |port| words::leading(side, port, delivery)))
}
