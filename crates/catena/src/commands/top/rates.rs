//! Rates from two readings of the counters.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use catena_api::types::{CountedKind, CounterReport, CountersReport, DropReason, UnreadElement};
use catena_model::forwarding::{Direction, PathId};
use catena_model::name::{ChainName, FunctionName, InstanceName, NodeName, SiteName};
use serde::Serialize;
use tokio::time::Instant;

use crate::arguments::Order;

/// One reading, and when its answer was there.
#[derive(Debug)]
pub struct Sample {
    pub at: Instant,
    pub report: CountersReport,
}

/// How fast something was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    pub packets_per_second: f64,
    /// Of IP packets.
    pub bits_per_second: f64,
}

impl std::ops::AddAssign for Rate {
    fn add_assign(&mut self, other: Self) {
        self.packets_per_second += other.packets_per_second;
        self.bits_per_second += other.bits_per_second;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// The time that was measured for.
    pub seconds: f64,
    pub chains: Vec<ChainRate>,
    pub hops: Vec<HopRate>,
    pub instances: Vec<InstanceRate>,
    pub drops: Vec<DropRate>,
    pub unread: Vec<UnreadElement>,
}

/// A chain for one of its sites, all its generations together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainRate {
    pub chain: ChainName,
    pub site: SiteName,
    /// Handed to the first function, and out of the far end.
    pub up_in: Rate,
    pub up_out: Rate,
    /// Handed to the last function, and out towards the site.
    pub down_in: Rate,
    pub down_out: Rate,
    pub dropped: Rate,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopRate {
    pub chain: ChainName,
    pub site: SiteName,
    /// 0 is the first function on the way up.
    pub position: u8,
    pub instance: InstanceName,
    pub up: Rate,
    pub down: Rate,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRate {
    pub instance: InstanceName,
    pub function: Option<FunctionName>,
    pub element: NodeName,
    pub up_in: Rate,
    pub up_out: Rate,
    pub down_in: Rate,
    pub down_out: Rate,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DropRate {
    pub element: NodeName,
    /// None: dropped before a path was found.
    pub chain: Option<ChainName>,
    pub site: Option<SiteName>,
    pub reason: DropReason,
    pub dropped: Rate,
}

impl InstanceRate {
    /// Packets a second that went in and did not come out, of either direction.
    pub fn not_out(&self) -> f64 {
        let lost = |into: Rate, out: Rate| (into.packets_per_second - out.packets_per_second).max(0.0);
        lost(self.up_in, self.up_out) + lost(self.down_in, self.down_out)
    }
}

impl Rates {
    pub fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let counted = differences(&before.report, &now.report, seconds);
        Self {
            seconds,
            chains: chains(&counted),
            hops: hops(&counted),
            instances: instances(&counted),
            drops: drops(&counted),
            unread: now.report.unread.clone(),
        }
    }

    /// The busiest first; those that are alike by their names.
    pub fn sorted(mut self, order: Order) -> Self {
        sort(&mut self.chains, order, |chain| {
            let busy = sum([chain.up_in, chain.down_in]);
            (busy, chain.dropped.packets_per_second, (chain.chain.clone(), chain.site.clone()))
        });
        sort(&mut self.hops, order, |hop| {
            let name = (hop.chain.clone(), hop.site.clone(), hop.position, hop.instance.clone());
            (sum([hop.up, hop.down]), 0.0, name)
        });
        sort(&mut self.instances, order, |instance| {
            let busy = sum([instance.up_in, instance.down_in]);
            (busy, instance.not_out(), (instance.function.clone(), instance.instance.clone()))
        });
        sort(&mut self.drops, order, |drop| {
            let name = (drop.element.clone(), drop.chain.clone(), drop.site.clone(), drop.reason);
            (drop.dropped, drop.dropped.packets_per_second, name)
        });
        self
    }
}

fn sum(rates: [Rate; 2]) -> Rate {
    let mut sum = Rate::default();
    rates.into_iter().for_each(|rate| sum += rate);
    sum
}

/// Sorts by what `weigh` says of a line: how busy it is, how many packets a second it drops, and its name.
fn sort<T, N: Ord>(lines: &mut [T], order: Order, weigh: impl Fn(&T) -> (Rate, f64, N)) {
    lines.sort_by(|one, other| {
        let (one, other) = (weigh(one), weigh(other));
        let descending = match order {
            Order::Packets => other.0.packets_per_second.total_cmp(&one.0.packets_per_second),
            Order::Bytes => other.0.bits_per_second.total_cmp(&one.0.bits_per_second),
            Order::Drops => other.1.total_cmp(&one.1),
            Order::Name => Ordering::Equal,
        };
        descending.then_with(|| one.2.cmp(&other.2))
    });
}

/// The rate of each counter. One that was not there before was at 0; one that is lower than before began anew (as
/// Prometheus takes it). Of elements that could not be read before, nothing is known.
fn differences<'a>(
    before: &CountersReport,
    now: &'a CountersReport,
    seconds: f64,
) -> Vec<(&'a CounterReport, Rate)> {
    let unknown: BTreeSet<&NodeName> = before.unread.iter().map(|unread| &unread.element).collect();
    let earlier: BTreeMap<CounterReport, (u64, u64)> =
        before.counters.iter().map(|counter| (identity(counter), (counter.packets, counter.bytes))).collect();
    let known = now.counters.iter().filter(|counter| !unknown.contains(&counter.element));
    let rate = |counter: &'a CounterReport| {
        let (packets, bytes) = earlier.get(&identity(counter)).copied().unwrap_or_default();
        let rate = Rate {
            packets_per_second: counter.packets.checked_sub(packets).unwrap_or(counter.packets) as f64
                / seconds,
            bits_per_second: counter.bytes.checked_sub(bytes).unwrap_or(counter.bytes) as f64 * 8.0 / seconds,
        };
        (counter, rate)
    };
    known.map(rate).collect()
}

