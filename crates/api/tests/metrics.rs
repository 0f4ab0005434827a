//! `/metrics`, read as a scraper reads it: by the grammar of OpenMetrics 1.0, not by what we know of how it is written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use catena_api::router;
use catena_api::types::{ApplyRequest, DropReason, SourceText};
use catena_control::{Controller, Drivers, Settings};
use catena_driver::simulated::{SimulatedDriver, SimulatedElement};
use catena_driver::{Counted, Counter, Driver, DriverError};
use catena_model::forwarding::{Direction, Object, PathId};
use catena_model::resource::Element;
use catena_store::InMemory;
use http_body_util::BodyExt;
use tower::ServiceExt;

/// All elements but the switch are one that nothing is counted on.
#[derive(Clone, Debug)]
struct World {
    switch: SimulatedElement,
}

impl Drivers for World {
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
        let other = SimulatedElement::new(1);
        let world = if element.name.as_str() == "br-int" { &self.switch } else { &other };
        Ok(vec![Arc::new(SimulatedDriver::new(world))])
    }
}

/// The paper's chain, applied by way of the API.
async fn chained() -> (World, Router) {
    let world = World { switch: SimulatedElement::new(1) };
    let store = Arc::new(InMemory::default());
    let controller = Controller::start(store, Arc::new(world.clone()), Settings::default()).await.unwrap();
    let router = router(controller);
    let sources = ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"].map(|name| {
        let path = format!("{}/../../examples/paper/{name}", env!("CARGO_MANIFEST_DIR"));
        SourceText { name: name.to_owned(), text: std::fs::read_to_string(path).unwrap() }
    });
    let body =
        serde_json::to_vec(&ApplyRequest { sources: sources.to_vec(), ..ApplyRequest::default() }).unwrap();
    let request = Request::post("/v1alpha1/apply").header(header::CONTENT_TYPE, "application/json");
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    (world, router)
}

async fn scrape(router: &Router) -> Scrape {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Scrape::read(std::str::from_utf8(&body).unwrap())
}

type Labels = BTreeMap<String, String>;

