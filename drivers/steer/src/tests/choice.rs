//! The choice of instances is the one of `catena_model::packet`.

use std::net::IpAddr;

use catena_model::address::Protocol;
use catena_model::forwarding::{
    Action, Delivery, FlowMatch, Hop, Insertion, Instance, InstanceId, InstanceState, MAX_INSTANCES, Object,
    Path, PolicyRule,
};
use catena_model::packet::{Packet, pick};

use super::packets::frame;
use super::rig::{INSPECTORS, PATH, REDIRECT, Rig, SITE, batch, chosen_inspector, policy, side, switch};

/// xorshift64, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A packet of the site's, in either family.
    fn packet(&mut self) -> Packet {
        let (source, destination): (IpAddr, IpAddr) = if self.next().is_multiple_of(2) {
            let far = (self.next() as u32 & 0x00ff_ffff) | 0x0800_0000;
            ([172, 16, 1, self.next() as u8].into(), far.to_be_bytes().into())
        } else {
            let site: u128 = "2001:db8:a1::".parse::<std::net::Ipv6Addr>().unwrap().into();
            let far: u128 = 0x2600 << 112 | u128::from(self.next()) << 32 | u128::from(self.next());
            ((site | u128::from(self.next())).to_be_bytes().into(), far.to_be_bytes().into())
        };
        let protocol = [Protocol::TCP, Protocol::UDP][self.next() as usize % 2];
        Packet {
            source,
            destination,
            protocol,
            source_port: self.next() as u16,
            destination_port: self.next() as u16,
            dscp: Default::default(),
        }
    }
}

/// One-armed, at a port of its own.
fn bump_in_the_wire(id: InstanceId) -> Object {
    Object::Instance(Instance {
        id,
        insertion: Insertion::L2,
        inside: side(&format!("c{id}"), None),
        outside: side(&format!("c{id}"), None),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    })
}

#[test]
fn instances_are_picked_as_the_model_does() {
    let all: Vec<_> = (0..MAX_INSTANCES as u32).map(|n| InstanceId(100 + 37 * n)).collect();
    let hops: Vec<_> = (1..=8).map(|n| Hop::of(all[..2 * n].to_vec())).collect();
    let mut objects = switch();
    objects.retain(|object| !matches!(object, Object::Path(_) | Object::Policy(_)));
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    objects.extend(all.iter().map(|id| bump_in_the_wire(*id)));
    objects.push(Object::Path(Path { id: PATH, site: SITE, hops: hops.clone(), vlan: None }));
    objects.push(Object::Policy(policy(vec![everything], Some(super::rig::exits()))));
    let rig = Rig::new(&[]);
    let ports: String =
        all.iter().map(|id| format!("link add c{id} type veth peer name c{id}-x\n")).collect();
    rig.netns.run(|| batch(&ports)).unwrap();
    rig.put(&objects);

    let mut random = Random(0x5eed);
    for _ in 0..500 {
        let packet = random.packet();
        rig.forget_flows();
        rig.send("vr", &frame(&packet));
        let flows = rig.flows();
        let [(_, flow)] = flows.as_slice() else { panic!("{packet:?}: {} flows", flows.len()) };
        let expected: Vec<_> = hops
            .iter()
            .map(|hop| pick(packet.flow_hash(hop.stickiness), hop.instances.clone()).unwrap())
            .collect();
        assert_eq!(rig.instances_of(flow), expected, "{packet:?}");

        rig.forget_flows();
        rig.send("gw", &frame(&packet.reply()));
        assert_eq!(rig.instances_of(&rig.flows()[0].1), expected, "the reply of {packet:?}");
    }
}

#[test]
fn flows_spread_over_the_copies() {
    let rig = Rig::new(&switch());
    let mut count = [0; 2];
    for port in 0..200 {
        let [packet, _] = super::packets::web(20_000 + port);
        assert_eq!(rig.send("vr", &frame(&packet)).verdict, REDIRECT);
        assert_eq!(rig.send("fw-out", &frame(&packet)).verdict, REDIRECT);
        let chosen = chosen_inspector(&packet);
        count[INSPECTORS.iter().position(|id| *id == chosen).unwrap()] += 1;
    }
    assert!(count.iter().all(|n| *n > 60), "{count:?}");
    assert_eq!(rig.flows().len(), 200);
}
