//! Forwarding state in the words that a network engineer reads, close to those of iproute2.

use std::fmt::{self, Display, Formatter};

use crate::forwarding::{
    Action, Change, Delivery, FlowMatch, Hop, Ingress, Insertion, Instance, InstanceState, Key, Member,
    NextHops, NshMetadata, Object, OnFailure, Oversize, Path, Policy, Purpose, Rule, Selector, Side,
    Stickiness, Table, Tunnel,
};

/// Things that can be shown, one after the other.
struct List<'a, T>(&'a str, T);

impl<T: Clone + IntoIterator<Item: Display>> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (nth, item) in self.1.clone().into_iter().enumerate() {
            if nth > 0 {
                f.write_str(self.0)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Selector { family: _, from, to, in_port, unless_released } = self;
        match from {
            Some(from) => write!(f, "from {from}")?,
            None => f.write_str("from all")?,
        }
        if let Some(to) = to {
            write!(f, " to {to}")?;
        }
        if let Some(port) = in_port {
            write!(f, " iif {port}")?;
        }
        f.write_str(if *unless_released { " unless released" } else { "" })
    }
}

impl Display for FlowMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let FlowMatch { protocol, ports, local, remote, dscp } = self;
        let words = [
            protocol.map(|protocol| protocol.to_string()),
            ports.map(|ports| format!("port {ports}")),
            local.map(|prefix| format!("from {prefix}")),
            remote.map(|prefix| format!("to {prefix}")),
            dscp.map(|dscp| format!("dscp {dscp}")),
        ];
        let mut words = words.into_iter().flatten().peekable();
        if words.peek().is_none() {
            return f.write_str("all traffic");
        }
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

impl Display for NextHops {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hops = [self.v4.map(|v4| v4.to_string()), self.v6.map(|v6| v6.to_string())];
        List(", ", hops.iter().flatten()).fmt(f)
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.next_hops.is_empty() {
            true => self.port.fmt(f),
            false => write!(f, "{} via {}", self.port, self.next_hops),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} lookup path {}", self.selector, self.table)
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "path {} {}: default", self.path, self.family)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}, else unreachable", self.port)
    }
}

impl Display for Tunnel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Tunnel { site, underlay, local, remote, key, mtu, oversize, allowed } = self;
        write!(f, "of site {site}: gre local {local} remote {remote}")?;
        if let Some(key) = key {
            write!(f, " key {key}")?;
        }
        write!(f, " dev {underlay} mtu {mtu}")?;
        if *oversize == Oversize::FragmentOuter {
            f.write_str(" fragmenting")?;
        }
        write!(f, " for {}", List(", ", allowed))
    }
}

impl Display for Ingress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verb = match self.purpose {
            Purpose::Claim => "claims",
            Purpose::Steer => "steers",
        };
        write!(f, "{} {verb} what goes {}", self.port, List(" and ", &self.directions))?;
        match self.site {
            Some(site) => write!(f, " as of site {site}"),
            None => Ok(()),
        }
    }
}

impl Display for Insertion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Insertion::L2 => "l2",
            Insertion::L3 => "l3",
            Insertion::Tap => "tap",
            Insertion::Vlan => "vlan",
            Insertion::Nsh(NshMetadata::Fixed) => "nsh",
            Insertion::Nsh(NshMetadata::Variable) => "nsh (MD type 2)",
        })
    }
}

impl Display for Instance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Instance { id, insertion, inside, outside, state, rewrites, delivery } = self;
        write!(f, "{id}: {insertion}")?;
        match state {
            InstanceState::Up => {}
            InstanceState::Draining => f.write_str(" draining")?,
            InstanceState::Down => f.write_str(" down")?,
        }
        match insertion.returns() && !self.is_one_armed() {
            true => write!(f, ", inside {inside}, outside {outside}")?,
            false => write!(f, ", at {inside}")?,
        }
        if *rewrites {
            f.write_str(", changes addresses")?;
        }
        match delivery {
            Delivery::Direct => Ok(()),
            Delivery::Queue => f.write_str(", by its queue"),
        }
    }
}

impl Display for Member {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        if self.weight.get() > 1 { write!(f, "×{}", self.weight) } else { Ok(()) }
    }
}

impl Display for Hop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", List("|", &self.instances), self.manner())
    }
}

impl Hop {
    /// How an instance is chosen, where it is not the usual way.
    pub fn manner(&self) -> String {
        let stickiness = match self.stickiness {
            Stickiness::FiveTuple => "",
            Stickiness::ThreeTuple => " by 3-tuple",
            Stickiness::TwoTuple => " by 2-tuple",
        };
        let on_failure = match self.on_failure {
            OnFailure::Closed => "",
            OnFailure::Skip => " or skip",
        };
        format!("{stickiness}{on_failure}")
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of site {}:", self.id, self.site)?;
        self.hops.iter().try_for_each(|hop| write!(f, " → {hop}"))?;
        match self.vlan {
            Some(vlan) => write!(f, ", vlan {}", vlan.get()),
            None => Ok(()),
        }
    }
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "of site {} ({}): ", self.site, List(", ", &self.prefixes))?;
        for rule in &self.rules {
            match rule.action {
                Action::Claim => write!(f, "{} → claim; ", rule.matches)?,
                Action::Path(path) => write!(f, "{} → path {path}; ", rule.matches)?,
            }
        }
        match &self.exits {
            Some(exits) => write!(f, "exits up {}, down {}", exits.up, exits.down),
            None => f.write_str("else as routed"),
        }
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        match self {
            Object::Table(table) => table.fmt(f),
            Object::Tunnel(tunnel) => tunnel.fmt(f),
            Object::Ingress(ingress) => ingress.fmt(f),
            Object::Instance(instance) => instance.fmt(f),
            Object::Path(path) => path.fmt(f),
            Object::Rule(rule) => rule.fmt(f),
            Object::Policy(policy) => policy.fmt(f),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Key::Table(path, family) => write!(f, "table path {path} {family}"),
            Key::Tunnel(site) => write!(f, "tunnel of site {site}"),
            Key::Ingress(port) => write!(f, "ingress {port}"),
            Key::Instance(instance) => write!(f, "instance {instance}"),
            Key::Path(path) => write!(f, "path {path}"),
            Key::Rule(order, selector, table) => write!(f, "rule {order}: {selector} lookup path {table}"),
            Key::Policy(site) => write!(f, "policy of site {site}"),
        }
    }
}

/// `+` for what is new, `~` for what takes the place of something, `-` for what goes.
impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Change::Put { new, old: None } => write!(f, "+ {new}"),
            Change::Put { new, old: Some(_) } => write!(f, "~ {new}"),
            Change::Delete { old } => write!(f, "- {old}"),
        }
    }
}
