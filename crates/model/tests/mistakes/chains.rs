//! Chains.

use super::{told, told_all, told_with};

/// A chain without functions.
#[test]
fn no_functions() {
    let said = told("  functions: [ips]", "  functions: []");
    insta::assert_snapshot!(said, @"
    error: chain globex-all has no functions
       --> world.yaml:259:14
        |
    259 |   functions: []
        |              ^^
        = help: list at least one, in the order of the way to the Internet; to claim nothing, delete the chain
    ");
}

/// A function that does not exist.
#[test]
fn an_unknown_function() {
    let said = told("  functions: [fw, ips]", "  functions: [fw, isp]");
    insta::assert_snapshot!(said, @"
    error: there is no service function `isp`
       --> world.yaml:252:19
        |
    252 |   functions: [fw, isp]
        |                   ^^^
        = help: did you mean `ips`?
    ");
}

/// A function that is like none.
#[test]
fn an_unknown_function_like_none() {
    let said = told("  functions: [fw, ips]", "  functions: [fw, antivirus]");
    insta::assert_snapshot!(said, @"
    error: there is no service function `antivirus`
       --> world.yaml:252:19
        |
    252 |   functions: [fw, antivirus]
        |                   ^^^^^^^^^
        = help: add a document with `kind: ServiceFunction` and `name: antivirus`, or take another name
    ");
}

/// A function that routes cannot stand twice.
#[test]
fn a_routing_function_twice() {
    let said = told("  functions: [fw, ips]", "  functions: [fw, ips, fw]");
    insta::assert_snapshot!(said, @"
    error: fw stands twice in the chain
       --> world.yaml:252:24
        |
    252 |   functions: [fw, ips, fw]
        |                        ^^
       ::: world.yaml:252:15
        |
    252 |   functions: [fw, ips, fw]
        |               -- the first
        = help: list it once: when a packet comes back from a function that routes, nothing tells which of its two places it has passed (a function with `insertion: l2`, `nsh` or `tap` may stand twice)
    ");
}

/// A bump in the wire can.
#[test]
fn a_bump_in_the_wire_twice() {
    let said = told("  functions: [fw, ips]", "  functions: [ips, fw, ips]");
    insta::assert_snapshot!(said, @"nothing");
}

/// More functions than a path can number.
#[test]
fn too_many_functions() {
    let said = told("  functions: [ips]", "  functions: [ips, ips, ips, ips, ips, ips, ips, ips, ips]");
    insta::assert_snapshot!(said, @"
    error: chain globex-all has 9 functions, more than 8
       --> world.yaml:259:55
        |
    259 |   functions: [ips, ips, ips, ips, ips, ips, ips, ips, ips]
        |                                                       ^^^ one too many
        = help: keep up to 8
    ");
}

/// A chain is for somebody.
#[test]
fn neither_tenant_nor_sites() {
    let said = told("  sites: [globex-hq]\n", "");
    insta::assert_snapshot!(said, @"
    error: this chain has neither a tenant nor sites
       --> world.yaml:256:18
        |
    256 | metadata: {name: globex-all}
        |                  ^^^^^^^^^^
        = help: write `tenant: NAME` for all sites of a tenant, or `sites: [NAME, …]` for some
    ");
}

/// A chain is for a tenant or for sites.
#[test]
fn both_tenant_and_sites() {
    let said = told("  sites: [globex-hq]\n", "  sites: [globex-hq]\n  tenant: globex\n");
    insta::assert_snapshot!(said, @"
    error: a chain has either a tenant or sites, this one has both
       --> world.yaml:258:10
        |
    258 |   sites: [globex-hq]
        |          ^^^^^^^^^^^
       ::: world.yaml:259:11
        |
    259 |   tenant: globex
        |           ------ the tenant
        = help: write `tenant: NAME` for all sites of a tenant, or `sites: [NAME, …]` for some
    ");
}

/// A site that does not exist.
#[test]
fn an_unknown_site() {
    let said = told("  sites: [globex-hq]\n", "  sites: [globex-hd]\n");
    insta::assert_snapshot!(said, @"
    error: there is no site `globex-hd`
       --> world.yaml:258:11
        |
    258 |   sites: [globex-hd]
        |           ^^^^^^^^^
        = help: did you mean `globex-hq`?
    ");
}

/// A site that is listed twice.
#[test]
fn a_site_twice() {
    let said = told("  sites: [globex-hq]\n", "  sites: [globex-hq, globex-hq]\n");
    insta::assert_snapshot!(said, @"
    error: site globex-hq is listed twice
       --> world.yaml:258:22
        |
    258 |   sites: [globex-hq, globex-hq]
        |                      ^^^^^^^^^
        = help: list it once
    ");
}

/// An empty list of sites.
#[test]
fn no_sites() {
    let said = told("  sites: [globex-hq]\n", "  sites: []\n");
    insta::assert_snapshot!(said, @"
    error: a chain for no site
       --> world.yaml:258:10
        |
    258 |   sites: []
        |          ^^
        = help: write `tenant: NAME` for all sites of a tenant, or `sites: [NAME, …]` for some
    ");
}

/// A chain is for one tenant.
#[test]
fn sites_of_two_tenants() {
    let said = told("  sites: [globex-hq]\n", "  sites: [globex-hq, acme-branch]\n  priority: 1\n");
    insta::assert_snapshot!(said, @"
    error: one chain for sites of two tenants: acme-branch is of acme, globex-hq of globex
       --> world.yaml:256:18
        |
    256 | metadata: {name: globex-all}
        |                  ^^^^^^^^^^
       ::: world.yaml:232:11
        |
    232 |   tenant: acme
        |           ---- acme-branch is here
       ::: world.yaml:243:11
        |
    243 |   tenant: globex
        |           ------ globex-hq is here
        = help: make one chain for each tenant
    ");
}

/// A tenant that has nothing to claim.
#[test]
fn a_tenant_without_sites() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Tenant
metadata: {name: initech}
spec: {prefixes: [172.16.3.0/24]}
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: initech-all}
spec: {tenant: initech, functions: [ips]}
"#,
    );
    insta::assert_snapshot!(said, @"
    error: tenant initech has no sites, so this chain has nothing to claim
     --> added.yaml:9:16
      |
    9 | spec: {tenant: initech, functions: [ips]}
      |                ^^^^^^^
      = help: add a site with `tenant: initech`
    ");
}

/// Two chains of equal priority claim one packet: which packet is told.
#[test]
fn two_chains_for_one_packet() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: acme-admin}
spec:
  sites: [acme-hq]
  match:
    - {protocol: udp}
    - {protocol: tcp, ports: [22, "400-500"], to: 198.51.100.0/24}
  functions: [ips]
"#,
    );
    insta::assert_snapshot!(said, @"
    error: chains acme-admin and acme-web of site acme-hq both claim tcp port 443 to 198.51.100.0/24, with equal priority 0
       --> world.yaml:248:18
        |
    248 | metadata: {name: acme-web}
        |                  ^^^^^^^^
       ::: added.yaml:3:18
        |
      3 | metadata: {name: acme-admin}
        |                  ---------- acme-admin claims them too
        = help: give one of them another `priority` (the higher one wins), or let them match different traffic
    ");
}

/// Two chains that claim all of one site.
#[test]
fn two_chains_for_all_traffic() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: globex-more}
spec: {tenant: globex, functions: [fw]}
"#,
    );
    insta::assert_snapshot!(said, @"
    error: chains globex-all and globex-more of site globex-hq both claim all traffic, with equal priority 0
       --> added.yaml:3:18
        |
      3 | metadata: {name: globex-more}
        |                  ^^^^^^^^^^^
       ::: world.yaml:256:18
        |
    256 | metadata: {name: globex-all}
        |                  ---------- globex-all claims them too
        = help: give one of them another `priority` (the higher one wins), or let them match different traffic
    ");
}

/// With two priorities it is clear which one wins.
#[test]
fn two_chains_of_two_priorities() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: globex-more}
spec: {tenant: globex, functions: [fw], priority: 10}
"#,
    );
    insta::assert_snapshot!(said, @"nothing");
}

/// What both match is no packet of the site that they share.
#[test]
fn two_chains_for_other_sites_packets() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: acme-lab}
spec:
  tenant: acme
  match: [{protocol: udp, from: 172.16.9.0/24}]
  functions: [ips]
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: hq-udp}
spec:
  sites: [acme-hq]
  match: [{protocol: udp}]
  functions: [fw]
