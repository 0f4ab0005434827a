//! Our rules on an element, in the order in which the kernel would find them.

use std::collections::BTreeMap;

use catena_model::address::Family;
use catena_model::forwarding::{PathId, Rule};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use crate::numbers::Part;
use crate::rule::{OurRule, guard, part};

/// The kernel orders rules by priority, and puts a new one behind those of its priority. Here, rules of one priority are
/// in that order; that of others does not matter, since every request names the priority.
#[derive(Clone, Debug, Default)]
pub(crate) struct OurRules {
    list: Vec<OurRule>,
    /// How often each stands in the list.
    known: BTreeMap<Rule, usize>,
    /// How many look up each table.
    users: BTreeMap<(PathId, Family), usize>,
}

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Add(RuleMessage),
    Delete(RuleMessage),
}

impl OurRules {
    /// Notes a rule that is behind all of its priority.
    pub(crate) fn push(&mut self, ours: OurRule) {
        if let Some(rule) = &ours.rule {
            *self.known.entry(rule.clone()).or_default() += 1;
            *self.users.entry((rule.table, rule.selector.family)).or_default() += 1;
        }
        self.list.push(ours);
    }

    /// What they come to, place by place: lookups with their guard are rules. One of the two without the other is a rule
    /// that leads nowhere: nobody wants such a rule, so it is put again or deleted.
    pub(crate) fn whole_rules(&self) -> Vec<Rule> {
        let known: Vec<&Rule> = self.known.keys().collect();
        let places = known.chunk_by(|one, other| one.place() == other.place());
        let rules = places.flat_map(|place| {
            // In their order, the guard of a place comes first.
            match place {
                [first, lookups @ ..] if part(first) == Part::Guard && !lookups.is_empty() => {
                    lookups.iter().map(|rule| (*rule).clone()).collect()
                }
                [first, ..] => vec![guard(first)],
                [] => vec![],
            }
        });
        rules.collect()
    }

    pub(crate) fn contains(&self, rule: &Rule) -> bool {
        self.known.contains_key(rule)
    }

    /// The lookups that stand where `rule` does, but in other tables.
    pub(crate) fn rivals(&self, rule: &Rule) -> Vec<Rule> {
        // In their order, rules that differ in nothing but the table are neighbours.
        let first = guard(rule);
        let last = Rule { table: PathId(u32::MAX), ..rule.clone() };
        self.known
            .range(first..=last)
            .map(|(rival, _)| rival)
            .filter(|rival| *rival != rule && part(rival) == Part::Lookup)
            .cloned()
            .collect()
    }

    pub(crate) fn look_up(&self, table: PathId, family: Family) -> bool {
        self.users.contains_key(&(table, family))
    }

    pub(crate) fn position(&self, rule: &Rule) -> Option<usize> {
        if !self.contains(rule) {
            return None;
        }
        self.list.iter().position(|ours| ours.rule.as_ref() == Some(rule))
    }

    /// A rule with our marks that none of ours can be.
    pub(crate) fn odd(&self) -> Option<usize> {
        self.list.iter().position(|ours| ours.rule.is_none())
    }

    /// The requests that remove the rule at `position` and no other; here, it is removed at once.
    ///
    /// The kernel deletes the first rule that has everything that the request names (`rule_find` in net/core/fib_rules.c),
    /// so a request meant for `from P lookup T` deletes `from P iif X lookup T` if that comes first. Such a rule is put
    /// once more, behind, before its first copy is sacrificed: at no time is it missing.
    pub(crate) fn removal(&mut self, mut position: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        let request = self.list[position].request.clone();
        while let Some(first) = self.list.iter().position(|ours| names(&request, &ours.request)) {
            let hit = self.remove(first);
            if first == position {
                requests.push(Request::Delete(request));
                break;
            }
            requests.push(Request::Add(hit.request.clone()));
            requests.push(Request::Delete(request.clone()));
            self.push(hit);
            position -= 1;
        }
        requests
    }

