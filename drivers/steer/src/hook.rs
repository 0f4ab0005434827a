//! Attaching the programs to ports, and telling whether they still are.
//!
//! By tcx where the kernel has it (Linux 6.6), which gives links that can be pinned and updated; else by a filter on
//! the port's clsact qdisc, which the kernel keeps by itself.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use catena_driver::DriverError;
use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use crate::bpf::{self, LinkInfo, ProgramInfo};
use crate::netlink::Connection;
use crate::pins::Pins;
use crate::program::Program;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Tcx,
    Clsact,
}

impl Hook {
    /// The better one of those that the kernel has.
    pub fn best() -> Self {
        if bpf::has_tcx() { Self::Tcx } else { Self::Clsact }
    }
}

/// What our filters are called where there are no links. Others number theirs from 1 or from 49152.
const HANDLE: u32 = 0xca7e;
const PRIORITY: u32 = 202;

/// The attachments of one element. All calls are made in its namespace.
#[derive(Debug)]
pub(crate) struct Attachments {
    hook: Hook,
    /// Held beside the pins, so that forwarding goes on if someone removes those.
    links: BTreeMap<u32, OwnedFd>,
}

impl Attachments {
    /// With the links that are pinned.
    pub(crate) fn open(hook: Hook, pins: &Pins) -> Result<Self, DriverError> {
        let mut links = BTreeMap::new();
        for ifindex in pins.links()? {
            // One that cannot be opened is found missing later.
            if let Ok(link) = bpf::pinned(&pins.link(ifindex)) {
                links.insert(ifindex, link);
            }
        }
        Ok(Self { hook, links })
    }

    /// Whether any port still runs a program by a link that we hold.
    pub(crate) fn any_alive(&self) -> bool {
        self.links.keys().any(|ifindex| self.held(*ifindex).is_some())
    }

    /// Pins those links that are attached and not pinned.
    pub(crate) fn pin(&self, pins: &Pins) -> io::Result<()> {
        for (ifindex, link) in &self.links {
            let path = pins.link(*ifindex);
            if self.held(*ifindex).is_some() && !path.exists() {
                bpf::pin(link.as_fd(), &path)?;
            }
        }
        Ok(())
    }

    /// Attaches `program`, or puts it in the place of what we have there. Says whether the clsact qdisc is new.
    pub(crate) fn attach(
        &mut self,
        pins: &Pins,
        ifindex: u32,
        program: &Program,
    ) -> Result<bool, DriverError> {
        match self.hook {
            Hook::Tcx => self.attach_link(pins, ifindex, program).map(|()| false).map_err(|error| {
                DriverError::failed(format!("cannot attach by tcx to port {ifindex}"), error)
            }),
            Hook::Clsact if is_attached(self.hook, pins, ifindex, program) => Ok(false),
            Hook::Clsact => attach_filter(ifindex, program),
        }
    }

    /// Takes our program off the port, if it is there, and the qdisc if it is ours and nobody else's filters are on it.
    pub(crate) fn detach(
        &mut self,
        pins: &Pins,
        ifindex: u32,
        program: &Program,
        our_clsact: bool,
    ) -> Result<(), DriverError> {
        let pinned = bpf::pinned(&pins.link(ifindex)).ok();
        for link in self.links.remove(&ifindex).into_iter().chain(pinned) {
            // Of a port that is gone there is nothing left to detach from.
            let _ = bpf::detach_link(link.as_fd());
        }
        pins.remove(&pins.link(ifindex))?;
        if self.hook == Hook::Clsact { detach_filter(ifindex, program, our_clsact) } else { Ok(()) }
    }

    fn held(&self, ifindex: u32) -> Option<LinkInfo> {
        let info = bpf::link_info(self.links.get(&ifindex)?.as_fd()).ok()??;
        (info.ifindex == ifindex).then_some(info)
    }

    fn attach_link(&mut self, pins: &Pins, ifindex: u32, program: &Program) -> io::Result<()> {
        let path = pins.link(ifindex);
        let there = bpf::pinned(&path).ok();
        if let Some(link) = there.filter(|link| is_at(link, ifindex)) {
            self.links.insert(ifindex, link);
        } else if self.held(ifindex).is_some() {
            // Only the pin is gone.
            let _ = std::fs::remove_file(&path);
        } else {
            let _ = std::fs::remove_file(&path);
            self.links.insert(ifindex, bpf::attach_tcx(program.as_fd(), ifindex)?);
        }
        let Some(link) = self.links.get(&ifindex) else { return Ok(()) };
        if !runs(link, program) {
            bpf::update_link(link.as_fd(), program.as_fd())?;
        }
        self.pin(pins)
    }
}

/// Whether `program` is what runs at the port, attached in the way that lasts.
pub(crate) fn is_attached(hook: Hook, pins: &Pins, ifindex: u32, wanted: &Program) -> bool {
    let id = match hook {
        Hook::Tcx => bpf::pinned(&pins.link(ifindex))
            .ok()
            .and_then(|link| bpf::link_info(link.as_fd()).ok()?)
            .filter(|info| info.ifindex == ifindex)
            .map(|info| info.program),
        Hook::Clsact => filter(ifindex, wanted).query().ok(),
    };
    id.and_then(program).is_some_and(|info| wanted.is(&info))
}

fn program(id: u32) -> Option<ProgramInfo> {
    bpf::program_info(bpf::program_by_id(id).ok()?.as_fd()).ok()
}

fn is_at(link: &OwnedFd, ifindex: u32) -> bool {
    matches!(bpf::link_info(link.as_fd()), Ok(Some(info)) if info.ifindex == ifindex)
}

fn runs(link: &OwnedFd, wanted: &Program) -> bool {
    let info = bpf::link_info(link.as_fd()).ok().flatten();
    info.and_then(|info| program(info.program)).is_some_and(|info| wanted.is(&info))
}

fn attach_filter(ifindex: u32, program: &Program) -> Result<bool, DriverError> {
    let context = || format!("cannot attach a tc filter to port {ifindex}");
    let mut connection = Connection::open().map_err(|error| DriverError::failed(context(), error))?;
    let had_clsact = connection.has_clsact(ifindex).map_err(|error| DriverError::failed(context(), error))?;
    let mut hook = filter(ifindex, program);
    hook.create()
        .and_then(|mut hook| hook.attach())
        .map_err(|error| DriverError::failed(context(), error))?;
    Ok(!had_clsact)
}

fn detach_filter(ifindex: u32, program: &Program, our_clsact: bool) -> Result<(), DriverError> {
    let context = || format!("cannot take the tc filter off port {ifindex}");
    let mut connection = Connection::open().map_err(|error| DriverError::failed(context(), error))?;
    if !connection.has_clsact(ifindex).map_err(|error| DriverError::failed(context(), error))? {
        return Ok(());
    }
    let mut hook = filter(ifindex, program);
    if hook.query().is_ok() {
        hook.detach().map_err(|error| DriverError::failed(context(), error))?;
    }
    let in_use = connection.has_filters(ifindex).map_err(|error| DriverError::failed(context(), error))?;
    if our_clsact && !in_use {
        hook.attach_point(TC_INGRESS | TC_EGRESS)
            .destroy()
            .map_err(|error| DriverError::failed(context(), error))?;
    }
    Ok(())
}

fn filter(ifindex: u32, program: &Program) -> TcHook {
    TcHookBuilder::new(program.as_fd())
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(HANDLE)
        .priority(PRIORITY)
        .hook(TC_INGRESS)
}
