//! The maps of the routing program, with the types of their keys and values.

use catena_driver::DriverError;

use crate::layout::{Counter, NeighbourKey, Side};
use crate::maps::maps;
use crate::route::layout::{Class, Entrance, Lead, Own, Router, RuleKey4, RuleKey6, TableKey};

maps! {
    /// All maps of one element. Named as in `bpf/route.bpf.c`; pins have the same names.
    struct Maps {
        entrances: u32 => Entrance,
        classes: u32 => Class,
        rules4: RuleKey4 => Lead,
        rules6: RuleKey6 => Lead,
        tables: TableKey => u32,
        hops: u32 => Side,
        owns: u32 => Own,
        routers: u32 => Router,
        drops: u32 => Counter,
        neighbours: NeighbourKey => u64,
        attended: u32 => u64,
    }
}

impl Maps {
    /// A number for the next content of a port.
    pub(crate) fn next_generation(&self) -> Result<u32, DriverError> {
        let former = self.routers.get(&0)?.unwrap_or_default();
        let router = Router { generation: former.generation.wrapping_add(1), ..former };
        self.routers.put(&0, &router)?;
        Ok(router.generation)
    }
}
