//! Changing what is installed, so that at no moment a packet that a rule claims can go another way than by its table.

use catena_driver::DriverError;
use catena_model::address::Family;
use catena_model::forwarding::{Change, Object, Rule, Table};
use netlink_packet_route::route::RouteMessage;

use crate::check::{
    comes_with_tunnels, expect_one_family, foreign_routes, rule_request, table_number, unsupported_kind,
};
use crate::kernel::Kernel;
use crate::numbers::Part;
use crate::rule::{OurRule, guard, part};
use crate::rules::{OurRules, Request};
use crate::table::{NOWHERE, Routes, Way, default, deletion, unreachable};
use crate::words;

pub(crate) fn apply(kernel: &mut Kernel<'_>, changes: &[Change]) -> Result<(), DriverError> {
    let mut step = Step { kernel, rules: None };
    for change in changes {
        match change {
            Change::Put { new: Object::Rule(rule), .. } => step.put_rule(rule)?,
            Change::Put { new: Object::Table(table), .. } => step.put_table(table)?,
            Change::Delete { old: Object::Rule(rule) } => step.delete_rule(rule)?,
            Change::Delete { old: Object::Table(table) } => step.delete_table(table)?,
            other => return Err(unsupported_kind(other)),
        }
    }
    step.sweep()
}

struct Step<'a, 'k> {
    kernel: &'a mut Kernel<'k>,
    /// Read when first needed, and kept up to date from then on: reading them for each change would cost what all
    /// tenants' rules cost.
    rules: Option<OurRules>,
}

impl Step<'_, '_> {
    /// The guard comes first. If the rule is one that leads nowhere, the guard is all of it.
    fn put_rule(&mut self, rule: &Rule) -> Result<(), DriverError> {
        rule_request(self.kernel, rule)?;
        // The tunnels' port comes after the rules for what it brings; the kernel finds a rule's port as soon as it is there.
        if let Some(port) = rule.selector.in_port.as_ref().filter(|port| !comes_with_tunnels(port)) {
            self.kernel.port_index(port)?;
        }
        if part(rule) == Part::Lookup {
            self.expect_closed_table(rule)?;
        }
        self.add(&guard(rule))?;
        self.add(rule)?;
        // The kernel puts a new rule behind those of its priority: the old one decides until it is gone.
        for rival in self.rules()?.rivals(rule) {
            self.remove(&rival)?;
        }
        Ok(())
    }

    /// The guard goes last, and stays as long as another rule stands in the place.
    fn delete_rule(&mut self, rule: &Rule) -> Result<(), DriverError> {
        let guard = guard(rule);
        match part(rule) {
            Part::Lookup => self.remove(rule)?,
            Part::Guard if self.rules()?.contains(&guard) => {}
            // Observed as leading nowhere because they have no guard.
            Part::Guard => {
                for lookup in self.rules()?.rivals(&guard) {
                    self.remove(&lookup)?;
                }
            }
        }
        if self.rules()?.rivals(&guard).is_empty() {
            self.remove(&guard)?;
        }
        Ok(())
    }

    /// Adds a lookup or a guard, if it is not there.
    fn add(&mut self, rule: &Rule) -> Result<(), DriverError> {
        if self.rules()?.contains(rule) {
            return Ok(());
        }
        let request = rule_request(self.kernel, rule)?;
        let command = self.rule_command("add", rule);
        self.kernel.add_rule(request.clone(), &command)?;
        self.log(&command);
        self.rules()?.push(OurRule { rule: Some(rule.clone()), request });
        Ok(())
    }

    /// Removes a lookup or a guard.
    fn remove(&mut self, rule: &Rule) -> Result<(), DriverError> {
        // One rule can stand there several times, after a restored backup for instance.
        while let Some(position) = self.rules()?.position(rule) {
            let command = self.rule_command("del", rule);
            self.remove_rule(position, &command)?;
        }
        Ok(())
    }

    /// A rule whose table lets packets through to the next rule would let them round the chain.
    fn expect_closed_table(&mut self, rule: &Rule) -> Result<(), DriverError> {
        let number = table_number(self.kernel, rule.table)?;
        if self.kernel.table(rule.selector.family, number)?.unreachable.is_some() {
            return Ok(());
        }
        Err(DriverError::failed(
            format!("{}: {}", self.kernel.place, self.rule_command("add", rule)),
            format!("table {number} does not end in an unreachable route; it must be put first"),
        ))
    }

