//! Elements, hosts and links.

use super::{told, told_all};

/// Two resources of one kind and name: both places.
#[test]
fn two_documents_of_one_name() {
    let said = told("metadata: {name: globex}", "metadata: {name: acme}");
    insta::assert_snapshot!(said, @"
    error: two tenants have the name `acme`
       --> world.yaml:213:18
        |
    213 | metadata: {name: acme}
        |                  ^^^^
       ::: world.yaml:208:18
        |
    208 | metadata: {name: acme}
        |                  ---- the first one
        = help: rename one of them, or leave it out

    error: there is no tenant `globex`
       --> world.yaml:243:11
        |
    243 |   tenant: globex
        |           ^^^^^^
        = help: add a document with `kind: Tenant` and `name: globex`, or take another name
    ");
}

/// Elements and hosts share their names.
#[test]
fn a_host_named_like_an_element() {
    let said = told("metadata: {name: fw-host}", "metadata: {name: core}");
    insta::assert_snapshot!(said, @"
    error: an element and a host both have the name `core`
      --> world.yaml:55:18
       |
    55 | metadata: {name: core}
       |                  ^^^^
      ::: world.yaml:18:18
       |
    18 | metadata: {name: core}
       |                  ---- the element
       = help: links join both by name: rename one of them

    error: there is no element or host `fw-host`
       --> world.yaml:134:14
        |
    134 |     - {node: fw-host, port: inside, addresses: [10.24.1.2/30]}
        |              ^^^^^^^
        = help: add a document with `kind: Element` or `kind: Host` and `name: fw-host`, or take another name

    error: there is no element or host `fw-host`
       --> world.yaml:142:14
        |
    142 |     - {node: fw-host, port: outside, addresses: [10.24.2.2/30]}
        |              ^^^^^^^
        = help: add a document with `kind: Element` or `kind: Host` and `name: fw-host`, or take another name
    ");
}

/// A link to a node that does not exist.
#[test]
fn an_unknown_node() {
    let said = told("{node: core, port: a,", "{node: cor, port: a,");
    insta::assert_snapshot!(said, @"
    error: there is no element or host `cor`
      --> world.yaml:77:14
       |
    77 |     - {node: cor, port: a, addresses: [203.0.113.1/30]}
       |              ^^^
       = help: did you mean `core`?
    ");
}

/// One port, two links.
#[test]
fn a_port_of_two_links() {
    let said = told("{node: core, port: e,", "{node: core, port: a,");
    insta::assert_snapshot!(said, @"
    error: port `a` of core is at two ends of links
      --> world.yaml:92:26
       |
    92 |     - {node: core, port: a, addresses: [203.0.113.9/30]}
       |                          ^
      ::: world.yaml:77:26
       |
    77 |     - {node: core, port: a, addresses: [203.0.113.1/30]}
       |                          - the other end
       = help: a port has one link: take another port
    ");
}

/// A port that the controller makes itself.
#[test]
fn a_reserved_port() {
    let said = told("{node: edge, port: wan,", "{node: edge, port: catena-gre,");
    insta::assert_snapshot!(said, @"
    error: no link can have its end at port `catena-gre`
      --> world.yaml:93:26
       |
    93 |     - {node: edge, port: catena-gre, addresses: [203.0.113.10/30]}
       |                          ^^^^^^^^^^
       = help: take another name: `lo` is the loopback, `catena-gre` stands for all tunnels
    ");
}

/// The Internet is beyond an element's port.
#[test]
fn an_external_port_of_a_host() {
    let said = told(
        "{node: internet, port: eth0, addresses: [198.51.100.10/24]}",
        "{node: internet, port: eth0, addresses: [198.51.100.10/24], external: true}",
    );
    insta::assert_snapshot!(said, @"
    error: internet is a host, so its port cannot be external
      --> world.yaml:85:77
       |
    85 |     - {node: internet, port: eth0, addresses: [198.51.100.10/24], external: true}
       |                                                                             ^^^^
       = help: `external: true` belongs to the end at the element whose port faces the Internet
    ");
}

/// The two ends are not neighbours.
#[test]
fn ends_of_two_subnets() {
    let said = told("addresses: [10.21.0.5/24]", "addresses: [10.21.1.5/24]");
    insta::assert_snapshot!(said, @"
    error: 10.21.0.1/24 and 10.21.1.5/24 are not of one subnet
       --> world.yaml:109:42
        |
    109 |     - {node: edge, port: vs, addresses: [10.21.0.1/24]}
        |                                          ^^^^^^^^^^^^
       ::: world.yaml:110:44
        |
    110 |     - {node: br-int, port: up, addresses: [10.21.1.5/24]}
        |                                            ------------ the other end
        = help: give the two ends of a link addresses of one subnet, with the same length
    ");
}

/// The ends disagree on the length.
#[test]
fn ends_of_two_lengths() {
    let said = told("addresses: [10.21.0.5/24]", "addresses: [10.21.0.5/25]");
    insta::assert_snapshot!(said, @"
    error: 10.21.0.1/24 and 10.21.0.5/25 are not of one subnet
       --> world.yaml:109:42
        |
    109 |     - {node: edge, port: vs, addresses: [10.21.0.1/24]}
        |                                          ^^^^^^^^^^^^
       ::: world.yaml:110:44
        |
    110 |     - {node: br-int, port: up, addresses: [10.21.0.5/25]}
        |                                            ------------ the other end
        = help: give the two ends of a link addresses of one subnet, with the same length
    ");
}

/// Both ends have one address.
#[test]
fn one_address_at_both_ends() {
    let said = told("addresses: [10.21.0.5/24]", "addresses: [10.21.0.1/24]");
    insta::assert_snapshot!(said, @"
    error: both ends of the link have the address 10.21.0.1
       --> world.yaml:110:44
        |
    110 |     - {node: br-int, port: up, addresses: [10.21.0.1/24]}
        |                                            ^^^^^^^^^^^^
       ::: world.yaml:109:42
        |
    109 |     - {node: edge, port: vs, addresses: [10.21.0.1/24]}
        |                                          ------------ edge has it
        = help: give each end an address of its own
    ");
}

/// Too small for any link.
#[test]
fn a_small_mtu() {
    let said = told("mtu: 1400", "mtu: 60");
    insta::assert_snapshot!(said, @"
    error: `60` is not a number from 68 to 65535
      --> world.yaml:99:8
       |
    99 |   mtu: 60
       |        ^^
       = help: write a whole number from 68 to 65535
    ");
}

/// Larger than any IP packet.
#[test]
fn a_large_mtu() {
    let said = told("mtu: 1400", "mtu: 65536");
    insta::assert_snapshot!(said, @"
    error: `65536` is not a number from 68 to 65535
      --> world.yaml:99:8
       |
    99 |   mtu: 65536
       |        ^^^^^
       = help: write a whole number from 68 to 65535
    ");
}

/// Too small for IPv6.
#[test]
fn a_small_mtu_for_ipv6() {
    let said = told_all(&[
        ("mtu: 1400", "mtu: 1200"),
        (
            "{node: bob, port: eth0, addresses: [172.16.2.10/24]}",
            r#"{node: bob, port: eth0, addresses: [172.16.2.10/24, "2001:db8::10/64"]}"#,
        ),
    ]);
    insta::assert_snapshot!(said, @r#"
    error: an MTU of 1200 is too small for IPv6
       --> world.yaml:99:8
        |
     99 |   mtu: 1200
        |        ^^^^
       ::: world.yaml:101:59
        |
    101 |     - {node: bob, port: eth0, addresses: [172.16.2.10/24, "2001:db8::10/64"]}
        |                                                           ----------------- the link has an IPv6 address
        = help: write 1280 or more, or take the IPv6 addresses away (RFC 8200)
    "#);
}

/// A next hop that is no neighbour.
#[test]
fn a_next_hop_elsewhere() {
    let said = told("via: 172.16.1.1}", "via: 172.16.7.1}");
    insta::assert_snapshot!(said, @"
    error: the next hop 172.16.7.1 is on no link of alice
     --> world.yaml:6:31
      |
    6 |   routes: [{to: default, via: 172.16.7.1}]
      |                               ^^^^^^^^^^
      = help: take the address of a neighbour, in 172.16.1.0/24
    ");
}

/// A next hop of a family that no port has.
#[test]
fn a_next_hop_of_a_family_without_addresses() {
    let said = told("via: 172.16.1.1}", r#"via: "2001:db8::1"}"#);
    insta::assert_snapshot!(said, @r#"
    error: the next hop 2001:db8::1 is on no link of alice
     --> world.yaml:6:31
      |
    6 |   routes: [{to: default, via: "2001:db8::1"}]
      |                               ^^^^^^^^^^^^^
      = help: give a link end of alice an IPv6 address, and take a neighbour's
    "#);
}

/// A next hop that is the node's own address.
#[test]
fn a_next_hop_that_is_oneself() {
    let said = told("via: 203.0.113.1}", "via: 203.0.113.2}");
    insta::assert_snapshot!(said, @"
    error: 203.0.113.2 is an address of access-a itself
      --> world.yaml:14:31
       |
    14 |   routes: [{to: default, via: 203.0.113.2}]
       |                               ^^^^^^^^^^^
       = help: write the address of the neighbour at the other end of the link
    ");
}

/// Two elements would fight for one namespace.
#[test]
fn two_elements_in_one_namespace() {
    let said = told("driver: {linux: {netns: core}}", "driver: {linux: {netns: access-a}}");
    insta::assert_snapshot!(said, @"
    error: two elements are the network namespace `access-a`
      --> world.yaml:21:11
       |
    21 |   driver: {linux: {netns: access-a}}
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^
      ::: world.yaml:13:11
       |
    13 |   driver: {linux: {netns: access-a}}
       |           -------------------------- also that of access-a
       = help: give each element a `netns` of its own
    ");
}

/// The same, for the controller's own.
#[test]
fn two_elements_in_the_controllers_namespace() {
    let said = told_all(&[
        ("driver: {linux: {netns: core}}", "driver: linux"),
        ("driver: {linux: {netns: access-a}}", "driver: {linux: {}}"),
    ]);
    insta::assert_snapshot!(said, @"
    error: two elements are the controller's own network namespace
      --> world.yaml:21:11
       |
    21 |   driver: linux
       |           ^^^^^
      ::: world.yaml:13:11
       |
    13 |   driver: {linux: {}}
       |           ----------- also that of access-a
       = help: give each element a `netns` of its own
    ");
}
