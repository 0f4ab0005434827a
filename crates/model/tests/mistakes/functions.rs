//! Service functions.

use super::{told, told_all};

/// A function without instances.
#[test]
fn no_instances() {
    let said = told(
        "  instances:\n    - name: spare-1\n      inside: {element: br-ext, port: spare-in}\n      outside: {element: br-ext, port: spare-out}\n",
        "  instances: []\n",
    );
    insta::assert_snapshot!(said, @"
    error: spare has no instances
       --> world.yaml:201:14
        |
    201 |   instances: []
        |              ^^
        = help: list at least one: `{name: …, inside: {element: …, port: …}, outside: {…}}`
    ");
}

/// Instances are named apart from those of all functions.
#[test]
fn an_instance_name_twice() {
    let said = told("name: spare-1", "name: ips-1");
    insta::assert_snapshot!(said, @"
    error: two instances have the name `ips-1`
       --> world.yaml:202:13
        |
    202 |     - name: ips-1
        |             ^^^^^
       ::: world.yaml:192:13
        |
    192 |     - name: ips-1
        |             ----- of ips
        = help: an instance's name is its own among those of all functions: rename one
    ");
}

/// A function is connected to a switch.
#[test]
fn a_function_on_a_router() {
    let said = told("inside: {element: br-ext, port: spare-in}", "inside: {element: edge, port: spare-in}");
    insta::assert_snapshot!(said, @"
    error: edge is not a switch, so no function can be connected to it
       --> world.yaml:203:25
        |
    203 |       inside: {element: edge, port: spare-in}
        |                         ^^^^
        = help: take a port of an element with `role: switch`
    ");
}

/// The port is the switch's, not the function's.
#[test]
fn the_functions_own_port() {
    let said = told("inside: {element: br-int, port: fw1-in}", "inside: {element: fw-host, port: inside}");
    insta::assert_snapshot!(said, @"
    error: fw-host is a host, not a switch
       --> world.yaml:183:25
        |
    183 |       inside: {element: fw-host, port: inside}
        |                         ^^^^^^^
        = help: write the switch's port that leads to the function, not the function's own port
    ");
}

/// An element that does not exist.
#[test]
fn an_unknown_element() {
    let said = told("inside: {element: br-int, port: fw1-in}", "inside: {element: brint, port: fw1-in}");
    insta::assert_snapshot!(said, @"
    error: there is no element `brint`
       --> world.yaml:183:25
        |
    183 |       inside: {element: brint, port: fw1-in}
        |                         ^^^^^
        = help: did you mean `br-int`?
    ");
}

/// A port on no link: the nearest that is on one is proposed.
#[test]
fn a_port_without_a_link() {
    let said = told("inside: {element: br-int, port: fw1-in}", "inside: {element: br-int, port: fw1_in}");
    insta::assert_snapshot!(said, @"
    error: no link has an end at port `fw1_in` of br-int
       --> world.yaml:183:39
        |
    183 |       inside: {element: br-int, port: fw1_in}
        |                                       ^^^^^^
        = help: did you mean `fw1-in`?
    ");
}

/// Both sides at one port.
#[test]
fn inside_is_outside() {
    let said =
        told("outside: {element: br-int, port: ips1-out}", "outside: {element: br-int, port: ips1-in}");
    insta::assert_snapshot!(said, @"
    error: the inside and the outside of ips-1 are one port
       --> world.yaml:194:40
        |
    194 |       outside: {element: br-int, port: ips1-in}
        |                                        ^^^^^^^
       ::: world.yaml:193:39
        |
    193 |       inside: {element: br-int, port: ips1-in}
        |                                       ------- the inside
        = help: give each side of each instance a port of its own
    ");
}

/// One port, two functions.
#[test]
fn a_port_of_two_instances() {
    let said =
        told("outside: {element: br-int, port: ips1-out}", "outside: {element: br-int, port: fw1-out}");
    insta::assert_snapshot!(said, @"
    error: port `fw1-out` of br-int leads to two instances
       --> world.yaml:194:40
        |
    194 |       outside: {element: br-int, port: fw1-out}
        |                                        ^^^^^^^
       ::: world.yaml:184:40
        |
    184 |       outside: {element: br-int, port: fw1-out}
        |                                        ------- the other one
        = help: give each side of each instance a port of its own
    ");
}

/// The two sides on two switches.
#[test]
fn sides_on_two_switches() {
    let said = told_all(&[
        (
            "port: spare-in}\n      outside: {element: br-ext, port: spare-out}",
            "port: spare-in}\n      outside: {element: br-int, port: ips1-out}",
        ),
        (
            "port: ips1-in}\n      outside: {element: br-int, port: ips1-out}",
            "port: ips1-in}\n      outside: {element: br-ext, port: spare-out}",
        ),
    ]);
    insta::assert_snapshot!(said, @"
    error: the two sides of ips-1 are on two switches
       --> world.yaml:194:26
        |
    194 |       outside: {element: br-ext, port: spare-out}
        |                          ^^^^^^
       ::: world.yaml:193:25
        |
    193 |       inside: {element: br-int, port: ips1-in}
        |                         ------ the inside
        = help: connect both to one

    error: the two sides of spare-1 are on two switches
       --> world.yaml:204:26
        |
    204 |       outside: {element: br-int, port: ips1-out}
        |                          ^^^^^^
       ::: world.yaml:203:25
        |
    203 |       inside: {element: br-ext, port: spare-in}
        |                         ------ the inside
        = help: connect both to one
    ");
}

/// A function that routes, on a link without addresses.
#[test]
fn a_routing_function_without_addresses() {
    let said =
        told("{node: fw-host, port: inside, addresses: [10.24.1.2/30]}", "{node: fw-host, port: inside}");
    insta::assert_snapshot!(said, @"
    error: both ends of this link need an address: fw routes
       --> world.yaml:130:18
        |
    130 | metadata: {name: fw-in}
        |                  ^^^^^
       ::: world.yaml:178:18
        |
    178 | metadata: {name: fw}
        |                  -- the function behind it
        = help: write `addresses: [10.24.1.1/30]` and the like at each end, or make the function `insertion: l2`
    ");
}

/// A function that routes IPv4 alone, for a site with IPv6.
#[test]
fn a_routing_function_without_ipv6() {
    let said = told_all(&[
        (
            "spec: {prefixes: [172.16.1.0/24, 172.16.9.0/24]}",
            r#"spec: {prefixes: [172.16.1.0/24, 172.16.9.0/24, "2001:db8:9::/64"]}"#,
        ),
        ("  prefixes: [172.16.9.0/24]\n", "  prefixes: [172.16.9.0/24, \"2001:db8:9::/64\"]\n"),
    ]);
    insta::assert_snapshot!(said, @"
    error: port `fw1-in` of br-int has no IPv6 address, but fw routes packets of acme-branch, which has IPv6 prefixes
       --> world.yaml:133:28
        |
    133 |     - {node: br-int, port: fw1-in, addresses: [10.24.1.1/30]}
        |                            ^^^^^^
       ::: world.yaml:230:18
        |
    230 | metadata: {name: acme-branch}
        |                  ----------- the site
        = help: give both ends of the link an IPv6 address

    error: port `fw1-out` of br-int has no IPv6 address, but fw routes packets of acme-branch, which has IPv6 prefixes
       --> world.yaml:141:28
        |
    141 |     - {node: br-int, port: fw1-out, addresses: [10.24.2.1/30]}
        |                            ^^^^^^^
       ::: world.yaml:230:18
        |
    230 | metadata: {name: acme-branch}
        |                  ----------- the site
        = help: give both ends of the link an IPv6 address
    ");
}
