//! What was asked for, as the verifier sees it: whose packets come in where, and which chain claims them. It is read from
//! the model alone, never from what was rendered.

use std::collections::BTreeMap;

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Direction, FlowMatch, SiteId};
use catena_model::name::{NodeName, PortName, SiteName};
use catena_model::resource::{Attachment, Chain, Model, Role, ServiceFunction, Site, Traffic};
use catena_model::topology::{Cable, external_ports};

use crate::class::{Class, Kinds, Span, take};
use crate::fabric::{Fabric, Node, NodeId, Place};
use crate::{Entry, Network};

/// All sites that have a chain.
pub struct Intent<'a> {
    pub sites: BTreeMap<SiteName, ServedSite<'a>>,
}

/// A site with its chains, those that claim first first.
pub struct ServedSite<'a> {
    pub site: &'a Site,
    /// `None` where nothing was ever rendered for it.
    pub id: Option<SiteId>,
    pub chains: Vec<ServedChain<'a>>,
    /// Where the site's own packets come in.
    pub gates: Vec<Gate>,
    /// The customer's end of the attachment: what gets there is with the site.
    pub home: Option<NodeId>,
    home_is_driven: bool,
    /// The addresses of the site.
    addresses: Vec<(Family, Span<u128>)>,
}

pub struct ServedChain<'a> {
    pub chain: &'a Chain,
    /// In the order of the way up.
    pub functions: Vec<&'a ServiceFunction>,
}

/// A place where packets come in.
#[derive(Clone, Debug)]
pub struct Gate {
    pub entry: Entry,
    pub place: Place,
    /// Out of this site's tunnel.
    pub tunnel: Option<SiteId>,
}

/// Some of a site's packets, as the site sends them: disjoint classes.
#[derive(Clone, Debug)]
pub struct Claim {
    pub classes: Vec<Class>,
    pub by: ClaimedBy,
}

