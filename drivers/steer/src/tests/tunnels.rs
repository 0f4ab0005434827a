//! GRE: in and out.

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{Object, Oversize, SiteId, Tunnel};
use catena_model::packet::Packet;
use etherparse::{IpNumber, Ipv4Header};

use super::packets::{fragment_v6, frame, frame_with, ip, raw_v4, raw_v6, v4, v6, web};
use super::rig::{Case, Expect, MARK, NEXT, REDIRECT, Rig, SHOT, SITE};
use crate::{Settings, Times};

pub(super) const LOCAL: &str = "203.0.113.10";
const REMOTE: &str = "203.0.113.2";
const KEYLESS: SiteId = SiteId(2);
const KEYLESS_REMOTE: &str = "203.0.113.6";

fn edge() -> Vec<Object> {
    let tunnel = |site, remote: &str, key, allowed: &[&str]| {
        Object::Tunnel(Tunnel {
            site,
            underlay: "wan".parse().unwrap(),
            local: LOCAL.parse().unwrap(),
            remote: remote.parse().unwrap(),
            key,
            mtu: 1472,
            oversize: Oversize::TellSender,
            allowed: allowed.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        })
    };
    vec![
        tunnel(SITE, REMOTE, Some(1001), &["172.16.1.0/24", "2001:db8:a1::/64"]),
        tunnel(KEYLESS, KEYLESS_REMOTE, None, &["172.16.2.0/24"]),
    ]
}