/// What is counted, whatever the count.
fn identity(counter: &CounterReport) -> CounterReport {
    CounterReport { packets: 0, bytes: 0, ..counter.clone() }
}

fn chains(counted: &[(&CounterReport, Rate)]) -> Vec<ChainRate> {
    let last = last_positions(counted);
    let mut chains: BTreeMap<(&ChainName, &SiteName), ChainRate> = BTreeMap::new();
    for (counter, rate) in counted {
        let (Some(chain), Some(site), Some(path)) = (&counter.chain, &counter.site, counter.path) else {
            continue;
        };
        let line = chains.entry((chain, site)).or_insert_with(|| ChainRate {
            chain: chain.clone(),
            site: site.clone(),
            up_in: Rate::default(),
            up_out: Rate::default(),
            down_in: Rate::default(),
            down_out: Rate::default(),
            dropped: Rate::default(),
        });
        let place = match (counter.counted, counter.direction) {
            (CountedKind::Hop, Some(Direction::Up)) if counter.position == Some(0) => &mut line.up_in,
            (CountedKind::Hop, Some(Direction::Down)) if counter.position == last.get(&path).copied() => {
                &mut line.down_in
            }
            (CountedKind::Exit, Some(Direction::Up)) => &mut line.up_out,
            (CountedKind::Exit, Some(Direction::Down)) => &mut line.down_out,
            (CountedKind::Dropped, _) => &mut line.dropped,
            _ => continue,
        };
        *place += *rate;
    }
    chains.into_values().collect()
}

/// Where each path's way down begins, as far as anything was counted there.
fn last_positions(counted: &[(&CounterReport, Rate)]) -> BTreeMap<PathId, u8> {
    let mut last = BTreeMap::new();
    for (counter, _) in counted {
        if let (Some(path), Some(position)) = (counter.path, counter.position) {
            let known = last.entry(path).or_insert(position);
            *known = position.max(*known);
        }
    }
    last
}

