//! Many changes at once: whole or not at all, fast, and without a gap.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use catena_driver::DriverError;
use catena_model::address::Prefix;
use catena_model::forwarding::{
    Action, Change, Direction, Hop, Instance, InstanceState, Key, Object, Path, PathId, Policy, Purpose,
    SiteId,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::packets::{frame, web};
use super::rig::{
    FIREWALL, INSPECTORS, PATH, PROXY, REDIRECT, Rig, SITE, exits, ingress, instances, policy, put, switch,
    tcp, test_run,
};
use crate::layout;
use crate::netlink::Connection;
use crate::{Settings, Times};

/// Each with two IPv4 prefixes, one of IPv6, and a path of its own through the functions that all share.
fn tenant(number: u32) -> [Object; 2] {
    let site = SiteId(number);
    let path = PathId(number);
    let hops = vec![Hop::of([FIREWALL]), Hop::of(INSPECTORS), Hop::of([PROXY])];
    let [_, high, middle, low] = number.to_be_bytes();
    let prefixes = [
        format!("{}.{middle}.{low}.0/24", 16 + high),
        format!("{}.{middle}.{low}.128/25", 48 + high),
        format!("2001:db8:{:x}:{:x}::/64", number >> 16, number & 0xffff),
    ];
    let rules = vec![tcp(80, Action::Path(path)), tcp(443, Action::Path(path))];
    let prefixes = prefixes.iter().map(|prefix| prefix.parse::<Prefix>().unwrap()).collect();
    [
        Object::Path(Path { id: path, site, hops, vlan: None }),
        Object::Policy(Policy { site, prefixes, rules, exits: Some(exits()) }),
    ]
}

/// How long it takes to load so many tenants into an element that has none, and to change and remove them all.
fn load(count: u32) -> [Duration; 3] {
    let settings = Settings { tenants: count, ..Settings::default() };
    let rig = Rig::with(settings, Times::default(), &[]);
    let mut objects: Vec<_> = (1..=count).flat_map(tenant).collect();
    objects.splice(..0, instances());
    let timed = |changes: &[Change]| {
        let begin = Instant::now();
        rig.apply(changes).unwrap();
        begin.elapsed()
    };
    let loaded = timed(&objects.iter().map(put).collect::<Vec<_>>());
    assert_eq!(rig.observe(), objects.iter().cloned().collect());

    let rules_changed = objects.iter().filter_map(|object| match object {
        Object::Policy(policy) => {
            let rules = policy.rules[..1].to_vec();
            Some(Object::Policy(Policy { rules, ..policy.clone() }))
        }
        _ => None,
    });
    let rules_changed: Vec<_> = rules_changed.collect();
    let changed = timed(&rules_changed.iter().map(put).collect::<Vec<_>>());
    let observed = rig.observe();
    assert!(rules_changed.iter().all(|object| observed.contains(object)));

    let tenants = objects.drain(instances().len()..).rev();
    let deletes: Vec<_> = tenants.map(|old| Change::Delete { old }).collect();
    let removed = timed(&deletes);
    assert_eq!(rig.observe(), objects.into_iter().collect());
    rig.with_engine(|engine| {
        let maps = &engine.programs.maps;
        assert_eq!(maps.prefixes.entries().unwrap(), []);
        assert_eq!(maps.rules.entries().unwrap(), [], "no generation is left over");
        assert_eq!(maps.groups.entries().unwrap(), [], "nor any group");
    });
    [loaded, changed, removed]
}

#[test]
fn thousands_of_tenants_are_loaded_changed_and_removed() {
    load(5_000);
}

#[test]
#[ignore = "its figures mean something only in a release build on an idle machine"]
fn a_hundred_thousand_tenants_are_loaded_in_two_seconds() {
    let [loaded, changed, removed] = load(100_000);
    println!("loaded in {loaded:?}, changed in {changed:?}, removed in {removed:?}");
    assert!(loaded <= Duration::from_secs(2), "{loaded:?}");
    assert!(changed <= Duration::from_secs(1), "{changed:?}");
}

#[test]
fn a_prefix_goes_from_one_site_to_another_without_a_gap() {
    let holder = |site, prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        put(&Object::Policy(Policy { site, prefixes, rules: Vec::new(), exits: Some(exits()) }))
    };
    const OTHER: SiteId = SiteId(2);
    let moved = "172.16.1.0/24";
    let rig = Rig::new(&[ingress("vr", Purpose::Steer, [Direction::Up])]);
    rig.apply(&[holder(SITE, &[moved]), holder(OTHER, &["10.2.0.0/24"])]).unwrap();

    let program: OwnedFd =
        rig.with_engine(|engine| engine.programs.steer.as_fd().try_clone_to_owned().unwrap());
    let ifindex = rig.netns.run(|| Connection::open()?.link("vr")).unwrap().unwrap().ifindex;
    let mut packet = frame(&web(40_000)[0]);
    packet[..6].copy_from_slice(&rig.mac("vr"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            rig.netns.run(|| {
                let mut sent = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    let outcome = test_run(program.as_fd(), ifindex, &packet, 0);
                    assert_eq!(outcome.verdict, REDIRECT, "packet {sent}");
                    sent += 1;
                }
                Ok(sent)
            })
        });
        for _ in 0..100 {
            // The site that gives it away comes last, as in a plan it may.
            rig.apply(&[holder(OTHER, &[moved]), holder(SITE, &["10.1.0.0/24"])]).unwrap();
            // And here first.
            rig.apply(&[holder(OTHER, &["10.2.0.0/24"]), holder(SITE, &[moved])]).unwrap();
            rig.apply(&[
                holder(OTHER, &[moved]),
                Change::Delete { old: Object::Policy(policy(vec![], None)) },
            ])
            .unwrap();
            rig.apply(&[holder(SITE, &[moved]), holder(OTHER, &["10.2.0.0/24"])]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(sender.join().unwrap().unwrap() > 100);
    });
}

