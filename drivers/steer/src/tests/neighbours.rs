//! Who answers for a next hop: which frames are believed, which make us forget, and what the kernel says.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use catena_driver::netns::NetNs;
use catena_model::forwarding::{InstanceId, Object};

use super::packets::{HOP_LIMIT, raw_v6, v4, v6};
use super::rig::{Rig, batch, instances, switch};
use crate::events::Watched;
use crate::layout::{NeighbourKey, PERMANENT};
use crate::netlink::Connection;
use crate::words::{mac, mapped};

const PORT: &str = "fw-in";
const V4: &str = "10.20.0.11";
const V6: &str = "2001:db8:20::b";
const OLD: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEW: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ALL: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// Stands for the port's own.
const OURS: [u8; 6] = [0; 6];
const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// RFC 826, over Ethernet.
fn arp(to: [u8; 6], operation: u8) -> Vec<u8> {
    let mut frame = [to.as_slice(), &NEW, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]].concat();
    frame.extend(NEW);
    frame.extend(v4(V4));
    frame.extend(to);
    frame.extend(v4(V4));
    frame
}

/// RFC 4861 sections 4.3 and 4.4, with the sender's address as the only option.
fn discovery(to: [u8; 6], kind: u8, flags: u8) -> Vec<u8> {
    let option = if kind == ADVERTISEMENT { 2 } else { 1 };
    let body = [&[kind, 0, 0, 0, flags, 0, 0, 0], v6(V6).as_slice(), &[option, 1], &NEW].concat();
    let mut frame = raw_v6(v6(V6), v6("2001:db8:20::1"), 58, &body);
    frame[..6].copy_from_slice(&to);
    frame[HOP_LIMIT] = 255;
    frame
}

fn key(rig: &Rig, address: &str) -> NeighbourKey {
    let ifindex = rig.netns.run(|| Connection::open()?.link(PORT)).unwrap().unwrap().ifindex;
    NeighbourKey { ifindex, address: mapped(address.parse().unwrap()) }
}

fn known(rig: &Rig, address: &str) -> Option<u64> {
    let key = key(rig, address);
    rig.with_engine(|engine| engine.programs.maps.neighbours.get(&key).unwrap())
}

fn know(rig: &Rig, address: &str, value: u64) {
    let key = key(rig, address);
    rig.with_engine(|engine| engine.programs.maps.neighbours.put(&key, &value).unwrap());
}

