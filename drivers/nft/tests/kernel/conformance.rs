use async_trait::async_trait;
use catena_driver::Driver;
use catena_driver::conformance::{Fixture, Replacement, Sample};
use catena_model::address::Family;
use catena_model::forwarding::{Object, PathId, Selector, Table};
use catena_testbed::objects::{from, port, rule, selector, table};

use crate::world::World;

catena_driver::conformance_tests!(World::default());

/// Rules of others at our priorities, with and without our protocol number, tables and routes of others beside ours, in
/// tables that hops could have.
const FOREIGN_RULES: [&str; 5] = [
    "pref 10000 fwmark 0x2010000/0x3ff0000 lookup 77 proto static",
    "pref 9999 from 172.16.1.0/24 lookup 10001 proto 202",
    "pref 10256 from 172.16.0.0/16 lookup 77 proto static",
    "pref 10512 from 172.16.1.0/24 lookup 77 proto 202",
    "pref 500 fwmark 0x1/0x1 ipproto tcp lookup main",
];
const FOREIGN_ROUTES: [&str; 4] = [
    "default via 10.20.0.1 dev qg-ext table 77 proto 202",
    "172.16.9.0/24 via 10.20.0.1 dev qg-ext proto 202",
    "default via 10.23.0.2 dev qg-def table 10001 proto static",
    "unreachable default table 10001 proto static metric 4278198272",
];
/// Tables of the same name in other families, one with a similar name, and chains at our hooks.
const FOREIGN_NFTABLES: [&str; 4] = [
    "table ip catena { chain prerouting { type filter hook prerouting priority 200; ip saddr 172.16.1.0/24 counter; }; }",
    "table bridge catena { map hops { type mark : verdict; }; }",
    "table inet catena-2 { set hops { type mark . ifname; elements = { 0x02010000 . \"qr-abc\" }; }; }",
    "table inet filter { chain forward { type filter hook forward priority 0; meta mark 0x1 accept; }; }",
];

#[async_trait]
impl Fixture for World {
    async fn driver(&self) -> Box<dyn Driver> {
        Box::new(World::driver(self))
    }

    fn sample(&self) -> Sample {
        let site_v6 = Selector { in_port: Some(port("qg-ext")), ..selector("2001:db8:a1::/64") };
        let replies = Selector {
            from: None,
            to: "172.16.1.0/24".parse().ok(),
            in_port: Some(port("qr-abc")),
            unless_released: true,
            ..selector("172.16.1.0/24")
        };
        let plain = Table { path: PathId(3), family: Family::V4, port: port("qg-ext"), via: None };
        let plain_v6 = Table { family: Family::V6, ..plain.clone() };
        Sample {
            objects: vec![
                table(1, "qr-abc", "10.21.0.5"),
                table(1, "qr-abc", "2001:db8:21::5"),
                table(2, "qr-abc", "10.21.0.6"),
                Object::Table(plain.clone()),
                Object::Table(plain_v6.clone()),
                from("172.16.1.0/24", 1),
                from("172.16.2.0/24", 1),
                rule(1, site_v6.clone(), 1),
                rule(2, replies.clone(), 3),
            ],
            replacements: vec![
                Replacement { old: from("172.16.1.0/24", 1), new: from("172.16.1.0/24", 2) },
                Replacement { old: rule(1, site_v6.clone(), 1), new: rule(1, site_v6, 3) },
                Replacement { old: rule(2, replies.clone(), 3), new: rule(2, replies, 2) },
                Replacement { old: table(1, "qr-abc", "10.21.0.5"), new: table(1, "qg-def", "10.23.0.2") },
                Replacement {
                    old: table(1, "qr-abc", "2001:db8:21::5"),
                    new: table(1, "qg-def", "2001:db8:23::2"),
                },
                Replacement { old: Object::Table(plain), new: table(3, "qg-ext", "10.20.0.1") },
                Replacement { old: Object::Table(plain_v6), new: table(3, "qg-ext", "2001:db8:20::1") },
            ],
            nowhere: table(9, "nowhere", "10.21.0.5"),
        }
    }

    async fn snapshot(&self) -> String {
        World::snapshot(self)
    }

    async fn install_foreign(&self) {
        for rule in FOREIGN_RULES {
            self.ip(&format!("rule add {rule}"));
        }
        for route in FOREIGN_ROUTES {
            self.ip(&format!("route add {route}"));
        }
        for table in FOREIGN_NFTABLES {
            self.nft(table);
        }
    }

    async fn lost_foreign(&self) -> Vec<String> {
        let rules = FOREIGN_RULES.iter().filter(|rule| self.ip(&format!("rule show {rule}")).is_empty());
        let routes = FOREIGN_ROUTES.iter().filter(|route| {
            let shown = route.strip_prefix("unreachable ").map(|rest| format!("type unreachable {rest}"));
            let words: Vec<_> = shown.as_deref().unwrap_or(route).split(" metric ").collect();
            self.ip(&format!("route show {}", words[0])).is_empty()
        });
        let installed = self.nft("list ruleset");
        let tables = FOREIGN_NFTABLES.iter().filter(|table| {
            let name = table.split(" {").next().unwrap();
            !installed.contains(&format!("{name} {{"))
        });
        rules.chain(routes).chain(tables).map(|object| (*object).to_owned()).collect()
    }

    async fn damage(&self) {
        self.nft("delete element inet catena order0-ip-from24 { 172.16.1.0 }");
    }
}
