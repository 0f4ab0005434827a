//! What was counted, and what follows from it.

use std::fmt;

pub use catena_driver::DropReason;
use catena_model::forwarding::{Direction, Insertion, InstanceState, PathId};
use catena_model::name::{ChainName, FunctionName, InstanceName, NodeName, SiteName, TenantName};
use serde::{Deserialize, Serialize};

use super::ElementState;

/// One reading of the counters of all elements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountersReport {
    pub counters: Vec<CounterReport>,
    /// The elements whose counters are not among them.
    pub unread: Vec<UnreadElement>,
}

/// An element whose counters could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadElement {
    pub element: NodeName,
    pub why: String,
}

/// A driver's counter, its numbers turned into names. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterReport {
    pub element: NodeName,
    pub counted: CountedKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Of a hop, none: on paths that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// 0 is the first function on the way up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DropReason>,
    pub packets: u64,
    pub bytes: u64,
}

/// The kinds of [`catena_driver::Counted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CountedKind {
    Hop,
    Returned,
    Exit,
    Transit,
    Claimed,
    Encapsulated,
    Decapsulated,
    Dropped,
}

/// The functions, and whether as many packets came out of them as went in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionsReport {
    pub functions: Vec<FunctionStatus>,
    /// Elements whose counters could not be read: what went through the functions there is not known.
    pub unread: Vec<UnreadElement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    pub name: FunctionName,
    pub insertion: Insertion,
    pub instances: Vec<InstanceStatus>,
    /// The chains that have it, by name.
    pub chains: Vec<FunctionUse>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionUse {
    pub chain: ChainName,
    /// Where in the chain: 0 is the first function on the way up.
    pub position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    pub name: InstanceName,
    /// The switch that it is attached to.
    pub element: NodeName,
    pub element_state: ElementState,
    /// `None`: no path uses it, so it is not installed.
    pub state: Option<InstanceState>,
    /// From the site to the Internet; `None` if its counters could not be read.
    pub up: Option<Passage>,
    /// From the Internet to the site.
    pub down: Option<Passage>,
}

/// What went into an instance in one direction, and what came out of it, since it was installed.
///
/// `missing` and `surplus` are lower bounds that hold whatever is on its way meanwhile. A function that both drops packets
/// and sends packets of its own has more of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Passage {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    /// At least so many packets went in and did not come out: dropped by the function on purpose, lost in it, or held.
    /// 0 where none is expected to come out.
    pub missing: u64,
    /// At least so many packets came out that had not gone in: made by the function.
    pub surplus: u64,
}

impl FunctionsReport {
    pub fn function(&self, name: &str) -> Option<&FunctionStatus> {
        self.functions.iter().find(|function| function.name.as_str() == name)
    }
}

impl InstanceStatus {
    /// Both directions, as far as they are known.
    pub fn passages(&self) -> impl Iterator<Item = (Direction, Passage)> + use<> {
        [(Direction::Up, self.up), (Direction::Down, self.down)]
            .into_iter()
            .filter_map(|(direction, passage)| Some((direction, passage?)))
    }

    /// What does not add up, in a sentence for each direction.
    pub fn imbalances(&self) -> Vec<String> {
        let Self { name, .. } = self;
        let sentence = |(direction, passage): (Direction, Passage)| match passage {
            Passage { missing: 0, surplus: 0, .. } => None,
            Passage { missing: 0, surplus, .. } => {
                let packets = Packets(surplus);
                Some(format!(
                    "{packets} came out of {name} on the way {direction} that had not gone in: of its own making"
                ))
            }
            Passage { missing, .. } => {
                let packets = Packets(missing);
                Some(format!(
                    "{packets} went in to {name} on the way {direction} and did not come out: dropped by the function, or lost"
                ))
            }
        };
        self.passages().filter_map(sentence).collect()
    }

    /// Whether it gives nothing back of all that it was handed, in either direction, and that was no handful.
    pub fn swallows_everything(&self) -> bool {
        /// Fewer may be one connection that it refuses.
        const HANDFUL: u64 = 10;
        let sum = |of: fn(Passage) -> u64| self.passages().map(|(_, passage)| of(passage)).sum::<u64>();
        sum(|passage| passage.missing) >= HANDFUL && sum(|passage| passage.packets_out) == 0
    }
}

/// So many packets, in words.
#[derive(Clone, Copy, Debug)]
pub struct Packets(pub u64);

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 packet"),
            number => write!(f, "{number} packets"),
        }
    }
}
