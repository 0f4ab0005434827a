//! Ten thousand tenants are usual: nothing may cost the square of their number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::time::Duration;

use catena_model::resource::{self, Diagnostic, Document, Model, Source};
use nix::time::{ClockId, clock_gettime};

/// The network of a provider, without its tenants.
const NETWORK: &str = include_str!("scale/network.yaml");

/// What `work` takes of the processor, whatever else the machine does meanwhile.
fn cost<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let spent = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let before = spent();
    let result = work();
    (result, spent() - before)
}

fn tenants(count: usize, text: impl Fn(usize) -> String) -> Source {
    let mut all = NETWORK.to_owned();
    for number in 0..count {
        write!(all, "{}", text(number)).unwrap();
    }
    Source::new("tenants.yaml", all)
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
    const COUNT: usize = 10_000;
    // Several times what it takes on a slow machine.
    let bound = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
    let source = tenants(COUNT, distinct);
    let ((documents, found), parsing) = cost(|| resource::parse(&[source]));
    assert_eq!(found, []);
    let (model, validating) = cost(|| resource::validate(&documents).unwrap());
    assert_eq!(model.chains.len(), COUNT);
    println!("{} documents: parsed in {parsing:?}, validated in {validating:?}", documents.len());
    assert!(parsing + validating < bound, "{parsing:?} + {validating:?}");
}

#[test]
fn the_cost_grows_with_the_number_of_tenants() {
    proportional("all valid", distinct, |validated| assert!(validated.is_ok()));
}

/// Where every tenant is wrong, every tenant is told.
#[test]
fn the_cost_grows_with_the_number_of_mistakes() {
    let all_told = |count: usize| {
        move |validated: Result<Model, Vec<Diagnostic>>| {
            let found = validated.unwrap_err();
            assert!(found.len() >= count, "{}", found.len());
        }
    };
    proportional("one prefix", |number| tenant(number, "10.0.0.0/8"), all_told(MANY - 1));
    proportional("no function", |number| distinct(number).replace("[fw]", "[firewall]"), all_told(MANY));
    proportional("no tenant", |number| distinct(number).replace("tenant: t", "tenant: x"), all_told(MANY));
}

const FEW: usize = 400;
const MANY: usize = 10 * FEW;

/// Ten times as many tenants must not cost much more than ten times as much; comparing each with each would cost a
/// hundred times as much.
fn proportional(what: &str, text: impl Fn(usize) -> String, look: impl Fn(Result<Model, Vec<Diagnostic>>)) {
    let documents = |count| -> Vec<Document> { resource::parse(&[tenants(count, &text)]).0 };
    let [few, many] = [FEW, MANY].map(documents);
    // Once before it counts, so that memory is at hand.
    let _ = resource::validate(&few);
    let (_, small) = cost(|| resource::validate(&few));
    let (validated, large) = cost(|| resource::validate(&many));
    println!("{what}: {small:?} for {FEW} tenants, {large:?} for {MANY}");
    assert!(large < 30 * small, "{what}: {small:?} for {FEW} tenants, {large:?} for {MANY}");
    look(validated);
}
