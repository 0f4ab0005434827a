//! Forwarding state in the words of an engineer: names for numbers, one line for an object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

pub use catena_model::count::counted;
use catena_model::forwarding::{
    Action, Change, ElementState, Hop, Ingress, Instance, InstanceId, Member, Object, Oversize, Path, PathId,
    Policy, PolicyRule, Purpose, Rule, SiteId, Table, Tunnel,
};
use catena_model::name::{ChainName, InstanceName, SiteName};
use catena_model::numbering::{Numbering, PathOwner};

use crate::core::generation_of;

/// The names of all numbers that may be met: of the present and of those that are on their way out.
#[derive(Clone, Debug, Default)]
pub struct Names {
    sites: BTreeMap<SiteId, SiteName>,
    instances: BTreeMap<InstanceId, InstanceName>,
    paths: BTreeMap<PathId, (PathOwner, Option<u32>)>,
}

impl Names {
    pub fn of(numbering: &Numbering) -> Self {
        let mut names = Self::default();
        names.add(numbering);
        names
    }

    /// Adds the names of `numbering`; names that are known already stay.
    pub fn add(&mut self, numbering: &Numbering) {
        for (name, id) in numbering.sites() {
            self.sites.entry(id).or_insert_with(|| name.clone());
        }
        for (name, id) in numbering.instances() {
            self.instances.entry(id).or_insert_with(|| name.clone());
        }
        for (id, owner) in numbering.paths() {
            self.add_path(id, owner, generation_of(numbering, id));
        }
    }

    /// Adds the names that `others` knows; names that are known already stay.
    pub fn add_all(&mut self, others: &Names) {
        for (id, name) in &others.sites {
            self.sites.entry(*id).or_insert_with(|| name.clone());
        }
        for (id, name) in &others.instances {
            self.instances.entry(*id).or_insert_with(|| name.clone());
        }
        for (id, (owner, generation)) in &others.paths {
            self.add_path(*id, owner, *generation);
        }
    }

    fn add_path(&mut self, id: PathId, owner: &PathOwner, generation: Option<u32>) {
        let known = self.paths.entry(id).or_insert_with(|| (owner.clone(), generation));
        known.1 = known.1.or(generation);
    }

    /// Says which generation a path was that `numbering` knows only as a former one.
    pub fn add_generation(&mut self, path: PathId, generation: u32) {
        if let Some(known) = self.paths.get_mut(&path) {
            known.1 = known.1.or(Some(generation));
        }
    }

    pub fn owner(&self, id: PathId) -> Option<&PathOwner> {
        self.paths.get(&id).map(|(owner, _)| owner)
    }

    /// The chain that the path is for, if it is for one alone.
    pub fn chain(&self, id: PathId) -> Option<&ChainName> {
        match self.owner(id)? {
            PathOwner::Chain(chain, _) => Some(chain),
            PathOwner::Up(_) | PathOwner::Home(_) | PathOwner::Down(_) => None,
        }
    }

    pub fn generation(&self, id: PathId) -> Option<u32> {
        self.paths.get(&id).and_then(|(_, generation)| *generation)
    }

    pub fn site_name(&self, id: SiteId) -> Option<&SiteName> {
        self.sites.get(&id)
    }

    pub fn instance_name(&self, id: InstanceId) -> Option<&InstanceName> {
        self.instances.get(&id)
    }

    /// One line. Begins with `+` for what is new, `~` for what takes another's place, `-` for what goes.
    pub fn change(&self, change: &Change) -> String {
        match change {
            Change::Put { new, old: None } => format!("+ {}", self.object(new)),
            Change::Put { new, old: Some(old) } => format!("~ {}", self.replacement(new, old)),
            Change::Delete { old } => format!("- {}", self.object(old)),
        }
    }

    /// The new object, and of the old one what was different.
    fn replacement(&self, new: &Object, old: &Object) -> String {
        match (new, old) {
            (Object::Rule(new), Object::Rule(old)) if new.place() == old.place() => {
                format!("{} (was: {})", self.rule(new), self.path(old.table))
            }
            (Object::Policy(new), Object::Policy(old))
                if (&new.prefixes, &new.exits) == (&old.prefixes, &old.exits) =>
            {
                let rules = self.policy_rules(new);
                format!("policy of {}: {rules} (was: {})", self.site(new.site), self.policy_rules(old))
            }
            (new, old) => format!("{} (was: {})", self.object(new), self.object(old)),
        }
    }