"#,
    );
    insta::assert_snapshot!(said, @"nothing");
}

/// An empty list matches nothing; no list matches all.
#[test]
fn an_empty_match() {
    let said = told("  match: [{protocol: tcp, ports: [80, 443]}]", "  match: []");
    insta::assert_snapshot!(said, @"
    error: an empty list matches nothing
       --> world.yaml:251:3
        |
    251 |   match: []
        |   ^^^^^
        = help: leave `match` out to claim all traffic, or list what to claim: `match: [{protocol: tcp}]`
    ");
}

/// Ports are of some protocol.
#[test]
fn ports_without_a_protocol() {
    let said = told("  match: [{protocol: tcp, ports: [80, 443]}]", "  match: [{ports: [80, 443]}]");
    insta::assert_snapshot!(said, @"
    error: ports of no protocol
       --> world.yaml:251:20
        |
    251 |   match: [{ports: [80, 443]}]
        |                    ^^
        = help: add `protocol: tcp` (or udp, sctp)
    ");
}

/// Not every protocol has ports.
#[test]
fn ports_of_a_protocol_that_has_none() {
    let said =
        told("  match: [{protocol: tcp, ports: [80, 443]}]", "  match: [{protocol: icmp, ports: [80, 443]}]");
    insta::assert_snapshot!(said, @"
    error: icmp packets have no ports
       --> world.yaml:251:36
        |
    251 |   match: [{protocol: icmp, ports: [80, 443]}]
        |                                    ^^
       ::: world.yaml:251:22
        |
    251 |   match: [{protocol: icmp, ports: [80, 443]}]
        |                      ---- the protocol
        = help: leave `ports` out, or take tcp, udp or sctp
    ");
}

/// Ports that are none.
#[test]
fn wrong_ports() {
    let said = told(
        "  match: [{protocol: tcp, ports: [80, 443]}]",
        r#"  match: [{protocol: tcp, ports: [http, 70000, "90-80"]}]"#,
    );
    insta::assert_snapshot!(said, @r#"
    error: `http` is not a port or a range of ports
       --> world.yaml:251:35
        |
    251 |   match: [{protocol: tcp, ports: [http, 70000, "90-80"]}]
        |                                   ^^^^
        = help: write a port from 0 to 65535 such as 80, or two such as 8000-8080

    error: `70000` is not a port or a range of ports
       --> world.yaml:251:41
        |
    251 |   match: [{protocol: tcp, ports: [http, 70000, "90-80"]}]
        |                                         ^^^^^
        = help: write a port from 0 to 65535 such as 80, or two such as 8000-8080

    error: `90-80` is not a port or a range of ports
       --> world.yaml:251:48
        |
    251 |   match: [{protocol: tcp, ports: [http, 70000, "90-80"]}]
        |                                                ^^^^^^^ it goes downwards
        = help: write 80-90
    "#);
}

/// A protocol that does not exist.
#[test]
fn an_unknown_protocol() {
    let said =
        told("  match: [{protocol: tcp, ports: [80, 443]}]", "  match: [{protocol: tpc, ports: [80, 443]}]");
    insta::assert_snapshot!(said, @"
    error: `tpc` is not a protocol
       --> world.yaml:251:22
        |
    251 |   match: [{protocol: tpc, ports: [80, 443]}]
        |                      ^^^
        = help: write tcp, udp, sctp, icmp, icmpv6, gre or a number from 0 to 255
    ");
}

/// No packet goes from IPv4 to IPv6.
#[test]
fn a_match_of_two_families() {
    let said = told(
        "  match: [{protocol: tcp, ports: [80, 443]}]",
        r#"  match: [{from: 172.16.1.0/24, to: "2001:db8::/32"}]"#,
    );
    insta::assert_snapshot!(said, @r#"
    error: no packet goes from 172.16.1.0/24 to 2001:db8::/32: one is IPv4, the other IPv6
       --> world.yaml:251:37
        |
    251 |   match: [{from: 172.16.1.0/24, to: "2001:db8::/32"}]
        |                                     ^^^^^^^^^^^^^^^
       ::: world.yaml:251:18
        |
    251 |   match: [{from: 172.16.1.0/24, to: "2001:db8::/32"}]
        |                  ------------- from here
        = help: take both of one family
    "#);
}

/// Addresses that no site of the chain has.
#[test]
fn traffic_of_nobody() {
    let said = told("  match: [{protocol: tcp, ports: [80, 443]}]", "  match: [{from: 172.16.2.0/24}]");
    insta::assert_snapshot!(said, @"
    error: no site of chain acme-web has addresses in 172.16.2.0/24
       --> world.yaml:251:18
        |
    251 |   match: [{from: 172.16.2.0/24}]
        |                  ^^^^^^^^^^^^^
       ::: world.yaml:233:14
        |
    233 |   prefixes: [172.16.9.0/24]
        |              ------------- the addresses of a site
        = help: take a prefix within a site's, such as 172.16.9.0/24, or leave `from` out
    ");
}

/// More kinds of traffic than a site's policy holds.
#[test]
fn too_many_rules() {
    let ports: Vec<String> = (1000..1033).map(|port| port.to_string()).collect();
    let said = told("ports: [80, 443]", &format!("ports: [{}]", ports.join(", ")));
    insta::assert_snapshot!(said, @"
    error: chain acme-web lists 33 kinds of traffic, more than 32
       --> world.yaml:248:18
        |
    248 | metadata: {name: acme-web}
        |                  ^^^^^^^^
        = help: each entry of `match` counts once for each of its ports: join ports into ranges, or claim all traffic
    ");
}

/// The same, of two chains together.
#[test]
fn too_many_rules_of_two_chains() {
    let ports: Vec<String> = (1000..1031).map(|port| port.to_string()).collect();
    let said = told_with(&format!(
        "apiVersion: catena/v1alpha1
kind: Chain
metadata: {{name: acme-more}}
spec: {{sites: [acme-hq], match: [{{protocol: udp, ports: [{}]}}], functions: [ips]}}
",
        ports.join(", ")
    ));
    insta::assert_snapshot!(said, @"
    error: the chains of site acme-hq list 33 kinds of traffic, more than 32
       --> world.yaml:218:18
        |
    218 | metadata: {name: acme-hq}
        |                  ^^^^^^^
       ::: added.yaml:3:18
        |
      3 | metadata: {name: acme-more}
        |                  --------- acme-more lists 31
       ::: world.yaml:248:18
        |
    248 | metadata: {name: acme-web}
        |                  -------- acme-web lists 2
        = help: each entry of `match` counts once for each of its ports: join ports into ranges, or claim all traffic
    ");
}

/// The functions of one chain on two switches.
#[test]
fn functions_on_two_switches() {
    let said = told("  functions: [fw, ips]", "  functions: [fw, spare]");
    insta::assert_snapshot!(said, @"
    error: the functions of chain acme-web are on two switches, br-int and br-ext
       --> world.yaml:252:14
        |
    252 |   functions: [fw, spare]
        |              ^^^^^^^^^^^
       ::: world.yaml:203:25
        |
    203 |       inside: {element: br-ext, port: spare-in}
        |                         ------ spare is on br-ext
        = help: connect all instances of all its functions to one switch: more than one is not supported yet
    ");
}

/// The chains of one site on two switches.
#[test]
fn chains_of_a_site_on_two_switches() {
    let said = told_with(
        r#"apiVersion: catena/v1alpha1
kind: Link
metadata: {name: ext-gateway}
spec:
  ends:
    - {node: br-ext, port: gw, addresses: [10.25.0.5/24]}
    - {node: gateway, port: ext, addresses: [10.25.0.1/24]}
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {name: globex-more}
spec: {tenant: globex, functions: [spare], priority: 10}
"#,
    );
    insta::assert_snapshot!(said, @"
    error: the chains of site globex-hq have their functions on two switches, br-int and br-ext
       --> added.yaml:12:35
        |
     12 | spec: {tenant: globex, functions: [spare], priority: 10}
        |                                   ^^^^^^^ on br-ext
       ::: world.yaml:259:14
        |
    259 |   functions: [ips]
        |              ----- on br-int
        = help: connect all functions of a site's chains to one switch: more than one is not supported yet
    ");
}

/// A switch from which no gateway is reached.
#[test]
fn no_way_to_a_gateway() {
    let said = told("  functions: [ips]", "  functions: [spare]");
    insta::assert_snapshot!(said, @"
    error: no links lead from br-ext, where the functions are, to a gateway
       --> world.yaml:259:14
        |
    259 |   functions: [spare]
        |              ^^^^^^^
        = help: link it to an element with `role: gateway`, directly or through routers
    ");
}

/// A VLAN tells the chain, not the place in it.
#[test]
fn a_function_with_vlans_twice() {
    let said = told_all(&[
        ("metadata: {name: ips}\nspec:\n  insertion: l2", "metadata: {name: ips}\nspec:\n  insertion: vlan"),
        ("  functions: [fw, ips]", "  functions: [ips, fw, ips]"),
    ]);
    insta::assert_snapshot!(said, @"
    error: ips stands twice in the chain
       --> world.yaml:252:24
        |
    252 |   functions: [ips, fw, ips]
        |                        ^^^
       ::: world.yaml:252:15
        |
    252 |   functions: [ips, fw, ips]
        |               --- the first
        = help: list it once: a VLAN tells the chain that a packet is in, not which of the two places it has passed (a function with `insertion: l2`, `nsh` or `tap` may stand twice)
    ");
}

/// Taps alone make a chain, and one may get copies from two places.
#[test]
fn a_chain_of_taps() {
    let said = told_all(&[
        (
            "  insertion: l2\n  instances:\n    - name: ips-1\n      inside: {element: br-int, port: ips1-in}\n      outside: {element: br-int, port: ips1-out}\n",
            "  insertion: tap\n  instances: [{name: ips-1, port: {element: br-int, port: ips1-in}}]\n",
        ),
        ("  functions: [fw, ips]", "  functions: [ips, fw, ips]"),
    ]);
    assert_eq!(said, "nothing");
}

const CHANGING: (&str, &str) = ("  insertion: l3\n", "  insertion: l3\n  changesAddresses: true\n");

/// Two sites behind one function that changes addresses, which is not the last.
#[test]
fn changed_addresses_of_two_sites() {
    let said = told_all(&[CHANGING]);
    insta::assert_snapshot!(said, @"
    error: fw changes addresses and is used by acme-web of acme-branch and acme-web of acme-hq: nothing tells whose packets come back
       --> world.yaml:253:15
        |
    253 |   functions: [fw, ips]
        |               ^^ not the last one
       ::: world.yaml:219:18
        |
    219 | metadata: {name: acme-hq}
        |                  ------- the other site
        = help: make a function of its own for each chain and site, with ports of its own, or put it last in each chain
    ");
}

/// Two chains through one function that changes addresses, which is not the last in one of them.
#[test]
fn changed_addresses_of_two_chains() {
    let said = told_all(&[
        CHANGING,
        ("  tenant: acme\n  match", "  sites: [acme-hq]\n  match"),
        ("  sites: [globex-hq]\n  functions: [ips]", "  sites: [globex-hq]\n  functions: [fw]"),
    ]);
    insta::assert_snapshot!(said, @"
    error: fw changes addresses and is used by acme-web of acme-hq and globex-all of globex-hq: nothing tells whose packets come back
       --> world.yaml:253:15
        |
    253 |   functions: [fw, ips]
        |               ^^ not the last one
       ::: world.yaml:260:15
        |
    260 |   functions: [fw]
        |               -- the other use
        = help: make a function of its own for each chain and site, with ports of its own, or put it last in each chain
    ");
}

/// Nobody asks after the last function whose packets come back; and a function of one chain and site has its own ports.
#[test]
fn changed_addresses_that_are_told_apart() {
    let last = ("  functions: [fw, ips]", "  functions: [ips, fw]");
    assert_eq!(told_all(&[CHANGING, last]), "nothing");
    let one_site = ("  tenant: acme\n  match", "  sites: [acme-hq]\n  match");
    assert_eq!(told_all(&[CHANGING, one_site]), "nothing");
}

#[test]
fn changed_addresses_twice() {
    let one_site = ("  tenant: acme\n  match", "  sites: [acme-hq]\n  match");
    let said = told_all(&[CHANGING, one_site, ("  functions: [fw, ips]", "  functions: [fw, ips, fw]")]);
    insta::assert_snapshot!(said, @"
    error: fw stands twice in the chain
       --> world.yaml:253:24
        |
    253 |   functions: [fw, ips, fw]
        |                        ^^
       ::: world.yaml:253:15
        |
    253 |   functions: [fw, ips, fw]
        |               -- the first
        = help: list it once: when a packet comes back with other addresses, nothing tells which of the two places it has passed
    ");
}

/// Code points have names (RFC 2474 and others) and numbers.
#[test]
fn a_dscp_that_is_none() {
    for dscp in ["ef", "46", "af41"] {
        let to = format!("match: [{{dscp: {dscp}, protocol: tcp}}]");
        assert_eq!(told("match: [{protocol: tcp, ports: [80, 443]}]", &to), "nothing", "{dscp}");
    }
    let said = told("match: [{protocol: tcp, ports: [80, 443]}]", "match: [{dscp: af44}]");
    insta::assert_snapshot!(said, @"
    error: `af44` is not a DSCP
       --> world.yaml:251:18
        |
    251 |   match: [{dscp: af44}]
        |                  ^^^^
        = help: write a name such as ef, af41 or cs1, or a number from 0 to 63
    ");
}
