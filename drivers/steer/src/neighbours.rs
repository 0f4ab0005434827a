//! The MAC addresses of neighbours, as far as the kernel knows them already: the programs hear of those that answer from
//! now on (`bpf/neighbour.h`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::layout::{NeighbourKey, Side};
use crate::maps::Maps;
use crate::netlink::Connection;
use crate::plan::Plan;
use crate::words;

/// Writes those of the sides in `plan` that frames are put straight into. What fails here costs some packets the longer
/// way, and no more.
pub(crate) fn seed(maps: &Maps, plan: &Plan) {
    let instances = plan.instances.values.iter().flat_map(|instance| [&instance.inside, &instance.outside]);
    let wanted: BTreeMap<u32, Vec<[u8; 16]>> = instances
        .chain(&plan.exits.values)
        .filter(|side| side.direct != 0)
        .fold(BTreeMap::new(), |mut wanted, side| {
            wanted.entry(side.ifindex).or_default().extend(addresses(side));
            wanted
        });
    for (ifindex, addresses) in wanted.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
        let known = Connection::open().and_then(|mut connection| connection.neighbours(ifindex));
        for (address, mac) in known.unwrap_or_default() {
            let address = words::mapped(address);
            if addresses.contains(&address) {
                let _ = maps.neighbours.put(&NeighbourKey { ifindex, address }, &words::mac(mac));
            }
        }
    }
}

fn addresses(side: &Side) -> impl Iterator<Item = [u8; 16]> {
    let v4 = (side.has_v4 != 0).then(|| words::mapped(IpAddr::from(side.v4)));
    let v6 = (side.has_v6 != 0).then_some(side.v6);
    v4.into_iter().chain(v6)
}
