//! Numbers are kept, given back, and found again by the next program.

use catena_model::forwarding::{Change, Hop, InstanceId, Object, Path, PathId};

use super::rig::{FIREWALL, PROXY, Rig, SITE, instances, switch};
use crate::layout;

/// The handle of an instance; 0 if it has none.
fn handle(rig: &Rig, id: InstanceId) -> u32 {
    rig.with_engine(|engine| engine.contents.index.numbers.instances.get(&id).unwrap_or_default())
}

fn groups(rig: &Rig) -> Vec<(u32, layout::Group)> {
    let mut groups = rig.with_engine(|engine| engine.programs.maps.groups.entries().unwrap());
    groups.sort_by_key(|(id, _)| *id);
    groups
}

fn another_path(id: u32, hops: Vec<Hop>) -> Object {
    Object::Path(Path { id: PathId(id), site: SITE, hops, vlan: None })
}

#[test]
fn an_instance_that_comes_back_has_another_handle() {
    let rig = Rig::new(&switch());
    let first = handle(&rig, PROXY);
    let proxy = instances().pop().unwrap();
    // A path still names it: the handle is kept for it.
    rig.delete(std::slice::from_ref(&proxy));
    assert_eq!(handle(&rig, PROXY), first);
    rig.put(std::slice::from_ref(&proxy));
    assert_eq!(handle(&rig, PROXY), first);

    rig.delete(&[super::rig::path(), proxy.clone()]);
    assert_eq!(handle(&rig, PROXY), 0);
    rig.put(std::slice::from_ref(&proxy));
    assert_ne!(handle(&rig, PROXY), first);
    // Even if all other slots have been given meanwhile, also by another program.
    let rig = rig.restart();
    let mut seen = std::collections::BTreeSet::from([first, handle(&rig, PROXY)]);
    for _ in 0..2 * layout::INSTANCE_SLOTS {
        let delete = Change::Delete { old: proxy.clone() };
        rig.apply(&[delete]).unwrap();
        rig.put(std::slice::from_ref(&proxy));
        assert!(seen.insert(handle(&rig, PROXY)), "a handle is never given twice");
    }
}

#[test]
fn equal_hops_share_a_group_also_after_a_restart() {
    let rig = Rig::new(&switch());
    let before = groups(&rig);
    assert_eq!(before.len(), 3);
    rig.put(&[another_path(21, vec![Hop::of([FIREWALL]), Hop::of([PROXY])])]);
    assert_eq!(groups(&rig), before);
    let rig = rig.restart();
    rig.put(&[another_path(22, vec![Hop::of([PROXY])]), another_path(23, vec![Hop::of([PROXY, FIREWALL])])]);
    let after = groups(&rig);
    assert_eq!((after.len(), &after[..3]), (4, &before[..]));
    rig.delete(&[another_path(23, Vec::new())]);
    assert_eq!(groups(&rig), before);
    rig.put(&[another_path(23, vec![Hop::of([PROXY, FIREWALL])])]);
    assert_ne!(
        groups(&rig).last(),
        after.last(),
        "another number than the one that flows may still be looking at"
    );
}

#[test]
fn equal_exits_share_a_slot_until_nobody_leaves_by_it() {
    use catena_model::forwarding::{Policy, SiteId};

    let rig = Rig::new(&switch());
    let exits = |rig: &Rig| -> Vec<u32> {
        let all = rig.with_engine(|engine| engine.programs.maps.exits.entries().unwrap());
        all.into_iter().filter(|(_, side)| side.ifindex != 0).map(|(slot, _)| slot).collect()
    };
    let other = |up, host: u8| {
        let mut exits = super::rig::exits();
        exits.up = super::rig::side(up, Some(host));
        let prefixes = ["172.16.2.0/24".parse().unwrap()].into();
        Object::Policy(Policy { site: SiteId(2), prefixes, rules: Vec::new(), exits: Some(exits) })
    };
    assert_eq!(exits(&rig).len(), 2);
    rig.put(&[other("gw", 1)]);
    assert_eq!(exits(&rig).len(), 2, "the same ways out");
    let rig = rig.restart();
    rig.put(&[other("wan", 9)]);
    let three = exits(&rig);
    assert_eq!(three.len(), 3);
    rig.put(&[other("gw", 1)]);
    assert_eq!(exits(&rig).len(), 2);
    rig.put(&[other("wan", 9)]);
    assert_ne!(exits(&rig), three, "a slot rests before it is given again");
}
