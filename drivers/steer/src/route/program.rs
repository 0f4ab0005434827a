//! The routing program: compiled by the build, verified and loaded by the kernel here.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use catena_driver::DriverError;
use libbpf_rs::OpenObject;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};

use crate::hook::Seat;
use crate::pins::Pins;
use crate::program::{Program, map_of, not_loaded, prepare, quiet_libbpf};
use crate::route::maps::Maps;

pub(crate) mod skeleton {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, unused)]
    include!(concat!(env!("OUT_DIR"), "/route.skel.rs"));
}

/// The program and its maps.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) maps: Maps,
    /// The kernel's numbers of the maps.
    pub(crate) ids: BTreeSet<u32>,
    pub(crate) route: Program,
}

impl Programs {
    /// Loads the program into the kernel, on those maps that are pinned and new ones for the rest. Pins nothing.
    pub(crate) fn load(pins: &Pins, tenants: u32) -> Result<Self, DriverError> {
        quiet_libbpf();
        let mut storage = MaybeUninit::<OpenObject>::uninit();
        let mut open = skeleton::RouteSkelBuilder::default()
            .open(&mut storage)
            .map_err(|error| DriverError::failed("cannot read the routing program", error))?;
        prepare(open.open_object_mut(), pins, |map| entries(map, tenants))?;
        let loaded = open.load().map_err(not_loaded)?;
        let maps = Maps::find(|name| map_of(loaded.object(), name))?;
        let ids = maps.ids()?;
        Ok(Self { maps, route: Program::new(&loaded.progs.catena_route, &ids, Seat::ROUTE)?, ids })
    }
}

/// How many entries a map is made for; `None` for one whose size does not depend on the number of tenants. A tenant can
/// have several prefixes in either direction, and two revisions of its paths stand side by side while an edit goes on.
fn entries(map: &str, tenants: u32) -> Option<u32> {
    const EACH: u32 = 8;
    let grows = matches!(map, "rules4" | "rules6" | "tables");
    grows.then_some(tenants.max(1).saturating_mul(EACH))
}
