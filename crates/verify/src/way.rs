//! Ways: where packets go, and why.

use catena_model::address::Family;
use catena_model::forwarding::{Direction, InstanceId, PathId, SiteId};

use crate::class::Class;
use crate::fabric::{NodeId, Place, PortId};

/// Where some packets go.
#[derive(Clone, Debug)]
pub struct Way {
    /// The packets: disjoint, of one family, at least one class.
    pub classes: Vec<Class>,
    pub hops: Vec<Hop>,
    pub passes: Vec<Pass>,
    /// It is this instance that the end comes of: flows that are given another one go another way.
    pub fault: Option<InstanceId>,
    pub end: End,
}

/// A node on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub place: Place,
    pub by: By,
}

/// What led the packets on from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing: the way ends there.
    None,
    /// The node's own routing.
    Base,
    /// One of our rules.
    Rule(PathId),
    /// The functions of a path.
    Path(PathId),
    /// A policy, without functions.
    Transit(SiteId),
}

/// A path that was taken on a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub switch: NodeId,
    pub site: SiteId,
    pub path: PathId,
    /// Whose path it is: by the exits of this site packets leave.
    pub owner: SiteId,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    Internet,
    /// Onto a link where the inventory knows nobody with the address.
    Link(PortId),
    Site(SiteId),
    /// With the customer, at the place where the walker was told to stop.
    Home,
    /// Out of the functions, and on from here by a way that is known to be well for all packets.
    Beyond(Place),
    Dropped(Cause),
    Loop,
    Undecided(Unknown),
}

/// Why it is not known what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// A foreign rule asks for something that we cannot evaluate.
    ForeignRule,
    /// Rules of equal priority lead to different places: which comes first was decided by when they were made.
    EqualRules,
    /// Several routes of the owner's are equally good.
    EqualRoutes,
    /// No link of the inventory is at the port.
    NoLink,
    /// A function has changed the addresses.
    Rewritten,
    /// The owner's packet filter may have changed them.
    Translated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoRoute,
    /// A route of the owner's says so.
    Route,
    /// A rule of the owner's says so.
    ForeignRule,
    /// A rule of ours leads into a table that is not there.
    NoTable,
    /// A rule of the owner's leads by another port than one of ours has chosen (`engine: nft`).
    OtherPort,
    NoNeighbour,
    NoTunnel,
    NoPath,
    /// A function that may not be left out has no instance that is up.
    Closed,
    /// The instance that the flow is given cannot be reached.
    Unreachable,
    /// A host that does not forward.
    Host,
    /// With a source of the site that they are for, before a function with one port.
    Forged,
    /// A later fragment whose first one has not been seen.
    Headless,
    /// An end of the cable that they would go by.
    PortDown(Place),
}

impl Way {
    /// Of packets that do not come in.
    pub fn lost(classes: Vec<Class>, cause: Cause) -> Self {
        Self { classes, hops: Vec::new(), passes: Vec::new(), fault: None, end: End::Dropped(cause) }
    }

    pub fn family(&self) -> Family {
        self.classes.first().map_or(Family::V4, |class| class.family)
    }

    pub fn last(&self) -> Option<Place> {
        self.hops.last().map(|hop| hop.place)
    }
}
