//! Where captures see a packet that goes a way: at which ports it comes in, one after the other.

use catena_model::forwarding::Direction;
use catena_model::name::{NodeName, PortName};
use catena_model::resource::{FunctionInstance, Model, PortRef};
use catena_model::topology::Topology;
use serde::{Deserialize, Serialize};

use crate::{Decision, End, Walk};

/// What is seen of one packet. Outer packets of tunnels are not told: what is in them comes in at the tunnel's far end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrivals {
    pub ports: Vec<Arrival>,
    /// Where copies come in, beside the packet itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<Arrival>,
    /// What is predicted ends here, and the packet goes on: it loops, or it meets what is not understood.
    pub goes_on: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Arrival {
    pub node: NodeName,
    pub port: PortName,
}

impl Walk {
    pub fn arrivals(&self, model: &Model, topology: &Topology) -> Arrivals {
        let mut seen = Arrivals::default();
        for visit in &self.visits {
            if let Some(port) = &visit.in_port {
                seen.ports.push(Arrival { node: visit.node.clone(), port: port.clone() });
            }
            let mut direction = Direction::Up;
            for decision in &visit.decisions {
                match decision {
                    Decision::Steered { direction: way, .. } => direction = *way,
                    Decision::Function { instance, .. } => {
                        let Some((to, back)) = sides(model, instance, direction) else { continue };
                        seen.ports.extend(far_end(topology, to));
                        seen.ports.push(Arrival { node: back.element.clone(), port: back.port.clone() });
                    }
                    Decision::Kept { instance, .. } => {
                        let to = sides(model, instance, direction).map(|(to, _)| to);
                        seen.ports.extend(to.and_then(|to| far_end(topology, to)));
                    }
                    Decision::Copied { instance, .. } => {
                        let to = sides(model, instance, direction).map(|(to, _)| to);
                        seen.copies.extend(to.and_then(|to| far_end(topology, to)));
                    }
                    _ => {}
                }
            }
        }
        match &self.end {
            End::Internet { node, port } => seen.ports.extend(self.first_beyond(topology, node, port)),
            End::Loop { .. } | End::Undecided { .. } => seen.goes_on = true,
            End::Delivered { .. }
            | End::Link { .. }
            | End::Site { .. }
            | End::Dropped { .. }
            | End::NoStart { .. } => {}
        }
        seen
    }

    /// The host on the external link that takes packets for the Internet, if that is where this one is sent.
    fn first_beyond(&self, topology: &Topology, node: &NodeName, port: &PortName) -> Option<Arrival> {
        let via = match self.visits.last()?.decisions.last()? {
            Decision::Base { via, .. } | Decision::Routed { via, .. } => (*via)?,
            _ => return None,
        };
        let far = &topology.cable(node, port)?.far;
        let takes = far.addresses.iter().any(|address| address.addr() == via);
        takes.then(|| Arrival { node: far.node.clone(), port: far.port.clone() })
    }
}

/// The switch's ports by which packets go to an instance and come back.
fn sides<'m>(model: &'m Model, name: &str, direction: Direction) -> Option<(&'m PortRef, &'m PortRef)> {
    let mut all = model.functions.values().flat_map(|function| &function.instances);
    let FunctionInstance { inside, outside, .. } = all.find(|instance| instance.name.as_str() == name)?;
    Some(match direction {
        Direction::Up => (inside, outside),
        Direction::Down => (outside, inside),
    })
}

fn far_end(topology: &Topology, port: &PortRef) -> Option<Arrival> {
    let far = &topology.cable_at(port)?.far;
    Some(Arrival { node: far.node.clone(), port: far.port.clone() })
}