/// GRE flags, optional words, and the inner packet.
pub(super) fn gre(flags: u16, words: &[u32], inner: &[u8]) -> Vec<u8> {
    let protocol: u16 = if inner[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    let mut body = flags.to_be_bytes().to_vec();
    body.extend_from_slice(&protocol.to_be_bytes());
    words.iter().for_each(|word| body.extend_from_slice(&word.to_be_bytes()));
    body.extend_from_slice(inner);
    body
}

pub(super) fn outer(remote: &str, body: &[u8]) -> Vec<u8> {
    raw_v4(v4(remote), v4(LOCAL), 47, 0, false, 1, body)
}

pub(super) const KEY: u16 = 0x2000;
const CHECKSUM: u16 = 0x8000;
const SEQUENCE: u16 = 0x1000;

#[test]
fn what_comes_through_a_tunnel_is_taken_out() {
    let rig = Rig::new(&edge());
    let [up, up6] = web(40_000);
    let inner = frame(&up);
    let ours = ip(&inner);
    let forged = frame(&Packet { source: "172.16.9.1".parse().unwrap(), ..up });
    let others = frame(&Packet { source: "172.16.2.10".parse().unwrap(), ..up });
    let taken = |site| Expect::Goes(Counted::Decapsulated { site });
    let dropped = Expect::Dropped;
    let case = |name, because, frame, expect| Case { name, because, at: "wan", frame, expect };
    let mut fragment = outer(REMOTE, &gre(KEY, &[1001], ours));
    fragment[20] = 0x20;
    let mut others_fragment = fragment.clone();
    others_fragment[33] = 11;
    rig.expect(&[
        case("keyed", "the site's tunnel", outer(REMOTE, &gre(KEY, &[1001], ours)), taken(SITE)),
        case("IPv6 inside", "", outer(REMOTE, &gre(KEY, &[1001], ip(&frame(&up6)))), taken(SITE)),
        case(
            "all optional words",
            "RFC 2784 and 2890: skipped",
            outer(REMOTE, &gre(CHECKSUM | KEY | SEQUENCE, &[0, 1001, 5], ours)),
            taken(SITE),
        ),
        case(
            "no key",
            "a tunnel without one",
            outer(KEYLESS_REMOTE, &gre(0, &[], ip(&others))),
            taken(KEYLESS),
        ),
        case(
            "wrong key",
            "of no tunnel",
            outer(REMOTE, &gre(KEY, &[1002], ours)),
            dropped(DropReason::UnknownTunnel),
        ),
        case(
            "missing key",
            "of no tunnel",
            outer(REMOTE, &gre(0, &[], ours)),
            dropped(DropReason::UnknownTunnel),
        ),
        case(
            "wrong remote",
            "of no tunnel",
            outer("203.0.113.99", &gre(KEY, &[1001], ours)),
            dropped(DropReason::UnknownTunnel),
        ),
        case(
            "forged source",
            "of no site",
            outer(REMOTE, &gre(KEY, &[1001], ip(&forged))),
            dropped(DropReason::ForgedSource),
        ),
        case(
            "another site's source",
            "behind another tunnel",
            outer(REMOTE, &gre(KEY, &[1001], ip(&others))),
            dropped(DropReason::ForgedSource),
        ),
        case(
            "no packet inside",
            "cut off",
            outer(REMOTE, &gre(KEY, &[1001], &ours[..8])),
            dropped(DropReason::Malformed),
        ),
        case(
            "other destination",
            "someone else's GRE",
            raw_v4(v4(REMOTE), v4("203.0.113.11"), 47, 0, false, 1, &gre(KEY, &[1001], ours)),
            Expect::Passes,
        ),
        case(
            "source routing",
            "RFC 1701 we do not speak",
            outer(REMOTE, &gre(0x4000, &[0], ours)),
            Expect::Passes,
        ),
        case("version 1", "PPTP", outer(REMOTE, &gre(KEY | 1, &[1001], ours)), Expect::Passes),
        case("fragment", "neither we nor the stack put it together", fragment, dropped(DropReason::Fragment)),
        case("another's fragment", "not for a tunnel's end", others_fragment, Expect::Passes),
        case("not GRE", "the port's own traffic", frame(&up), Expect::Passes),
    ]);
}

#[test]
fn what_is_taken_out_is_the_packet_that_was_put_in() {
    let rig = Rig::new(&edge());
    for up in web(40_000) {
        let inner = frame(&up);
        let outcome = rig.send("wan", &outer(REMOTE, &gre(KEY | SEQUENCE, &[1001, 3], ip(&inner))));
        assert_eq!(outcome.verdict, REDIRECT);
        assert_eq!(ip(&outcome.frame), ip(&inner));
        assert_eq!(outcome.frame[..6], rig.mac("catena-gre"), "received by the interface of tunnels");
        assert_eq!(outcome.frame[12..14], inner[12..14], "with the inner protocol");
    }
}

#[test]
fn congestion_that_the_tunnel_met_is_told() {
    let rig = Rig::new(&edge());
    for up in web(40_000) {
        let mut capable = frame(&up);
        set_tos(&mut capable, 0x02);
        let mut tunnelled = outer(REMOTE, &gre(KEY, &[1001], ip(&capable)));
        set_tos(&mut tunnelled, 0x03);
        let mut marked = frame(&up);
        set_tos(&mut marked, 0x03);
        assert_eq!(ip(&rig.send("wan", &tunnelled).frame), ip(&marked), "RFC 6040 section 4.2");

        let mut incapable = outer(REMOTE, &gre(KEY, &[1001], ip(&frame(&up))));
        set_tos(&mut incapable, 0x03);
        assert_eq!(rig.send("wan", &incapable).verdict, SHOT, "it cannot say that it met congestion");
    }
}

/// DSCP and ECN of a frame's IP packet.
fn set_tos(frame: &mut [u8], tos: u8) {
    if frame[14] >> 4 == 4 {
        frame[15] = tos;
        let mut header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
    } else {
        frame[14] = 0x60 | tos >> 4;
        frame[15] = (frame[15] & 0x0f) | tos << 4;
    }
}

#[test]
fn what_goes_to_a_site_is_put_into_its_tunnel() {
    let rig = Rig::new(&edge());
    for down in web(40_000).map(|up| up.reply()) {
        let mut inner = frame(&down);
        set_tos(&mut inner, 0xb9);
        let outcome = rig.encapsulate(&inner, MARK | 1);
        assert_eq!(outcome.verdict, REDIRECT);
        assert_eq!(outcome.mark, 1, "claimed is the inner packet, not the outer one");
        let packet = ip(&outcome.frame);
        let (header, rest) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(outcome.frame[12..14], [0x08, 0x00]);
        assert_eq!((header.source, header.destination), (v4(LOCAL), v4(REMOTE)));
        assert_eq!((header.protocol, header.time_to_live), (IpNumber(47), 64));
        assert!(header.dont_fragment && !header.more_fragments);
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), packet.len());
        assert_eq!(packet[1], 0xb9, "DSCP and ECN are the inner packet's");
        assert_eq!(rest, gre(KEY, &[1001], ip(&inner)));
    }
    assert_eq!(rig.counters(), [(Counted::Encapsulated { site: SITE }, 2)]);
}

#[test]
fn a_tunnel_without_a_key_has_a_shorter_header() {
    let rig = Rig::new(&edge());
    let down = Packet { destination: "172.16.2.10".parse().unwrap(), ..web(40_000)[0].reply() };
    let outcome = rig.encapsulate(&frame(&down), 0);
    assert_eq!(ip(&outcome.frame)[20..], gre(0, &[], ip(&frame(&down))));
}

#[test]
fn what_fits_into_no_tunnel_is_dropped() {
    let rig = Rig::new(&edge());
    let down = web(40_000)[0].reply();
    let fits = frame_with(&down, 0x10, &[0; 1472 - 40]);
    let large = frame_with(&down, 0x10, &[0; 1472 - 39]);
    let elsewhere = frame(&Packet { destination: "192.0.2.1".parse().unwrap(), ..down });
    let multicast = raw_v4(v4("10.0.0.1"), v4("224.0.0.22"), 2, 0, false, 0, &[0; 8]);
    assert_eq!(rig.encapsulate(&fits, 0).verdict, REDIRECT);
    assert_eq!(rig.encapsulate(&large, 0).verdict, SHOT);
    assert_eq!(rig.encapsulate(&elsewhere, 0).verdict, SHOT);
    assert_eq!(rig.encapsulate(&multicast, 0).verdict, NEXT, "noise of the interface itself");
    let dropped = |reason| (Counted::Dropped { path: None, reason }, 1);
    assert_eq!(
        rig.counters(),
        [
            (Counted::Encapsulated { site: SITE }, 1),
            dropped(DropReason::TooBig),
            dropped(DropReason::NoTunnel),
        ]
    );
}