    fn remove(&mut self, position: usize) -> OurRule {
        let ours = self.list.remove(position);
        if let Some(rule) = &ours.rule {
            take_one(&mut self.known, rule);
            take_one(&mut self.users, &(rule.table, rule.selector.family));
        }
        ours
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Whether `request`, as one to delete, means `rule`.
fn names(request: &RuleMessage, rule: &RuleMessage) -> bool {
    request.header.family == rule.header.family
        && request.header.action == rule.header.action
        && request.attributes.iter().all(|attribute| {
            let same_length = match attribute {
                RuleAttribute::Source(_) => request.header.src_len == rule.header.src_len,
                RuleAttribute::Destination(_) => request.header.dst_len == rule.header.dst_len,
                _ => true,
            };
            same_length && rule.attributes.contains(attribute)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Numbers;
    use crate::rule::request;
    use catena_model::address::Prefix;
    use catena_model::forwarding::Selector;
    use catena_model::resource::LinuxSpec;

    fn numbers() -> Numbers {
        Numbers::of(&LinuxSpec::in_netns("x"))
    }

    fn rule(order: u16, from: &str, in_port: Option<&str>, unless_released: bool) -> Rule {
        let from: Prefix = from.parse().unwrap();
        let in_port = in_port.map(|port| port.parse().unwrap());
        let selector =
            Selector { family: from.family(), from: Some(from), to: None, in_port, unless_released };
        Rule { order, selector, table: PathId(1) }
    }

    fn list(rules: &[&Rule]) -> OurRules {
        let mut list = OurRules::default();
        for rule in rules {
            let request = request(rule, &numbers()).unwrap();
            list.push(OurRule { rule: Some((*rule).clone()), request });
        }
        list
    }

    /// The kernel's side of the bargain: `fib_newrule` and `fib_delrule`.
    fn obey(list: &mut OurRules, request: &Request) {
        match request {
            Request::Add(message) => list.push(OurRule::read(message.clone(), &numbers()).unwrap()),
            Request::Delete(message) => {
                let first = list.list.iter().position(|ours| names(message, &ours.request)).unwrap();
                list.remove(first);
            }
        }
    }

    fn order(list: &OurRules) -> Vec<Option<Rule>> {
        list.list.iter().map(|ours| ours.rule.clone()).collect()
    }

    /// Every rule of a list is removed in turn; at no time is another one missing, and in the end all others are left.
    #[test]
    fn a_removal_hits_one_rule_alone() {
        let narrowest = rule(0, "172.16.1.0/24", Some("a"), true);
        let narrow = rule(0, "172.16.1.0/24", Some("a"), false);
        let wide = rule(0, "172.16.1.0/24", None, false);
        let other = rule(0, "172.16.2.0/24", None, false);
        let later = rule(1, "172.16.1.0/24", None, false);
        let guards = [&narrow, &wide].map(guard);
        let all = [&narrowest, &narrow, &other, &wide, &later, &guards[0], &guards[1]];
        for unwanted in all {
            let mut model = list(&all);
            let mut kernel = model.clone();
            for request in model.removal(model.position(unwanted).unwrap()) {
                obey(&mut kernel, &request);
                for wanted in all.iter().filter(|rule| **rule != unwanted) {
                    assert!(kernel.contains(wanted), "{wanted:?}");
                }
            }
            assert_eq!(order(&kernel), order(&model));
            assert_eq!(kernel.list.len(), all.len() - 1);
            assert!(!kernel.contains(unwanted));
        }
    }

    #[test]
    fn a_removal_that_meets_nothing_else_is_one_request() {
        let narrow = rule(0, "172.16.1.0/24", Some("a"), false);
        let wide = rule(0, "172.16.1.0/24", None, false);
        assert_eq!(list(&[&wide, &narrow]).removal(0).len(), 1);
        assert_eq!(list(&[&narrow, &wide]).removal(1).len(), 3);
    }

    #[test]
    fn a_place_without_its_guard_or_its_lookup_leads_nowhere() {
        let first = rule(0, "172.16.1.0/24", None, false);
        let second = Rule { table: PathId(2), ..first.clone() };
        let elsewhere = rule(1, "172.16.1.0/24", None, false);
        let [here, there] = [&first, &elsewhere].map(guard);
        let whole = |rules: &[&Rule]| list(rules).whole_rules();
        assert_eq!(whole(&[&first, &second, &here]), [first.clone(), second.clone()]);
        assert_eq!(whole(&[&first, &second, &there]), [here.clone(), there.clone()]);
        assert_eq!(whole(&[&first, &here, &elsewhere]), [first.clone(), there]);
        assert_eq!(whole(&[&here]), [here]);
    }

    #[test]
    fn rivals_stand_in_the_same_place() {
        let rule_a = rule(0, "172.16.1.0/24", None, false);
        let rival = Rule { table: PathId(2), ..rule_a.clone() };
        let elsewhere = [rule(1, "172.16.1.0/24", None, false), rule(0, "172.16.2.0/24", None, false)];
        let rules = list(&[&rule_a, &rival, &elsewhere[0], &elsewhere[1]]);
        assert_eq!(rules.rivals(&rule_a), [rival]);
        assert!(rules.look_up(PathId(2), Family::V4) && !rules.look_up(PathId(2), Family::V6));
    }
}
