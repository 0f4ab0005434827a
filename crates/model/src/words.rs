//! Forwarding state in the words that a network engineer reads, close to those of iproute2.

use std::fmt::{self, Display, Formatter};

use crate::forwarding::{
    Action, Change, FlowMatch, Ingress, Insertion, Instance, Key, NextHops, Object, Path, Policy, Purpose,
    Rule, Selector, Side, Table, Tunnel,
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
        let Selector { family: _, from, to, in_port, claimed } = self;
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
        f.write_str(if *claimed { " claimed" } else { "" })
    }
}

impl Display for FlowMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let FlowMatch { protocol, ports, local, remote } = self;
        let words = [
            protocol.map(|protocol| protocol.to_string()),
            ports.map(|ports| format!("port {ports}")),
            local.map(|prefix| format!("from {prefix}")),
            remote.map(|prefix| format!("to {prefix}")),
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
        let Tunnel { site, underlay, local, remote, key, mtu, allowed } = self;
        write!(f, "of site {site}: gre local {local} remote {remote}")?;
        if let Some(key) = key {
            write!(f, " key {key}")?;
        }
        write!(f, " dev {underlay} mtu {mtu} for {}", List(", ", allowed))
    }
}

impl Display for Ingress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verb = match self.purpose {
            Purpose::Claim => "claims",
            Purpose::Steer => "steers",
        };
        write!(f, "{} {verb} what goes {}", self.port, List(" and ", &self.directions))
    }
}

impl Display for Instance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let insertion = match self.insertion {
            Insertion::L2 => "l2",
            Insertion::L3 => "l3",
        };
        write!(f, "{}: {insertion}, inside {}, outside {}", self.id, self.inside, self.outside)
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of site {}:", self.id, self.site)?;
        self.hops.iter().try_for_each(|hop| write!(f, " → {}", List("|", &hop.0)))
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
