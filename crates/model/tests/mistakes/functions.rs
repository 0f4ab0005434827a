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
        = help: if it sends by the port by which it gets, write `port: {…}` in the place of both; else give each side a port of its own
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
        = help: give each side of each instance a port of its own: by the port it is told whose packets come back
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

const IPS: &str = "  insertion: l2\n  instances:\n    - name: ips-1\n      inside: {element: br-int, port: ips1-in}\n      \
                   outside: {element: br-int, port: ips1-out}\n";

/// What is said if intrusion prevention has this spec.
fn told_of_ips(spec: &str) -> String {
    told(IPS, spec)
}

/// Every way to insert a function.
#[test]
fn every_insertion() {
    const ONE_PORT: &str = "  instances: [{name: ips-1, port: {element: br-int, port: ips1-in}}]\n";
    for insertion in ["l2", "vlan", "nsh", "tap", "nsh\n  nsh: {mdType: 1}", "nsh\n  nsh: {mdType: 2}"] {
        assert_eq!(told_of_ips(&format!("  insertion: {insertion}\n{ONE_PORT}")), "nothing", "{insertion}");
    }
}

/// All that can be said of a function.
#[test]
fn every_field() {
    let said = told_of_ips(
        "  insertion: l2\n  changesAddresses: false\n  delivery: queue\n  stickiness: 2-tuple\n  onFailure: skip\n  \
         instances:\n    - name: ips-1\n      weight: 255\n      drain: true\n      \
         port: {element: br-int, port: ips1-in}\n",
    );
    assert_eq!(said, "nothing");
}

#[test]
fn an_unknown_insertion() {
    let said = told_of_ips("  insertion: l4\n  instances: []\n");
    insta::assert_snapshot!(said, @"
    error: `l4` is none of `l3`, `l2`, `tap`, `vlan`, `nsh`
       --> world.yaml:190:14
        |
    190 |   insertion: l4
        |              ^^
        = help: did you mean `l2`?
    ");
}

/// Metadata for a function that is sent no NSH.
#[test]
fn nsh_for_others() {
    let said = told("  insertion: l3\n", "  insertion: l3\n  nsh: {mdType: 1}\n");
    insta::assert_snapshot!(said, @"
    error: this function is sent no NSH
       --> world.yaml:181:8
        |
    181 |   nsh: {mdType: 1}
        |        ^^^^^^^^^^^
       ::: world.yaml:180:14
        |
    180 |   insertion: l3
        |              -- how it is inserted
        = help: leave `nsh` out, or write `insertion: nsh`
    ");
}

/// RFC 8300 knows two types of metadata.
#[test]
fn a_third_type_of_metadata() {
    let said = told_of_ips(
        "  insertion: nsh\n  nsh: {mdType: 3}\n  instances: [{name: ips-1, port: {element: br-int, port: ips1-in}}]\n",
    );
    insta::assert_snapshot!(said, @"
    error: `3` is none of `1`, `2`
       --> world.yaml:191:17
        |
    191 |   nsh: {mdType: 3}
        |                 ^
        = help: did you mean `1`?
    ");
}

/// One port or two, not both.
#[test]
fn a_port_and_sides() {
    let said =
        told("    - name: ips-1\n", "    - name: ips-1\n      port: {element: br-int, port: ips1-in}\n");
    insta::assert_snapshot!(said, @"
    error: this instance has one port, and sides with ports of their own
       --> world.yaml:194:15
        |
    194 |       inside: {element: br-int, port: ips1-in}
        |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        = help: write either `inside: {element: …, port: …}` and `outside: {…}`, or `port: {…}` for an instance that sends by the port by which it gets
    ");
}

#[test]
fn an_instance_with_half_its_ports() {
    let said = told("      outside: {element: br-int, port: ips1-out}\n", "");
    insta::assert_snapshot!(said, @"
    error: this instance has no outside
       --> world.yaml:193:15
        |
    193 |       inside: {element: br-int, port: ips1-in}
        |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        = help: write either `inside: {element: …, port: …}` and `outside: {…}`, or `port: {…}` for an instance that sends by the port by which it gets
    ");
}

#[test]
fn an_instance_without_ports() {
    let said = told_of_ips("  insertion: l2\n  instances: [{name: ips-1}]\n");
    insta::assert_snapshot!(said, @"
    error: this instance has no ports
       --> world.yaml:191:15
        |
    191 |   instances: [{name: ips-1}]
        |               ^^^^^^^^^^^^^
        = help: write either `inside: {element: …, port: …}` and `outside: {…}`, or `port: {…}` for an instance that sends by the port by which it gets
    ");
}

/// A tap has one port.
#[test]
fn a_tap_with_sides() {
    let said = told_of_ips(&IPS.replace("l2", "tap"));
    insta::assert_snapshot!(said, @"
    error: a tap has no inside and no outside
       --> world.yaml:193:15
        |
    193 |       inside: {element: br-int, port: ips1-in}
        |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        = help: write `port: {element: …, port: …}`: a tap has one, by which it gets its copies
    ");
}

/// A tap gets copies: no packet waits for it.
#[test]
fn a_tap_that_closes() {
    let said = told_of_ips(
        "  insertion: tap\n  onFailure: closed\n  instances: [{name: ips-1, port: {element: br-int, port: ips1-in}}]\n",
    );
    insta::assert_snapshot!(said, @"
    error: a tap gets copies, so nothing is to be dropped when it fails
       --> world.yaml:191:14
        |
    191 |   onFailure: closed
        |              ^^^^^^
       ::: world.yaml:190:14
        |
    190 |   insertion: tap
        |              --- how it is inserted
        = help: leave `onFailure` out: packets go on without the tap
    ");
}

#[test]
fn a_tap_that_changes_addresses() {
    let said = told_of_ips(
        "  insertion: tap\n  changesAddresses: true\n  instances: [{name: ips-1, port: {element: br-int, port: ips1-in}}]\n",
    );
    insta::assert_snapshot!(said, @"
    error: a tap sends nothing on, so it changes no addresses
       --> world.yaml:191:21
        |
    191 |   changesAddresses: true
        |                     ^^^^
        = help: leave `changesAddresses` out
    ");
}

/// Who shall get no flows drains.
#[test]
fn a_weight_of_nothing() {
    let said = told("    - name: ips-1\n", "    - name: ips-1\n      weight: 0\n");
    insta::assert_snapshot!(said, @"
    error: `0` is not a number from 1 to 255
       --> world.yaml:193:15
        |
    193 |       weight: 0
        |               ^
        = help: write a whole number from 1 to 255
    ");
}
