//! Service functions and the ports of the switch that lead to them.

use std::collections::HashMap;

use super::catalogue::{Catalogue, Entry, Port};
use super::report::Report;
use crate::address::Family;
use crate::forwarding::{Insertion, MAX_INSTANCES};
use crate::name::{InstanceName, NodeName, PortName};
use crate::resource::written::{Instance, LinkEnd, PortRef, ServiceFunction};
use crate::resource::{Diagnostic, ResourceKind, Role};

type Taken<'d, K, V> = HashMap<K, (Entry<'d, ServiceFunction>, &'d V)>;

pub(super) fn check(catalogue: &Catalogue, report: &mut Report) {
    let mut names: Taken<&InstanceName, Instance> = HashMap::new();
    let mut ports: Taken<(&NodeName, &PortName), PortRef> = HashMap::new();
    for function in catalogue.functions.values() {
        count(*function, report);
        for instance in &function.spec.instances.value {
            if let Some((other, former)) = names.insert(&instance.name, (*function, instance)) {
                let message = format!("two instances have the name `{}`", *instance.name);
                let help = "an instance's name is its own among those of all functions: rename one";
                let diagnostic = Diagnostic::new(message, help)
                    .at(function.label(instance.name.span, ""))
                    .at(other.label(former.name.span, format!("of {}", *other.name)));
                report.add(diagnostic);
            }
            for side in instance.ports.all() {
                self::side(catalogue, *function, side, report);
                if let Some((other, former)) = ports.insert((&side.element, &side.port), (*function, side)) {
                    report.add(port_taken(*function, instance, side, other, former));
                }
            }
            let [inside, outside] = instance.ports.sides().map(|side| &side.element);
            let switches = [inside, outside].map(|element| catalogue.role(element));
            if switches == [Some(Role::Switch); 2] && **inside != **outside {
                let message = format!("the two sides of {} are on two switches", *instance.name);
                let diagnostic = Diagnostic::new(message, "connect both to one")
                    .at(function.label(outside.span, ""))
                    .at(function.label(inside.span, "the inside"));
                report.add(diagnostic);
            }
        }
    }
}

fn count(function: Entry<ServiceFunction>, report: &mut Report) {
    let message = match function.instances.len() {
        0 => format!("{} has no instances", *function.name),
        1..=MAX_INSTANCES => return,
        many => format!("{} has {many} instances, more than {MAX_INSTANCES}", *function.name),
    };
    let help = match function.instances.is_empty() {
        true => "list at least one: `{name: …, inside: {element: …, port: …}, outside: {…}}`".to_owned(),
        false => format!("keep up to {MAX_INSTANCES}, and make a second function of the others"),
    };
    let place = match function.instances.is_empty() {
        true => function.instances.span,
        false => function.name.span,
    };
    report.add(Diagnostic::new(message, help).at(function.label(place, "")));
}

fn port_taken(
    function: Entry<ServiceFunction>,
    instance: &Instance,
    side: &PortRef,
    other: Entry<ServiceFunction>,
    former: &PortRef,
) -> Diagnostic {
    let (message, remark, help) = match std::ptr::eq(former, instance.ports.inside()) {
        true => (
            format!("the inside and the outside of {} are one port", *instance.name),
            "the inside",
            "if it sends by the port by which it gets, write `port: {…}` in the place of both; else give each side \
             a port of its own",
        ),
        false => (
            format!("port `{}` of {} leads to two instances", *side.port, *side.element),
            "the other one",
            "give each side of each instance a port of its own: by the port it is told whose packets come back",
        ),
    };
    Diagnostic::new(message, help)
        .at(function.label(side.port.span, ""))
        .at(other.label(former.port.span, remark))
}

/// A port of a switch with a link, and for a function that routes with addresses at both ends.
fn side(catalogue: &Catalogue, function: Entry<ServiceFunction>, side: &PortRef, report: &mut Report) {
    let element = &side.element;
    match catalogue.role(element) {
        Some(Role::Switch) => {}
        Some(_) => {
            let message = format!("{} is not a switch, so no function can be connected to it", **element);
            let help = "take a port of an element with `role: switch`";
            report.add(Diagnostic::new(message, help).at(function.label(element.span, "")));
            return;
        }
        None if catalogue.hosts.contains_key(&element.value) => {
            let message = format!("{} is a host, not a switch", **element);
            let help = "write the switch's port that leads to the function, not the function's own port";
            report.add(Diagnostic::new(message, help).at(function.label(element.span, "")));
            return;
        }
        None => {
            let known = catalogue.elements.keys().map(|name| name.as_str());
            report.unknown(ResourceKind::Element, function.document, element, known);
            return;
        }
    }
    let Some(port) = catalogue.port(element, &side.port) else {
        let message = format!("no link has an end at port `{}` of {}", *side.port, **element);
        let known = catalogue.ports(element).map(|port| port.near.port.as_str());
        let help = report.suggest(&side.port.value.to_string(), known, || {
            "add a link between this port and a port of the function's host".to_owned()
        });
        let diagnostic = Diagnostic::new(message, help).at(function.label(side.port.span, ""));
        report.missing(&[ResourceKind::Link], diagnostic);
        return;
    };
    let routable = |family| has_family(port.near, family) && has_family(port.far, family);
    if *function.insertion == Insertion::L3 && !Family::BOTH.into_iter().any(routable) {
        report.add(no_address(*port, "an address", function));
    }
}

pub(super) fn has_family(end: &LinkEnd, family: Family) -> bool {
    end.addresses.iter().any(|address| Family::of(address.addr()) == family)
}

/// The link of an l3 function lacks addresses.
fn no_address(port: Port, what: &str, function: Entry<ServiceFunction>) -> Diagnostic {
    let message = format!("both ends of this link need {what}: {} routes", *function.name);
    let help =
        "write `addresses: [10.24.1.1/30]` and the like at each end, or make the function `insertion: l2`";
    Diagnostic::new(message, help)
        .at(port.link.name_label(""))
        .at(function.name_label("the function behind it"))
}