/// What ip6gre writes by default before GRE: destination options with an encapsulation limit of 4 (RFC 2473 section 5.1).
#[test]
fn destination_options_before_gre_are_skipped() {
    const OPTIONS: u8 = 60;
    const GRE: u8 = 47;
    let [local, remote] = ["2001:db8:c3::2", "2001:db8:c1::2"];
    let rig = Rig::new(&[Object::Tunnel(Tunnel {
        site: SITE,
        underlay: "wan".parse().unwrap(),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        key: None,
        mtu: 1448,
        oversize: Oversize::TellSender,
        allowed: ["172.16.1.0/24", "2001:db8:a1::/64"].map(|prefix| prefix.parse().unwrap()).into(),
    })]);
    for up in web(40_000) {
        let inner = frame(&up);
        let body = gre(0, &[], ip(&inner));
        let outer = |next, header: &[u8]| raw_v6(v6(remote), v6(local), next, &[header, &body].concat());
        let taken = Expect::Goes(Counted::Decapsulated { site: SITE });
        let case = |name, because, frame, expect| Case { name, because, at: "wan", frame, expect };
        let limit = outer(OPTIONS, &[GRE, 0, 4, 1, 4, 1, 1, 0]);
        assert_eq!(ip(&rig.send("wan", &limit).frame)[..ip(&inner).len()], *ip(&inner));
        rig.expect(&[
            case("none", "RFC 7676 without a limit", outer(GRE, &[]), taken.clone()),
            case("a limit", "as Linux writes it", limit, taken.clone()),
            case(
                "a limit, other padding",
                "RFC 8200 section 4.2",
                outer(OPTIONS, &[GRE, 0, 0, 4, 1, 4, 0, 0]),
                taken.clone(),
            ),
            case("unknown", "to be skipped", outer(OPTIONS, &[GRE, 0, 0x1e, 4, 0, 0, 0, 0]), taken),
            case(
                "unknown",
                "to be told of by the stack",
                outer(OPTIONS, &[GRE, 0, 0x9e, 4, 0, 0, 0, 0]),
                Expect::Passes,
            ),
            case(
                "too long",
                "beyond the header's end",
                outer(OPTIONS, &[GRE, 0, 4, 1, 4, 1, 9, 0]),
                Expect::Passes,
            ),
            case(
                "options before UDP",
                "the element's own",
                outer(OPTIONS, &[17, 0, 4, 1, 4, 1, 1, 0]),
                Expect::Passes,
            ),
            case(
                "fragment",
                "nobody puts it together",
                outer(44, &fragment_v6(OPTIONS, 0, true, 1, &[GRE, 0, 4, 1, 4, 1, 1, 0])),
                Expect::Dropped(DropReason::Fragment),
            ),
            case(
                "fragment of UDP",
                "the element's own",
                outer(44, &fragment_v6(17, 0, true, 1, &[])),
                Expect::Passes,
            ),
        ]);
    }
}

/// What is longer than the underlay goes to the stack, which forwards it.
#[test]
fn what_is_to_be_cut_is_left_to_the_stack() {
    let cutting = |object| match object {
        Object::Tunnel(tunnel) => Object::Tunnel(Tunnel { oversize: Oversize::FragmentOuter, ..tunnel }),
        other => other,
    };
    let rig = Rig::on(&["wan"], Settings::default(), Times::default(), &[]);
    let lines = format!("address add {LOCAL}/24 dev wan\n");
    rig.netns.run(|| super::rig::batch(&lines)).unwrap();
    rig.put(&edge().into_iter().map(cutting).collect::<Vec<_>>());
    let down = web(40_000)[0].reply();
    let fits = rig.encapsulate(&frame_with(&down, 0x10, &[1; 1472 - 40]), 0);
    assert_eq!((fits.verdict, fits.frame[20]), (REDIRECT, 0x40));
    let long = frame_with(&down, 0x10, &[1; 1472 - 39]);
    let identifications = [0, 1].map(|_| {
        let outcome = rig.encapsulate(&long, MARK | 1);
        assert_eq!((outcome.verdict, outcome.mark), (NEXT, 1));
        let (header, rest) = Ipv4Header::from_slice(ip(&outcome.frame)).unwrap();
        assert!(!header.dont_fragment && !header.more_fragments);
        assert_eq!(header.time_to_live, 65, "the stack takes one off");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(rest, gre(KEY, &[1001], ip(&long)));
        header.identification
    });
    assert_eq!(identifications[1], identifications[0] + 1, "RFC 6864 section 4.3");
    assert_eq!(rig.counters(), [(Counted::Encapsulated { site: SITE }, 3)]);
}
