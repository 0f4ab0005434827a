//! From documents in which nothing is wrong to the model that they describe.

use std::collections::BTreeSet;

use super::catalogue::{Catalogue, Entry};
use crate::address::Prefix;
use crate::forwarding::OnFailure;
use crate::resource::{
    Attachment, Chain, Element, FunctionInstance, Gre, Host, Link, LinkEnd, Model, PortRef, Route,
    ServiceFunction, Site, Tenant, Traffic, TunnelEnd, written,
};

pub(super) fn model(catalogue: &Catalogue) -> Model {
    Model {
        elements: catalogue.elements.values().map(|spec| (spec.name.value.clone(), element(spec))).collect(),
        hosts: catalogue.hosts.values().map(|spec| (spec.name.value.clone(), host(spec))).collect(),
        links: catalogue.links.values().map(|spec| (spec.name.value.clone(), link(spec))).collect(),
        functions: catalogue
            .functions
            .values()
            .map(|spec| (spec.name.value.clone(), function(spec)))
            .collect(),
        tenants: catalogue.tenants.values().map(|spec| (spec.name.value.clone(), tenant(spec))).collect(),
        sites: catalogue
            .sites
            .values()
            .map(|spec| (spec.name.value.clone(), site(catalogue, *spec)))
            .collect(),
        chains: catalogue
            .chains
            .values()
            .map(|spec| (spec.name.value.clone(), chain(catalogue, spec)))
            .collect(),
    }
}

/// What a chain claims: all traffic, unless it says.
pub(super) fn matches(chain: &written::Chain) -> Vec<Traffic> {
    match &chain.matches {
        None => vec![Traffic::default()],
        Some(matches) => matches.iter().map(|traffic| self::traffic(traffic)).collect(),
    }
}

fn traffic(written: &written::Traffic) -> Traffic {
    Traffic {
        protocol: written.protocol.map(|protocol| protocol.value),
        ports: written.ports.iter().map(|ports| ports.value).collect(),
        from: written.from.map(|from| from.value),
        to: written.to.map(|to| to.value),
        dscp: written.dscp.map(|dscp| dscp.value),
    }
}

fn element(written: &written::Element) -> Element {
    Element {
        name: written.name.value.clone(),
        role: *written.role,
        driver: written.driver.value.clone(),
        routes: routes(&written.routes),
    }
}

fn host(written: &written::Host) -> Host {
    Host {
        name: written.name.value.clone(),
        routes: routes(&written.routes),
        forwarding: written.forwarding,
        setup: written.setup.iter().map(|command| command.value.clone()).collect(),
        services: written.services.iter().map(|command| command.value.clone()).collect(),
    }
}

fn routes(written: &[written::Route]) -> Vec<Route> {
    written.iter().map(|route| Route { to: *route.to, via: *route.via }).collect()
}

fn link(written: &written::Link) -> Link {
    let end = |end: &written::LinkEnd| LinkEnd {
        node: end.node.value.clone(),
        port: end.port.value.clone(),
        addresses: end.addresses.iter().map(|address| address.value).collect(),
        external: *end.external,
    };
    Link { name: written.name.value.clone(), ends: written.ends.each_ref().map(end), mtu: *written.mtu }
}

fn function(written: &written::ServiceFunction) -> ServiceFunction {
    let side = |side: &written::PortRef| PortRef {
        element: side.element.value.clone(),
        port: side.port.value.clone(),
    };
    let instance = |instance: &written::Instance| {
        let [inside, outside] = instance.ports.sides().map(side);
        let (name, weight, drain) = (instance.name.value.clone(), instance.weight, instance.drain);
        FunctionInstance { name, inside, outside, weight, drain }
    };
    let usual_on_failure = if written.insertion.returns() { OnFailure::Closed } else { OnFailure::Skip };
    ServiceFunction {
        name: written.name.value.clone(),
        insertion: *written.insertion,
        changes_addresses: *written.changes_addresses,
        delivery: written.delivery,
        stickiness: written.stickiness,
        on_failure: written.on_failure.unwrap_or(usual_on_failure),
        instances: written.instances.iter().map(instance).collect(),
    }
}

fn tenant(written: &written::Tenant) -> Tenant {
    let prefixes = written.prefixes.iter().map(|prefix| prefix.value).collect();
    Tenant { name: written.name.value.clone(), prefixes }
}

fn site(catalogue: &Catalogue, written: Entry<written::Site>) -> Site {
    let prefixes: BTreeSet<Prefix> =
        catalogue.prefixes_of(written).into_iter().map(|prefix| prefix.prefix).collect();
    Site {
        name: written.name.value.clone(),
        tenant: written.tenant.value.clone(),
        prefixes,
        attachment: attachment(&written.attachment),
    }
}

fn attachment(written: &written::Attachment) -> Attachment {
    match written {
        written::Attachment::L2 { link } => Attachment::L2 { link: link.value.clone() },
        written::Attachment::Gre(gre) => Attachment::Gre(Gre {
            customer: TunnelEnd {
                element: gre.customer.element.as_ref().map(|element| element.value.clone()),
                address: *gre.customer.address,
            },
            cloud: TunnelEnd { element: Some(gre.cloud.element.value.clone()), address: *gre.cloud.address },
            key: gre.key.map(|key| key.value),
            oversize: gre.oversize.map(|oversize| oversize.value).unwrap_or_default(),
        }),
    }
}

fn chain(catalogue: &Catalogue, written: &written::Chain) -> Chain {
    Chain {
        name: written.name.value.clone(),
        sites: catalogue.sites_in(written).into_iter().map(|site| site.spec.name.value.clone()).collect(),
        matches: matches(written),
        functions: written.functions.iter().map(|name| name.value.clone()).collect(),
        priority: *written.priority,
    }
}
