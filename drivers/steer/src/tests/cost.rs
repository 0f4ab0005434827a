//! What the program costs at each kind of port, apart from what the kernel does with its verdict: for looking at, not a
//! check.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use catena_driver::netns::NetNs;
use catena_model::forwarding::{
    Action, Direction, FlowMatch, Hop, Insertion, Instance, InstanceId, Object, Path, PolicyRule, Purpose,
};
use catena_model::packet::Packet;

use super::packets::{frame, web};
use super::rig::*;
use crate::layout::NeighbourKey;
use crate::netlink::Connection;
use crate::program::skeleton::types::__sk_buff;

pub(super) const FUNCTIONS: [(u32, &str); 3] = [(21, "fw"), (22, "a"), (23, "web")];
const PORTS: [&str; 8] = ["vr", "gw", "fw-in", "fw-out", "a-in", "a-out", "web-in", "web-out"];
const REPEAT: u32 = 1_000_000;
const ATTEMPTS: usize = 7;

/// Three routed functions, all of whose neighbours were heard: known flows go the fast way. What the ports lead to is in
/// the other namespace.
pub(super) fn line() -> (Rig, NetNs) {
    let far_ends = NetNs::create().unwrap();
    let rig = Rig::new(&[]);
    let path = format!("/proc/{}/fd/{}", std::process::id(), far_ends.as_fd().as_raw_fd());
    let move_away = |port: &str| format!("link set {port}-x netns {path}\n");
    let lines: String = PORTS.map(move_away).concat();
    rig.netns.run(|| batch(&lines)).unwrap();
    // It went down as it went, and nothing is put straight into a port whose far end is down.
    let lines: String = PORTS.map(|port| format!("link set {port}-x up\n")).concat();
    far_ends.run(|| batch(&lines)).unwrap();
    rig.put(&three_routed_functions());
    let mac = crate::words::mac([2, 0, 0, 0, 0, 9]);
    rig.with_engine(|engine| {
        // As after the loader's last look: else a packet a second would go the kernel's way.
        engine.programs.maps.attended.put(&0, &crate::plan::now().unwrap()).unwrap();
        for port in PORTS {
            let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
            for host in [1, 2, 11, 12] {
                for address in
                    [IpAddr::from([10, 20, 0, host]), format!("2001:db8:20::{host:x}").parse().unwrap()]
                {
                    let key = NeighbourKey { ifindex, address: crate::words::mapped(address) };
                    engine.programs.maps.neighbours.put(&key, &mac).unwrap();
                }
            }
        }
    });
    (rig, far_ends)
}

pub(super) fn three_routed_functions() -> Vec<Object> {
    let instance = |(id, name): (u32, &str)| {
        Object::Instance(Instance {
            id: InstanceId(id),
            insertion: Insertion::L3,
            inside: side(&format!("{name}-in"), Some(11)),
            outside: side(&format!("{name}-out"), Some(12)),
            state: Default::default(),
            rewrites: false,
            delivery: Default::default(),
        })
    };
    let mut objects: Vec<_> = FUNCTIONS.map(instance).into();
    let hops = FUNCTIONS.map(|(id, _)| Hop::of([InstanceId(id)])).into();
    objects.push(Object::Path(Path { id: PATH, site: SITE, hops, vlan: None }));
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    objects.push(Object::Policy(policy(vec![everything], Some(exits()))));
    objects.push(ingress("vr", Purpose::Steer, [Direction::Up]));
    objects.push(ingress("gw", Purpose::Steer, [Direction::Down]));
    objects
}

/// Nanoseconds of one run, the least of several attempts.
fn cost(rig: &Rig, port: &str, packet: &Packet) -> u32 {
    let mut frame = frame(packet);
    frame[..6].copy_from_slice(&rig.mac(port));
    rig.with_engine(|engine| {
        let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
        nanoseconds(engine.programs.steer.as_fd(), ifindex, &frame, REPEAT)
    })
}

/// Of one run of a program that sends the frame on, on average of `repeat`; the least of several attempts.
pub(super) fn nanoseconds(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], repeat: u32) -> u32 {
    // The kernel insists that all else is zero, also what pads the structure.
    let mut context = MaybeUninit::<__sk_buff>::zeroed();
    // SAFETY: zeros are a value of the structure.
    unsafe { context.assume_init_mut() }.ifindex = ifindex;
    let run = || {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            ctx_in: context.as_ptr().cast(),
            ctx_size_in: size_of_val(&context) as u32,
            repeat: repeat as i32,
            ..Default::default()
        };
        // SAFETY: all buffers live until the call returns, and are as long as said.
        let outcome = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
        assert_eq!((outcome, options.retval as i32), (0, REDIRECT));
        options.duration
    };
    (0..ATTEMPTS).map(|_| run()).min().unwrap()
}

#[test]
#[ignore = "prints figures, and checks nothing"]
fn cost_of_a_run() {
    let (rig, _far_ends) = line();
    for packet in web(1024) {
        for port in ["vr", "fw-out", "a-out", "web-out"] {
            println!("{:?} {port}: {} ns", packet.family(), cost(&rig, port, &packet));
        }
        println!("{:?} gw: {} ns", packet.family(), cost(&rig, "gw", &packet.reply()));
    }
}
