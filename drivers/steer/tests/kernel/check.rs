//! What is refused before anything is touched.

use catena_driver::{Driver, DriverError};
use catena_model::forwarding::{
    Action, Change, Direction, Hop, InstanceId, Object, Oversize, Path, PathId, Purpose, SiteId, Tunnel,
};

use crate::objects::{everything, ingress, l2, l3, path, policy, side, tunnel};
use crate::world::{Pins, cable, driver, ip, quiet_namespace, set};

/// Each: what is wrong in words, the objects, a part of the message.
fn refused() -> Vec<(&'static str, Vec<Object>, &'static str)> {
    let routed = l3(1, side("a", None, None), side("b", None, None));
    let claim = |site| policy(site, &["172.16.1.0/24"], vec![everything(Action::Claim)], None);
    let many =
        Path { id: PathId(1), site: SiteId(1), hops: vec![Hop::of((0..17).map(InstanceId))], vlan: None };
    vec![
        ("a port of two functions", vec![l2(1, "a", "b"), l2(2, "b", "c")], "a port of its own"),
        ("one side of two functions", vec![l2(1, "a", "b"), l2(2, "a", "c")], "a port of its own"),
        (
            "a function's port as an edge",
            vec![l2(1, "a", "b"), ingress("a", Purpose::Steer, &[Direction::Up])],
            "a port of its own",
        ),
        ("a routed function twice", vec![routed, path(1, 1, &[&[1], &[1]])], "once in a chain"),
        ("a prefix of two sites", vec![claim(1), claim(2)], "prefixes of its own"),
        (
            "a prefix behind two tunnels",
            vec![
                Object::Tunnel(Tunnel {
                    underlay: "a".parse().unwrap(),
                    ..tunnel(1, "10.0.0.1", "10.0.0.2", None, &["172.16.1.0/24"])
                }),
                Object::Tunnel(Tunnel {
                    underlay: "a".parse().unwrap(),
                    ..tunnel(2, "10.0.0.1", "10.0.0.3", None, &["172.16.1.0/24"])
                }),
            ],
            "prefixes of its own",
        ),
        (
            "outer packets that are to be cut",
            vec![Object::Tunnel(Tunnel {
                underlay: "a".parse().unwrap(),
                oversize: Oversize::FragmentOuter,
                ..tunnel(1, "10.0.0.1", "10.0.0.2", None, &["172.16.1.0/24"])
            })],
            "give the element a route to 10.0.0.2 by a",
        ),
        ("too many instances", vec![Object::Path(many)], "at most 16"),
        ("too many functions", vec![path(1, 1, &[&[1][..]; 9])], "at most 8"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_a_way_out() {
    let netns = quiet_namespace(false);
    let beyond = quiet_namespace(false);
    for port in ["a", "b", "c"] {
        cable((&netns, port, &[]), (&beyond, port, &[]));
    }
    let pins = Pins::new();
    let driver = driver("br-int", &netns, &pins, None);
    for (wrong, objects, help) in refused() {
        let changes: Vec<_> = objects.into_iter().map(|new| Change::Put { new, old: None }).collect();
        match driver.check(&changes).await {
            Err(error @ DriverError::Unsupported { .. }) => {
                assert!(error.to_string().contains(help), "{wrong}: {error}");
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steering_element_must_not_forward_by_itself() {
    let netns = quiet_namespace(false);
    let beyond = quiet_namespace(false);
    cable((&netns, "a", &[]), (&beyond, "a", &[]));
    let pins = Pins::new();
    let driver = driver("br-int", &netns, &pins, None);
    let steer = [Change::Put { new: ingress("a", Purpose::Steer, &[Direction::Up]), old: None }];
    let claim = [Change::Put { new: ingress("a", Purpose::Claim, &[Direction::Up]), old: None }];
    driver.check(&steer).await.unwrap();
    for setting in ["ipv4/conf/a/forwarding", "ipv6/conf/all/forwarding"] {
        set(&netns, setting, 1);
        let error = driver.check(&steer).await.unwrap_err().to_string();
        assert!(error.contains(setting) && error.contains("sysctl -w"), "{error}");
        driver.check(&claim).await.unwrap();
        set(&netns, setting, 0);
    }
    ip(&netns, "link del dev a");
    assert!(matches!(driver.check(&steer).await, Err(DriverError::NoPort(_))));
}
