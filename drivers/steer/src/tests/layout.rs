//! The structures here and in `bpf/layout.h` are the same.

use std::mem::MaybeUninit;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::layout::*;
use crate::program::skeleton::SteerSkelBuilder;

#[test]
fn structures_are_the_same_on_both_sides() {
    let mut storage = MaybeUninit::uninit();
    let open = SteerSkelBuilder::default().open(&mut storage).unwrap();
    // SAFETY: the object lives as long as `open`.
    let object = unsafe { open.open_object().as_libbpf_object().as_ref() };
    let btf = Btf::from_bpf_object(object).unwrap().unwrap();
    same::<Port>(&btf, "port");
    same::<Side>(&btf, "side");
    same::<Instance>(&btf, "instance");
    same::<Member>(&btf, "member");
    same::<Group>(&btf, "group");
    same::<Path>(&btf, "path");
    same::<Policy>(&btf, "policy");
    same::<Rule>(&btf, "rule");
    same::<RulesKey>(&btf, "rules_key");
    same::<Rules>(&btf, "rules");
    same::<PrefixKey>(&btf, "prefix_key");
    same::<Lengths>(&btf, "lengths");
    same::<Tuple>(&btf, "tuple");
    same::<FlowKey4>(&btf, "flow_key4");
    same::<FlowKey6>(&btf, "flow_key6");
    same::<Flow>(&btf, "flow");
    same::<Entry>(&btf, "entry");
    same::<Load>(&btf, "load");
    same::<FragmentKey>(&btf, "fragment_key");
    same::<Tunnel>(&btf, "tunnel");
    same::<TunnelEnd>(&btf, "tunnel_end");
    same::<NeighbourKey>(&btf, "neighbour_key");
    same::<Element>(&btf, "element");
    same::<CounterKey>(&btf, "counter_key");
    same::<Counter>(&btf, "counter");
    same::<SweepRequest>(&btf, "sweep_request");
}

#[test]
fn structures_of_the_routing_program_are_the_same_on_both_sides() {
    use crate::route::layout::{Class, Entrance, Lead, Own, Probe, Router, RuleKey4, RuleKey6, TableKey};
    use crate::route::program::skeleton::RouteSkelBuilder;
    let mut storage = MaybeUninit::uninit();
    let open = RouteSkelBuilder::default().open(&mut storage).unwrap();
    // SAFETY: the object lives as long as `open`.
    let object = unsafe { open.open_object().as_libbpf_object().as_ref() };
    let btf = Btf::from_bpf_object(object).unwrap().unwrap();
    same::<Probe>(&btf, "probe");
    same::<Entrance>(&btf, "entrance");
    same::<Class>(&btf, "class");
    same::<RuleKey4>(&btf, "rule_key4");
    same::<RuleKey6>(&btf, "rule_key6");
    same::<Lead>(&btf, "lead");
    same::<TableKey>(&btf, "table_key");
    same::<Own>(&btf, "own");
    same::<Router>(&btf, "router");
    same::<Side>(&btf, "side");
}

fn same<T: Described>(btf: &Btf<'_>, name: &str) {
    let there: Struct<'_> = btf.type_by_name(name).unwrap_or_else(|| panic!("no struct {name} in C"));
    let fields: Vec<_> = there
        .iter()
        .map(|member| {
            let name = member.name.unwrap().to_str().unwrap().to_owned();
            let offset = match member.attr {
                MemberAttr::Normal { offset } => offset as usize / 8,
                _ => panic!("a bit field in {name}"),
            };
            (name, offset)
        })
        .collect();
    let expected: Vec<_> = T::FIELDS.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
    assert_eq!(fields, expected, "struct {name} and {}", T::NAME);
    assert_eq!(there.size(), T::SIZE, "struct {name}");
}
