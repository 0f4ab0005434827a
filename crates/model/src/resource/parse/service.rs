//! The service: functions and their instances.

use crate::forwarding::Insertion;
use crate::name::FunctionName;
use crate::resource::fields::{Fields, list, located, one_of, word};
use crate::resource::problems::Problems;
use crate::resource::source::Located;
use crate::resource::written::{Instance, PortRef, ServiceFunction};
use crate::resource::yaml::Node;

pub(super) fn function(
    name: Option<Located<FunctionName>>,
    spec: &mut Fields<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<ServiceFunction> {
    const INSERTIONS: &[(&str, Insertion)] = &[("l3", Insertion::L3), ("l2", Insertion::L2)];
    let insertion = spec.required("insertion", one_of(INSERTIONS), problems);
    let instances = spec.required("instances", located(list(instance)), problems);
    Some(ServiceFunction { name: name?, insertion: insertion?.value, instances: instances? })
}

fn instance(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Instance> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.required("name", word, problems);
    let inside = fields.required("inside", port_ref, problems);
    let outside = fields.required("outside", port_ref, problems);
    fields.finish(problems);
    Some(Instance { name: name?, inside: inside?, outside: outside? })
}

fn port_ref(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<PortRef> {
    let mut fields = Fields::of(node, problems)?;
    let element = fields.required("element", word, problems);
    let port = fields.required("port", word, problems);
    fields.finish(problems);
    Some(PortRef { element: element?, port: port? })
}
