//! By which elements a site's packets go: found from the links alone, once for all sites that share the ends.

use std::collections::HashMap;
use std::net::IpAddr;

use catena_model::name::NodeName;
use catena_model::resource::{Attachment, Chain, Element, Gre, Model, Role, Site};
use catena_model::topology::{Cable, Topology};

use crate::error::{Goal, RenderError};

/// The way of one site's packets.
pub struct Route<'a> {
    pub attach: Attach<'a>,
    /// The elements from the attachment to the switch, as cables in the direction up.
    pub up: Vec<&'a Cable>,
    pub switch: &'a NodeName,
    /// From the switch to the gateway, in the direction up. Only the first is ours to decide: after it, base routing
    /// takes packets to the Internet.
    pub out: Vec<&'a Cable>,
    /// Where replies come in.
    pub entries: Vec<Entry<'a>>,
}

impl Route<'_> {
    /// Whether packets may pass this element again after the functions: on the way out to the gateway, or between the
    /// gateway and where the Internet is, which replies take the other way round.
    pub fn comes_back_to(&self, element: &NodeName) -> bool {
        let out = self.out.iter().map(|cable| &cable.far.node);
        let beyond = self.entries.iter().flat_map(|entry| entry.way.iter().map(|cable| &cable.near.node));
        out.chain(beyond).any(|node| node == element)
    }
}

/// Between the customer and the cloud.
pub struct Attach<'a> {
    pub kind: AttachKind<'a>,
    /// The element at the customer's side, where the controller drives it, with its ports towards the site.
    pub access: Option<Access<'a>>,
    /// The element that the attachment ends at in the cloud.
    pub cloud: &'a NodeName,
}

pub enum AttachKind<'a> {
    /// A tunnel, and the cables that carry it at either driven end.
    Gre { gre: &'a Gre, customer_underlay: Option<&'a Cable>, cloud_underlay: &'a Cable },
    /// A cable from the customer's side to the cloud.
    L2(&'a Cable),
}

pub struct Access<'a> {
    pub element: &'a NodeName,
    pub lan: Vec<&'a Cable>,
}

/// A port with the Internet behind it, and the way from there to the switch.
pub struct Entry<'a> {
    pub port: &'a Cable,
    /// Cables towards the switch, the last one ending there.
    pub way: Vec<&'a Cable>,
}

/// Finds routes. Ways between the same two elements are looked for once.
pub struct Routes<'a> {
    model: &'a Model,
    topology: &'a Topology,
    external: Vec<(&'a Element, &'a Cable)>,
    ways: HashMap<(&'a NodeName, &'a NodeName), Option<Vec<&'a Cable>>>,
    outs: HashMap<&'a NodeName, Option<Vec<&'a Cable>>>,
}

impl<'a> Routes<'a> {
    pub fn new(model: &'a Model, topology: &'a Topology, external: Vec<(&'a Element, &'a Cable)>) -> Self {
        Self { model, topology, external, ways: HashMap::new(), outs: HashMap::new() }
    }

