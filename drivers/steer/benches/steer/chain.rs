//! A source, functions that route, a sink: cabled one to the next, or all of them to a hub.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use catena_model::forwarding::{Change, Direction, Exits, Object};

use crate::engine::{Engine, puts};
use crate::flows;
use crate::frames::Mac;
use crate::objects::{ingress, instance, path, policy, side};
use crate::program::redirect;
use crate::world::{Host, Port, cable};

/// Whence the packets of all sites come: 172.16.0.0/12 (RFC 1918) and 100.64.0.0/10 (RFC 6598).
pub const SOURCES: [&str; 2] = ["172.16.0.0/12", "100.64.0.0/10"];
/// Whence those of a single site come.
pub const NETWORK: &str = "172.16.0.0/16";
/// The source's own address, in [`NETWORK`].
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 10);

/// What carries packets from one function to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// A cable.
    Cable,
    /// A hub, where programs redirect whatever comes in by a port to the next port.
    Redirect,
    /// A hub, where nothing happens yet.
    Hub,
}

/// Links are numbered from 0 at the source; the one before a host is its left, the one behind it its right.
pub struct Chain {
    /// The right port of the source, then of each function.
    pub rights: Vec<Port>,
    /// The left port of each function, then of the sink.
    pub lefts: Vec<Port>,
    /// Whom the source's frames are for.
    pub gateway: Mac,
    hub: Option<Hub>,
}

/// What comes in by one port of the hub leaves by another, to whoever has the address there.
pub struct Step<'a> {
    pub from: &'a Port,
    pub to: &'a Port,
    pub mac: Mac,
}

struct Hub {
    host: Host,
    /// The ports to `Chain::rights` and `Chain::lefts`.
    to_rights: Vec<Port>,
    to_lefts: Vec<Port>,
}

impl Chain {
    /// With so many functions.
    pub fn new(functions: usize, joint: Joint) -> Result<Self> {
        let hosts = (0..functions + 2)
            .map(|at| if at == 0 || at == functions + 1 { Host::new() } else { Host::routing() })
            .collect::<Result<Vec<_>>>()?;
        let mut chain = match joint {
            Joint::Cable => Self::cabled(&hosts)?,
            Joint::Redirect | Joint::Hub => Self::hubbed(&hosts)?,
        };
        chain.set_routes()?;
        chain.source()?.host.ip(&format!(
            "address add {SOURCE}/32 dev lo\nroute change default via {} src {SOURCE}",
            far_end(0)
        ))?;
        if joint == Joint::Redirect {
            let (_, steps) = chain.hub_steps()?;
            steps.iter().try_for_each(|step| redirect(step.from, step.to))?;
        }
        chain.gateway = match &chain.hub {
            Some(hub) => hub.to_rights.first().context("no source")?.mac,
            None => chain.lefts.first().context("no sink")?.mac,
        };
        Ok(chain)
    }

    fn cabled(hosts: &[Host]) -> Result<Self> {
        let mut chain = Self { rights: Vec::new(), lefts: Vec::new(), gateway: Mac::default(), hub: None };
        for pair in hosts.windows(2) {
            let (right, left) = cable((&pair[0], "right"), (&pair[1], "left"))?;
            chain.rights.push(right);
            chain.lefts.push(left);
        }
        for (link, (right, left)) in chain.rights.iter().zip(&chain.lefts).enumerate() {
            right.neighbour(&far_end(link).to_string(), left.mac)?;
            left.neighbour(&near_end(link).to_string(), right.mac)?;
        }
        Ok(chain)
    }

