//! Sites that are told by the port that they come in by: two of them may have the same addresses.

use catena_model::forwarding::{
    Action, Change, Direction, Hop, Ingress, Insertion, Instance, InstanceId, Object, Path, PathId, Policy,
    Purpose, SiteId, VlanId,
};

use super::rig::{FIREWALL, INSPECTORS, PROXY, Rig, exits, ingress, instances, policy, put, tcp};
use crate::layout::{ROLE_SITE, SPACE_SITES};

const SITES: [(SiteId, &str, PathId); 2] = [(SiteId(1), "vr", PathId(7)), (SiteId(2), "wan", PathId(8))];

/// Two sites with the same prefixes, at a port each, through one inspector.
fn objects() -> Vec<Object> {
    let of_site = |(site, port, path): (SiteId, &str, PathId)| {
        let told = Ingress {
            port: port.parse().unwrap(),
            directions: [Direction::Up].into(),
            purpose: Purpose::Steer,
            site: Some(site),
        };
        [
            Object::Policy(Policy { site, ..policy(vec![tcp(80, Action::Path(path))], Some(exits())) }),
            Object::Path(Path { id: path, site, hops: vec![Hop::of(INSPECTORS)], vlan: None }),
            Object::Ingress(told),
        ]
    };
    let mut objects = instances();
    objects.extend(SITES.into_iter().flat_map(of_site));
    objects
}

/// The spaces of the prefixes, the realms of paths and policies.
fn realms(rig: &Rig) -> (Vec<u16>, Vec<u32>) {
    rig.with_engine(|engine| {
        let maps = &engine.programs.maps;
        let spaces = maps.prefixes.entries().unwrap().iter().map(|(key, _)| key.space).collect();
        let paths = maps.paths.entries().unwrap().into_iter().map(|(_, path)| path.realm);
        let policies = maps.policies.entries().unwrap().into_iter().map(|(_, policy)| policy.realm);
        let mut realms: Vec<_> = paths.chain(policies).collect();
        realms.sort();
        (spaces, realms)
    })
}

#[test]
fn sites_told_by_port_may_share_prefixes_in_any_order() {
    let told = objects();
    let [first, last] = [told.clone(), told.iter().rev().cloned().collect()];
    for objects in [first, last] {
        let rig = Rig::new(&[]);
        // One call for each: what is told by port comes before or after what depends on it.
        let conflict = objects.iter().find_map(|object| rig.apply(&[put(object)]).err());
        if let Some(error) = conflict {
            // Before their ingresses say otherwise, the two look alike.
            assert!(error.to_string().contains("prefixes of its own"), "{error}");
        }
        rig.put(&objects);
        assert_eq!(rig.observe(), objects.iter().cloned().collect());
        let (spaces, realms) = realms(&rig);
        assert!(spaces.len() == 4 && spaces.iter().all(|space| *space > SPACE_SITES), "{spaces:?}");
        assert_eq!(realms, [1, 1, 2, 2]);
        let rig = rig.restart();
        assert_eq!(rig.observe(), objects.into_iter().collect(), "as another program finds it");
    }
}

#[test]
fn a_site_that_is_no_longer_told_by_port_is_told_by_its_addresses() {
    let rig = Rig::new(&objects()[..7]);
    assert_eq!(realms(&rig).1, [1, 1]);
    rig.put(&[ingress("vr", Purpose::Steer, [Direction::Up])]);
    assert_eq!(realms(&rig), (vec![SPACE_SITES; 2], vec![0, 0]));
    rig.put(&objects()[6..7]);
    assert_eq!(realms(&rig).1, [1, 1]);
    rig.delete(&objects()[6..7]);
    assert_eq!(realms(&rig), (vec![SPACE_SITES; 2], vec![0, 0]));
}

#[test]
fn what_cannot_tell_sites_apart_is_not_shared() {
    let rig = Rig::new(&objects());
    let path = |(site, _, id): (SiteId, &str, PathId), instance| {
        put(&Object::Path(Path { id, site, hops: vec![Hop::of([instance])], vlan: None }))
    };
    rig.apply(&[path(SITES[0], FIREWALL)]).unwrap();
    let entry = rig.with_engine(|engine| {
        let ports = engine.programs.maps.all_ports().unwrap();
        ports.into_iter().find(|(_, port)| port.name.starts_with(b"fw-in\0")).unwrap().1
    });
    assert_eq!((entry.roles & ROLE_SITE, entry.site), (ROLE_SITE, 1), "its port says whose packets they are");
    let error = rig.check(&[path(SITES[1], FIREWALL)]).unwrap_err().to_string();
    assert!(error.contains("cannot tell their packets apart"), "{error}");
    rig.check(&[path(SITES[1], PROXY)]).unwrap();
}

#[test]
fn an_instance_that_rewrites_addresses_serves_one_site_and_its_newest_path() {
    let rewriting = |mut object: Object| {
        if let Object::Instance(instance) = &mut object {
            instance.rewrites = true;
        }
        object
    };
    let rig = Rig::new(&[rewriting(instances().pop().unwrap())]);
    let served = || {
        rig.with_engine(|engine| {
            let ports = engine.programs.maps.all_ports().unwrap();
            ports.into_iter().find(|(_, port)| port.name.starts_with(b"web-in\0")).unwrap().1.path
        })
    };
    let path = |site, id| {
        Object::Path(Path { id: PathId(id), site: SiteId(site), hops: vec![Hop::of([PROXY])], vlan: None })
    };
    let led_to = |id| Object::Policy(policy(vec![tcp(80, Action::Path(PathId(id)))], Some(exits())));
    rig.put(&[path(1, 7), led_to(7)]);
    assert_eq!(served(), 7);
    rig.put(&[path(1, 8)]);
    assert_eq!(served(), 7, "an edit has not turned to the new one yet");
    rig.put(&[led_to(8)]);
    assert_eq!(served(), 8);
    rig.delete(&[path(1, 7)]);
    assert_eq!(served(), 8);
    let error = rig.check(&[put(&path(2, 9))]).unwrap_err().to_string();
    assert!(error.contains("cannot tell their packets apart"), "{error}");
}

#[test]
fn a_path_through_vlans_has_one_of_its_own() {
    let function = Object::Instance(Instance {
        id: InstanceId(31),
        insertion: Insertion::Vlan,
        ..match &instances()[1] {
            Object::Instance(instance) => instance.clone(),
            other => panic!("{other:?}"),
        }
    });
    let path = |id, vlan| {
        let hops = vec![Hop::of([InstanceId(31)])];
        Object::Path(Path { id: PathId(id), site: SiteId(1), hops, vlan: VlanId::new(vlan) })
    };
    let rig = Rig::new(&[function]);
    let error = rig.check(&[put(&path(7, 0))]).unwrap_err().to_string();
    assert!(error.contains("has none"), "{error}");
    rig.put(&[path(7, 100)]);
    let error = rig.check(&[put(&path(8, 100))]).unwrap_err().to_string();
    assert!(error.contains("VLAN 100"), "{error}");
    // Handed over in one call.
    rig.apply(&[put(&path(8, 100)), Change::Delete { old: path(7, 100) }]).unwrap();
    let vlans = rig.with_engine(|engine| engine.programs.maps.vlans.entries().unwrap());
    assert_eq!(vlans, [(100, 8)]);
}