    pub fn object(&self, object: &Object) -> String {
        match object {
            Object::Table(table) => self.table(table),
            Object::Tunnel(tunnel) => self.tunnel(tunnel),
            Object::Ingress(ingress) => ingress_words(ingress),
            Object::Instance(instance) => self.instance_words(instance),
            Object::Path(path) => self.path_words(path),
            Object::Rule(rule) => self.rule(rule),
            Object::Policy(policy) => self.policy(policy),
        }
    }

    /// How `found` differs from `expected`, in one line; `None` if it does not.
    pub fn difference(&self, expected: &ElementState, found: &ElementState) -> Option<String> {
        /// The rest is counted.
        const SHOWN: usize = 3;
        let missing = expected.iter().filter(|object| found.get(&object.key()).is_none());
        let altered = expected
            .iter()
            .filter(|object| !found.contains(object))
            .filter_map(|object| Some((object, found.get(&object.key())?)));
        let surplus = found.iter().filter(|object| expected.get(&object.key()).is_none());
        let mut parts: Vec<String> = missing.map(|o| format!("missing: {}", self.object(o))).collect();
        parts.extend(altered.map(|(expected, found)| {
            format!("altered: {} (found: {})", self.object(expected), self.object(found))
        }));
        parts.extend(surplus.map(|object| format!("not wanted: {}", self.object(object))));
        let more = parts.len().saturating_sub(SHOWN);
        parts.truncate(SHOWN);
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    pub fn path(&self, id: PathId) -> String {
        match self.paths.get(&id) {
            Some((owner, Some(generation))) => format!("path {id} ({owner} gen {generation})"),
            Some((owner, None)) => format!("path {id} ({owner}, retired)"),
            None if id == PathId::NOWHERE => "nowhere".to_owned(),
            None => format!("path {id}"),
        }
    }

    fn site(&self, id: SiteId) -> String {
        match self.sites.get(&id) {
            Some(name) => format!("site {name}"),
            None => format!("site number {id}"),
        }
    }

    fn instance(&self, id: InstanceId) -> String {
        match self.instances.get(&id) {
            Some(name) => name.to_string(),
            None => format!("instance number {id}"),
        }
    }

    fn table(&self, table: &Table) -> String {
        let via = table.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let path = self.path(table.path);
        format!("{} table of {path}: default{via} dev {}, else unreachable", table.family, table.port)
    }

    fn tunnel(&self, tunnel: &Tunnel) -> String {
        let Tunnel { site, underlay, local, remote, key, mtu, oversize, allowed } = tunnel;
        let key = key.map(|key| format!(" key {key}")).unwrap_or_default();
        let allowed = list(allowed);
        let oversize = match oversize {
            Oversize::TellSender => "",
            Oversize::FragmentOuter => " fragmenting",
        };
        let site = self.site(*site);
        format!(
            "tunnel of {site}: gre {local} to {remote}{key} dev {underlay} mtu {mtu}{oversize}, inside {allowed}"
        )
    }

    fn instance_words(&self, instance: &Instance) -> String {
        // Its own words, with its name in the place of its number.
        let words = instance.to_string();
        let words = words.split_once(": ").map_or(words.as_str(), |(_, words)| words);
        format!("instance {}: {words}", self.instance(instance.id))
    }

    fn path_words(&self, path: &Path) -> String {
        let hops: Vec<String> = path.hops.iter().map(|hop| self.hop(hop)).collect();
        let vlan = path.vlan.map(|vlan| format!(", vlan {}", vlan.get())).unwrap_or_default();
        format!("{}: {}{vlan}", self.path(path.id), hops.join(" > "))
    }

    fn hop(&self, hop: &Hop) -> String {
        let manner = hop.manner();
        match hop.instances.as_slice() {
            [one] => format!("{}{manner}", self.instance(one.id)),
            several => {
                let share = |member: &Member| match member.weight.get() {
                    1 => self.instance(member.id),
                    weight => format!("{}×{weight}", self.instance(member.id)),
                };
                let shares: Vec<String> = several.iter().map(share).collect();
                format!("{{{}}}{manner}", shares.join(", "))
            }
        }
    }

    fn rule(&self, rule: &Rule) -> String {
        let Rule { order: _, selector, table } = rule;
        format!("{} rule {selector} lookup {}", selector.family, self.path(*table))
    }

    fn policy(&self, policy: &Policy) -> String {
        let rules = self.policy_rules(policy);
        let exits = match &policy.exits {
            Some(exits) => format!("; exits up {}, down {}", exits.up, exits.down),
            None => String::new(),
        };
        format!("policy of {} ({}): {rules}{exits}", self.site(policy.site), list(&policy.prefixes))
    }

    /// Rules that follow each other and do the same are said in one.
    fn policy_rules(&self, policy: &Policy) -> String {
        let same = |a: &PolicyRule, b: &PolicyRule| a.action == b.action;
        let runs = policy.rules.chunk_by(same).map(|run| {
            let matches: Vec<String> = run.iter().map(|rule| rule.matches.to_string()).collect();
            let action = match run.first().map(|rule| rule.action) {
                Some(Action::Path(path)) => format!("by {}", self.path(path)),
                Some(Action::Claim) | None => "claimed".to_owned(),
            };
            format!("{} {action}", matches.join(" and "))
        });
        let runs: Vec<String> = runs.collect();
        if runs.is_empty() { "nothing".to_owned() } else { runs.join(", ") }
    }
}

fn ingress_words(ingress: &Ingress) -> String {
    let purpose = match ingress.purpose {
        Purpose::Claim => "claim",
        Purpose::Steer => "steer",
    };
    format!("ingress {}: {purpose} {}", ingress.port, list(&ingress.directions))
}

fn list<T: Display>(items: &BTreeSet<T>) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use catena_model::address::{Family, Protocol};
    use catena_model::forwarding::{FlowMatch, Selector};

