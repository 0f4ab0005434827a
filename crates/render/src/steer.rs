//! The functions: instances, paths and the policy that chooses among them, on the switch.

use std::collections::BTreeSet;

use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, Hop, Ingress, Insertion, Instance, InstanceState, Key, NextHops,
    Object, Path, Policy, PolicyRule, Purpose, Side,
};
use catena_model::name::PortName;
use catena_model::numbering::PathOwner;
use catena_model::resource::{FunctionInstance, LinkEnd, Model, PortRef, ServiceFunction};
use catena_model::topology::Topology;

use crate::error::RenderError;
use crate::haul::{address, flow_matches, number};
use crate::route::Route;
use crate::{Canvas, Served};

pub fn render(
    model: &Model,
    topology: &Topology,
    served: &Served,
    route: &Route,
    canvas: &mut Canvas,
) -> Result<(), RenderError> {
    let mut rules = Vec::new();
    for chain in served.chains {
        let functions: Vec<&ServiceFunction> =
            chain.functions.iter().filter_map(|name| model.functions.get(name)).collect();
        let hops: Vec<Hop> = functions.iter().map(|function| hop(function, canvas)).collect();
        let owner = PathOwner::Chain(chain.name.clone(), served.site.name.clone());
        let id = number(served, &owner, &hops, canvas)?;
        for function in functions {
            for instance in &function.instances {
                let object = self::instance(topology, served, function.insertion, instance, canvas)?;
                canvas.state.insert(route.switch, Object::Instance(object));
            }
        }
        canvas.state.insert(route.switch, Object::Path(Path { id, site: served.id, hops, vlan: None }));
        rules.extend(flow_matches(chain).map(|matches| PolicyRule { matches, action: Action::Path(id) }));
    }
    let (Some(from_site), Some(to_internet)) = (route.up.last(), route.out.first()) else { return Ok(()) };
    let exits = Exits {
        up: exit(served, &to_internet.near.port, &to_internet.far)?,
        down: exit(served, &from_site.far.port, &from_site.near)?,
    };
    for (port, direction) in [(&exits.down.port, Direction::Up), (&exits.up.port, Direction::Down)] {
        ingress(route, port, direction, canvas);
    }
    let prefixes = served.site.prefixes.clone();
    let policy = Policy { site: served.id, prefixes, rules, exits: Some(exits) };
    canvas.state.insert(route.switch, Object::Policy(policy));
    Ok(())
}

fn hop(function: &ServiceFunction, canvas: &mut Canvas) -> Hop {
    let mut ids: Vec<_> =
        function.instances.iter().map(|instance| canvas.numbering.instance(&instance.name)).collect();
    ids.sort_unstable();
    Hop::of(ids)
}

fn instance(
    topology: &Topology,
    served: &Served,
    insertion: Insertion,
    instance: &FunctionInstance,
    canvas: &mut Canvas,
) -> Result<Instance, RenderError> {
    let side = |port: &PortRef| {
        let mut next_hops = NextHops::default();
        if let (Insertion::L3, Some(cable)) = (insertion, topology.cable_at(port)) {
            for family in served.site.families() {
                address(served, &cable.far, family)?;
            }
            next_hops = cable.far.next_hops();
        }
        Ok(Side { port: port.port.clone(), next_hops })
    };
    Ok(Instance {
        id: canvas.numbering.instance(&instance.name),
        insertion,
        inside: side(&instance.inside)?,
        outside: side(&instance.outside)?,
        state: InstanceState::default(),
        rewrites: false,
        delivery: Delivery::default(),
    })
}

fn exit(served: &Served, port: &PortName, neighbour: &LinkEnd) -> Result<Side, RenderError> {
    for family in served.site.families() {
        address(served, neighbour, family)?;
    }
    Ok(Side { port: port.clone(), next_hops: neighbour.next_hops() })
}

/// Adds a direction to what is steered at a port: where the same port leads to the site and to the Internet, both.
fn ingress(route: &Route, port: &PortName, direction: Direction, canvas: &mut Canvas) {
    let mut directions = BTreeSet::from([direction]);
    let key = Key::Ingress(port.clone());
    if let Some(Object::Ingress(former)) = canvas.state.element(route.switch).get(&key) {
        directions.extend(&former.directions);
    }
    let ingress = Ingress { port: port.clone(), directions, purpose: Purpose::Steer, site: None };
    canvas.state.insert(route.switch, Object::Ingress(ingress));
}