    fn put_table(&mut self, table: &Table) -> Result<(), DriverError> {
        expect_one_family(self.kernel, table)?;
        let number = table_number(self.kernel, table.path)?;
        let mut routes = self.kernel.table(table.family, number)?;
        foreign_routes(self.kernel, table, &routes)?;

        let port = match self.kernel.port_index(&table.port) {
            Err(no_port @ DriverError::NoPort(_)) => {
                // Until the port is back, what is claimed is dropped.
                if self.is_used(table)? {
                    self.close(table, number, &routes)?;
                }
                return Err(no_port);
            }
            other => other?,
        };
        self.close(table, number, &routes)?;
        if !routes.odd.is_empty() || routes.defaults.len() > 1 {
            routes = self.empty(table, number, routes)?;
        }
        if table.port.as_str() == NOWHERE {
            return self.empty(table, number, routes).map(|_| ());
        }
        let way = Way { port, via: table.via };
        if routes.defaults.iter().all(|(installed, _)| *installed != way) {
            let route = words::default_route(table, &self.kernel.numbers);
            let command = format!("{} route replace {route}", words::ip(table.family));
            let route = default(table.family, number, way, &self.kernel.numbers);
            self.kernel.replace_route(route, &command)?;
            self.log(&command);
        }
        Ok(())
    }

    /// The default route goes first and the unreachable one last: between the two, packets are dropped.
    fn delete_table(&mut self, table: &Table) -> Result<(), DriverError> {
        let number = table_number(self.kernel, table.path)?;
        let routes = self.kernel.table(table.family, number)?;
        if !routes.any_of_ours() {
            return Ok(());
        }
        if self.is_used(table)? {
            return Err(
                self.flush_failed(table, "a rule of ours still looks up this table; it must go first")
            );
        }
        let routes = self.empty(table, number, routes)?;
        routes.unreachable.into_iter().try_for_each(|route| self.delete_route(table.family, route))
    }

    /// Deletes all of our routes in a table but the unreachable one. What else is in the table may have grown by
    /// merging (IPv6 makes one route of two with the same metric), so one look is not enough.
    fn empty(&mut self, table: &Table, number: u32, mut routes: Routes) -> Result<Routes, DriverError> {
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            if routes.odd.is_empty() && routes.defaults.is_empty() {
                return Ok(routes);
            }
            let defaults = routes.defaults.into_iter().map(|(_, route)| route);
            for route in routes.odd.into_iter().chain(defaults) {
                self.delete_route(table.family, route)?;
            }
            routes = self.kernel.table(table.family, number)?;
        }
        Err(self.flush_failed(table, "another program puts routes like ours as fast as we delete them"))
    }

    fn delete_route(&mut self, family: Family, route: RouteMessage) -> Result<(), DriverError> {
        let command = format!("{} route del {}", words::ip(family), words::route(&route));
        self.kernel.delete_route(deletion(route), &command)?;
        self.log(&command);
        Ok(())
    }

    /// Makes the unreachable route, if it is not there.
    fn close(&mut self, table: &Table, number: u32, routes: &Routes) -> Result<(), DriverError> {
        if routes.unreachable.is_some() {
            return Ok(());
        }
        let route = unreachable(table.family, number, &self.kernel.numbers);
        let command = format!("{} route add unreachable {}", words::ip(table.family), words::route(&route));
        self.kernel.add_route(route, &command)?;
        self.log(&command);
        Ok(())
    }

    /// Whether a rule of ours looks up the table.
    fn is_used(&mut self, table: &Table) -> Result<bool, DriverError> {
        Ok(self.rules()?.look_up(table.path, table.family))
    }

    /// Rules with our marks that none of ours can be: left by other settings, or changed by hand. They go last, when
    /// what shall be in their stead is there.
    fn sweep(&mut self) -> Result<(), DriverError> {
        while let Some(position) = self.rules.as_ref().and_then(OurRules::odd) {
            self.remove_rule(position, "ip rule del, of a rule of ours that was changed")?;
        }
        Ok(())
    }

    fn remove_rule(&mut self, position: usize, command: &str) -> Result<(), DriverError> {
        for request in self.rules()?.removal(position) {
            match request {
                Request::Add(rule) => self.kernel.add_rule(rule, command)?,
                Request::Delete(rule) => self.kernel.delete_rule(rule, command)?,
            }
        }
        self.log(command);
        Ok(())
    }

    fn rules(&mut self) -> Result<&mut OurRules, DriverError> {
        match &mut self.rules {
            Some(rules) => Ok(rules),
            empty => Ok(empty.insert(self.kernel.our_rules()?)),
        }
    }

    fn rule_command(&self, verb: &str, rule: &Rule) -> String {
        let rule_words = words::rule(rule, &self.kernel.numbers);
        format!("{} rule {verb} {rule_words}", words::ip(rule.selector.family))
    }

    fn flush_failed(&self, table: &Table, why: &str) -> DriverError {
        let (ip, table) = (words::ip(table.family), words::in_table(table, &self.kernel.numbers));
        DriverError::failed(format!("{}: {ip} route flush {table}", self.kernel.place), why)
    }

    fn log(&self, command: &str) {
        tracing::info!(element = %self.kernel.place.element, "{command}");
    }
}