    use super::*;

    fn policy(number: u32) -> Policy {
        let flow = |ports: u16| FlowMatch {
            protocol: Some(Protocol::TCP),
            ports: Some(ports.into()),
            ..FlowMatch::default()
        };
        let rule = |ports| PolicyRule { matches: flow(ports), action: Action::Path(PathId(number)) };
        let prefixes = BTreeSet::from(["172.16.1.0/24".parse().unwrap()]);
        Policy { site: SiteId(1), prefixes, rules: vec![rule(80), rule(443)], exits: None }
    }

    fn rule(table: u32) -> Object {
        let selector = Selector {
            family: Family::V4,
            from: Some("172.16.1.0/24".parse().unwrap()),
            to: None,
            in_port: None,
            unless_released: false,
        };
        Object::Rule(Rule { order: 1, selector, table: PathId(table) })
    }

    /// Two revisions of a path, of which the first has retired.
    fn names() -> Names {
        let mut numbering = Numbering::default();
        numbering.site(&"hq".parse().unwrap());
        for content in 1..=2 {
            numbering.path(&"chain/web/hq".parse().unwrap(), &content).unwrap();
        }
        Names::of(&numbering)
    }

    #[test]
    fn numbers_have_names() {
        let names = names();
        assert_eq!(names.path(PathId(2)), "path 2 (chain/web/hq gen 2)");
        assert_eq!(names.path(PathId(1)), "path 1 (chain/web/hq, retired)");
        assert_eq!(names.path(PathId(9)), "path 9");
        let mut later = Names::default();
        later.add_all(&names);
        later.add_generation(PathId(1), 1);
        assert_eq!(later.path(PathId(1)), "path 1 (chain/web/hq gen 1)");
    }

    #[test]
    fn a_replacement_says_what_was_different() {
        let change = Change::Put { new: Object::Policy(policy(2)), old: Some(Object::Policy(policy(9))) };
        let words = "~ policy of site hq: tcp port 80 and tcp port 443 by path 2 (chain/web/hq gen 2) \
                     (was: tcp port 80 and tcp port 443 by path 9)";
        assert_eq!(names().change(&change), words);
        let change = Change::Put { new: rule(2), old: Some(rule(9)) };
        let words = "~ ipv4 rule from 172.16.1.0/24 lookup path 2 (chain/web/hq gen 2) (was: path 9)";
        assert_eq!(names().change(&change), words);
        let change = Change::Delete { old: rule(9) };
        assert_eq!(names().change(&change), "- ipv4 rule from 172.16.1.0/24 lookup path 9");
    }

    #[test]
    fn a_difference_is_told_in_one_line() {
        let state = |objects: &[Object]| objects.iter().cloned().collect::<ElementState>();
        let names = names();
        assert_eq!(names.difference(&state(&[rule(2)]), &state(&[rule(2)])), None);
        let mut altered = policy(2);
        altered.rules.pop();
        let expected = state(&[rule(2), Object::Policy(policy(2))]);
        let found = state(&[rule(8), rule(9), Object::Policy(altered)]);
        let difference = names.difference(&expected, &found).unwrap();
        let parts: Vec<&str> =
            difference.split("; ").map(|part| part.split_once(':').map_or(part, |(what, _)| what)).collect();
        assert_eq!(parts, ["missing", "altered", "not wanted", "and 1 more"], "{difference}");
    }
}
