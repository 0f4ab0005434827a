//! Counter-examples: for each finding one concrete packet, confirmed by the walk of single packets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::forwarding::{
    Change, Direction, ForwardingState, Instance, InstanceState, Object, Purpose,
};
use catena_model::name::NodeName;
use catena_model::topology::Cable;

use crate::broken::Broken;
use crate::class::Class;
use crate::fabric::Fabric;
use crate::intent::{Gate, ServedSite};
use crate::kind::Probe;
use crate::property::Gone;
use crate::verdict::{Loss, Property, Undecided, Violation};
use crate::verify::Finding;
use crate::walk::walk_from;
use crate::way::{self, Way};
use crate::{End, Network, Walk};

/// How many packets of a class are tried.
const TRIES: usize = 512;

pub struct Examples<'v> {
    network: &'v Network<'v>,
    fabric: &'v Fabric,
    /// Addresses that people know: the hosts' of the inventory, the Internet's first.
    known: Vec<IpAddr>,
    /// Those on the Internet. What one site sends to another, or to itself, functions route as they like.
    beyond: Vec<IpAddr>,
    found: Found,
    /// Of what, and whether with a packet that shows it.
    told: BTreeSet<(bool, Option<Property>, String, String, Direction)>,
}

#[derive(Clone, Debug, Default)]
pub struct Found {
    pub violations: Vec<Violation>,
    pub undecided: Vec<Undecided>,
    /// Of all findings, the told ones and the others.
    pub broken: Vec<Broken>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

impl<'v> Examples<'v> {
    pub fn new(network: &'v Network<'v>, fabric: &'v Fabric) -> Self {
        // Those that talk, rather than those that pass on what others say.
        let talking = network.model.hosts.values().filter(|host| !host.forwarding);
        let hosts = talking.flat_map(|host| network.topology.cables(&host.name));
        let (beyond, inside): (Vec<&Cable>, Vec<&Cable>) = hosts.partition(|cable| cable.far.external);
        let addresses = |cables: Vec<&Cable>| -> Vec<IpAddr> {
            cables.iter().flat_map(|cable| &cable.near.addresses).map(|address| address.addr()).collect()
        };
        let beyond = addresses(beyond);
        let known = [beyond.as_slice(), &addresses(inside)].concat();
        Self { network, fabric, known, beyond, found: Found::default(), told: BTreeSet::new() }
    }

    /// What packets to and from the Internet show comes first, and of that what plain ones show: of findings that say the same of
    /// one chain, the first is told.
    pub fn sort(&self, findings: &mut [Finding]) {
        let strangeness = |class: &Class| (!class.is_between(&self.known, &self.beyond), !class.has_plain());
        for finding in &mut *findings {
            finding.classes.sort_by_key(strangeness);
        }
        findings.sort_by_key(|finding| finding.classes.first().map_or((true, true), strangeness));
    }

    pub fn finish(self) -> Found {
        self.found
    }

    /// Adds a finding with its packet. Of findings that say the same of one chain the first is told.
    pub fn add(&mut self, served: &ServedSite, finding: Finding) {
        let Some(chain) = served.chains.get(finding.chain).map(|served| served.chain.name.clone()) else {
            return;
        };
        let site = served.site.name.clone();
        let Finding { fault, direction, gate, classes, way, .. } = finding;
        if let (Some(property), Some(gate)) = (fault.property, &gate) {
            let whose = (chain.clone(), site.clone(), direction);
            let without = fault.without.as_ref().map(|gone| self.name(gone));
            let broken = Broken::new(property, whose, (fault.what.clone(), without), gate.entry.clone());
            let packets = if fault.among.is_empty() { &classes } else { &fault.among };
            broken.add_to(&mut self.found.broken, packets);
        }
        let key = |is_shown| (is_shown, fault.property, chain.to_string(), site.to_string(), direction);
        // What is shown once need not be feared.
        if self.told.contains(&key(true)) {
            return;
        }
        let losses = fault.without.as_ref().map(|gone| self.losses(gone)).unwrap_or_default();
        let shown = gate.as_ref().and_then(|gate| self.show(gate, &classes, way.as_ref(), &losses));
        let entry = gate.map(|gate| gate.entry);
        let is_shown = !fault.is_doubtful && fault.property.is_some() && shown.is_some() && entry.is_some();
        if !self.told.insert(key(is_shown)) {
            return;
        }
        match (fault.property, shown, entry) {
            (Some(property), Some(walk), Some(entry)) if is_shown => {
                let without = fault.without.as_ref().map(|gone| self.name(gone));
                let what = fault.what;
                let violation =
                    Violation { property, chain, site, direction, what, without, losses, entry, walk };
                self.found.violations.push(violation);
            }
            (property, walk, entry) => {
                let what = match property {
                    Some(_) if fault.is_doubtful => fault.what,
                    // The two walks are written apart from each other, so that one can judge the other.
                    Some(_) => {
                        format!(
                            "{}, says the walk of classes, but no packet was found that shows it",
                            fault.what
                        )
                    }
                    None => match walk.as_ref().map(|walk| &walk.end) {
                        Some(End::Undecided { node, why }) => format!("{node}: {why}"),
                        _ => fault.what,
                    },
                };
                self.found.undecided.push(Undecided { property, chain, site, direction, what, entry, walk });
            }
        }
    }

