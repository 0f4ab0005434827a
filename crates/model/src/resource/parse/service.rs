//! The service: functions and their instances.

use std::num::NonZeroU8;

use crate::forwarding::{Delivery, Insertion, NshMetadata, OnFailure, Stickiness};
use crate::name::FunctionName;
use crate::resource::fields::{Fields, boolean, list, located, number, one_of, value, word};
use crate::resource::problems::Problems;
use crate::resource::source::Located;
use crate::resource::written::{Instance, InstancePorts, PortRef, ServiceFunction};
use crate::resource::yaml::Node;

pub(super) fn function(
    name: Option<Located<FunctionName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<ServiceFunction> {
    const DELIVERIES: &[(&str, Delivery)] = &[("direct", Delivery::Direct), ("queue", Delivery::Queue)];
    const STICKINESSES: &[(&str, Stickiness)] = &[
        ("5-tuple", Stickiness::FiveTuple),
        ("3-tuple", Stickiness::ThreeTuple),
        ("2-tuple", Stickiness::TwoTuple),
    ];
    let insertion = insertion(spec, problems);
    let changes_addresses = spec.or("changesAddresses", Located::default(), located(boolean), problems);
    let delivery = spec.or("delivery", Delivery::default(), value(one_of(DELIVERIES)), problems);
    let stickiness = spec.or("stickiness", Stickiness::default(), value(one_of(STICKINESSES)), problems);
    let on_failure = on_failure(insertion, spec, problems);
    let is_tap = insertion.is_some_and(|insertion| *insertion == Insertion::Tap);
    let instance = |node: &Node<'_>, problems: &mut Problems<'_>| instance(is_tap, node, problems);
    let instances = spec.required("instances", located(list(instance)), problems);
    let changes_addresses = changes_addresses?;
    if is_tap && *changes_addresses {
        let message = "a tap sends nothing on, so it changes no addresses";
        problems.report(changes_addresses.span, message, "leave `changesAddresses` out");
        return None;
    }
    Some(ServiceFunction {
        name: name?,
        insertion: insertion?,
        changes_addresses,
        delivery: delivery?,
        stickiness: stickiness?,
        on_failure: on_failure?,
        instances: instances?,
    })
}

/// `insertion`, and what `nsh` says more.
fn insertion(spec: &mut Fields<'_, '_>, problems: &mut Problems<'_>) -> Option<Located<Insertion>> {
    const INSERTIONS: &[(&str, Insertion)] = &[
        ("l3", Insertion::L3),
        ("l2", Insertion::L2),
        ("tap", Insertion::Tap),
        ("vlan", Insertion::Vlan),
        ("nsh", Insertion::Nsh(NshMetadata::Fixed)),
    ];
    let insertion = spec.required("insertion", one_of(INSERTIONS), problems);
    let nsh = spec.optional("nsh", located(nsh), problems)?;
    let insertion = insertion?;
    match (*insertion, nsh) {
        (_, None) => Some(insertion),
        (Insertion::Nsh(_), Some(nsh)) => {
            Some(Located { value: Insertion::Nsh(nsh.value), span: insertion.span })
        }
        (_, Some(nsh)) => {
            problems.report_two(
                (nsh.span, "this function is sent no NSH"),
                (insertion.span, "how it is inserted"),
                "leave `nsh` out, or write `insertion: nsh`",
            );
            None
        }
    }
}

/// RFC 8300 section 2.2: the types of metadata that there are.
fn nsh(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<NshMetadata> {
    const MD_TYPES: &[(&str, NshMetadata)] = &[("1", NshMetadata::Fixed), ("2", NshMetadata::Variable)];
    let mut fields = Fields::of(node, problems)?;
    let md_type = fields.required("mdType", value(one_of(MD_TYPES)), problems);
    fields.finish(problems);
    md_type
}

fn on_failure(
    insertion: Option<Located<Insertion>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Option<OnFailure>> {
    const CHOICES: &[(&str, OnFailure)] = &[("closed", OnFailure::Closed), ("skip", OnFailure::Skip)];
    let on_failure = spec.optional("onFailure", one_of(CHOICES), problems)?;
    if let (Some(insertion), Some(on_failure)) = (insertion, on_failure)
        && (*insertion, *on_failure) == (Insertion::Tap, OnFailure::Closed)
    {
        problems.report_two(
            (on_failure.span, "a tap gets copies, so nothing is to be dropped when it fails"),
            (insertion.span, "how it is inserted"),
            "leave `onFailure` out: packets go on without the tap",
        );
        return None;
    }
    Some(on_failure.map(|on_failure| on_failure.value))
}

fn instance(is_tap: bool, node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Instance> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.required("name", word, problems);
    let ports = ports(is_tap, &mut fields, problems);
    let weight = fields.or("weight", NonZeroU8::MIN, weight, problems);
    let drain = fields.or("drain", false, boolean, problems);
    fields.finish(problems);
    Some(Instance { name: name?, ports: ports?, weight: weight?, drain: drain? })
}

fn weight(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<NonZeroU8> {
    NonZeroU8::new(number(1..=u8::MAX)(node, problems)?.value)
}

/// Either `inside` and `outside`, or `port`.
fn ports(is_tap: bool, fields: &mut Fields<'_, '_>, problems: &mut Problems<'_>) -> Option<InstancePorts> {
    const TAP: &str = "write `port: {element: …, port: …}`: a tap has one, by which it gets its copies";
    const ANY: &str = "write either `inside: {element: …, port: …}` and `outside: {…}`, or `port: {…}` for an instance \
                       that sends by the port by which it gets";
    let help = if is_tap { TAP } else { ANY };
    let port = fields.optional("port", located(port_ref), problems);
    let inside = fields.optional("inside", located(port_ref), problems);
    let outside = fields.optional("outside", located(port_ref), problems);
    let (message, place) = match (port?, inside?, outside?) {
        (Some(port), None, None) => return Some(InstancePorts::One { port: port.value }),
        (None, Some(inside), Some(outside)) if !is_tap => {
            return Some(InstancePorts::Two { inside: inside.value, outside: outside.value });
        }
        (None, Some(side), _) | (None, None, Some(side)) if is_tap => {
            ("a tap has no inside and no outside", side.span)
        }
        (None, None, None) => ("this instance has no ports", fields.heading()),
        (None, None, Some(side)) => ("this instance has no inside", side.span),
        (None, Some(side), _) => ("this instance has no outside", side.span),
        (Some(_), Some(side), _) | (Some(_), None, Some(side)) => {
            ("this instance has one port, and sides with ports of their own", side.span)
        }
    };
    problems.report(place, message, help);
    None
}

fn port_ref(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<PortRef> {
    let mut fields = Fields::of(node, problems)?;
    let element = fields.required("element", word, problems);
    let port = fields.required("port", word, problems);
    fields.finish(problems);
    Some(PortRef { element: element?, port: port? })
}