/// Every entry of the maps that say what the element does. Not since when: what was put back was put anew.
fn dump(rig: &Rig) -> String {
    rig.with_engine(|engine| {
        let maps = &engine.programs.maps;
        let policies = maps.policies.entries().unwrap().into_iter();
        let mut policies: Vec<_> =
            policies.map(|(site, policy)| (site, layout::Policy { since: 0, ..policy })).collect();
        policies.sort_by_key(|(site, _)| *site);
        macro_rules! entries {
            ($($name:ident),*) => {
                [$({
                    let mut entries: Vec<_> =
                        maps.$name.entries().unwrap().iter().map(|entry| format!("{entry:?}")).collect();
                    entries.sort();
                    format!("{}: {}", stringify!($name), entries.join("\n"))
                }),*].join("\n")
            };
        }
        entries!(ports, prefixes, rules, paths, groups, vlans, instances, exits, tunnels, tunnel_ends)
            + &format!("{policies:?}")
    })
}

#[test]
fn what_finds_no_room_is_undone_and_says_what_to_do() {
    let settings = Settings { tenants: 1, ..Settings::default() };
    let rig = Rig::with(settings, Times::default(), &switch());
    let (before, observed) = (dump(&rig), rig.observe());
    let many = (0..20).map(|host| format!("172.16.1.{host}/32").parse().unwrap()).collect();
    let large = Policy { prefixes: many, ..policy(vec![tcp(22, Action::Path(PATH))], Some(exits())) };
    let mut changed = instances();
    for object in &mut changed {
        let Object::Instance(Instance { state, .. }) = object else { panic!() };
        *state = InstanceState::Down;
    }
    changed.push(Object::Path(Path { id: PathId(99), site: SITE, hops: vec![Hop::of([PROXY])], vlan: None }));
    changed.push(Object::Policy(large));
    let mut changes: Vec<_> = changed.iter().map(put).collect();
    changes.push(Change::Delete { old: super::rig::path() });
    match rig.apply(&changes) {
        Err(error @ DriverError::Unsupported { .. }) => {
            let error = error.to_string();
            assert!(error.contains("prefixes") && error.contains("8 entries"), "{error}");
            assert!(error.contains("tenants"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(dump(&rig), before);
    assert_eq!(rig.observe(), observed);
    assert_eq!(rig.send("vr", &frame(&web(40_000)[0])).verdict, REDIRECT);
    // And what fits still goes in.
    rig.put(&[Object::Policy(policy(vec![tcp(22, Action::Path(PATH))], Some(exits())))]);
    assert!(!rig.observe().contains(observed.get(&Key::Policy(SITE)).unwrap()));
}

#[test]
fn too_many_lengths_of_prefixes_are_refused() {
    let rig = Rig::new(&[]);
    let prefixes = (96..=128).map(|length| format!("2001:db8::/{length}").parse().unwrap()).collect();
    let change = put(&Object::Policy(Policy { prefixes, ..policy(Vec::new(), Some(exits())) }));
    for outcome in [rig.check(std::slice::from_ref(&change)), rig.apply(&[change])] {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("33 different lengths") && error.contains("at most 32"), "{error}");
    }
}

#[test]
fn a_change_that_is_refused_leaves_no_trace() {
    let rig = Rig::new(&switch());
    let before = dump(&rig);
    let nowhere = Object::Instance(Instance {
        inside: super::rig::side("nowhere", None),
        ..match &instances()[1] {
            Object::Instance(instance) => instance.clone(),
            other => panic!("{other:?}"),
        }
    });
    let changes = [put(&Object::Policy(policy(Vec::new(), Some(exits())))), put(&nowhere)];
    assert!(matches!(rig.apply(&changes), Err(DriverError::NoPort(_))));
    assert_eq!(dump(&rig), before);
}

#[test]
fn putting_all_again_writes_the_same() {
    let rig = Rig::new(&switch());
    let before = dump(&rig);
    rig.put(&switch());
    assert_eq!(dump(&rig), before);
    let rig = rig.restart();
    assert_eq!(rig.observe(), switch().into_iter().collect());
    rig.put(&switch());
    assert_eq!(dump(&rig), before, "by a program that was started again");
}

/// The programs bring their own types, and ask for none of the kernel's.
#[test]
fn a_kernel_without_btf_steers_all_the_same() {
    let without_btf = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        for folder in ["/sys/kernel/btf", "/boot", "/lib/modules"].map(std::path::Path::new) {
            if folder.exists() {
                mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            }
        }
        assert!(!std::path::Path::new("/sys/kernel/btf/vmlinux").exists());
        let rig = Rig::new(&switch());
        assert_eq!(rig.send("vr", &frame(&web(40_000)[0])).verdict, REDIRECT);
    };
    std::thread::spawn(without_btf).join().unwrap();
}
