//! Counters: read, and forgotten with what they count.

use std::collections::HashSet;

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

fn sum(per_cpu: &[layout::Counter]) -> layout::Counter {
    layout::Counter {
        packets: per_cpu.iter().map(|counter| counter.packets).sum(),
        bytes: per_cpu.iter().map(|counter| counter.bytes).sum(),
    }
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
        DROPPED => Counted::Dropped {
            path: (key.of != 0).then_some(path),
            reason: *REASONS.get(usize::from(key.position))?,
        },
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

pub(crate) fn forget(maps: &Maps, gone: &Gone) -> Result<(), DriverError> {
    let count = gone.paths.len() + gone.sites.len() + gone.tunnels.len();
    let keys = match count {
        0 => return Ok(()),
        1..=FEW => possible_keys(gone),
        _ => present_keys(maps, gone)?,
    };
    maps.counters.remove_all(&keys)
}

/// The slot is free, and may one day be another instance's.
pub(crate) fn forget_instance(maps: &Maps, handle: u32) -> Result<(), DriverError> {
    let at = 2 * slot_of(handle);
    [at, at + 1].iter().try_for_each(|at| maps.returned.clear_per_cpu(at))
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

fn present_keys(maps: &Maps, gone: &Gone) -> Result<Vec<CounterKey>, DriverError> {
    let paths: HashSet<_> = gone.paths.iter().map(|path| path.id.0).collect();
    let sites: HashSet<_> = gone.sites.iter().map(|site| site.0).collect();
    let tunnels: HashSet<_> = gone.tunnels.iter().map(|site| site.0).collect();
    let is_gone = |key: &CounterKey| match key.counted {
        HOP | EXIT | DROPPED => paths.contains(&key.of),
        TRANSIT | CLAIMED => sites.contains(&key.of),
        ENCAPSULATED | DECAPSULATED => tunnels.contains(&key.of),
        _ => false,
    };
    let entries = maps.counters.per_cpu_entries(|_| ())?;
    Ok(entries.into_iter().map(|(key, ())| key).filter(is_gone).collect())
}
