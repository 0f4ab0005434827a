//! What the benchmark computes and sends, without running it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../benches/steer/frames.rs"]
#[allow(dead_code, reason = "the benchmark uses more of it")]
mod frames;
#[path = "../benches/steer/number.rs"]
mod number;
#[path = "../benches/steer/statistics.rs"]
mod statistics;

use std::net::Ipv4Addr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::frames::{Link, Tuple, frame};
use crate::number::short;
use crate::statistics::Estimate;

#[test]
fn the_interval_is_that_of_the_tables() {
    // Conover, Practical Nonparametric Statistics, table A3: the rank of the lower end, for so many samples. Up to five
    // samples there is no such interval, and all of them are in it.
    for (n, low) in [(3, 1), (5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (16, 4), (20, 6), (25, 8), (30, 10)] {
        let samples: Vec<f64> = (1..=n).rev().map(f64::from).collect();
        let estimate = Estimate::of(&samples);
        assert_eq!((estimate.low, estimate.high), (f64::from(low), f64::from(n + 1 - low)), "{n}");
        assert_eq!(estimate.median, f64::from(n + 1) / 2.0);
    }
}

#[test]
fn numbers_are_as_long_as_they_need_to_be() {
    for (value, text) in [
        (0.953, "0.95"),
        (1.5, "1.50"),
        (15.24, "15.2"),
        (116.4, "116"),
        (1000.0, "1,000"),
        (123_456.7, "123,457"),
    ] {
        assert_eq!(short(value), text);
    }
}

#[test]
fn frames_are_what_they_should_be() {
    let tuple = Tuple {
        source: Ipv4Addr::new(100, 64, 3, 7),
        source_port: 1027,
        destination: Ipv4Addr::new(198, 51, 100, 10),
        destination_port: 9,
    };
    let link = Link { source: [6, 0, 0, 0, 0, 1], destination: [6, 0, 0, 0, 0, 2] };
    for payload in [&[0xca; 18][..], b"odd"] {
        let bytes = frame(link, tuple, payload);
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4 packet") };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP packet") };
        let udp_header = udp.to_header();
        assert_eq!(udp_header.checksum, udp_header.calc_checksum_ipv4(&header, payload).unwrap());
        assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (1027, 9, payload));
    }
    assert_eq!(frame(link, tuple, &[0; 18]).len(), frames::SHORT);
}
