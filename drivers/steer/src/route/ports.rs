//! Which of the element's ports the program stands at, and which are closed for what it has not looked at.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_model::address::Family;
use catena_model::name::PortName;

use crate::device::HIDDEN_PORT;
use crate::netlink::{Connection, Link};
use crate::route::contents::Contents;
use crate::route::layout::Own;

/// The links of this thread's namespace, and its own addresses.
#[derive(Debug)]
pub(crate) struct Ports {
    links: Vec<Link>,
    pub(crate) own: Box<Own>,
}

impl Ports {
    pub(crate) fn read(own: Own) -> Result<Self, DriverError> {
        let links = Connection::open().and_then(|mut connection| connection.links());
        let links = links.map_err(|error| DriverError::failed("cannot ask for ports", error))?;
        Ok(Self { links, own: Box::new(own) })
    }

    pub(crate) fn find(&self, name: &PortName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }

    /// Where the program has to look: at the ports that rules name, and, if a rule is for all, at every port that the kernel
    /// routes packets from. What comes in by a bridge's port, or a bond's, comes in by the bridge or bond.
    pub(crate) fn entered(&self, contents: &Contents) -> impl Iterator<Item = &Link> {
        let named = contents.named_ports();
        let all = contents.is_for_all_ports();
        self.links.iter().filter(move |link| {
            let routes = !link.is_loopback && !link.has_master && link.name != HIDDEN_PORT;
            let is_named = || named.iter().any(|name| name.as_str() == link.name);
            (all && routes) || is_named()
        })
    }

    /// Those of them, and those that rules name and that are not there, at which packets of the family are looked up.
    pub(crate) fn closed(&self, contents: &Contents, family: Family) -> BTreeSet<PortName> {
        let entered = self.entered(contents).filter_map(|link| PortName::new(&link.name).ok());
        let named = contents.named_ports().into_iter().cloned();
        entered.chain(named).filter(|port| !contents.asked(port, family).is_empty()).collect()
    }
}