fn hops(counted: &[(&CounterReport, Rate)]) -> Vec<HopRate> {
    let mut hops: BTreeMap<(&ChainName, &SiteName, u8, &InstanceName), HopRate> = BTreeMap::new();
    for (counter, rate) in counted.iter().filter(|(counter, _)| counter.counted == CountedKind::Hop) {
        let named = (&counter.chain, &counter.site, counter.position, &counter.instance);
        let (Some(chain), Some(site), Some(position), Some(instance)) = named else { continue };
        let line = hops.entry((chain, site, position, instance)).or_insert_with(|| HopRate {
            chain: chain.clone(),
            site: site.clone(),
            position,
            instance: instance.clone(),
            up: Rate::default(),
            down: Rate::default(),
        });
        match counter.direction {
            Some(Direction::Up) => line.up += *rate,
            Some(Direction::Down) => line.down += *rate,
            None => {}
        }
    }
    hops.into_values().collect()
}

fn instances(counted: &[(&CounterReport, Rate)]) -> Vec<InstanceRate> {
    let mut instances: BTreeMap<(&NodeName, &InstanceName), InstanceRate> = BTreeMap::new();
    for (counter, rate) in counted {
        let (Some(instance), Some(direction)) = (&counter.instance, counter.direction) else { continue };
        let line = instances.entry((&counter.element, instance)).or_insert_with(|| InstanceRate {
            instance: instance.clone(),
            function: counter.function.clone(),
            element: counter.element.clone(),
            up_in: Rate::default(),
            up_out: Rate::default(),
            down_in: Rate::default(),
            down_out: Rate::default(),
        });
        let place = match (counter.counted, direction) {
            // What paths that are gone leave behind went in long ago.
            (CountedKind::Hop, _) if counter.path.is_none() => continue,
            (CountedKind::Hop, Direction::Up) => &mut line.up_in,
            (CountedKind::Hop, Direction::Down) => &mut line.down_in,
            (CountedKind::Returned, Direction::Up) => &mut line.up_out,
            (CountedKind::Returned, Direction::Down) => &mut line.down_out,
            _ => continue,
        };
        *place += *rate;
    }
    instances.into_values().collect()
}

