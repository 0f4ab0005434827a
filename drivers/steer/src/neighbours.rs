//! The MAC addresses of neighbours, as far as the kernel knows them: the programs hear of those that answer
//! (`bpf/neighbour.h`), and the kernel's word stands above what they heard.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use catena_driver::DriverError;

use crate::layout::{NeighbourKey, PERMANENT, Side};
use crate::maps::Map;
use crate::netlink::Connection;
use crate::plan::now;
use crate::words;

/// Writes those of the `sides` that frames are put straight into, and has the kernel ask for the others, so that most are
/// known before the first packet. What fails here costs some packets the longer way, and no more.
pub(crate) fn seed<'a>(map: &Map<NeighbourKey, u64>, sides: impl IntoIterator<Item = &'a Side>) {
    let wanted: HashSet<_> = sides.into_iter().flat_map(keys).collect();
    if wanted.is_empty() {
        return;
    }
    let Ok(mut kernel) = Connection::open() else { return };
    let known = known(&mut kernel).unwrap_or_default();
    for key in wanted {
        match known.get(&key) {
            Some(mac) => drop(map.put(&key, mac)),
            // Who answers is heard where there is an entry.
            None => drop(map.put_new(&key, &0).map(|()| ask(&mut kernel, &key))),
        }
    }
}

/// Puts the kernel's word in the place of what was heard, and removes the neighbours that none of `sides` sends to. The
/// kernel sees none of the packets that are put straight into a port: it is told that its neighbours are in use, so that
/// it asks from time to time whether they are still there. The programs are told that this is done.
pub(crate) fn refresh<'a>(
    (map, attended): (&Map<NeighbourKey, u64>, &Map<u32, u64>),
    sides: impl Iterator<Item = &'a Side>,
) -> Result<(), DriverError> {
    attended.put(&0, &now()?)?;
    let entries = map.entries()?;
    if entries.is_empty() {
        return Ok(());
    }
    let wanted: HashSet<_> = sides.flat_map(keys).collect();
    let (wanted, unused): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| wanted.contains(key));
    let unused: Vec<_> = unused.into_iter().map(|(key, _)| key).collect();
    map.remove_all(&unused)?;
    let failed = |error| DriverError::failed("cannot ask for neighbours", error);
    let mut kernel = Connection::open().map_err(failed)?;
    let known = known(&mut kernel).map_err(failed)?;
    for (key, heard) in wanted {
        let mac = known.get(&key).copied().unwrap_or_default();
        if mac != heard {
            map.put(&key, &mac)?;
        }
        if mac != 0 && mac & PERMANENT == 0 {
            // Its port may be gone in the meantime, which is told elsewhere.
            let _ = ask(&mut kernel, &key);
        }
    }
    Ok(())
}

/// What the kernel knows, as the map has it. In the element's namespace.
fn known(kernel: &mut Connection) -> io::Result<HashMap<NeighbourKey, u64>> {
    let neighbours = kernel.neighbours()?.into_iter();
    Ok(neighbours
        .map(|neighbour| {
            let key = NeighbourKey { ifindex: neighbour.ifindex, address: words::mapped(neighbour.address) };
            let permanent = if neighbour.is_permanent { PERMANENT } else { 0 };
            (key, words::mac(neighbour.mac) | permanent)
        })
        .collect())
}

fn ask(kernel: &mut Connection, key: &NeighbourKey) -> io::Result<()> {
    kernel.use_neighbour(key.ifindex, IpAddr::from(key.address).to_canonical())
}

/// The neighbours that frames of this side are put straight to.
fn keys(side: &Side) -> impl Iterator<Item = NeighbourKey> {
    let is_direct = side.direct != 0;
    let v4 = (is_direct && side.has_v4 != 0).then(|| words::mapped(IpAddr::from(side.v4)));
    let v6 = (is_direct && side.has_v6 != 0).then_some(side.v6);
    let ifindex = side.ifindex;
    v4.into_iter().chain(v6).map(move |address| NeighbourKey { ifindex, address })
}