    /// The walk of the first packet of these classes that goes the way; a whole one, if there is one.
    fn show(&self, gate: &Gate, classes: &[Class], way: Option<&Way>, losses: &[Loss]) -> Option<Walk> {
        let damaged = (!losses.is_empty()).then(|| self.after(losses));
        let network = Network { state: damaged.as_ref().unwrap_or(self.network.state), ..*self.network };
        let tries = TRIES.div_ceil(classes.len().max(1));
        let mut probes: Vec<Probe> =
            classes.iter().flat_map(|class| class.examples(&self.known).take(tries)).collect();
        probes.sort_by_key(|probe| !probe.kind.is_whole());
        let mut walks = probes.into_iter().map(|probe| walk_from(&network, &gate.entry, probe));
        walks.find(|walk| way.is_none_or(|way| self.agree(way, walk)))
    }

    /// Whether a packet went the way of its class.
    fn agree(&self, way: &Way, walk: &Walk) -> bool {
        agree(self.fabric, way, walk)
    }

    fn after(&self, losses: &[Loss]) -> ForwardingState {
        let mut state = self.network.state.clone();
        for Loss { element, change } in losses {
            if let Some(element) = state.elements.get_mut(element) {
                element.apply(change);
            }
        }
        state
    }

    /// What the network loses.
    fn losses(&self, gone: &Gone) -> Vec<Loss> {
        let lost = |(element, object): (&NodeName, &Object)| {
            Some(Loss { element: element.clone(), change: self.loss(gone, element, object)? })
        };
        let elements = self.network.state.elements.iter();
        elements
            .flat_map(|(element, state)| state.iter().map(move |object| (element, object)))
            .filter_map(lost)
            .collect()
    }

    fn loss(&self, gone: &Gone, element: &NodeName, object: &Object) -> Option<Change> {
        match (gone, object) {
            (Gone::Function { instances, .. }, Object::Instance(instance))
                if instances.contains(&instance.id) =>
            {
                let down = Instance { state: InstanceState::Down, ..instance.clone() };
                Some(Change::Put { new: Object::Instance(down), old: Some(object.clone()) })
            }
            (Gone::Claims(node), Object::Ingress(ingress)) => {
                let is_gone = ingress.purpose == Purpose::Claim && self.fabric.node(*node).name == *element;
                is_gone.then(|| Change::Delete { old: object.clone() })
            }
            _ => None,
        }
    }

    fn name(&self, gone: &Gone) -> String {
        match gone {
            Gone::Function { name, .. } => format!("an instance of {name}"),
            Gone::Claims(node) => format!("the claims of {}", self.fabric.node(*node).name),
        }
    }
}

/// Whether a packet went the way of its class: by the same places, to the same end.
pub fn agree(fabric: &Fabric, way: &Way, walk: &Walk) -> bool {
    let places = way.hops.iter().map(|hop| {
        let node = fabric.node(hop.place.node);
        (&node.name, &node.port_of(hop.place.port).name)
    });
    let visits = walk.visits.iter().filter_map(|visit| Some((&visit.node, visit.in_port.as_ref()?)));
    if matches!(way.end, way::End::Home | way::End::Beyond(_)) {
        return visits.take(way.hops.len()).eq(places);
    }
    let same_end = matches!(
        (way.end, &walk.end),
        (way::End::Delivered, End::Delivered { .. })
            | (way::End::Internet, End::Internet { .. })
            | (way::End::Link(_), End::Link { .. })
            | (way::End::Site(_), End::Site { .. })
            | (way::End::Dropped(_), End::Dropped { .. })
            | (way::End::Loop, End::Loop { .. })
            | (way::End::Undecided(_), End::Undecided { .. })
    );
    // Where packets loop, the last place is told once by the one walk and twice by the other.
    same_end && places.eq(visits)
}