/// By reason; the generations of a chain together.
fn drops(counted: &[(&CounterReport, Rate)]) -> Vec<DropRate> {
    let mut drops = BTreeMap::new();
    for (counter, rate) in counted.iter().filter(|(counter, _)| counter.counted == CountedKind::Dropped) {
        let Some(reason) = counter.reason else { continue };
        let key = (&counter.element, &counter.chain, &counter.site, reason);
        let line = drops.entry(key).or_insert_with(|| DropRate {
            element: counter.element.clone(),
            chain: counter.chain.clone(),
            site: counter.site.clone(),
            reason,
            dropped: Rate::default(),
        });
        line.dropped += *rate;
    }
    drops.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn sample(seconds: u64, counters: &[Value], unread: &[&str]) -> Sample {
        let unread: Vec<Value> =
            unread.iter().map(|element| json!({"element": element, "why": "it hangs"})).collect();
        let report = json!({"counters": counters, "unread": unread});
        Sample { at: start() + Duration::from_secs(seconds), report: serde_json::from_value(report).unwrap() }
    }

    fn start() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    fn hop(chain: &str, position: u8, instance: &str, direction: &str, packets: u64) -> Value {
        json!({
            "element": "br-int", "counted": "hop", "chain": chain, "site": "hq", "path": 4, "generation": 1,
            "position": position, "function": "fw", "instance": instance, "direction": direction,
            "packets": packets, "bytes": packets * 100,
        })
    }

    fn returned(instance: &str, direction: &str, packets: u64) -> Value {
        json!({
            "element": "br-int", "counted": "returned", "function": "fw", "instance": instance,
            "direction": direction, "packets": packets, "bytes": packets * 100,
        })
    }

    #[test]
    fn a_rate_is_a_difference_over_the_time_that_passed() {
        let before = sample(0, &[hop("web", 0, "fw-1", "up", 100)], &[]);
        let now = sample(2, &[hop("web", 0, "fw-1", "up", 300), hop("web", 2, "web-1", "down", 10)], &[]);
        let rates = Rates::between(&before, &now);
        assert_eq!(rates.seconds, 2.0);
        let chain = &rates.chains[0];
        assert_eq!(chain.up_in, Rate { packets_per_second: 100.0, bits_per_second: 80_000.0 });
        // A counter that is new began at 0; the way down begins at the last function.
        assert_eq!(chain.down_in.packets_per_second, 5.0);
        assert_eq!((rates.hops.len(), rates.instances.len()), (2, 2));
    }

    #[test]
    fn a_counter_that_began_anew_gives_no_negative_rate() {
        let before = sample(0, &[hop("web", 0, "fw-1", "up", 1000)], &[]);
        let now = sample(1, &[hop("web", 0, "fw-1", "up", 30)], &[]);
        assert_eq!(Rates::between(&before, &now).hops[0].up.packets_per_second, 30.0);
    }

    #[test]
    fn what_could_not_be_read_before_has_no_rate_yet() {
        let before = sample(0, &[], &["br-int"]);
        let now = sample(1, &[hop("web", 0, "fw-1", "up", 1_000_000)], &[]);
        assert_eq!(Rates::between(&before, &now).hops, []);
    }

    #[test]
    fn what_paths_that_are_gone_leave_behind_is_no_traffic() {
        let mut former = hop("web", 0, "fw-1", "up", 500);
        for field in ["chain", "site", "path", "generation", "position"] {
            former.as_object_mut().unwrap().remove(field);
        }
        let before = sample(0, &[hop("web", 0, "fw-1", "up", 500), returned("fw-1", "up", 500)], &[]);
        let now = sample(1, &[former, returned("fw-1", "up", 500)], &[]);
        let rates = Rates::between(&before, &now);
        assert_eq!(rates.instances[0].up_in, Rate::default());
        assert!(rates.chains.is_empty());
    }

    #[test]
    fn lines_are_sorted_as_asked() {
        let drop = |chain: &str, packets: u64| {
            json!({"element": "br-int", "counted": "dropped", "chain": chain, "site": "hq", "path": 9,
                   "reason": "fragment", "packets": packets, "bytes": 0})
        };
        let before = sample(0, &[], &[]);
        let mut small = hop("b", 0, "fw-2", "up", 20);
        small["bytes"] = json!(1_000_000);
        let now = sample(
            1,
            &[hop("a", 0, "fw-1", "up", 10), small, hop("c", 0, "fw-3", "up", 30), drop("a", 5)],
            &[],
        );
        let chains = |order| -> Vec<String> {
            let sorted = Rates::between(&before, &now).sorted(order);
            sorted.chains.iter().map(|chain| chain.chain.to_string()).collect()
        };
        assert_eq!(chains(Order::Packets), ["c", "b", "a"]);
        assert_eq!(chains(Order::Bytes), ["b", "c", "a"]);
        assert_eq!(chains(Order::Drops), ["a", "b", "c"]);
        assert_eq!(chains(Order::Name), ["a", "b", "c"]);
    }

    #[test]
    fn what_does_not_come_out_is_told_of_instances() {
        let before = sample(0, &[], &[]);
        let now = sample(
            1,
            &[hop("a", 0, "fw-1", "up", 10), returned("fw-1", "up", 7), returned("fw-1", "down", 3)],
            &[],
        );
        assert_eq!(Rates::between(&before, &now).instances[0].not_out(), 3.0);
    }
}