#[test]
fn answers_are_believed_and_rumours_make_us_forget() {
    let rig = Rig::new(&switch());
    let (old, new, nobody) = (mac(OLD), mac(NEW), 0);
    let (so, s, o) = (SOLICITED | OVERRIDE, SOLICITED, OVERRIDE);
    let table = [
        ("a reply to us", V4, arp(OURS, REPLY), [new, new]),
        ("a reply to all", V4, arp(ALL, REPLY), [nobody, nobody]),
        ("a reply to others", V4, arp(OTHERS, REPLY), [nobody, old]),
        ("a question to all", V4, arp(ALL, REQUEST), [nobody, nobody]),
        ("a question to us", V4, arp(OURS, REQUEST), [nobody, nobody]),
        ("an answer", V6, discovery(OURS, ADVERTISEMENT, so), [new, new]),
        ("an answer that overrides nothing", V6, discovery(OURS, ADVERTISEMENT, s), [new, old]),
        ("an answer to all", V6, discovery(ALL_NODES, ADVERTISEMENT, so), [nobody, nobody]),
        ("unasked", V6, discovery(OURS, ADVERTISEMENT, o), [nobody, nobody]),
        ("unasked, to all", V6, discovery(ALL_NODES, ADVERTISEMENT, o), [nobody, nobody]),
        ("to others", V6, discovery(OTHERS, ADVERTISEMENT, so), [nobody, old]),
        ("a question", V6, discovery(OURS, SOLICITATION, 0), [nobody, nobody]),
    ];
    let mut failures = Vec::new();
    for (name, address, frame, expected) in table {
        let heard = [nobody, old].map(|before| {
            know(&rig, address, before);
            rig.send(PORT, &frame);
            known(&rig, address).unwrap()
        });
        if heard != expected {
            failures.push(format!("{name}: {heard:#x?}, not {expected:#x?}"));
        }
        know(&rig, address, old | PERMANENT);
        rig.send(PORT, &frame);
        if known(&rig, address) != Some(old | PERMANENT) {
            failures.push(format!("{name}: stands against what the kernel was told"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A rig with that port's other end in a namespace of its own.
fn leading_away() -> (Rig, NetNs) {
    let far = NetNs::create().unwrap();
    let rig = Rig::new(&[]);
    move_end(&rig.netns, &far);
    (rig, far)
}

fn move_end(from: &NetNs, to: &NetNs) {
    let there = format!("/proc/{}/fd/{}", std::process::id(), to.as_fd().as_raw_fd());
    from.run(|| batch(&format!("link set {PORT}-x netns {there}\n"))).unwrap();
    to.run(|| batch(&format!("link set {PORT}-x up\n"))).unwrap();
}

fn kernel_says(rig: &Rig, what: &str) {
    rig.netns.run(|| batch(&format!("neigh {what} dev {PORT}\n"))).unwrap();
}

#[test]
fn the_kernels_word_stands_above_what_was_heard() {
    let (rig, _far) = leading_away();
    kernel_says(&rig, &format!("replace {V4} lladdr 02:00:00:00:00:01 nud permanent"));
    rig.put(&switch());
    assert_eq!(known(&rig, V4), Some(mac(OLD) | PERMANENT));
    kernel_says(&rig, &format!("replace {V4} lladdr 02:00:00:00:00:02 nud permanent"));
    rig.driver.inner.refresh().unwrap();
    assert_eq!(known(&rig, V4), Some(mac(NEW) | PERMANENT));
    kernel_says(&rig, &format!("replace {V4} lladdr 02:00:00:00:00:01 nud stale"));
    rig.driver.inner.refresh().unwrap();
    assert_eq!(known(&rig, V4), Some(mac(OLD)));
    kernel_says(&rig, &format!("del {V4}"));
    rig.driver.inner.refresh().unwrap();
    assert_eq!(known(&rig, V4), Some(0), "the kernel is to be asked");
}

#[test]
fn neighbours_that_nobody_sends_to_are_forgotten() {
    let (rig, _far) = leading_away();
    rig.put(&switch());
    know(&rig, V4, mac(OLD));
    know(&rig, V6, mac(OLD));
    rig.driver.inner.refresh().unwrap();
    assert!(known(&rig, V4).is_some() && known(&rig, V6).is_some(), "the firewall is there");
    let moved: Vec<_> = instances()
        .into_iter()
        .filter_map(|object| match object {
            Object::Instance(mut instance) if instance.id == InstanceId(11) => {
                instance.inside.next_hops.v4 = Some([10, 20, 0, 99].into());
                Some(Object::Instance(instance))
            }
            _ => None,
        })
        .collect();
    rig.put(&moved);
    rig.driver.inner.refresh().unwrap();
    assert_eq!(known(&rig, V4), None, "it has another address");
    assert!(known(&rig, V6).is_some());
}

#[test]
fn a_port_whose_other_end_moves_is_noticed() {
    let (rig, far) = leading_away();
    rig.put(&switch());
    let direct = || {
        rig.with_engine(|engine| {
            let entries = engine.programs.maps.instances.entries().unwrap();
            let firewall = entries.iter().find(|(_, entry)| entry.handle != 0 && entry.id == 11).unwrap();
            (firewall.1.inside.direct, firewall.1.inside.own_mac != 0, firewall.1.outside.direct)
        })
    };
    assert_eq!(direct(), (1, true, 0));
    // Nothing is put into the end of a pair in the same namespace: it would be dropped.
    move_end(&far, &rig.netns);
    rig.driver.inner.refresh().unwrap();
    assert_eq!(direct(), (0, false, 0));
    move_end(&rig.netns, &far);
    rig.driver.inner.refresh().unwrap();
    assert_eq!(direct(), (1, true, 0));
}

/// What is put straight into a port is not seen by the kernel, and yet it asks: before the first packet, and again later.
#[test]
fn the_kernel_keeps_asking() {
    let (rig, _far) = leading_away();
    let state = || {
        let shown = rig.netns.run(|| {
            Command::new("ip").args(["neigh", "show", V4, "dev", PORT]).output().map(|output| output.stdout)
        });
        String::from_utf8(shown.unwrap()).unwrap()
    };
    rig.netns.run(|| batch(&format!("addr add 10.20.0.1/24 dev {PORT}\n"))).unwrap();
    rig.put(&switch());
    assert_eq!(known(&rig, V4), Some(0), "it is listened for");
    assert!(state().contains("INCOMPLETE"), "{}", state());
    kernel_says(&rig, &format!("replace {V4} lladdr 02:00:00:00:00:01 nud stale"));
    rig.driver.inner.refresh().unwrap();
    assert_eq!(known(&rig, V4), Some(mac(OLD)));
    assert!(state().contains("DELAY"), "{}", state());
}
