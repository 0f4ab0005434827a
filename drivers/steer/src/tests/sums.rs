//! What functions were handed stays counted when the paths go on which they were.

use std::collections::BTreeMap;

use catena_driver::Counted;
use catena_model::forwarding::{
    Action, Change, Direction, Hop, InstanceId, Object, Path, PathId, PolicyRule,
};

use super::packets::{frame, web};
use super::rig::{FIREWALL, PROXY, REDIRECT, Rig, SITE, exits, ingress, instances, policy, put, tcp};

/// More than one sweep of all counters is worth.
const MANY: u32 = 100;

fn path(id: u32) -> Object {
    Object::Path(Path {
        id: PathId(id),
        site: SITE,
        hops: vec![Hop::of([FIREWALL]), Hop::of([PROXY])],
        vlan: None,
    })
}

fn claims(rules: Vec<PolicyRule>) -> Object {
    Object::Policy(policy(rules, Some(exits())))
}

/// New connections go by this path, through the firewall and as far as the proxy, in both families.
fn use_path(rig: &Rig, id: u32, source_port: u16) {
    rig.put(&[claims(vec![tcp(80, Action::Path(PathId(id)))])]);
    for packet in web(source_port) {
        assert_eq!(rig.send("vr", &frame(&packet)).verdict, REDIRECT);
        assert_eq!(rig.send("fw-out", &frame(&packet)).verdict, REDIRECT);
    }
}

fn remove(rig: &Rig, paths: impl IntoIterator<Item = u32>) {
    let deletes = paths.into_iter().map(|id| Change::Delete { old: path(id) });
    let changes: Vec<_> = [put(&claims(Vec::new()))].into_iter().chain(deletes).collect();
    rig.apply(&changes).unwrap();
}

/// How many packets each instance was handed on the way up: on paths that are there, and on those that are gone.
fn handed(rig: &Rig) -> BTreeMap<(InstanceId, bool), u64> {
    let mut handed = BTreeMap::new();
    for (of, packets) in rig.counters() {
        if let Counted::Hop { path, instance, direction: Direction::Up, position } = of {
            assert!(path != PathId::NOWHERE || position == 0);
            *handed.entry((instance, path == PathId::NOWHERE)).or_default() += packets;
        }
    }
    handed
}

fn returned(rig: &Rig, instance: InstanceId) -> u64 {
    let of_it = Counted::Returned { instance, direction: Direction::Up };
    rig.counters().into_iter().filter(|(of, _)| *of == of_it).map(|(_, packets)| packets).sum()
}

fn rig() -> Rig {
    let mut objects = instances();
    objects.extend([
        claims(Vec::new()),
        ingress("vr", catena_model::forwarding::Purpose::Steer, [Direction::Up]),
    ]);
    objects.extend((1..=MANY).map(path));
    Rig::new(&objects)
}

#[test]
fn what_was_handed_over_on_paths_that_are_gone_is_summed_up() {
    let rig = rig();
    use_path(&rig, 1, 40_001);
    use_path(&rig, 2, 40_002);
    assert_eq!(handed(&rig), [((FIREWALL, false), 4), ((PROXY, false), 4)].into());
    remove(&rig, [1]);
    let one_gone = [((FIREWALL, false), 2), ((FIREWALL, true), 2), ((PROXY, false), 2), ((PROXY, true), 2)];
    assert_eq!(handed(&rig), one_gone.into());
    assert_eq!(returned(&rig, FIREWALL), 4);
    // By another program, and so many at once that all counters are gone over.
    let rig = rig.restart();
    use_path(&rig, 3, 40_003);
    remove(&rig, 2..=MANY);
    assert_eq!(handed(&rig), [((FIREWALL, true), 6), ((PROXY, true), 6)].into());
    assert_eq!(returned(&rig, FIREWALL), 6);
    let of_paths = |of: &Counted| matches!(of, Counted::Exit { .. } | Counted::Dropped { path: Some(_), .. });
    assert!(!rig.counters().iter().any(|(of, _)| of_paths(of)));
}

#[test]
fn a_sum_goes_with_its_instance() {
    let rig = rig();
    use_path(&rig, 1, 40_001);
    let firewall = instances().remove(0);
    let deletes: Vec<_> =
        (1..=MANY).map(path).chain([firewall.clone()]).map(|old| Change::Delete { old }).collect();
    rig.apply(&[vec![put(&claims(Vec::new()))], deletes].concat()).unwrap();
    assert_eq!(handed(&rig), [((PROXY, true), 2)].into());
    rig.put(&[firewall]);
    assert_eq!(handed(&rig), [((PROXY, true), 2)].into());
    assert_eq!(returned(&rig, FIREWALL), 0);
}
