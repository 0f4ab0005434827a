//! The functions: instances, paths and the policy that chooses among them, on the switch.

use std::collections::BTreeSet;

use catena_model::forwarding::{
    Action, Direction, Exits, Hop, Ingress, Insertion, Instance, InstanceState, Key, Member, NextHops,
    Object, Path, Policy, PolicyRule, Purpose, Side,
};
use catena_model::name::{NodeName, PortName};
use catena_model::numbering::PathOwner;
use catena_model::resource::{Chain, FunctionInstance, LinkEnd, Model, PortRef, ServiceFunction};
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
        let path = path(served, chain, route.switch, &functions, canvas)?;
        let id = path.id;
        canvas.state.insert(route.switch, Object::Path(path));
        for function in functions {
            for instance in &function.instances {
                let object = self::instance(topology, served, function, instance, canvas)?;
                canvas.state.insert(route.switch, Object::Instance(object));
            }
        }
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

fn path(
    served: &Served,
    chain: &Chain,
    switch: &NodeName,
    functions: &[&ServiceFunction],
    canvas: &mut Canvas,
) -> Result<Path, RenderError> {
    let hops: Vec<Hop> = functions.iter().map(|function| hop(function, canvas)).collect();
    let by_vlan = functions.iter().any(|function| function.insertion == Insertion::Vlan);
    let owner = PathOwner::Chain(chain.name.clone(), served.site.name.clone());
    let id = number(served, &owner, &(&hops, by_vlan), canvas)?;
    let vlan = by_vlan.then(|| canvas.numbering.vlan(switch, id)).transpose();
    let vlan = vlan.map_err(|source| RenderError::Exhausted { site: served.site.name.clone(), source })?;
    Ok(Path { id, site: served.id, hops, vlan })
}

fn hop(function: &ServiceFunction, canvas: &mut Canvas) -> Hop {
    let member = |instance: &FunctionInstance| Member {
        id: canvas.numbering.instance(&instance.name),
        weight: instance.weight,
    };
    let mut instances: Vec<Member> = function.instances.iter().map(member).collect();
    instances.sort_unstable();
    Hop { instances, stickiness: function.stickiness, on_failure: function.on_failure }
}

fn instance(
    topology: &Topology,
    served: &Served,
    function: &ServiceFunction,
    instance: &FunctionInstance,
    canvas: &mut Canvas,
) -> Result<Instance, RenderError> {
    let side = |port: &PortRef| {
        let mut next_hops = NextHops::default();
        if let (Insertion::L3, Some(cable)) = (function.insertion, topology.cable_at(port)) {
            for family in served.site.families() {
                address(served, &cable.far, family)?;
            }
            next_hops = cable.far.next_hops();
        }
        Ok(Side { port: port.port.clone(), next_hops })
    };
    Ok(Instance {
        id: canvas.numbering.instance(&instance.name),
        insertion: function.insertion,
        inside: side(&instance.inside)?,
        outside: side(&instance.outside)?,
        state: if instance.drain { InstanceState::Draining } else { InstanceState::Up },
        rewrites: function.changes_addresses,
        delivery: function.delivery,
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
