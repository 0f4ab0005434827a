//! Fields: which there are, and the form of their values.

use super::{told, told_all, told_with};

/// A misspelt field: the nearest known one is proposed, and it is not told as missing too.
#[test]
fn an_unknown_field() {
    let said = told("  insertion: l3", "  insertoin: l3");
    insta::assert_snapshot!(said, @"
    error: unknown field `insertoin`
       --> world.yaml:180:3
        |
    180 |   insertoin: l3
        |   ^^^^^^^^^
        = help: did you mean `insertion`?
    ");
}

/// A field that is like none.
#[test]
fn a_field_of_another_program() {
    let said = told("metadata: {name: acme}", "metadata: {name: acme, labels: {}}");
    insta::assert_snapshot!(said, @"
    error: unknown field `labels`
       --> world.yaml:208:24
        |
    208 | metadata: {name: acme, labels: {}}
        |                        ^^^^^^
        = help: known here: `name`
    ");
}

/// A field that must be there.
#[test]
fn a_missing_field() {
    let said = told("  tenant: globex\n", "");
    insta::assert_snapshot!(said, @"
    error: `tenant` is missing here
       --> world.yaml:242:1
        |
    242 | spec:
        | ^^^^
        = help: add `tenant: …`
    ");
}

/// A field without a value is missing.
#[test]
fn a_field_without_a_value() {
    let said = told("  functions: [ips]", "  functions:");
    insta::assert_snapshot!(said, @"
    error: `functions` is missing here
       --> world.yaml:257:1
        |
    257 | spec:
        | ^^^^
        = help: add `functions: …`
    ");
}

/// All mistakes of one document.
#[test]
fn several_at_once() {
    let said = told_all(&[
        (
            "  prefixes: [172.16.9.0/24]\n",
            "  prefixes: [172.16.9.1/24, 172.16.9/24, 172.16.10.0]\n  tennant: x\n",
        ),
        ("customer: {address: 192.0.2.9}", r#"customer: {address: "192.0.2", key: 1}"#),
    ]);
    insta::assert_snapshot!(said, @r#"
    error: `172.16.9.1/24` is not a prefix
       --> world.yaml:233:14
        |
    233 |   prefixes: [172.16.9.1/24, 172.16.9/24, 172.16.10.0]
        |              ^^^^^^^^^^^^^ bits are set beyond the first 24
        = help: write 172.16.9.0/24

    error: `172.16.9/24` is not a prefix
       --> world.yaml:233:29
        |
    233 |   prefixes: [172.16.9.1/24, 172.16.9/24, 172.16.10.0]
        |                             ^^^^^^^^^^^
        = help: write an address and a length, such as 172.16.1.0/24 or 2001:db8::/32

    error: `172.16.10.0` is not a prefix
       --> world.yaml:233:42
        |
    233 |   prefixes: [172.16.9.1/24, 172.16.9/24, 172.16.10.0]
        |                                          ^^^^^^^^^^^
        = help: write the length too, such as 172.16.10.0/24

    error: unknown field `tennant`
       --> world.yaml:234:3
        |
    234 |   tennant: x
        |   ^^^^^^^
        = help: did you mean `tenant`?

    error: `192.0.2` is not an IP address
       --> world.yaml:237:27
        |
    237 |       customer: {address: "192.0.2", key: 1}
        |                           ^^^^^^^^^
        = help: write an address such as 10.21.0.1 or 2001:db8::1

    error: unknown field `key`
       --> world.yaml:237:38
        |
    237 |       customer: {address: "192.0.2", key: 1}
        |                                      ^^^
        = help: known here: `element`, `address`
    "#);
}

/// Another version of the file format.
#[test]
fn another_version() {
    let said = told(
        "apiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {name: acme}",
        "apiVersion: catena/v2\nkind: Tenant\nmetadata: {name: acme}",
    );
    insta::assert_snapshot!(said, @"
    error: `catena/v2` is not a version of the file format
       --> world.yaml:206:13
        |
    206 | apiVersion: catena/v2
        |             ^^^^^^^^^
        = help: write `apiVersion: catena/v1alpha1`
    ");
}

/// A kind that does not exist.
#[test]
fn a_misspelt_kind() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Sites
metadata: {name: x}
spec: {}
"#,
    );
    insta::assert_snapshot!(said, @"
    error: `Sites` is no kind of resource
     --> added.yaml:2:7
      |
    2 | kind: Sites
      |       ^^^^^
      = help: did you mean `Site`?
    ");
}

/// A kind of another program.
#[test]
fn another_kind() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Deployment
metadata: {name: x}
spec: {}
"#,
    );
    insta::assert_snapshot!(said, @"
    error: `Deployment` is no kind of resource
     --> added.yaml:2:7
      |
    2 | kind: Deployment
      |       ^^^^^^^^^^
      = help: write one of `Element`, `Host`, `Link`, `ServiceFunction`, `Tenant`, `Site`, `Chain`
    ");
}

/// Names are lower-case.
#[test]
fn a_name_in_capitals() {
    let said = told("metadata: {name: globex}", "metadata: {name: Globex_Corp}");
    insta::assert_snapshot!(said, @"
    error: `Globex_Corp` is not a name for a tenant
       --> world.yaml:213:18
        |
    213 | metadata: {name: Globex_Corp}
        |                  ^^^^^^^^^^^ a name is of lower-case letters, digits and '-', begins and ends with a letter or digit
        = help: write `globex-corp`, for instance
    ");
}

/// Ports are Linux interfaces.
#[test]
fn a_port_with_a_slash() {
    let said = told("port: spare-in}\n    - {node: ips-host", "port: eth/0}\n    - {node: ips-host");
    insta::assert_snapshot!(said, @"
    error: `eth/0` is not a name for a port
       --> world.yaml:165:28
        |
    165 |     - {node: br-ext, port: eth/0}
        |                            ^^^^^ a port is named like a Linux interface: no white space, '/' or ':', and not '.' or '..'
        = help: write `eth-0`, for instance
    ");
}

/// A list where one value must stand.
#[test]
fn a_list_for_a_value() {
    let said = told("  tenant: globex\n", "  tenant: [globex]\n");
    insta::assert_snapshot!(said, @"
    error: here is a list instead of a name for a tenant
       --> world.yaml:243:11
        |
    243 |   tenant: [globex]
        |           ^^^^^^^^
        = help: write a name for a tenant
    ");
}

/// One value where a list must stand.
#[test]
fn a_value_for_a_list() {
    let said = told("  functions: [ips]", "  functions: ips");
    insta::assert_snapshot!(said, @"
    error: here is a single value instead of a list
       --> world.yaml:259:14
        |
    259 |   functions: ips
        |              ^^^
        = help: write a list, also of one: `[ips]`
    ");
}

/// A number in quotes.
#[test]
fn a_quoted_number() {
    let said = told("mtu: 1400", r#"mtu: "1400""#);
    insta::assert_snapshot!(said, @r#"
    error: here is text in quotes instead of a number
      --> world.yaml:99:8
       |
    99 |   mtu: "1400"
       |        ^^^^^^
       = help: write a number, without quotes
    "#);
}

/// `yes` is not a boolean in YAML 1.2.
#[test]
fn yes_for_true() {
    let said = told("forwarding: true", "forwarding: yes");
    insta::assert_snapshot!(said, @"
    error: here is a single value instead of `true` or `false`
      --> world.yaml:56:20
       |
    56 | spec: {forwarding: yes}
       |                    ^^^
       = help: write `true` or `false`
    ");
}

/// A role that does not exist.
#[test]
fn an_unknown_role() {
    let said = told("role: gateway", "role: gatway");
    insta::assert_snapshot!(said, @"
    error: `gatway` is none of `access`, `physical`, `router`, `switch`, `gateway`
      --> world.yaml:41:14
       |
    41 | spec: {role: gatway, driver: simulated}
       |              ^^^^^^
       = help: did you mean `gateway`?
    ");
}

/// A driver that does not exist.
#[test]
fn an_unknown_driver() {
    let said =
        told("spec: {role: gateway, driver: simulated}", "spec: {role: gateway, driver: {netconf: {}}}");
    insta::assert_snapshot!(said, @"
    error: `linux` is missing here
      --> world.yaml:41:23
       |
    41 | spec: {role: gateway, driver: {netconf: {}}}
       |                       ^^^^^^
       = help: add `linux: …`

    error: unknown field `netconf`
      --> world.yaml:41:32
       |
    41 | spec: {role: gateway, driver: {netconf: {}}}
       |                                ^^^^^^^
       = help: known here: `linux`
    ");
}

/// The mark is one bit.
#[test]
fn a_mark_of_two_bits() {
    let said = told("driver: {linux: {netns: core}}", "driver: {linux: {netns: core, mark: 0x300}}");
    insta::assert_snapshot!(said, @"
    error: the mark 0x300 has 2 bits
      --> world.yaml:21:39
       |
    21 |   driver: {linux: {netns: core, mark: 0x300}}
       |                                       ^^^^^
       = help: write one bit that nothing else on the machine uses, such as 0x04000000
    ");
}

/// Our rules must come before the one that looks up `main`.
#[test]
fn rules_after_the_kernels() {
    let said = told(
        "driver: {linux: {netns: core}}",
        "driver: {linux: {netns: core, rulePriority: 32700, tableBase: 254, protocol: 2}}",
    );
    insta::assert_snapshot!(said, @"
    error: `32700` is not a number from 1 to 32254
      --> world.yaml:21:47
       |
    21 |   driver: {linux: {netns: core, rulePriority: 32700, tableBase: 254, protocol: 2}}
       |                                               ^^^^^
       = help: write a whole number from 1 to 32254

    error: `254` is not a number from 256 to 4278190080
      --> world.yaml:21:65
       |
    21 |   driver: {linux: {netns: core, rulePriority: 32700, tableBase: 254, protocol: 2}}
       |                                                                 ^^^
       = help: write a whole number from 256 to 4278190080

    error: `2` is not a number from 5 to 255
      --> world.yaml:21:80
       |
    21 |   driver: {linux: {netns: core, rulePriority: 32700, tableBase: 254, protocol: 2}}
       |                                                                                ^
       = help: write a whole number from 5 to 255
    ");
}

#[test]
fn an_engine_that_there_is_not() {
    let said = told("driver: {linux: {netns: core}}", "driver: {linux: {netns: core, engine: nfs}}");
    insta::assert_snapshot!(said, @"
    error: `nfs` is none of `rules`, `nft`, `steer`
      --> world.yaml:21:41
       |
    21 |   driver: {linux: {netns: core, engine: nfs}}
       |                                         ^^^
       = help: did you mean `nft`?
    ");
}

/// Next hops are numbered in bits of the mark, too.
#[test]
fn a_mark_in_the_way_of_next_hops() {
    let said =
        told("driver: {linux: {netns: core}}", "driver: {linux: {netns: core, engine: nft, mark: 0x10000}}");
    insta::assert_snapshot!(said, @"
    error: the mark 0x10000 is among those that `engine: nft` numbers next hops with
      --> world.yaml:21:52
       |
    21 |   driver: {linux: {netns: core, engine: nft, mark: 0x10000}}
       |                                                    ^^^^^^^
       = help: write a bit outside 0x03ff0000, or leave it out
    ");
}

/// A network namespace is named, not its path.
#[test]
fn a_namespace_with_a_slash() {
    let said = told("driver: {linux: {netns: core}}", "driver: {linux: {netns: /run/netns/core}}");
    insta::assert_snapshot!(said, @"
    error: `/run/netns/core` cannot be a network namespace's name
      --> world.yaml:21:27
       |
    21 |   driver: {linux: {netns: /run/netns/core}}
       |                           ^^^^^^^^^^^^^^^
       = help: write a name that `ip netns list` shows; leave `netns` out for the controller's own namespace
    ");
}

/// A link with one end.
#[test]
fn one_end() {
    let said = told("    - {node: alice, port: eth0, addresses: [172.16.1.10/24]}\n", "");
    insta::assert_snapshot!(said, @"
    error: a link has two ends, not 1
      --> world.yaml:67:3
       |
    67 |   ends:
       |   ^^^^
       = help: write two ends
    ");
}

/// An interface's address has a length.
#[test]
fn an_address_without_length() {
    let said = told("addresses: [198.51.100.10/24]", "addresses: [198.51.100.10]");
    insta::assert_snapshot!(said, @"
    error: `198.51.100.10` is not an address with the length of its network
      --> world.yaml:85:48
       |
    85 |     - {node: internet, port: eth0, addresses: [198.51.100.10]}
       |                                                ^^^^^^^^^^^^^
       = help: write the length too, such as 198.51.100.10/24
    ");
}

/// A site is attached in one way.
#[test]
fn two_attachments() {
    let said = told(
        "attachment: {l2: {link: metro-b}}",
        "attachment: {l2: {link: metro-b}, gre: {customer: {address: 192.0.2.1}, cloud: {element: edge, address: 203.0.113.10}}}",
    );
    insta::assert_snapshot!(said, @"
    error: a site is attached in one way, here are two
       --> world.yaml:244:3
        |
    244 |   attachment: {l2: {link: metro-b}, gre: {customer: {address: 192.0.2.1}, cloud: {element: edge, address: 203.0.113.10}}}
        |   ^^^^^^^^^^
        = help: write either `gre: {…}` or `l2: {link: …}`
    ");
}

/// A site is attached in some way.
#[test]
fn no_attachment() {
    let said = told("attachment: {l2: {link: metro-b}}", "attachment: {}");
    insta::assert_snapshot!(said, @"
    error: here is no way in which the site is attached
       --> world.yaml:244:3
        |
    244 |   attachment: {}
        |   ^^^^^^^^^^
        = help: write either `gre: {…}` or `l2: {link: …}`
    ");
}

/// A route's prefix and next hop are of one family.
#[test]
fn families_of_a_route() {
    let said = told(
        "routes: [{to: default, via: 203.0.113.1}]",
        r#"routes: [{to: "2001:db8::/32", via: 203.0.113.1}]"#,
    );
    insta::assert_snapshot!(said, @r#"
    error: a route to 2001:db8::/32 by way of 203.0.113.1: one is IPv4, the other IPv6
      --> world.yaml:14:17
       |
    14 |   routes: [{to: "2001:db8::/32", via: 203.0.113.1}]
       |                 ^^^^^^^^^^^^^^^
      ::: world.yaml:14:39
       |
    14 |   routes: [{to: "2001:db8::/32", via: 203.0.113.1}]
       |                                       ----------- the next hop
       = help: take both of one family
    "#);
}

/// An empty list of prefixes.
#[test]
fn no_prefixes() {
    let said = told("spec: {prefixes: [172.16.2.0/24]}", "spec: {prefixes: []}");
    insta::assert_snapshot!(said, @"
    error: no prefixes are listed
       --> world.yaml:214:8
        |
    214 | spec: {prefixes: []}
        |        ^^^^^^^^
        = help: list at least one, such as 172.16.1.0/24
    ");
}

/// What the steering engine of an element keeps in mind.
#[test]
fn settings_of_the_steering_engine() {
    let with = |steer: &str| {
        let to = format!("driver: {{linux: {{netns: core, steer: {steer}}}}}");
        told("driver: {linux: {netns: core}}", &to)
    };
    let all = "{tenants: 10, flows: 1000, tenantLimits: {flows: 100, halfOpen: 10, newPerSecond: 50}, \
               idle: {tcp: 7440, tcpClosing: 2, halfOpen: 30, udp: 300, other: 60}}";
    assert_eq!(with(all), "nothing");
    let said = with("{flows: 0, idle: {icmp: 60}}");
    insta::assert_snapshot!(said, @"
    error: `0` is not a number from 1 to 16777216
      --> world.yaml:21:48
       |
    21 |   driver: {linux: {netns: core, steer: {flows: 0, idle: {icmp: 60}}}}
       |                                                ^
       = help: write a whole number from 1 to 16777216

    error: unknown field `icmp`
      --> world.yaml:21:58
       |
    21 |   driver: {linux: {netns: core, steer: {flows: 0, idle: {icmp: 60}}}}
       |                                                          ^^^^
       = help: known here: `tcp`, `tcpClosing`, `halfOpen`, `udp`, `other`
    ");
}
