//! Tenants and sites.

use super::{told, told_all};

/// A tenant that does not exist.
#[test]
fn an_unknown_tenant() {
    let said = told("  tenant: globex\n", "  tenant: globx\n");
    insta::assert_snapshot!(said, @"
    error: there is no tenant `globx`
       --> world.yaml:243:11
        |
    243 |   tenant: globx
        |           ^^^^^
        = help: did you mean `globex`?
    ");
}

/// A site's prefixes are its tenant's.
#[test]
fn a_prefix_of_somebody_else() {
    let said = told("  prefixes: [172.16.9.0/24]", "  prefixes: [172.16.2.0/24]");
    insta::assert_snapshot!(said, @"
    error: 172.16.2.0/24 is not within the prefixes of acme
       --> world.yaml:233:14
        |
    233 |   prefixes: [172.16.2.0/24]
        |              ^^^^^^^^^^^^^
       ::: world.yaml:208:18
        |
    208 | metadata: {name: acme}
        |                  ---- the tenant
        = help: take a prefix within the tenant's, or add this one to tenant acme

    error: tenants acme and globex both have 172.16.2.0/24: replies to both enter at core, which tells tenants by address
       --> world.yaml:241:18
        |
    241 | metadata: {name: globex-hq}
        |                  ^^^^^^^^^ globex-hq of globex has 172.16.2.0/24
       ::: world.yaml:233:14
        |
    233 |   prefixes: [172.16.2.0/24]
        |              ------------- acme-branch of acme has 172.16.2.0/24
        = help: take prefixes that do not overlap, or take one of the two sites out of its chain
    ");
}

/// Two sites of a tenant with one address.
#[test]
fn sites_that_overlap() {
    let said = told("  prefixes: [172.16.9.0/24]\n", "");
    insta::assert_snapshot!(said, @"
    error: sites acme-branch and acme-hq of acme both have 172.16.1.0/24
       --> world.yaml:221:14
        |
    221 |   prefixes: [172.16.1.0/24]
        |              ^^^^^^^^^^^^^
       ::: world.yaml:230:18
        |
    230 | metadata: {name: acme-branch}
        |                  ----------- acme-branch has 172.16.1.0/24
        = help: give each site the part of the tenant's prefixes that is there, by its own `prefixes`
    ");
}

/// Two tenants with one address, whose replies come in at one element.
#[test]
fn tenants_that_overlap() {
    let said =
        told("spec: {prefixes: [172.16.2.0/24]}", "spec: {prefixes: [172.16.1.128/25, 172.16.2.0/24]}");
    insta::assert_snapshot!(said, @"
    error: tenants acme and globex both have 172.16.1.128/25: replies to both enter at core, which tells tenants by address
       --> world.yaml:241:18
        |
    241 | metadata: {name: globex-hq}
        |                  ^^^^^^^^^ globex-hq of globex has 172.16.1.128/25
       ::: world.yaml:221:14
        |
    221 |   prefixes: [172.16.1.0/24]
        |              ------------- acme-hq of acme has 172.16.1.0/24
        = help: take prefixes that do not overlap, or take one of the two sites out of its chain
    ");
}

/// The same, where nothing is said of the Internet: their packets still meet.
#[test]
fn tenants_that_overlap_on_an_element() {
    let said = told_all(&[
        ("spec: {prefixes: [172.16.2.0/24]}", "spec: {prefixes: [172.16.1.128/25, 172.16.2.0/24]}"),
        ("addresses: [198.51.100.1/24], external: true}", "addresses: [198.51.100.1/24]}"),
    ]);
    insta::assert_snapshot!(said, @"
    error: tenants acme and globex both have 172.16.1.128/25: packets of both pass br-int, which tells tenants by address
       --> world.yaml:241:18
        |
    241 | metadata: {name: globex-hq}
        |                  ^^^^^^^^^ globex-hq of globex has 172.16.1.128/25
       ::: world.yaml:221:14
        |
    221 |   prefixes: [172.16.1.0/24]
        |              ------------- acme-hq of acme has 172.16.1.0/24
        = help: take prefixes that do not overlap, or attach one of the two at another element and give it functions on another switch
    ");
}

/// Tenants may have one address as long as no chain claims it of both.
#[test]
fn tenants_that_do_not_meet() {
    let said = told_all(&[
        ("spec: {prefixes: [172.16.2.0/24]}", "spec: {prefixes: [172.16.1.128/25, 172.16.2.0/24]}"),
        (
            "---\napiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: globex-all}\nspec:\n  sites: [globex-hq]\n  functions: [ips]\n",
            "",
        ),
    ]);
    insta::assert_snapshot!(said, @"nothing");
}

/// The tunnel ends at an address that its element has.
#[test]
fn an_address_of_another_element() {
    let said = told(
        "customer: {element: access-a, address: 203.0.113.2}",
        "customer: {element: access-a, address: 203.0.113.3}",
    );
    insta::assert_snapshot!(said, @"
    error: 203.0.113.3 is not an address of access-a
       --> world.yaml:224:46
        |
    224 |       customer: {element: access-a, address: 203.0.113.3}
        |                                              ^^^^^^^^^^^
        = help: it has 172.16.1.1, 203.0.113.2: take one, or give a link end this address
    ");
}

/// Both ends of a tunnel are of one family.
#[test]
fn a_tunnel_of_two_families() {
    let said = told(
        "customer: {element: access-a, address: 203.0.113.2}",
        r#"customer: {element: access-a, address: "2001:db8::2"}"#,
    );
    insta::assert_snapshot!(said, @r#"
    error: 2001:db8::2 is not an address of access-a
       --> world.yaml:224:46
        |
    224 |       customer: {element: access-a, address: "2001:db8::2"}
        |                                              ^^^^^^^^^^^^^
        = help: give a link end of access-a this address

    error: a tunnel between 2001:db8::2 and 203.0.113.10: one is IPv6, the other IPv4
       --> world.yaml:225:39
        |
    225 |       cloud: {element: edge, address: 203.0.113.10}
        |                                       ^^^^^^^^^^^^
       ::: world.yaml:224:46
        |
    224 |       customer: {element: access-a, address: "2001:db8::2"}
        |                                              ------------- the customer's end
        = help: take outer addresses of one family
    "#);
}

/// GRE over IPv6 (RFC 7676).
#[test]
fn a_tunnel_over_ipv6() {
    let said = told_all(&[
        ("addresses: [203.0.113.2/30]", r#"addresses: [203.0.113.2/30, "2001:db8:c1::2/64"]"#),
        ("addresses: [203.0.113.1/30]", r#"addresses: [203.0.113.1/30, "2001:db8:c1::1/64"]"#),
        ("addresses: [203.0.113.10/30]", r#"addresses: [203.0.113.10/30, "2001:db8:c3::2/64"]"#),
        ("addresses: [203.0.113.9/30]", r#"addresses: [203.0.113.9/30, "2001:db8:c3::1/64"]"#),
        (
            "customer: {element: access-a, address: 203.0.113.2}\n      cloud: {element: edge, address: 203.0.113.10}",
            "customer: {element: access-a, address: \"2001:db8:c1::2\"}\n      cloud: {element: edge, address: \"2001:db8:c3::2\"}",
        ),
    ]);
    assert_eq!(said, "nothing");
}

/// A tunnel that carries IPv6 carries 1280 bytes, in one piece or in several.
#[test]
fn a_tunnel_too_narrow_for_ipv6() {
    let narrow = [
        (
            "spec: {prefixes: [172.16.1.0/24, 172.16.9.0/24]}",
            r#"spec: {prefixes: [172.16.1.0/24, 172.16.9.0/24, "2001:db8:9::/64"]}"#,
        ),
        ("  prefixes: [172.16.9.0/24]\n", "  prefixes: [172.16.9.0/24, \"2001:db8:9::/64\"]\n"),
        ("  functions: [fw, ips]", "  functions: [ips]"),
        ("metadata: {name: wan-edge}\nspec:\n", "metadata: {name: wan-edge}\nspec:\n  mtu: 1300\n"),
    ];
    let said = told_all(&narrow);
    insta::assert_snapshot!(said, @r#"
    error: IPv6 packets of 1280 bytes do not fit into the tunnel of acme-branch: 1276 are left of wan-edge's 1300
       --> world.yaml:238:39
        |
    238 |       cloud: {element: edge, address: 203.0.113.10}
        |                                       ^^^^^^^^^^^^
       ::: world.yaml:89:18
        |
     89 | metadata: {name: wan-edge}
        |                  -------- the link under the tunnel
       ::: world.yaml:234:29
        |
    234 |   prefixes: [172.16.9.0/24, "2001:db8:9::/64"]
        |                             ----------------- the site's IPv6 prefix
        = help: give the link an `mtu` of 1304 or more
    "#);
    let cut = (
        "      customer: {address: 192.0.2.9}\n",
        "      oversize: fragment-outer\n      customer: {address: 192.0.2.9}\n",
    );
    let no_other = (
        "      customer: {element: access-a, address: 203.0.113.2}\n",
        "      oversize: fragment-outer\n      customer: {address: 203.0.113.2}\n",
    );
    assert_eq!(told_all(&[narrow.as_slice(), &[cut, no_other]].concat()), "nothing");
}

/// Our end of a tunnel does not put fragments together.
#[test]
fn outer_packets_cut_between_two_driven_elements() {
    let said = told(
        "      customer: {element: access-a, address: 203.0.113.2}\n",
        "      oversize: fragment-outer\n      customer: {element: access-a, address: 203.0.113.2}\n",
    );
    insta::assert_snapshot!(said, @"
    error: the tunnel of acme-hq cannot cut outer packets
       --> world.yaml:224:17
        |
    224 |       oversize: fragment-outer
        |                 ^^^^^^^^^^^^^^
       ::: world.yaml:225:27
        |
    225 |       customer: {element: access-a, address: 203.0.113.2}
        |                           -------- access-a would have to put them together
        = help: leave `oversize` out, so that senders are told: no end of a tunnel that the controller drives takes fragments
    ");
}

/// RFC 8200 section 5.
#[test]
fn outer_packets_of_ipv6_cut() {
    let said = told_all(&[
        (
            "      customer: {address: 192.0.2.9}\n      cloud: {element: edge, address: 203.0.113.10}\n",
            "      oversize: fragment-outer\n      customer: {address: \"2001:db8:9::9\"}\n      cloud: {element: edge, address: \"2001:db8:9::1\"}\n",
        ),
        (
            "{node: edge, port: wan, addresses: [203.0.113.10/30]}",
            "{node: edge, port: wan, addresses: [203.0.113.10/30, \"2001:db8:9::1/64\"]}",
        ),
        (
            "{node: core, port: e, addresses: [203.0.113.9/30]}",
            "{node: core, port: e, addresses: [203.0.113.9/30, \"2001:db8:9::2/64\"]}",
        ),
    ]);
    insta::assert_snapshot!(said, @r#"
    error: the tunnel of acme-branch cannot cut outer packets
       --> world.yaml:236:17
        |
    236 |       oversize: fragment-outer
        |                 ^^^^^^^^^^^^^^
       ::: world.yaml:238:39
        |
    238 |       cloud: {element: edge, address: "2001:db8:9::1"}
        |                                       --------------- no router cuts IPv6 packets (RFC 8200 section 5)
        = help: take outer addresses of IPv4, or leave `oversize` out, so that senders are told
    "#);
}

/// All tunnels of an element share an interface.
#[test]
fn outer_packets_cut_by_some_tunnels_of_an_element() {
    let said = told(
        "      customer: {address: 192.0.2.9}\n",
        "      oversize: fragment-outer\n      customer: {address: 192.0.2.9}\n",
    );
    insta::assert_snapshot!(said, @"
    error: the tunnel of acme-branch cannot cut outer packets
       --> world.yaml:236:17
        |
    236 |       oversize: fragment-outer
        |                 ^^^^^^^^^^^^^^
       ::: world.yaml:225:24
        |
    225 |       cloud: {element: edge, address: 203.0.113.10}
        |                        ---- that of acme-hq ends at edge, too, and tells senders
        = help: write the same `oversize` for all tunnels that end at one element: they share an interface and its MTU
    ");
}

/// A host decides itself what it sends into a tunnel.
#[test]
fn a_tunnel_to_a_host() {
    let said = told(
        "customer: {element: access-a, address: 203.0.113.2}",
        "customer: {element: alice, address: 172.16.1.10}",
    );
    insta::assert_snapshot!(said, @"
    error: alice is a host, which the controller does not drive
       --> world.yaml:224:27
        |
    224 |       customer: {element: alice, address: 172.16.1.10}
        |                           ^^^^^
        = help: leave `element` out: the host decides itself what it sends into the tunnel
    ");
}

/// A tunnel ends at a router.
#[test]
fn a_tunnel_to_a_switch() {
    let said = told(
        "cloud: {element: edge, address: 203.0.113.10}\n      key: 1001",
        "cloud: {element: br-int, address: 10.21.0.5}\n      key: 1001",
    );
    insta::assert_snapshot!(said, @"
    error: a tunnel cannot end here at br-int, an element of the role switch
       --> world.yaml:225:24
        |
    225 |       cloud: {element: br-int, address: 10.21.0.5}
        |                        ^^^^^^
       ::: world.yaml:31:14
        |
     31 | spec: {role: switch, driver: simulated}
        |              ------ its role
        = help: name an element whose role is `physical` or `router`
    ");
}

/// A tunnel ends at an element in the cloud.
#[test]
fn a_tunnel_without_a_cloud_element() {
    let said = told(
        "cloud: {element: edge, address: 203.0.113.10}\n      key: 1001",
        "cloud: {address: 203.0.113.10}\n      key: 1001",
    );
    insta::assert_snapshot!(said, @"
    error: `element` is missing here
       --> world.yaml:225:7
        |
    225 |       cloud: {address: 203.0.113.10}
        |       ^^^^^
        = help: add `element: …`
    ");
}

/// A tunnel has two ends.
#[test]
fn a_tunnel_to_itself() {
    let said = told("customer: {address: 192.0.2.9}", "customer: {address: 203.0.113.10}");
    insta::assert_snapshot!(said, @"
    error: both ends of the tunnel are 203.0.113.10
       --> world.yaml:237:39
        |
    237 |       cloud: {element: edge, address: 203.0.113.10}
        |                                       ^^^^^^^^^^^^
       ::: world.yaml:236:27
        |
    236 |       customer: {address: 203.0.113.10}
        |                           ------------ the customer's end
        = help: write the customer's address at one end, the cloud's at the other
    ");
}

/// Two tunnels with equal addresses and key.
#[test]
fn two_tunnels_alike() {
    let said = told(
        "customer: {address: 192.0.2.9}\n      cloud: {element: edge, address: 203.0.113.10}",
        "customer: {address: 203.0.113.2}\n      cloud: {element: edge, address: 203.0.113.10}\n      key: 1001",
    );
    insta::assert_snapshot!(said, @"
    error: the tunnels of acme-hq and acme-branch cannot be told apart
       --> world.yaml:226:12
        |
    226 |       key: 1001
        |            ^^^^ equal outer addresses and key
       ::: world.yaml:238:12
        |
    238 |       key: 1001
        |            ---- the tunnel of acme-branch
        = help: write another `key`, or another outer address, at one of the two
    ");
}

/// An access element with two tunnels would not know which one to take.
#[test]
fn two_tunnels_at_one_access_element() {
    let said = told_all(&[
        ("customer: {address: 192.0.2.9}", "customer: {element: access-a, address: 203.0.113.2}"),
        ("addresses: [172.16.1.1/24]", "addresses: [172.16.1.1/24, 172.16.9.1/24]"),
        ("addresses: [172.16.1.10/24]", "addresses: [172.16.1.10/24, 172.16.9.10/24]"),
    ]);
    insta::assert_snapshot!(said, @"
    error: acme-branch and acme-hq have their tunnels at one element, access-a
       --> world.yaml:224:27
        |
    224 |       customer: {element: access-a, address: 203.0.113.2}
        |                           ^^^^^^^^
       ::: world.yaml:230:18
        |
    230 | metadata: {name: acme-branch}
        |                  ----------- the other site
        = help: take one access element for each site with a chain, or make one site of both
    ");
}

/// A site at a link that does not exist.
#[test]
fn an_unknown_link() {
    let said = told("l2: {link: metro-b}", "l2: {link: metro}");
    insta::assert_snapshot!(said, @"
    error: there is no link `metro`
       --> world.yaml:244:27
        |
    244 |   attachment: {l2: {link: metro}}
        |                           ^^^^^
        = help: did you mean `metro-b`?
    ");
}

/// A site at a link within the data centre.
#[test]
fn a_link_that_attaches_no_site() {
    let said = told("l2: {link: metro-b}", "l2: {link: switch-gateway}");
    insta::assert_snapshot!(said, @"
    error: switch-gateway joins br-int and gateway, which attaches no site
       --> world.yaml:244:27
        |
    244 |   attachment: {l2: {link: switch-gateway}}
        |                           ^^^^^^^^^^^^^^
       ::: world.yaml:114:18
        |
    114 | metadata: {name: switch-gateway}
        |                  -------------- the link
        = help: take a link with a host or an element with `role: access` at one end, and an element with `role: physical` or `role: router` at the other
    ");
}

/// A site whose addresses are not behind its access element.
#[test]
fn a_site_elsewhere() {
    let said = told_all(&[
        ("  prefixes: [172.16.1.0/24]\n", "  prefixes: [172.16.9.0/25]\n"),
        ("  prefixes: [172.16.9.0/24]\n", "  prefixes: [172.16.9.128/25]\n"),
    ]);
    insta::assert_snapshot!(said, @"
    error: 172.16.9.0/25 of acme-hq is on no link of access-a
       --> world.yaml:221:14
        |
    221 |   prefixes: [172.16.9.0/25]
        |              ^^^^^^^^^^^^^
       ::: world.yaml:10:18
        |
     10 | metadata: {name: access-a}
        |                  -------- the access element
        = help: give the link end of access-a that faces the site an address in 172.16.9.0/25, or name the element that has one
    ");
}
