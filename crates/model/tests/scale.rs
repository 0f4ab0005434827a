//! Ten thousand tenants are usual: nothing may cost the square of their number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use catena_model::resource::{self, Source};

const TENANTS: usize = 10_000;
/// Twenty times what it takes, and a hundredth of what comparing each with each would.
const BOUND: Duration = Duration::from_secs(30);

/// The network of a provider, without its tenants.
const NETWORK: &str = include_str!("scale/network.yaml");

fn tenants(text: impl Fn(usize) -> String) -> String {
    let mut all = NETWORK.to_owned();
    for number in 0..TENANTS {
        write!(all, "{}", text(number)).unwrap();
    }
    all
}

fn tenant(number: usize, prefix: &str) -> String {
    let (high, low) = (number / 256, number % 256);
    format!(
        "---
apiVersion: catena/v1alpha1
kind: Tenant
metadata: {{name: tenant-{number}}}
spec: {{prefixes: [{prefix}]}}
---
apiVersion: catena/v1alpha1
kind: Site
metadata: {{name: site-{number}}}
spec:
  tenant: tenant-{number}
  attachment:
    gre:
      customer: {{address: 192.0.{high}.{low}}}
      cloud: {{element: edge, address: 203.0.113.10}}
      key: {number}
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {{name: chain-{number}}}
spec:
  tenant: tenant-{number}
  match: [{{protocol: tcp, ports: [80, 443]}}]
  functions: [fw]
"
    )
}

fn distinct(number: usize) -> String {
    let (high, low) = (number / 256, number % 256);
    tenant(number, &format!("10.{high}.{low}.0/24"))
}

#[test]
fn ten_thousand_tenants_are_valid_soon() {
    let text = tenants(distinct);
    let start = Instant::now();
    let (documents, found) = resource::parse(&[Source::new("tenants.yaml", text)]);
    let parsed = start.elapsed();
    assert_eq!(found, []);
    let model = resource::validate(&documents).unwrap();
    assert_eq!(model.chains.len(), TENANTS);
    println!(
        "{} documents: parsed in {parsed:?}, validated in {:?}",
        documents.len(),
        start.elapsed() - parsed
    );
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

/// Where every tenant is wrong, every tenant is told.
#[test]
fn ten_thousand_mistakes_are_told_soon() {
    let same_prefix = tenants(|number| tenant(number, "10.0.0.0/8"));
    let no_function = tenants(|number| distinct(number).replace("[fw]", "[firewall]"));
    let no_tenant = tenants(|number| distinct(number).replace("tenant: tenant", "tenant: tennant"));
    for (what, text) in [
        ("all have one prefix", same_prefix),
        ("no function is known", no_function),
        ("no tenant is known", no_tenant),
    ] {
        let source = Source::new("tenants.yaml", text);
        let start = Instant::now();
        let found = resource::load(&[source]).unwrap_err();
        println!("{what}: {} told in {:?}", found.len(), start.elapsed());
        assert!(found.len() >= TENANTS - 1, "{what}: {}", found.len());
        assert!(start.elapsed() < BOUND, "{what}: {:?}", start.elapsed());
    }
}