    /// The route of a site; `None` if its chains have no instance of any function, so that there is nothing to pass.
    pub fn of(&mut self, site: &'a Site, chains: &[&'a Chain]) -> Result<Option<Route<'a>>, RenderError> {
        let Some(switch) = self.switch(site, chains)? else { return Ok(None) };
        let attach = self.attach(site)?;
        let up = self.way(site, attach.cloud, switch)?;
        let out = self.out(site, switch)?;
        let entries = self.entries(site, &out)?;
        Ok(Some(Route { attach, up, switch, out, entries }))
    }

    /// The switch that all functions of a site's chains are on.
    fn switch(&self, site: &Site, chains: &[&'a Chain]) -> Result<Option<&'a NodeName>, RenderError> {
        let mut places = chains.iter().flat_map(|chain| {
            let functions = chain.functions.iter().filter_map(|name| self.model.functions.get(name));
            let instances = functions.flat_map(|function| &function.instances);
            instances.map(move |instance| (chain, &instance.inside.element))
        });
        let Some((first, switch)) = places.next() else { return Ok(None) };
        match places.find(|(_, other)| *other != switch) {
            None => Ok(Some(switch)),
            Some((chain, other)) => Err(RenderError::TwoSwitches {
                site: site.name.clone(),
                chain: chain.name.clone(),
                other: other.clone(),
                first: first.name.clone(),
                switch: switch.clone(),
            }),
        }
    }

    fn attach(&self, site: &'a Site) -> Result<Attach<'a>, RenderError> {
        match &site.attachment {
            Attachment::Gre(gre) => {
                let cloud = gre
                    .cloud
                    .element
                    .as_ref()
                    .ok_or_else(|| RenderError::NoCloudEnd { site: site.name.clone() })?;
                let customer = gre.customer.element.as_ref();
                let underlay = |node: &'a NodeName, address| {
                    let cables = &mut self.topology.cables(node);
                    let has = |cable: &&Cable| cable.near.addresses.iter().any(|near| near.addr() == address);
                    let found = cables.find(has);
                    found.ok_or_else(|| RenderError::NoUnderlay {
                        site: site.name.clone(),
                        node: node.clone(),
                    })
                };
                let customer_underlay =
                    customer.map(|node| underlay(node, gre.customer.address)).transpose()?;
                let cloud_underlay = underlay(cloud, gre.cloud.address)?;
                let access = customer.map(|element| self.access(site, element)).transpose()?;
                Ok(Attach { kind: AttachKind::Gre { gre, customer_underlay, cloud_underlay }, access, cloud })
            }
            Attachment::L2 { link } => {
                let no_cloud_end = || RenderError::NoCloudEnd { site: site.name.clone() };
                let [a, b] = &self.model.links.get(link).ok_or_else(no_cloud_end)?.ends;
                let is_cloud = |node| self.role(node).is_some_and(|role| role != Role::Access);
                let (customer, cloud) = if is_cloud(&b.node) { (a, b) } else { (b, a) };
                let cable = self.topology.cable(&customer.node, &customer.port).ok_or_else(no_cloud_end)?;
                let access = match self.role(&customer.node) {
                    Some(Role::Access) => Some(self.access(site, &customer.node)?),
                    _ => None,
                };
                Ok(Attach { kind: AttachKind::L2(cable), access, cloud: &cloud.node })
            }
        }
    }

    /// The access element with its ports towards the site's own network: those with an address within the site's prefixes,
    /// and those that its routes to these prefixes lead to.
    fn access(&self, site: &Site, element: &'a NodeName) -> Result<Access<'a>, RenderError> {
        let of_site = |address| site.prefixes.iter().any(|prefix| prefix.contains(address));
        let routes = self.model.elements.get(element).into_iter().flat_map(|element| &element.routes);
        let inner_routers: Vec<IpAddr> = routes
            .filter(|route| {
                route.to.length() > 0 && site.prefixes.iter().any(|prefix| prefix.overlaps(route.to))
            })
            .map(|route| route.via)
            .collect();
        let leads_to_site = |cable: &&Cable| {
            let mut addresses = cable.near.addresses.iter();
            addresses.any(|near| of_site(near.addr()) || inner_routers.iter().any(|via| near.contains(via)))
        };
        let lan: Vec<&Cable> = self.topology.cables(element).filter(leads_to_site).collect();
        if lan.is_empty() {
            return Err(RenderError::NoLan { site: site.name.clone(), node: element.clone() });
        }
        Ok(Access { element, lan })
    }

    /// The way through the physical network and the routers.
    fn way(
        &mut self,
        site: &Site,
        from: &'a NodeName,
        to: &'a NodeName,
    ) -> Result<Vec<&'a Cable>, RenderError> {
        let (model, topology) = (self.model, self.topology);
        let found = self
            .ways
            .entry((from, to))
            .or_insert_with(|| topology.way(from, |node| node == to, |node| carries(model, node)));
        found.clone().ok_or_else(|| RenderError::NoWay {
            site: site.name.clone(),
            from: from.clone(),
            to: Goal::Node(to.clone()),
        })
    }

    fn out(&mut self, site: &Site, switch: &'a NodeName) -> Result<Vec<&'a Cable>, RenderError> {
        let (model, topology) = (self.model, self.topology);
        let is_gateway = |node: &NodeName| model.elements.get(node).is_some_and(|e| e.role == Role::Gateway);
        let found = self
            .outs
            .entry(switch)
            .or_insert_with(|| topology.way(switch, is_gateway, |node| carries(model, node)));
        found.clone().filter(|way| !way.is_empty()).ok_or_else(|| RenderError::NoWay {
            site: site.name.clone(),
            from: switch.clone(),
            to: Goal::Gateway,
        })
    }

    /// All ports that replies come in by, each with its way to the gateway and on to the switch.
    fn entries(&mut self, site: &Site, out: &[&'a Cable]) -> Result<Vec<Entry<'a>>, RenderError> {
        let Some(gateway) = out.last().map(|cable| &cable.far.node) else { return Ok(Vec::new()) };
        let back: Vec<&Cable> = out.iter().rev().filter_map(|cable| self.topology.turned(cable)).collect();
        let external = self.external.clone();
        if external.is_empty() {
            return Err(RenderError::NoExternalPort { site: site.name.clone() });
        }
        let entry = |(element, port): (&'a Element, &'a Cable)| {
            let mut way = self.way(site, &element.name, gateway)?;
            way.extend(&back);
            Ok(Entry { port, way })
        };
        external.into_iter().map(entry).collect()
    }

    fn role(&self, node: &NodeName) -> Option<Role> {
        self.model.elements.get(node).map(|element| element.role)
    }
}

/// Whether packets of sites may be led through this node.
fn carries(model: &Model, node: &NodeName) -> bool {
    model.elements.get(node).is_some_and(|element| matches!(element.role, Role::Physical | Role::Router))
}
