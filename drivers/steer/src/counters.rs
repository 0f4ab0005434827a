//! Counters: read, and forgotten with what they count.

use std::collections::{BTreeMap, HashSet};

use catena_driver::{Counted, Counter, DriverError, DropReason};
use catena_model::forwarding::{Direction, InstanceId, Path, PathId, SiteId};

use crate::layout::{self, CounterKey};
use crate::maps::Maps;
use crate::numbers::slot_of;

const HOP: u8 = 0;
const EXIT: u8 = 1;
const TRANSIT: u8 = 2;
const CLAIMED: u8 = 3;
const ENCAPSULATED: u8 = 4;
const DECAPSULATED: u8 = 5;
const DROPPED: u8 = 6;

/// In the order of the numbers in `bpf/layout.h`.
const REASONS: [DropReason; 14] = [
    DropReason::NoInstance,
    DropReason::Unexpected,
    DropReason::Missing,
    DropReason::Fragment,
    DropReason::Malformed,
    DropReason::TooBig,
    DropReason::ForgedSource,
    DropReason::UnknownTunnel,
    DropReason::NoTunnel,
    DropReason::Kernel,
    DropReason::ServiceIndex,
    DropReason::Limit,
    DropReason::Congestion,
    DropReason::Unreachable,
];

/// All that was counted, in a fixed order.
pub(crate) fn read(maps: &Maps) -> Result<Vec<Counter>, DriverError> {
    let counters = maps.counters.per_cpu_entries(sum)?;
    let mut counters: Vec<_> =
        counters.iter().filter_map(|(key, sum)| Some(counter(counted(key)?, *sum))).collect();
    counters.extend(returned(maps)?);
    counters.sort_by(|a, b| a.of.cmp(&b.of));
    Ok(counters)
}

/// What came back from each instance: in an array, twice its slot and the direction.
fn returned(maps: &Maps) -> Result<Vec<Counter>, DriverError> {
    let sums = maps.returned.per_cpu_entries(sum)?;
    let instances = maps.instances.entries()?.into_iter().filter(|(_, instance)| instance.handle != 0);
    let mut counters = Vec::new();
    for (slot, instance) in instances {
        for direction in Direction::BOTH {
            let at = 2 * slot as usize + direction as usize;
            let of = Counted::Returned { instance: InstanceId(instance.id), direction };
            counters
                .extend(sums.get(at).filter(|(_, sum)| sum.packets > 0).map(|(_, sum)| counter(of, *sum)));
        }
    }
    Ok(counters)
}

pub(crate) fn sum(per_cpu: &[layout::Counter]) -> layout::Counter {
    layout::Counter {
        packets: per_cpu.iter().map(|counter| counter.packets).sum(),
        bytes: per_cpu.iter().map(|counter| counter.bytes).sum(),
    }
}

/// The reason with this number in `bpf/layout.h`.
pub(crate) fn reason(number: u32) -> Option<DropReason> {
    REASONS.get(number as usize).copied()
}

fn counter(of: Counted, sum: layout::Counter) -> Counter {
    Counter { of, packets: sum.packets, bytes: sum.bytes }
}

fn counted(key: &CounterKey) -> Option<Counted> {
    let direction = if key.direction == 0 { Direction::Up } else { Direction::Down };
    let (path, site) = (PathId(key.of), SiteId(key.of));
    Some(match key.counted {
        HOP => Counted::Hop { path, position: key.position, instance: InstanceId(key.instance), direction },
        EXIT => Counted::Exit { path, direction },
        TRANSIT => Counted::Transit { site, direction },
        CLAIMED => Counted::Claimed { site, direction },
        ENCAPSULATED => Counted::Encapsulated { site },
        DECAPSULATED => Counted::Decapsulated { site },
        DROPPED => {
            Counted::Dropped { path: (key.of != 0).then_some(path), reason: reason(key.position.into())? }
        }
        _ => return None,
    })
}

/// What has counters and is not installed any more. Its number may one day be another's.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    pub(crate) paths: Vec<Path>,
    /// Those that have no policy any more.
    pub(crate) sites: Vec<SiteId>,
    /// The sites whose tunnels are gone.
    pub(crate) tunnels: Vec<SiteId>,
}

/// Of more objects than this, all counters are read to find theirs.
const FEW: usize = 64;

