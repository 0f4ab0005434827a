//! What a chain does with whose traffic, read from what the elements are told, and what is known of it.

use catena_model::forwarding::{Direction, Object, PathId, TUNNEL_PORT};
use catena_model::name::{ChainName, NodeName, PortName};
use catena_model::numbering::PathOwner;
use catena_model::resource::{Attachment, Chain, ServiceFunction, Site, Traffic};

use crate::intent::Intent;
use crate::report::{ExplainedFunction, ExplainedSite, Explanation, Stage};
use crate::view::View;
use crate::watching::Verdicts;

impl View {
    /// `None`: there is no such chain.
    pub fn explain(&self, name: &ChainName, verdicts: &Verdicts) -> Option<Explanation> {
        let model = &self.intent.model;
        let chain = model.chains.get(name)?;
        let status = self.status(verdicts).chains.into_iter().find(|status| status.name == *name)?;
        let functions = chain.functions.iter().filter_map(|name| model.functions.get(name));
        let sites = chain.sites.iter().filter_map(|name| model.sites.get(name));
        let given_up = self.intent.given_up().into_iter().filter(|given_up| given_up.promise.chain == *name);
        Some(Explanation {
            chain: name.clone(),
            tenant: status.tenant,
            matches: chain
                .matches
                .iter()
                .flat_map(Traffic::flow_matches)
                .map(|flow| flow.to_string())
                .collect(),
            claims_everything: chain.matches.contains(&Traffic::default()),
            functions: functions.map(explained_function).collect(),
            sites: sites.map(|site| explained_site(&self.intent, chain, site)).collect(),
            state: status.state,
            reason: status.reason,
            verdict: status.verdict,
            given_up: given_up.collect(),
        })
    }
}

fn explained_function(function: &ServiceFunction) -> ExplainedFunction {
    ExplainedFunction {
        name: function.name.clone(),
        insertion: function.insertion,
        on_failure: function.on_failure,
        changes_addresses: function.changes_addresses,
        instances: function.instances.clone(),
    }
}

fn explained_site(intent: &Intent, chain: &Chain, site: &Site) -> ExplainedSite {
    let name = &site.name;
    let switch = switch_of(intent, chain, site);
    let ways = Ways { intent, site, switch: switch.as_ref() };
    let mut there = ways.follow(&PathOwner::Up(name.clone()));
    there.extend(ways.exit(Direction::Up));
    let mut back = ways.follow(&PathOwner::Down(name.clone()));
    let home = ways.follow(&PathOwner::Home(name.clone()));
    if home.is_empty() {
        back.extend(ways.exit(Direction::Down));
    }
    back.extend(home);
    ExplainedSite {
        site: name.clone(),
        prefixes: site.prefixes.clone(),
        attachment: site.attachment.clone(),
        there,
        back,
    }
}

/// The element that has the chain's path.
fn switch_of(intent: &Intent, chain: &Chain, site: &Site) -> Option<NodeName> {
    let path = number(intent, &PathOwner::Chain(chain.name.clone(), site.name.clone()))?;
    let has_path = |object: &Object| matches!(object, Object::Path(found) if found.id == path);
    let mut elements = intent.desired.elements.iter();
    elements.find(|(_, state)| state.iter().any(has_path)).map(|(name, _)| name.clone())
}

fn number(intent: &Intent, owner: &PathOwner) -> Option<PathId> {
    intent.numbering.revision(owner).map(|revision| revision.id)
}

/// The ways of one site's packets.
struct Ways<'a> {
    intent: &'a Intent,
    site: &'a Site,
    switch: Option<&'a NodeName>,
}

impl Ways<'_> {
    /// From the element that no other leads to, from table to table, to the first that has none for this path.
    fn follow(&self, owner: &PathOwner) -> Vec<Stage> {
        let Some(path) = number(self.intent, owner) else { return Vec::new() };
        let elements = self.intent.desired.elements.keys();
        let hops: Vec<(&NodeName, Stage)> = elements
            .filter_map(|element| Some((element, self.next(owner, element, self.port(element, path)?)?)))
            .collect();
        let is_led_to = |element: &NodeName| hops.iter().any(|(_, next)| next.element == *element);
        let Some((first, _)) = hops.iter().find(|(element, _)| !is_led_to(element)) else {
            return Vec::new();
        };
        let mut way = vec![self.stage((*first).clone(), false)];
        while let Some(last) = way.last()
            && way.len() <= hops.len()
            && let Some((_, next)) = hops.iter().find(|(element, _)| **element == last.element)
        {
            way.push(next.clone());
        }
        way
    }

    /// By which port the path leaves an element.
    fn port(&self, element: &NodeName, path: PathId) -> Option<&PortName> {
        self.intent.desired.element(element).iter().find_map(|object| match object {
            Object::Table(table) if table.path == path => Some(&table.port),
            _ => None,
        })
    }

    fn next(&self, owner: &PathOwner, element: &NodeName, port: &PortName) -> Option<Stage> {
        if port.as_str() != TUNNEL_PORT {
            return self.beyond(element, port);
        }
        let Attachment::Gre(gre) = &self.site.attachment else { return None };
        let end = if matches!(owner, PathOwner::Up(_)) { &gre.cloud } else { &gre.customer };
        Some(self.stage(end.element.clone()?, true))
    }

    fn beyond(&self, element: &NodeName, port: &PortName) -> Option<Stage> {
        let cable = self.intent.topology.cable(element, port)?;
        Some(self.stage(cable.far.node.clone(), false))
    }

    /// What follows the switch.
    fn exit(&self, direction: Direction) -> Option<Stage> {
        let switch = self.switch?;
        let number = self.intent.numbering.sites().find(|(name, _)| **name == self.site.name)?.1;
        let exits = self.intent.desired.element(switch).iter().find_map(|object| match object {
            Object::Policy(policy) if policy.site == number => policy.exits.as_ref(),
            _ => None,
        })?;
        self.beyond(switch, &exits.of(direction).port)
    }

    fn stage(&self, element: NodeName, by_tunnel: bool) -> Stage {
        let steers = self.switch == Some(&element);
        Stage { element, by_tunnel, steers }
    }
}