/// What a scrape says.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    units: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        let body = text.strip_suffix("# EOF\n").unwrap();
        for line in body.lines() {
            match line.strip_prefix("# ") {
                Some(comment) => scrape.describe(comment),
                None => scrape.sample(line),
            }
        }
        scrape
    }

    fn describe(&mut self, comment: &str) {
        let [what, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{comment}") };
        let former = match what {
            "TYPE" => self.types.insert(name.to_owned(), rest.to_owned()),
            "UNIT" => {
                assert!(name.ends_with(&format!("_{rest}")), "a unit ends the name: {comment}");
                self.units.insert(name.to_owned(), rest.to_owned())
            }
            "HELP" => None,
            _ => panic!("{comment}"),
        };
        assert_eq!(former, None, "said twice: {comment}");
    }

    fn sample(&mut self, line: &str) {
        let (named, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match named.split_once('{') {
            None => (named, Labels::new()),
            Some((name, labels)) => (name, labels_of(labels.strip_suffix('}').unwrap())),
        };
        let suffixes = ["", "_total", "_bucket", "_count", "_sum"];
        let family = suffixes.iter().find_map(|suffix| self.types.get_key_value(name.strip_suffix(suffix)?));
        let (family, kind) = family.unwrap_or_else(|| panic!("{name} belongs to no family"));
        if kind == "counter" {
            assert_eq!(name, format!("{family}_total"), "counters end with _total");
        }
        let valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(
            name.starts_with("catena_") && valid(name) && labels.keys().all(|label| valid(label)),
            "{line}"
        );
        let former = self.samples.insert((name.to_owned(), labels), value.parse().unwrap());
        assert_eq!(former, None, "one time series twice: {line}");
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.samples.get(&(name.to_owned(), labels));
        *found.unwrap_or_else(|| panic!("no such sample of {name} among {:#?}", self.samples))
    }
}

/// `a="b",c="d"`, with backslashes before quotes, backslashes and line ends.
fn labels_of(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (_, '\\') => value.push(letters.next().unwrap().1),
                (end, '"') => break end,
                (_, letter) => value.push(letter),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// Counts one of everything on the switch: so many packets as its place in the list. Gives back the chain's path.
fn count_everything(switch: &SimulatedElement) -> PathId {
    let installed = switch.installed();
    let mut instance = None;
    let mut path = None;
    let mut site = None;
    for object in installed.iter() {
        match object {
            Object::Instance(found) if found.inside.port.as_str() == "ips2-in" => instance = Some(found.id),
            Object::Path(found) => path = Some(found.id),
            Object::Policy(found) => site = Some(found.site),
            _ => {}
        }
    }
    let (instance, path, site, direction) =
        (instance.unwrap(), path.unwrap(), site.unwrap(), Direction::Down);
    let all = [
        Counted::Hop { path, position: 1, instance, direction },
        Counted::Hop { path: PathId::NOWHERE, position: 0, instance, direction },
        Counted::Returned { instance, direction },
        Counted::Exit { path, direction },
        Counted::Transit { site, direction },
        Counted::Claimed { site, direction },
        Counted::Encapsulated { site },
        Counted::Decapsulated { site },
        Counted::Dropped { path: Some(path), reason: DropReason::Fragment },
        Counted::Dropped { path: None, reason: DropReason::Fragment },
    ];
    let counters =
        all.into_iter().zip(1..).map(|(of, packets)| Counter { of, packets, bytes: packets * 1000 });
    switch.set_counters(counters.collect());
    path
}

#[tokio::test]
async fn what_was_counted_is_there_with_its_names() {
    let (world, router) = chained().await;
    let path = count_everything(&world.switch);
    let scrape = scrape(&router).await;
    let number = path.to_string();
    let element = ("element", "br-int");
    let way = ("direction", "down");
    let of_site = [("tenant", "acme"), ("site", "acme-hq")];
    let of_path = [
        ("tenant", "acme"),
        ("chain", "acme-web"),
        ("site", "acme-hq"),
        ("path", number.as_str()),
        ("generation", "1"),
    ];
    let of_instance = [("function", "ips"), ("instance", "ips-2")];
    let expect = |name: &str, labels: &[&[(&str, &str)]], packets: f64| {
        let labels = [&[element], &labels.concat()[..]].concat();
        assert_eq!(scrape.value(&format!("catena_{name}_packets_total"), &labels), packets, "{name}");
        assert_eq!(scrape.value(&format!("catena_{name}_bytes_total"), &labels), packets * 1000.0, "{name}");
    };
    expect("hop", &[&of_path, &[("position", "1")], &of_instance, &[way]], 1.0);
    expect("hop", &[&of_instance, &[way]], 2.0);
    expect("returned", &[&of_instance, &[way]], 3.0);
    expect("exit", &[&of_path, &[way]], 4.0);
    expect("transit", &[&of_site, &[way]], 5.0);
    expect("claimed", &[&of_site, &[way]], 6.0);
    expect("encapsulated", &[&of_site], 7.0);
    expect("decapsulated", &[&of_site], 8.0);
    expect("dropped", &[&of_path, &[("reason", "fragment")]], 9.0);
    expect("dropped", &[&[("reason", "fragment")]], 10.0);
}

#[tokio::test]
async fn the_controllers_state_is_there() {
    let (world, router) = chained().await;
    let first = scrape(&router).await;
    assert_eq!(first.value("catena_converged", &[]), 1.0);
    assert_eq!(first.value("catena_chains", &[("state", "installed")]), 1.0);
    assert_eq!(first.value("catena_chains", &[("state", "degraded")]), 0.0);
    let proven = [("chain", "acme-web"), ("verdict", "proven")];
    let found_out = async {
        while scrape(&router).await.value("catena_chain_verdict", &proven) < 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found_out).await.unwrap();
    assert_eq!(first.value("catena_element_state", &[("element", "br-int"), ("state", "inSync")]), 1.0);
    assert_eq!(first.value("catena_events_total", &[("kind", "applied")]), 1.0);
    let applies = [("operation", "apply"), ("outcome", "done")];
    assert_eq!(first.value("catena_request_duration_seconds_count", &applies), 1.0);
    assert!(first.value("catena_request_duration_seconds_sum", &applies) > 0.0);
    assert_eq!(first.value("catena_element_counters_read", &[("element", "br-int")]), 1.0);

    world.switch.cut_off();
    let second = scrape(&router).await;
    assert_eq!(second.value("catena_element_counters_read", &[("element", "br-int")]), 0.0);
}

#[tokio::test]
async fn every_metric_and_every_reason_is_documented() {
    let (world, router) = chained().await;
    count_everything(&world.switch);
    let documentation =
        std::fs::read_to_string(format!("{}/../../docs/metrics.md", env!("CARGO_MANIFEST_DIR")));
    let documentation = documentation.unwrap();
    let rows: Vec<&str> = documentation.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let documented: BTreeSet<&str> = rows.iter().filter_map(|row| Some(row.split_once('`')?.0)).collect();
    let scrape = scrape(&router).await;
    for (family, kind) in &scrape.types {
        let name = if kind == "counter" { format!("{family}_total") } else { family.clone() };
        assert!(documented.contains(name.as_str()), "{name} is not in docs/metrics.md");
    }
    let metrics = documented.iter().filter(|name| name.starts_with("catena_"));
    for name in metrics {
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(scrape.types.contains_key(family), "docs/metrics.md has {name}, which is not there");
    }
    for reason in DropReason::ALL {
        let row = format!("{}` | {} |", reason.word(), reason.meaning());
        assert!(rows.contains(&row.as_str()), "docs/metrics.md lacks | `{row}");
    }
}
