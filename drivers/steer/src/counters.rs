//! Counters: read, and forgotten with what they count.

use catena_driver::{Counted, Counter, DriverError, DropReason};
use catena_model::forwarding::{Direction, InstanceId, Path, PathId, SiteId};

use crate::layout::CounterKey;
use crate::maps::Maps;

const HOP: u8 = 0;
const EXIT: u8 = 1;
const TRANSIT: u8 = 2;
const CLAIMED: u8 = 3;
const ENCAPSULATED: u8 = 4;
const DECAPSULATED: u8 = 5;
const DROPPED: u8 = 6;

/// In the order of the numbers in `bpf/layout.h`.
const REASONS: [DropReason; 10] = [
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
];

/// All that was counted, in a fixed order.
pub(crate) fn read(maps: &Maps) -> Result<Vec<Counter>, DriverError> {
    let mut counters = Vec::new();
    for key in maps.counters.keys()? {
        let Some(of) = counted(&key) else { continue };
        let per_cpu = maps.counters.per_cpu(&key)?;
        counters.push(Counter {
            of,
            packets: per_cpu.iter().map(|counter| counter.packets).sum(),
            bytes: per_cpu.iter().map(|counter| counter.bytes).sum(),
        });
    }
    counters.sort_by(|a, b| a.of.cmp(&b.of));
    Ok(counters)
}

/// The path is gone, and its number may one day be another's.
pub(crate) fn forget_path(maps: &Maps, path: &Path) -> Result<(), DriverError> {
    for direction in Direction::BOTH {
        let direction = direction as u8;
        maps.counters.remove(&CounterKey {
            counted: EXIT,
            direction,
            of: path.id.0,
            ..Default::default()
        })?;
        for (position, hop) in path.hops.iter().enumerate() {
            for instance in hop.ids() {
                maps.counters.remove(&CounterKey {
                    counted: HOP,
                    direction,
                    position: position as u8,
                    of: path.id.0,
                    instance: instance.0,
                    ..Default::default()
                })?;
            }
        }
    }
    Ok(())
}

pub(crate) fn forget_site(maps: &Maps, site: SiteId) -> Result<(), DriverError> {
    for direction in Direction::BOTH {
        for counted in [TRANSIT, CLAIMED] {
            let direction = direction as u8;
            maps.counters.remove(&CounterKey { counted, direction, of: site.0, ..Default::default() })?;
        }
    }
    Ok(())
}

pub(crate) fn forget_tunnel(maps: &Maps, site: SiteId) -> Result<(), DriverError> {
    [ENCAPSULATED, DECAPSULATED].into_iter().try_for_each(|counted| {
        maps.counters.remove(&CounterKey { counted, of: site.0, ..Default::default() })
    })
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
        DROPPED => Counted::Dropped { path: None, reason: *REASONS.get(usize::from(key.position))? },
        _ => return None,
    })
}
