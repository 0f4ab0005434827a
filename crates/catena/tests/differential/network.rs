//! Random networks, as the files that a person would write, and random edits of them.
//!
//! Customers are attached by a cable or a tunnel, at an element that is driven or not; then come one or two routers, a
//! switch with functions, a gateway, perhaps an element that all of these meet at, and the Internet.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use catena_model::address::Prefix;
use catena_model::resource::{Model, Source, load};

use crate::chance::Chance;

/// All that a network's files say.
#[derive(Clone, Debug)]
pub struct Network {
    v6: bool,
    nodes: Vec<Node>,
    links: Vec<Link>,
    pub sites: Vec<Site>,
    pub functions: Vec<Function>,
    pub chains: Vec<Chain>,
    chains_made: usize,
}

#[derive(Clone, Debug)]
struct Node {
    name: String,
    /// Of an element; `None` for hosts.
    role: Option<&'static str>,
    engine: &'static str,
    forwarding: bool,
    routes: Vec<(String, IpAddr)>,
}

#[derive(Clone, Debug)]
struct Link {
    name: String,
    ends: [End; 2],
}

#[derive(Clone, Debug)]
struct End {
    node: String,
    port: String,
    addresses: Vec<(IpAddr, u8)>,
    external: bool,
}

#[derive(Clone, Debug)]
pub struct Site {
    pub user: String,
    pub prefixes: Vec<String>,
    attachment: String,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub insertion: &'static str,
    one_port: bool,
    stickiness: &'static str,
    on_failure: &'static str,
    pub instances: Vec<Instance>,
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    weight: usize,
    drain: bool,
}

#[derive(Clone, Debug)]
pub struct Chain {
    name: String,
    site: usize,
    matches: Vec<String>,
    functions: Vec<String>,
    priority: usize,
}

pub const SWITCH: &str = "switch";
/// The element, and the switch's port that leads to it.
pub const GATEWAY: &str = "gateway";
pub const INTERNET: &str = "internet";

impl Network {
    /// A network that can be built and whose chains can be rendered.
    pub fn random(chance: &mut Chance) -> Self {
        let valid = (0..100).map(|_| Self::draft(chance)).find(|network| network.model().is_ok());
        valid.unwrap_or_else(|| panic!("no valid network in 100: {:#?}", Self::draft(chance).model()))
    }

    fn draft(chance: &mut Chance) -> Self {
        let mut network = Self {
            v6: chance.percent(70),
            nodes: Vec::new(),
            links: Vec::new(),
            sites: Vec::new(),
            functions: Vec::new(),
            chains: Vec::new(),
            chains_made: 0,
        };
        network.provider(chance);
        for number in 0..1 + chance.below(2) {
            network.customer(number, chance);
        }
        for number in 0..1 + chance.below(4) {
            network.function(number, chance);
        }
        network.route();
        for site in 0..network.sites.len() {
            for _ in 0..1 + chance.below(2) {
                network.add_chain(site, chance);
            }
        }
        network
    }

    fn provider(&mut self, chance: &mut Chance) {
        let ways = [vec!["router"], vec!["edge"], vec!["edge", "router"]];
        let attaching = chance.of(&ways);
        for name in attaching {
            self.element(name, if *name == "router" { "router" } else { "physical" }, chance);
        }
        self.element(SWITCH, "switch", chance);
        self.element("gateway", "gateway", chance);
        self.nodes.push(Node::host(INTERNET, false));
        let (first, last) = (attaching[0], attaching[attaching.len() - 1]);
        for pair in attaching.windows(2) {
            self.link(pair[0], pair[1]);
        }
        self.link(last, SWITCH);
        self.link(SWITCH, "gateway");
        if chance.percent(50) {
            self.link(last, "gateway");
        }
        let mut exit = "gateway";
        if chance.percent(60) {
            exit = "core";
            self.element("core", "physical", chance);
            self.link("core", "gateway");
            self.link("core", first);
        }
        let mut addresses: [Vec<(IpAddr, u8)>; 2] = [vec![v4(198, 51, 100, 1, 24)], vec![]];
        addresses[1] = vec![v4(198, 51, 100, 10, 24), v4(198, 51, 100, 66, 24)];
        if self.v6 {
            addresses[0].push(v6(0xffff, 1));
            addresses[1].extend([v6(0xffff, 0x10), v6(0xffff, 0x66)]);
        }
        self.cable(exit, INTERNET, addresses);
        let inet = self.links.len() - 1;
        self.links[inet].ends[0].external = true;
    }

