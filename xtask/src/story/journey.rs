//! Following one TCP connection: where its first packets were seen, in the order in which they were.

use anyhow::{Context, Result};

use crate::story::capture::{Captured, Captures};
use crate::story::node::{Request, Web};
use crate::story::world::{Family, INSTANCES};

/// Where the packets of one connection were seen first, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    pub web: Web,
    /// Of the SYN.
    pub up: Vec<String>,
    /// Of the SYN and ACK that answers it.
    pub down: Vec<String>,
}

impl Journey {
    /// The functions' instances alone, on the way up.
    pub fn functions(&self) -> Vec<&str> {
        self.up.iter().map(String::as_str).filter(|place| INSTANCES.contains(place)).collect()
    }

    /// `alice → fw-1 → ips-2 → web-1 → internet`
    pub fn shown(&self) -> String {
        self.up.join(" → ")
    }
}

/// Sends a web request from a port of its own and follows it.
pub fn follow(family: Family, user: &str, source_port: u16) -> Result<Journey> {
    let port = source_port.to_string();
    let captures = everywhere(user, &format!("tcp port {port}"))?;
    let url = family.url(family.server, "");
    let web = Request::new(user, &url).with(&["--local-port", &port]).send()?;
    Ok(journeys(captures.stop()?, &[source_port])?.remove(0).with(web))
}

/// Captures at the user, at the inner side of every function, and at the server.
pub fn everywhere(user: &str, filter: &str) -> Result<Captures> {
    let mut places = vec![(user, "eth0"), ("internet", "eth0")];
    places.extend(INSTANCES.map(|instance| (instance, "in")));
    Captures::start(&places, filter)
}

/// What became of the connections from these ports.
pub fn journeys(seen: Vec<(String, Vec<Captured>)>, source_ports: &[u16]) -> Result<Vec<Journey>> {
    let first = |port: u16, syn_ack: bool| {
        let mut sightings: Vec<_> = seen
            .iter()
            .filter_map(|(place, packets)| {
                let wanted = |captured: &&Captured| {
                    captured.packet.tcp().is_some_and(|tcp| {
                        let own = if syn_ack { tcp.destination_port } else { tcp.source_port };
                        own == port && tcp.syn && tcp.ack == syn_ack
                    })
                };
                packets.iter().find(wanted).map(|captured| (captured.at, place.clone()))
            })
            .collect();
        sightings.sort();
        sightings.into_iter().map(|(_, place)| place).collect::<Vec<String>>()
    };
    source_ports
        .iter()
        .map(|port| {
            let journey = Journey { web: Web::Silence, up: first(*port, false), down: first(*port, true) };
            journey.up.first().with_context(|| format!("no packet from port {port} was sent at all"))?;
            Ok(journey)
        })
        .collect()
}

impl Journey {
    fn with(self, web: Web) -> Self {
        Self { web, ..self }
    }
}