    fn hubbed(hosts: &[Host]) -> Result<Self> {
        let host = Host::new()?;
        let (mut rights, mut lefts) = (Vec::new(), Vec::new());
        let (mut to_rights, mut to_lefts) = (Vec::new(), Vec::new());
        for (link, pair) in hosts.windows(2).enumerate() {
            let (right, to_right) = cable((&pair[0], "right"), (&host, &format!("r{link}")))?;
            let (left, to_left) = cable((&pair[1], "left"), (&host, &format!("l{link}")))?;
            // To each its neighbour is the hub, and to the hub each is a neighbour.
            right.neighbour(&far_end(link).to_string(), to_right.mac)?;
            left.neighbour(&near_end(link).to_string(), to_left.mac)?;
            to_right.neighbour(&near_end(link).to_string(), right.mac)?;
            to_left.neighbour(&far_end(link).to_string(), left.mac)?;
            rights.push(right);
            lefts.push(left);
            to_rights.push(to_right);
            to_lefts.push(to_left);
        }
        let hub = Some(Hub { host, to_rights, to_lefts });
        Ok(Self { rights, lefts, gateway: Mac::default(), hub })
    }

    /// The Internet is to the right, the sites are to the left.
    fn set_routes(&self) -> Result<()> {
        for (link, right) in self.rights.iter().enumerate() {
            right.host.ip(&format!(
                "address add {}/24 dev right\nroute add default via {}",
                near_end(link),
                far_end(link)
            ))?;
        }
        for (link, left) in self.lefts.iter().enumerate() {
            left.host.ip(&format!("address add {}/24 dev left", far_end(link)))?;
            for sources in SOURCES {
                left.host.ip(&format!("route add {sources} via {}", near_end(link)))?;
            }
        }
        Ok(())
    }

    pub fn source(&self) -> Result<&Port> {
        self.rights.first().context("a chain has a source")
    }

    pub fn sink(&self) -> Result<&Port> {
        self.lefts.last().context("a chain has a sink")
    }

    fn hub(&self) -> Result<&Hub> {
        self.hub.as_ref().context("these hosts are cabled directly")
    }

    /// The hub, and what it has to do with the packets of both directions.
    pub fn hub_steps(&self) -> Result<(&Host, Vec<Step<'_>>)> {
        let hub = self.hub()?;
        let ups = hub.to_rights.iter().zip(&hub.to_lefts).zip(&self.lefts);
        let downs = hub.to_lefts.iter().zip(&hub.to_rights).zip(&self.rights);
        let steps = ups.chain(downs).map(|((from, to), other)| Step { from, to, mac: other.mac });
        Ok((&hub.host, steps.collect()))
    }

    /// Starts the engine on the hub, with its ports and functions, and no site.
    pub fn start_engine(&self) -> Result<Engine> {
        let engine = Engine::start(&self.hub()?.host)?;
        engine.put(self.functions()?)?;
        Ok(engine)
    }

    fn functions(&self) -> Result<Vec<Object>> {
        let hub = self.hub()?;
        let last = hub.to_lefts.len() - 1;
        let mut objects =
            vec![ingress("r0", Direction::Up)?, ingress(&hub.to_lefts[last].name, Direction::Down)?];
        for id in 1..=last {
            let inside = side(&hub.to_lefts[id - 1].name, far_end(id - 1))?;
            let outside = side(&hub.to_rights[id].name, near_end(id))?;
            objects.push(instance(id as u32, inside, outside));
        }
        Ok(objects)
    }

    /// The objects for a site whose packets pass all functions.
    pub fn site(&self, number: u32, prefixes: &[String]) -> Result<[Object; 2]> {
        let last = self.hub()?.to_lefts.len() - 1;
        let instances: Vec<u32> = (1..=last as u32).collect();
        Ok([path(number, &instances), policy(number, prefixes, self.exits()?)?])
    }

    /// What installs so many tenants with one site each.
    pub fn load(&self, tenants: u32) -> Result<Vec<Change>> {
        let mut objects = Vec::with_capacity(2 * tenants as usize);
        for tenant in 0..tenants {
            objects.extend(self.site(tenant + 1, &flows::prefixes_of(tenant))?);
        }
        Ok(puts(objects))
    }

    pub fn exits(&self) -> Result<Exits> {
        let last = self.hub()?.to_lefts.len() - 1;
        Ok(Exits { up: side(&format!("l{last}"), far_end(last))?, down: side("r0", near_end(0))? })
    }
}

/// The address at the end of a link that is nearer to the source.
pub fn near_end(link: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, link as u8, 1)
}

/// The address at the other end.
pub fn far_end(link: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, link as u8, 2)
}