    /// The element that customers are attached to.
    fn edge(&self) -> &'static str {
        if self.has("edge") { "edge" } else { "router" }
    }

    fn customer(&mut self, number: usize, chance: &mut Chance) {
        let (user, access, edge) = (format!("user-{number}"), format!("access-{number}"), self.edge());
        let net = 1 + number as u8;
        let mut lan = [vec![v4(172, 16, net, 1, 24)], vec![v4(172, 16, net, 10, 24)]];
        let mut prefixes = vec![format!("172.16.{net}.0/24")];
        if self.v6 {
            let net = 0xa0 + u16::from(net);
            lan[0].push(v6(net, 1));
            lan[1].push(v6(net, 0x10));
            prefixes.push(format!("2001:db8:{net:x}::/64"));
        }
        self.nodes.push(Node::host(&user, false));
        let attachment = match chance.below(if self.has("core") { 3 } else { 2 }) {
            0 => format!("l2: {{link: {}}}", self.cable(edge, &user, lan)),
            1 => {
                self.element(&access, "access", chance);
                self.cable(&access, &user, lan);
                let metro = self.link(&access, edge);
                if self.has("core") && chance.percent(50) {
                    self.link(&access, "core");
                }
                format!("l2: {{link: {metro}}}")
            }
            _ => {
                self.element(&access, "access", chance);
                self.cable(&access, &user, lan);
                self.link(&access, "core");
                let key =
                    if chance.percent(70) { format!(", key: {}", 1000 + number) } else { String::new() };
                format!(
                    "gre: {{customer: {{element: {access}, address: {}}}, cloud: {{element: {edge}, address: {}}}{key}}}",
                    self.address(&access, "core"),
                    self.address(edge, "core"),
                )
            }
        };
        self.sites.push(Site { user, prefixes, attachment });
    }

    fn function(&mut self, number: usize, chance: &mut Chance) {
        let insertion = *chance.of(&["l3", "l3", "l2", "l2", "vlan", "tap"]);
        let one_port = insertion == "tap" || insertion == "l3" && chance.percent(30);
        let mut instances = Vec::new();
        for copy in 0..1 + chance.below(2) {
            let name = format!("f{number}-{copy}");
            self.nodes.push(Node::host(&name, insertion == "l3"));
            let sides: &[&str] = if one_port { &["in"] } else { &["in", "out"] };
            for side in sides {
                let addresses = if insertion == "l3" { self.subnet() } else { [vec![], vec![]] };
                let port = format!("f{number}{copy}-{side}");
                self.named_cable((SWITCH, &port), (&name, side), addresses);
            }
            instances.push(Instance { name, weight: 1 + chance.below(3), drain: chance.percent(10) });
        }
        let stickiness = *chance.of(&["5-tuple", "3-tuple", "2-tuple"]);
        let on_failure = if insertion == "tap" { "skip" } else { *chance.of(&["closed", "skip"]) };
        let name = format!("f{number}");
        self.functions.push(Function { name, insertion, one_port, stickiness, on_failure, instances });
    }

    pub fn add_chain(&mut self, site: usize, chance: &mut Chance) {
        let number = self.chains_made;
        self.chains_made += 1;
        let mut chain = Chain {
            name: format!("chain-{number}"),
            site,
            matches: Vec::new(),
            functions: Vec::new(),
            priority: number,
        };
        chain.matches = self.matches(site, chance);
        chain.functions = self.order(chance);
        self.chains.push(chain);
    }

    fn matches(&self, site: usize, chance: &mut Chance) -> Vec<String> {
        let mut matches = Vec::new();
        for _ in 0..chance.below(3) {
            let mut fields = Vec::new();
            match chance.below(7) {
                0 => fields.push("protocol: tcp".to_owned()),
                1 => fields.push("protocol: udp".to_owned()),
                2 => fields.push("protocol: icmp".to_owned()),
                3 => fields.push("protocol: tcp, ports: [80, 443]".to_owned()),
                4 => fields.push("protocol: tcp, ports: [8000-8080]".to_owned()),
                5 => fields.push("protocol: udp, ports: [53]".to_owned()),
                _ => {}
            }
            match chance.below(6) {
                0 => fields.push("to: 198.51.100.0/26".to_owned()),
                1 => fields.push("to: 203.0.113.0/24".to_owned()),
                2 => fields.push(format!("from: 172.16.{}.0/25", site + 1)),
                3 => fields.push("dscp: ef".to_owned()),
                _ => {}
            }
            if fields.is_empty() {
                fields.push("protocol: tcp".to_owned());
            }
            matches.push(format!("{{{}}}", fields.join(", ")));
        }
        matches
    }

    fn order(&self, chance: &mut Chance) -> Vec<String> {
        let names: Vec<String> = self.functions.iter().map(|function| function.name.clone()).collect();
        let mut order = chance.shuffled(&names);
        order.truncate(1 + chance.below(names.len()));
        order
    }

    /// Changes what is asked for, and says what.
    pub fn edit(&mut self, chance: &mut Chance) -> String {
        for _ in 0..100 {
            let mut edited = self.clone();
            let what = edited.edited(chance);
            if edited.model().is_ok() {
                *self = edited;
                return what;
            }
        }
        panic!("no edit in 100 is valid");
    }

    fn edited(&mut self, chance: &mut Chance) -> String {
        let chain = chance.below(self.chains.len());
        let name = self.chains.get(chain).map(|chain| chain.name.clone());
        match (chance.below(6), name) {
            (0, Some(name)) => {
                self.chains[chain].functions = self.order(chance);
                format!("other functions for {name}")
            }
            (1, Some(name)) => {
                self.chains[chain].matches = self.matches(self.chains[chain].site, chance);
                format!("another match for {name}")
            }
            (2, Some(name)) => {
                self.chains.remove(chain);
                format!("without {name}")
            }
            (3, _) => {
                let site = chance.below(self.sites.len());
                self.add_chain(site, chance);
                format!("a chain more for site-{site}")
            }
            (4, _) => {
                let function = chance.below(self.functions.len());
                let stickiness = *chance.of(&["5-tuple", "3-tuple", "2-tuple"]);
                self.functions[function].stickiness = stickiness;
                format!("stickiness of f{function}: {stickiness}")
            }
            _ => {
                let function = chance.below(self.functions.len());
                let instances = &mut self.functions[function].instances;
                let which = chance.below(instances.len());
                let instance = &mut instances[which];
                instance.drain = !instance.drain;
                format!("drain of {}: {}", instance.name, instance.drain)
            }
        }
    }

    /// Whether some chain claims by the DSCP; all that do ask for "ef".
    pub fn looks_at_dscp(&self) -> bool {
        self.chains.iter().flat_map(|chain| &chain.matches).any(|matches| matches.contains("dscp"))
    }

    pub fn is_of_a_site(&self, address: IpAddr) -> bool {
        let has = |prefix: &String| prefix.parse::<Prefix>().unwrap().contains(address);
        self.sites.iter().flat_map(|site| &site.prefixes).any(has)
    }

    pub fn has_v6(&self) -> bool {
        self.v6
    }

    // --- building blocks ---

    fn has(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name)
    }

    fn element(&mut self, name: &str, role: &'static str, chance: &mut Chance) {
        let engine = *chance.of(&["rules", "nft", "steer"]);
        let (name, routes) = (name.to_owned(), Vec::new());
        self.nodes.push(Node { name, role: Some(role), engine, forwarding: role != "switch", routes });
    }

    /// Addresses for the two ends of another cable.
    fn subnet(&self) -> [Vec<(IpAddr, u8)>; 2] {
        let number = self.links.len() as u8;
        [1, 2].map(|end| {
            let mut addresses = vec![v4(10, 64, number, end, 30)];
            if self.v6 {
                addresses.push(v6(0x1000 + u16::from(number), end.into()));
            }
            addresses
        })
    }

    fn link(&mut self, a: &str, b: &str) -> String {
        let addresses = self.subnet();
        self.cable(a, b, addresses)
    }

    /// Each port is called as the node that it leads to.
    fn cable(&mut self, a: &str, b: &str, addresses: [Vec<(IpAddr, u8)>; 2]) -> String {
        self.named_cable((a, b), (b, a), addresses)
    }

    fn named_cable(
        &mut self,
        (a, a_port): (&str, &str),
        (b, b_port): (&str, &str),
        [of_a, of_b]: [Vec<(IpAddr, u8)>; 2],
    ) -> String {
        let name = format!("link-{}", self.links.len());
        let end = |node: &str, port: &str, addresses| End {
            node: node.to_owned(),
            port: port.to_owned(),
            addresses,
            external: false,
        };
        self.links.push(Link { name: name.clone(), ends: [end(a, a_port, of_a), end(b, b_port, of_b)] });
        name
    }

    /// The IPv4 address of a node on its link to another.
    fn address(&self, node: &str, towards: &str) -> IpAddr {
        let ends = self.links.iter().flat_map(|link| {
            let [a, b] = &link.ends;
            [(a, b), (b, a)]
        });
        let mut found = ends.filter(|(near, far)| near.node == node && far.node == towards);
        found
            .next()
            .map_or_else(|| panic!("no link from {node} to {towards}"), |(near, _)| near.addresses[0].0)
    }

    /// Gives each node the routes that lead to the sites and to the Internet by the fewest hops, through the switch only
    /// where there is no other way: it routes nothing.
    fn route(&mut self) {
        let mut goals: Vec<(String, Vec<String>)> =
            self.sites.iter().map(|site| (site.user.clone(), site.prefixes.clone())).collect();
        goals.push((INTERNET.to_owned(), vec!["default".to_owned(), "default6".to_owned()]));
        for (goal, prefixes) in goals {
            let distances = self.distances(&goal);
            for number in 0..self.nodes.len() {
                let node = self.nodes[number].clone();
                let is_function =
                    self.functions.iter().any(|f| f.instances.iter().any(|i| i.name == node.name));
                if node.name == goal || is_function {
                    continue;
                }
                let ends = self.links.iter().flat_map(|link| {
                    let [a, b] = &link.ends;
                    [(a, b), (b, a)]
                });
                let near = ends.filter(|(near, _)| near.node == node.name);
                let next =
                    near.min_by_key(|(_, far)| distances.get(&far.node).copied().unwrap_or(usize::MAX));
                let Some((_, next)) = next.map(|(near, far)| (near.clone(), far.clone())) else { continue };
                for prefix in &prefixes {
                    let wants_v6 = prefix.contains(':') || prefix == "default6";
                    let via = next.addresses.iter().find(|(address, _)| address.is_ipv6() == wants_v6);
                    // A connected network needs no route.
                    if let Some((via, _)) = via.filter(|_| next.node != goal || prefix.starts_with("default"))
                    {
                        let to = if prefix == "default6" { "default".to_owned() } else { prefix.clone() };
                        if !(node.name == INTERNET && to != "default") {
                            self.nodes[number].routes.push((to, *via));
                        }
                    }
                }
            }
        }
        self.route_hosts();
    }

    fn distances(&self, goal: &str) -> BTreeMap<String, usize> {
        let mut distances = BTreeMap::from([(goal.to_owned(), 0)]);
        for _ in 0..self.nodes.len() {
            for link in &self.links {
                let [a, b] = &link.ends;
                for (from, to) in [(a, b), (b, a)] {
                    let Some(known) = distances.get(&from.node).copied() else { continue };
                    let is_host = self.nodes.iter().any(|node| node.name == to.node && node.role.is_none());
                    if is_host {
                        continue;
                    }
                    let cost = known + if to.node == SWITCH { 100 } else { 1 };
                    let best = distances.entry(to.node.clone()).or_insert(cost);
                    *best = cost.min(*best);
                }
            }
        }
        distances
    }

    /// The Internet's way back, and the functions' two sides.
    fn route_hosts(&mut self) {
        let inet = self.links.iter().find(|link| link.ends[0].external).cloned();
        let gateways = inet.iter().flat_map(|link| &link.ends[0].addresses);
        let back: Vec<(String, IpAddr)> =
            gateways.map(|(address, _)| ("default".to_owned(), *address)).collect();
        for node in self.nodes.iter_mut().filter(|node| node.name == INTERNET) {
            node.routes.clone_from(&back);
        }
        for function in self.functions.iter().filter(|function| function.insertion == "l3") {
            for instance in &function.instances {
                let side = |name: &str| {
                    let mut links = self.links.iter().map(|link| &link.ends);
                    let found = links.find(|ends| ends[1].node == instance.name && ends[1].port == name);
                    found.map(|ends| ends[0].addresses.clone()).unwrap_or_default()
                };
                let (inside, outside) = (side("in"), side(if function.one_port { "in" } else { "out" }));
                let mut routes: Vec<(String, IpAddr)> =
                    outside.iter().map(|(address, _)| ("default".to_owned(), *address)).collect();
                for prefix in self.sites.iter().flat_map(|site| &site.prefixes) {
                    let via = inside.iter().find(|(address, _)| address.is_ipv6() == prefix.contains(':'));
                    routes.extend(via.map(|(via, _)| (prefix.clone(), *via)));
                }
                for node in self.nodes.iter_mut().filter(|node| node.name == instance.name) {
                    node.routes.clone_from(&routes);
                }
            }
        }
    }

    // --- as files ---

    /// What is asked for; an error says why it makes no sense.
    pub fn model(&self) -> Result<Model, String> {
        let text = self.text();
        let model = load(&[Source::new("network", text)])
            .map_err(|found| found.iter().map(|one| format!("{one}\n")).collect::<String>())?;
        let mut numbering = catena_model::numbering::Numbering::default();
        catena_render::render(&model, &mut numbering).map_err(|found| format!("{found:?}"))?;
        Ok(model)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut document = |kind: &str, name: &str, spec: String| {
            let _ = writeln!(
                text,
                "---\napiVersion: catena/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}"
            );
        };
        for node in &self.nodes {
            let routes: Vec<String> =
                node.routes.iter().map(|(to, via)| format!("{{to: '{to}', via: '{via}'}}")).collect();
            let routes = format!("routes: [{}]", routes.join(", "));
            match node.role {
                Some(role) => {
                    let driver =
                        format!("driver: {{linux: {{netns: {}, engine: {}}}}}", node.name, node.engine);
                    document("Element", &node.name, format!("role: {role}, {driver}, {routes}"));
                }
                None => {
                    let bridges = self.functions.iter().any(|function| {
                        ["l2", "vlan"].contains(&function.insertion)
                            && function.instances.iter().any(|instance| instance.name == node.name)
                    });
                    let setup = if bridges { format!(", setup: [\"{BRIDGE}\"]") } else { String::new() };
                    let forwarding = node.forwarding;
                    document("Host", &node.name, format!("forwarding: {forwarding}, {routes}{setup}"));
                }
            }
        }
        for link in &self.links {
            let ends: Vec<String> = link.ends.iter().map(End::text).collect();
            document("Link", &link.name, format!("ends: [{}]", ends.join(", ")));
        }
        for function in &self.functions {
            document("ServiceFunction", &function.name, function.text());
        }
        for (number, site) in self.sites.iter().enumerate() {
            let prefixes: Vec<String> = site.prefixes.iter().map(|prefix| format!("'{prefix}'")).collect();
            document("Tenant", &format!("tenant-{number}"), format!("prefixes: [{}]", prefixes.join(", ")));
            let attachment = &site.attachment;
            document(
                "Site",
                &format!("site-{number}"),
                format!("tenant: tenant-{number}, attachment: {{{attachment}}}"),
            );
        }
        for Chain { name, site, matches, functions, priority } in &self.chains {
            let matches = match matches.is_empty() {
                true => String::new(),
                false => format!("match: [{}], ", matches.join(", ")),
            };
            let functions = functions.join(", ");
            document(
                "Chain",
                name,
                format!("tenant: tenant-{site}, {matches}functions: [{functions}], priority: {priority}"),
            );
        }
        text
    }
}

