//! `/metrics`: everything that is counted, for Prometheus, in the text of OpenMetrics 1.0. `docs/metrics.md` lists it.
//!
//! All of it is made anew for each scrape, from one reading of the counters: what a driver has forgotten (a path that is
//! gone) is not there any more. The durations of requests alone are kept here.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use catena_control::Controller;
use catena_control::report::{
    ChainState, ControllerState, CountedKind, CounterReport, CountersReport, ElementState, StatusReport,
};
use catena_verify::Verdict;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, Cow<'static, str>)>;
type Counts = Family<Labels, Counter<u64, AtomicU64>>;
type Gauges = Family<Labels, Gauge>;

/// What is asked of the controller.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Apply,
    Delete,
}

/// How long requests took, those that waited for others included; dry runs are not among them.
#[derive(Clone, Debug)]
pub struct RequestDurations(Family<Labels, Histogram, fn() -> Histogram>);

impl Default for RequestDurations {
    fn default() -> Self {
        // From 1 ms to 33 s.
        Self(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))))
    }
}

impl RequestDurations {
    pub fn observe(&self, operation: Operation, done: bool, took: Duration) {
        let operation = match operation {
            Operation::Apply => "apply",
            Operation::Delete => "delete",
        };
        let outcome = if done { "done" } else { "failed" };
        let labels = vec![("operation", operation.into()), ("outcome", outcome.into())];
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// One scrape.
pub fn text(counters: &CountersReport, controller: &Controller, durations: &RequestDurations) -> String {
    let mut registry = Registry::with_prefix("catena");
    register_traffic(&mut registry, &counters.counters);
    register_state(&mut registry, &controller.status(), counters);
    register_events(&mut registry, controller);
    registry.register_with_unit(
        "request_duration",
        "How long applies and deletes took, from the request to the confirmed answer",
        Unit::Seconds,
        durations.0.clone(),
    );
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn register_traffic(registry: &mut Registry, counters: &[CounterReport]) {
    for (kind, name, help) in [
        (
            CountedKind::Hop,
            "hop",
            "handed to an instance of a function; without path and chain: on paths that are gone",
        ),
        (CountedKind::Returned, "returned", "that came back from an instance of a function"),
        (CountedKind::Exit, "exit", "that left a chain at its far end"),
        (
            CountedKind::Transit,
            "transit",
            "of a steered site that no chain claims, passed on without functions",
        ),
        (CountedKind::Claimed, "claimed", "claimed for a chain on an access element or at an external port"),
        (CountedKind::Encapsulated, "encapsulated", "put into a site's tunnel"),
        (CountedKind::Decapsulated, "decapsulated", "taken out of a site's tunnel"),
        (
            CountedKind::Dropped,
            "dropped",
            "dropped, by reason; without path and chain: before a path was found",
        ),
    ] {
        let (packets, bytes) = (Counts::default(), Counts::default());
        for counter in counters.iter().filter(|counter| counter.counted == kind) {
            let labels = labels(counter);
            packets.get_or_create(&labels).inc_by(counter.packets);
            bytes.get_or_create(&labels).inc_by(counter.bytes);
        }
        registry.register_with_unit(name, format!("Packets {help}"), unit("packets"), packets);
        registry.register_with_unit(name, format!("Bytes of IP packets {help}"), Unit::Bytes, bytes);
    }
}

fn unit(name: &str) -> Unit {
    Unit::Other(name.to_owned())
}

/// The names that a counter bears. A path's number is among them: two generations of a chain are two time series, and one
/// that goes takes its own with it.
fn labels(counter: &CounterReport) -> Labels {
    let labels = [
        ("element", text_of(Some(&counter.element))),
        ("tenant", text_of(counter.tenant.as_ref())),
        ("chain", text_of(counter.chain.as_ref())),
        ("site", text_of(counter.site.as_ref())),
        ("path", text_of(counter.path.as_ref())),
        ("generation", text_of(counter.generation.as_ref())),
        ("position", text_of(counter.position.as_ref())),
        ("function", text_of(counter.function.as_ref())),
        ("instance", text_of(counter.instance.as_ref())),
        ("direction", text_of(counter.direction.as_ref())),
        ("reason", text_of(counter.reason.as_ref())),
    ];
    labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn text_of(name: Option<&impl ToString>) -> Option<Cow<'static, str>> {
    name.map(|name| Cow::from(name.to_string()))
}

fn register_state(registry: &mut Registry, status: &StatusReport, counters: &CountersReport) {
    let gauge = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    let converged = gauge(status.converged.into());
    registry.register("converged", "Whether everything is installed as asked for", converged);
    let running = gauge((status.controller == ControllerState::Running && status.hold.is_none()).into());
    registry.register(
        "controlling",
        "Whether a controller repairs what differs from what was asked for",
        running,
    );
    registry.register("store_revision", "The revision of what was asked for", gauge(to_i64(status.revision)));
    let draining = gauge(to_i64(status.draining.len() as u64));
    registry.register("draining_paths", "Former paths that stay until their flows have ended", draining);

    let chains = Gauges::default();
    for (state, word) in [
        (ChainState::Installed, "installed"),
        (ChainState::Pending, "pending"),
        (ChainState::Degraded, "degraded"),
    ] {
        let number = status.chains.iter().filter(|chain| chain.state == state).count();
        chains.get_or_create(&vec![("state", word.into())]).set(to_i64(number as u64));
    }
    registry.register("chains", "Chains by their state", chains);
    register_verdicts(registry, status);

    let elements = Gauges::default();
    let readable = Gauges::default();
    for element in &status.elements {
        let name = || ("element", Cow::from(element.name.to_string()));
        for (state, word) in [
            (ElementState::InSync, "inSync"),
            (ElementState::OutOfSync, "outOfSync"),
            (ElementState::Unreachable, "unreachable"),
        ] {
            let labels = vec![name(), ("state", word.into())];
            elements.get_or_create(&labels).set((element.state == state).into());
        }
        let unread = counters.unread.iter().any(|unread| unread.element == element.name);
        readable.get_or_create(&vec![name()]).set((!unread).into());
    }
    registry.register("element_state", "1 for the state that an element is in, 0 for the others", elements);
    registry.register(
        "element_counters_read",
        "Whether the counters of an element are in this scrape",
        readable,
    );
}

fn register_verdicts(registry: &mut Registry, status: &StatusReport) {
    let verdicts = Gauges::default();
    for chain in &status.chains {
        let found = chain.verdict.as_ref().map(|found| found.verdict);
        for verdict in [Verdict::Proven, Verdict::Violated, Verdict::Undecided] {
            let labels =
                vec![("chain", chain.name.to_string().into()), ("verdict", verdict.to_string().into())];
            verdicts.get_or_create(&labels).set((found == Some(verdict)).into());
        }
    }
    registry.register(
        "chain_verdict",
        "1 for what is known of a chain from what is installed, 0 for the others; all 0 before it was verified",
        verdicts,
    );
    let given_up = Gauge::<i64>::default();
    given_up.set(to_i64(status.given_up.len() as u64));
    registry.register("given_up", "Promises of chains that do not hold and were given up", given_up);
}

fn register_events(registry: &mut Registry, controller: &Controller) {
    let events = Counts::default();
    for (kind, number) in controller.event_counts() {
        events.get_or_create(&vec![("kind", kind.to_string().into())]).inc_by(number);
    }
    registry.register("events", "What happened since the controller started, by kind", events);
}

/// A gauge holds less than a count can be.
fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