/// No packet finds any more what is gone. It is removed before its sums are kept: who is killed between the two loses
/// counts, and counts nothing twice.
pub(crate) fn forget(maps: &Maps, gone: &Gone) -> Result<(), DriverError> {
    let count = gone.paths.len() + gone.sites.len() + gone.tunnels.len();
    let counters = match count {
        0 => return Ok(()),
        1..=FEW => counters_of_few(maps, gone)?,
        _ => counters_of_many(maps, gone)?,
    };
    let keys: Vec<_> = counters.iter().map(|(key, _)| *key).collect();
    maps.counters.remove_all(&keys)?;
    keep_hops(maps, &counters)
}

/// What instances were handed on paths that are gone, in one sum for each: what they return is counted so, too.
fn keep_hops(maps: &Maps, gone: &[(CounterKey, layout::Counter)]) -> Result<(), DriverError> {
    let mut sums: BTreeMap<_, Vec<layout::Counter>> = BTreeMap::new();
    for (key, counter) in gone.iter().filter(|(key, _)| key.counted == HOP) {
        sums.entry((key.instance, key.direction)).or_default().push(*counter);
    }
    for ((instance, direction), mut counters) in sums {
        let key = hop_nowhere(InstanceId(instance), direction);
        counters.extend(maps.counters.get_per_cpu(&key, sum)?);
        maps.counters.put_per_cpu(&key, &sum(&counters))?;
    }
    Ok(())
}

fn hop_nowhere(instance: InstanceId, direction: u8) -> CounterKey {
    let InstanceId(instance) = instance;
    CounterKey { counted: HOP, direction, of: PathId::NOWHERE.0, instance, ..Default::default() }
}

/// The slot is free, and may one day be another instance's; so may the number.
pub(crate) fn forget_instance(maps: &Maps, id: InstanceId, handle: u32) -> Result<(), DriverError> {
    for direction in [0, 1] {
        let at = 2 * slot_of(handle) + u32::from(direction);
        maps.returned.put_per_cpu(&at, &layout::Counter::default())?;
        maps.counters.remove(&hop_nowhere(id, direction))?;
    }
    Ok(())
}

fn counters_of_few(maps: &Maps, gone: &Gone) -> Result<Vec<(CounterKey, layout::Counter)>, DriverError> {
    let mut counters = Vec::new();
    for key in possible_keys(gone) {
        counters.extend(maps.counters.get_per_cpu(&key, sum)?.map(|sum| (key, sum)));
    }
    Ok(counters)
}

fn possible_keys(gone: &Gone) -> Vec<CounterKey> {
    let mut keys = Vec::new();
    for direction in [0, 1] {
        let key = |counted, of| CounterKey { counted, direction, of, ..Default::default() };
        for path in &gone.paths {
            keys.push(key(EXIT, path.id.0));
            for (position, hop) in path.hops.iter().enumerate() {
                let position = position as u8;
                keys.extend(hop.ids().map(|id| CounterKey {
                    position,
                    instance: id.0,
                    ..key(HOP, path.id.0)
                }));
            }
        }
        keys.extend(gone.sites.iter().flat_map(|site| [key(TRANSIT, site.0), key(CLAIMED, site.0)]));
    }
    let key = |counted, position, of| CounterKey { counted, position, of, ..Default::default() };
    let reasons = 0..REASONS.len() as u8;
    keys.extend(gone.paths.iter().flat_map(|path| {
        let reasons = reasons.clone();
        reasons.map(move |reason| key(DROPPED, reason, path.id.0))
    }));
    keys.extend(
        gone.tunnels.iter().flat_map(|site| [key(ENCAPSULATED, 0, site.0), key(DECAPSULATED, 0, site.0)]),
    );
    keys
}

fn counters_of_many(maps: &Maps, gone: &Gone) -> Result<Vec<(CounterKey, layout::Counter)>, DriverError> {
    let paths: HashSet<_> = gone.paths.iter().map(|path| path.id.0).collect();
    let sites: HashSet<_> = gone.sites.iter().map(|site| site.0).collect();
    let tunnels: HashSet<_> = gone.tunnels.iter().map(|site| site.0).collect();
    let is_gone = |key: &CounterKey| match key.counted {
        HOP | EXIT | DROPPED => paths.contains(&key.of),
        TRANSIT | CLAIMED => sites.contains(&key.of),
        ENCAPSULATED | DECAPSULATED => tunnels.contains(&key.of),
        _ => false,
    };
    let mut counters = maps.counters.per_cpu_entries(sum)?;
    counters.retain(|(key, _)| is_gone(key));
    Ok(counters)
}