/// A bump in the wire.
pub const BRIDGE: &str = "ip link add br0 type bridge stp_state 0 mcast_snooping 0 && \
    ip link set br0 addrgenmode none && ip link set in master br0 && ip link set out master br0 && ip link set br0 up";

impl Node {
    fn host(name: &str, forwarding: bool) -> Self {
        Self { name: name.to_owned(), role: None, engine: "", forwarding, routes: Vec::new() }
    }
}

impl End {
    fn text(&self) -> String {
        let addresses: Vec<String> =
            self.addresses.iter().map(|(address, length)| format!("'{address}/{length}'")).collect();
        let external = if self.external { ", external: true" } else { "" };
        let Self { node, port, .. } = self;
        format!("{{node: {node}, port: {port}, addresses: [{}]{external}}}", addresses.join(", "))
    }
}

impl Function {
    fn text(&self) -> String {
        let Self { name: _, insertion, one_port, stickiness, on_failure, instances } = self;
        let instance = |Instance { name, weight, drain }: &Instance| {
            let port = |side: &str| format!("{{element: {SWITCH}, port: {}-{side}}}", name.replace('-', ""));
            let ports = match one_port {
                true => format!("port: {}", port("in")),
                false => format!("inside: {}, outside: {}", port("in"), port("out")),
            };
            format!("{{name: {name}, weight: {weight}, drain: {drain}, {ports}}}")
        };
        let instances: Vec<String> = instances.iter().map(instance).collect();
        let instances = instances.join(", ");
        format!(
            "insertion: {insertion}, stickiness: {stickiness}, onFailure: {on_failure}, instances: [{instances}]"
        )
    }
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> (IpAddr, u8) {
    (IpAddr::from([a, b, c, d]), length)
}

/// 2001:db8:NET::HOST/64
fn v6(net: u16, host: u16) -> (IpAddr, u8) {
    (IpAddr::from([0x2001, 0xdb8, net, 0, 0, 0, 0, host]), 64)
}
