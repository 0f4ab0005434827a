//! Conservation: whether what goes into a function comes out of it.
//!
//! Counters of a busy element cannot be read in one moment, and packets are in functions meanwhile. So they are read
//! twice. What had gone in at the first reading and not come out at the second is [missing](Passage::missing), and what
//! had come out at the first and not gone in at the second is [surplus](Passage::surplus), however many packets passed
//! while they were read. In an idle moment both are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_model::forwarding::{Direction, InstanceState, Object};
use catena_model::name::{FunctionName, InstanceName, NodeName};
use catena_model::resource::{FunctionInstance, ServiceFunction};

use crate::report::{
    CountedKind, CountersReport, ElementState, FunctionStatus, FunctionUse, FunctionsReport, InstanceStatus,
    Passage,
};
use crate::view::View;

/// Between the two readings: longer than a packet stays in a function that is not overloaded.
const PAUSE: Duration = Duration::from_millis(50);

/// Packets and bytes.
type Amount = (u64, u64);

/// What went into instances, and what came out of them, at one reading.
#[derive(Debug, Default)]
struct Ledger {
    into: BTreeMap<(NodeName, InstanceName, Direction), Amount>,
    out_of: BTreeMap<(NodeName, InstanceName, Direction), Amount>,
}

impl View {
    /// All functions with what passed them.
    pub async fn functions(&self) -> FunctionsReport {
        let first = Ledger::of(&self.counters().await);
        tokio::time::sleep(PAUSE).await;
        let reading = self.counters().await;
        let second = Ledger::of(&reading);
        let unread: BTreeSet<&NodeName> = reading.unread.iter().map(|unread| &unread.element).collect();
        let states = self.instance_states();
        let instance = |function: &ServiceFunction, instance: &FunctionInstance| {
            let element = &instance.inside.element;
            let passage = |direction| {
                let key = (element.clone(), instance.name.clone(), direction);
                (!unread.contains(element)).then(|| passage(function, &key, &first, &second))
            };
            InstanceStatus {
                name: instance.name.clone(),
                element: element.clone(),
                element_state: self
                    .elements
                    .get(element)
                    .map_or(ElementState::Unreachable, |tracked| tracked.state),
                state: states.get(&instance.name).copied(),
                up: passage(Direction::Up),
                down: passage(Direction::Down),
            }
        };
        let function = |function: &ServiceFunction| FunctionStatus {
            name: function.name.clone(),
            insertion: function.insertion,
            instances: function.instances.iter().map(|one| instance(function, one)).collect(),
            chains: self.uses_of(&function.name),
        };
        let functions = self.intent.model.functions.values().map(function).collect();
        FunctionsReport { functions, unread: reading.unread }
    }

    /// Of all instances that are to be installed.
    fn instance_states(&self) -> BTreeMap<&InstanceName, InstanceState> {
        let objects = self.intent.expected.elements.values().flat_map(|element| element.iter());
        objects
            .filter_map(|object| match object {
                Object::Instance(instance) => Some((self.names.instance_name(instance.id)?, instance.state)),
                _ => None,
            })
            .collect()
    }

    fn uses_of(&self, function: &FunctionName) -> Vec<FunctionUse> {
        let chains = self.intent.model.chains.values();
        let uses = chains.flat_map(|chain| {
            let positions = chain.functions.iter().enumerate().filter(|(_, name)| *name == function);
            positions.map(|(position, _)| FunctionUse { chain: chain.name.clone(), position })
        });
        uses.collect()
    }
}

impl Ledger {
    fn of(reading: &CountersReport) -> Self {
        let mut ledger = Self::default();
        for counter in &reading.counters {
            let side = match counter.counted {
                CountedKind::Hop => &mut ledger.into,
                CountedKind::Returned => &mut ledger.out_of,
                _ => continue,
            };
            let (Some(instance), Some(direction)) = (&counter.instance, counter.direction) else { continue };
            let sum = side.entry((counter.element.clone(), instance.clone(), direction)).or_default();
            *sum = (sum.0 + counter.packets, sum.1 + counter.bytes);
        }
        ledger
    }
}

fn passage(
    function: &ServiceFunction,
    key: &(NodeName, InstanceName, Direction),
    first: &Ledger,
    second: &Ledger,
) -> Passage {
    let amount = |side: &BTreeMap<_, Amount>| side.get(key).copied().unwrap_or_default();
    let (packets_in, bytes_in) = amount(&second.into);
    let (packets_out, bytes_out) = amount(&second.out_of);
    let went_in = amount(&first.into).0;
    let came_out = amount(&first.out_of).0;
    let missing = went_in.saturating_sub(packets_out);
    let surplus = came_out.saturating_sub(packets_in);
    let missing = if function.insertion.returns() { missing } else { 0 };
    Passage { packets_in, bytes_in, packets_out, bytes_out, missing, surplus }
}
