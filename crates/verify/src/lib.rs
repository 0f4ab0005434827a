//! What becomes of packets: of one, hop by hop, and of all at once, held against what the chains promise. Pure; it knows no
//! driver, and does not care whether the state was rendered or observed.
//!
//! Single packets ([`trace`], [`walk_from`]):
//!
//! - [`walk`](mod@walk): from node to node, along cables and through tunnels; [`arrivals`](mod@arrivals): at which ports
//!   captures see that;
//! - [`lookup`](mod@lookup): what one element's routing does, ours and its owner's together, by its engine;
//! - [`steering`](mod@steering): what a policy does with a packet;
//! - [`kind`](mod@kind): options, fragments and ICMP errors.
//!
//! All packets ([`verify()`]):
//!
//! - [`class`](mod@class): sets of packets, and how they are split;
//! - [`fabric`](mod@fabric): the network with its rules found by the addresses that they are about, [`prefix_index`];
//! - [`symbolic`](mod@symbolic): the walk of whole classes, at switches and at routers, and the [`way`](mod@way)s that come of it;
//!   [`tails`](mod@tails): what all sites' ways have in common;
//! - [`intent`](mod@intent): whose packets come in where, and which chain claims them;
//! - [`property`](mod@property): what chains promise, each as a function over ways;
//! - [`verify`](mod@verify): goes through all packets that chains are about; [`known`](mod@known): what it found, site by site;
//! - [`outside`](mod@outside): what others send, and what objects match that is not their site's;
//! - [`verifier`](mod@verifier): the same after a change, of what the change can be about;
//! - [`example`](mod@example): a packet for each finding; [`broken`](mod@broken): all packets of each; [`verdict`](mod@verdict):
//!   what is said in the end.
//!
//! The two walks are written apart on purpose: the plain one judges the other, in tests, and whenever a violation is told.

mod arrivals;
mod broken;
mod class;
mod decision;
mod example;
mod fabric;
mod intent;
mod kind;
mod known;
mod lookup;
mod outside;
mod prefix_index;
mod property;
mod quick_hash;
mod steering;
mod symbolic;
mod tails;
mod verdict;
mod verifier;
mod verify;
mod walk;
mod way;

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::{NodeName, PortName};
use catena_model::numbering::Numbering;
use catena_model::packet::Packet;
use catena_model::resource::Model;
use catena_model::topology::Topology;
use serde::{Deserialize, Serialize};

pub use arrivals::{Arrival, Arrivals};
pub use broken::Broken;
pub use decision::{Decision, End};
pub use kind::{Kind, Probe};
pub use lookup::of_inventory;
pub use verdict::{Coverage, Loss, Property, Report, Undecided, Verdict, Violation};
pub use verifier::{Touched, Verifier};
pub use verify::verify;
pub use walk::{Entry, walk_from};

/// All that decides where a packet goes.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    pub model: &'a Model,
    pub topology: &'a Topology,
    pub state: &'a ForwardingState,
    /// Base routing as observed. Of a node that is not in it, the inventory's word is taken.
    pub base: &'a BTreeMap<NodeName, BaseRouting>,
    /// Whose number is whose, for the report.
    pub numbering: &'a Numbering,
}

/// A packet's way, and its reply's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    pub request: Walk,
    pub reply: Walk,
}

/// One packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    pub packet: Packet,
    #[serde(default, skip_serializing_if = "Kind::is_whole")]
    pub kind: Kind,
    pub visits: Vec<Visit>,
    pub end: End,
}

/// A node that the packet comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    pub node: NodeName,
    /// `None` where the packet begins.
    pub in_port: Option<PortName>,
    /// In the order in which they were taken.
    pub decisions: Vec<Decision>,
}

impl Walk {
    /// The service function instances passed, in order.
    pub fn functions(&self) -> Vec<&str> {
        let all = self.visits.iter().flat_map(|visit| &visit.decisions);
        all.filter_map(|decision| match decision {
            Decision::Function { instance, .. } => Some(instance.as_str()),
            _ => None,
        })
        .collect()
    }
}

/// Where `packet` goes, and where the answer to it goes.
pub fn trace(network: &Network, packet: Packet) -> Trace {
    Trace { request: walk::walk(network, packet), reply: walk::walk(network, packet.reply()) }
}