impl Gate {
    /// Where packets come in by a cable.
    pub fn at(fabric: &Fabric, place: Place) -> Self {
        let node = fabric.node(place.node);
        let port = node.port_of(place.port).name.clone();
        Self { entry: Entry { node: node.name.clone(), port, tunnel: None }, place, tunnel: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedBy {
    /// By the chain that stands here among the site's.
    Chain(usize),
    Nothing,
    /// By no chain, which only the switch can tell: for its DSCP, or where a program before it sees another address. They may go that
    /// way.
    NothingAtTheSwitch,
}

impl<'a> Intent<'a> {
    pub fn new(network: &Network<'a>, fabric: &Fabric) -> Self {
        let mut chains: BTreeMap<&SiteName, Vec<&Chain>> = BTreeMap::new();
        for chain in network.model.chains.values() {
            for site in &chain.sites {
                chains.entry(site).or_default().push(chain);
            }
        }
        let sites = chains.into_iter().filter_map(|(name, chains)| {
            Some((name.clone(), ServedSite::new(network, fabric, name, chains)?))
        });
        Self { sites: sites.collect() }
    }
}

/// Where the Internet's packets come in.
pub fn external_gates(network: &Network, fabric: &Fabric) -> Vec<Gate> {
    external_ports(network.model, network.topology)
        .filter_map(|(_, cable)| gate_at(fabric, &cable.near.node, &cable.near.port))
        .collect()
}

impl<'a> ServedSite<'a> {
    /// A site with these chains, which are in the order of their names; `None` where there is no such site.
    pub fn new(
        network: &Network<'a>,
        fabric: &Fabric,
        name: &SiteName,
        chains: impl IntoIterator<Item = &'a Chain>,
    ) -> Option<Self> {
        let model = network.model;
        let site = model.sites.get(name)?;
        let id = network.numbering.site_id(name);
        let served = |chain: &'a Chain| {
            let functions = chain.functions.iter().filter_map(|name| model.functions.get(name)).collect();
            ServedChain { chain, functions }
        };
        let mut chains: Vec<ServedChain> = chains.into_iter().map(served).collect();
        chains.sort_by_key(|served| std::cmp::Reverse(served.chain.priority));
        let home = home(model, site).and_then(|node| fabric.id(node));
        let home_is_driven = home.is_some_and(|node| fabric.node(node).role.is_some());
        let gates = gates(network, fabric, site, id);
        let addresses = site.prefixes.iter().map(|own| (own.family(), Span::of(*own))).collect();
        Some(Self { site, id, chains, gates, home, home_is_driven, addresses })
    }
}

impl ServedSite<'_> {
    /// All packets from one of the site's prefixes, or to it, and the ICMP errors that belong to their flows: the site's own
    /// come from its addresses, others' from anywhere.
    pub fn packets(&self, prefix: Prefix, direction: Direction) -> Vec<Class> {
        let all = all_packets(prefix).into_iter().map(|class| class.seen_from_site(direction));
        match direction {
            Direction::Down => all.collect(),
            Direction::Up => all.flat_map(|class| self.with_own_errors(prefix, class)).collect(),
        }
    }

    /// These packets from a prefix, and errors about what came to it, which the site may send from another prefix of its own.
    fn with_own_errors(&self, prefix: Prefix, class: Class) -> impl Iterator<Item = Class> {
        let others =
            self.site.prefixes.iter().filter(move |own| own.family() == class.family && **own != prefix);
        let errors = others.map(move |own| Class { kinds: Kinds::ERRORS, senders: Span::of(*own), ..class });
        std::iter::once(Class { senders: Span::of(prefix), ..class }).chain(errors)
    }

    /// The same without errors, as somebody else may send it.
    pub fn forged_packets(prefix: Prefix) -> Vec<Class> {
        all_packets(prefix).iter().filter_map(Class::without_errors).collect()
    }

    /// The same as the site sends them, divided by who claims them: the chain that claims their flow. Fragments whose ports are
    /// not known, or that no chain claims, belong to the first one that could claim them.
    pub fn claims(&self, prefix: Prefix) -> Vec<Claim> {
        let family = prefix.family();
        let mut rest = all_packets(prefix);
        let claim = |by| Claim { classes: Vec::new(), by };
        let mut claims: Vec<Claim> = (0..self.chains.len()).map(ClaimedBy::Chain).map(claim).collect();
        let flows: Vec<(FlowMatch, usize)> = (0..)
            .zip(&self.chains)
            .flat_map(|(nth, served)| flows(served.chain).map(move |flow| (flow, nth)))
            .collect();
        for (asks, nth) in Class::in_turn(flows.iter().map(|(flow, nth)| (flow, *nth)), family) {
            part(&mut rest, &asks, &mut claims[nth]);
        }
        let mut unmarked = claim(ClaimedBy::NothingAtTheSwitch);
        for (flow, _) in flows.into_iter().filter(|(flow, _)| flow.dscp.is_some()) {
            if let Some(asks) = Class::of_flow(&FlowMatch { dscp: None, ..flow }, family) {
                part(&mut rest, &asks, &mut unmarked);
            }
        }
        claims.push(unmarked);
        claims.push(Claim { classes: rest, by: ClaimedBy::Nothing });
        claims
    }

    /// Whether the site's own packets are told apart where they come in.
    pub fn claims_at_gates(&self) -> bool {
        match &self.site.attachment {
            Attachment::Gre(gre) => gre.customer.element.is_some(),
            Attachment::L2 { .. } => self.gates.iter().all(|gate| Some(gate.place.node) == self.home),
        }
    }

    /// Where packets for the site are no longer ours: at the customer's own router.
    pub fn stop(&self, direction: Direction) -> Option<NodeId> {
        let own = direction == Direction::Down && !self.home_is_driven;
        self.home.filter(|_| own)
    }

    /// Whether all these addresses are the site's.
    pub fn has(&self, family: Family, addresses: Span<u128>) -> bool {
        self.addresses.iter().any(|(of, own)| *of == family && own.covers(&addresses))
    }
}

/// All packets from a prefix of a site, and errors that belong to their flows. What cannot be routed is among them, since to leave
/// it out here would make two boxes of each one; it is left out of what is found ([`Class::routed_part`]).
fn all_packets(prefix: Prefix) -> Vec<Class> {
    vec![Class { source: Span::of(prefix), ..Class::all(prefix.family()) }]
}

fn flows(chain: &Chain) -> impl Iterator<Item = FlowMatch> {
    chain.matches.iter().flat_map(Traffic::flow_matches)
}

/// Takes what is asked for out of `rest`.
fn part(rest: &mut Vec<Class>, asks: &Class, claim: &mut Claim) {
    take(rest, asks, |class| claim.classes.push(class));
}

/// Where a site's packets come in: at its access element's ports towards it; else at the cloud's end of the attachment.
pub fn gates(network: &Network, fabric: &Fabric, site: &Site, id: Option<SiteId>) -> Vec<Gate> {
    let at_access = |access: &NodeName| {
        let cables = network.topology.cables(access).filter(|cable| faces(network.model, site, cable));
        cables.filter_map(|cable| gate_at(fabric, access, &cable.near.port)).collect()
    };
    match (&site.attachment, home(network.model, site)) {
        (Attachment::Gre(gre), None) => {
            let Some(node) = &gre.cloud.element else { return Vec::new() };
            let Some(place) = fabric.id(node).map(|node| Place { node, port: Node::TUNNEL }) else {
                return Vec::new();
            };
            let entry =
                Entry { node: node.clone(), port: PortName::tunnel(), tunnel: Some(site.name.clone()) };
            vec![Gate { entry, place, tunnel: id }]
        }
        (Attachment::Gre(_), Some(access)) => at_access(access),
        (Attachment::L2 { .. }, Some(customer)) if network.model.elements.contains_key(customer) => {
            at_access(customer)
        }
        (Attachment::L2 { link }, Some(customer)) => {
            let ends = network.model.links.get(link).map(|link| &link.ends);
            let cloud = ends.into_iter().flatten().filter(|end| end.node != *customer);
            cloud.filter_map(|end| gate_at(fabric, &end.node, &end.port)).collect()
        }
        (Attachment::L2 { .. }, None) => Vec::new(),
    }
}

/// The customer's end of a site's attachment, where the inventory has it.
pub fn home<'a>(model: &'a Model, site: &'a Site) -> Option<&'a NodeName> {
    match &site.attachment {
        Attachment::Gre(gre) => gre.customer.element.as_ref(),
        Attachment::L2 { link } => {
            let [a, b] = &model.links.get(link)?.ends;
            let is_cloud =
                |node| model.elements.get(node).is_some_and(|element| element.role != Role::Access);
            Some(if is_cloud(&b.node) { &a.node } else { &b.node })
        }
    }
}

/// Whether a cable of the access element leads to the site's own network.
fn faces(model: &Model, site: &Site, cable: &Cable) -> bool {
    let of_site = |address| site.prefixes.iter().any(|prefix| prefix.contains(address));
    let routes = model.elements.get(&cable.near.node).into_iter().flat_map(|element| &element.routes);
    let mut to_site = routes.filter(|route| {
        route.to.length() > 0 && site.prefixes.iter().any(|prefix| prefix.overlaps(route.to))
    });
    cable.near.addresses.iter().any(|near| of_site(near.addr()))
        || to_site.any(|route| cable.near.addresses.iter().any(|near| near.contains(&route.via)))
}

fn gate_at(fabric: &Fabric, node: &NodeName, port: &PortName) -> Option<Gate> {
    Some(Gate::at(fabric, fabric.place(node, port)?))
}
