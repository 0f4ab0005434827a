//! Attaching the programs to ports, and telling whether they still are.
//!
//! The kernel has two ways. A filter on the port's clsact qdisc is kept by the kernel, and whoever removes it is told of
//! by netlink. A tcx link (Linux 6.6) comes before all filters, but each attaching and detaching holds the one lock of
//! all network configuration (rtnl) until RCU has settled: 8 to 16 ms a port were measured, one after the other, against
//! 0.3 ms for a filter. So filters it is, but where somebody else's program would see a packet before our filter, and
//! might take it, or let it pass for good, and so round a chain. There we attach by tcx, before all others.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use catena_driver::DriverError;
use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use crate::bpf::{self, LinkInfo, ProgramInfo};
use crate::netlink::{Connection, Filter};
use crate::pins::Pins;
use crate::program::Program;

/// A way of attaching: by tcx, before all others, or by a filter on the clsact qdisc, which is some ten times faster. What
/// suits a port is a filter, unless another program would come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Tcx,
    Clsact,
}

/// A program's place among ours at a port: whoever routes has to know what was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The preference of the filter: lower ones come first.
    priority: u32,
    /// The program that comes before, by its name in the kernel.
    behind: Option<&'static str>,
}

impl Seat {
    pub(crate) const STEER: Self = Self { priority: 202, behind: None };
    pub(crate) const ROUTE: Self = Self { priority: 203, behind: Some("catena_steer") };

    /// Whether a filter is one of ours, in whichever place.
    fn is_ours(filter: &Filter) -> bool {
        let ours = [Self::STEER.priority, Self::ROUTE.priority];
        ours.contains(&filter.priority) && (filter.handle == HANDLE || filter.handle == 0)
    }
}

/// How to attach to a port of this thread's namespace. One that was attached by tcx stays so.
fn hook_at(asked: Option<Hook>, ifindex: u32, seat: Seat) -> io::Result<Hook> {
    match asked {
        Some(hook) => return Ok(hook),
        None if bpf::count_tcx(ifindex).is_some_and(|count| count > 0) => return Ok(Hook::Tcx),
        None => {}
    }
    Ok(if is_behind_filters(ifindex, seat)? { Hook::Tcx } else { Hook::Clsact })
}

/// Whether a filter of ours would be asked after another. Of two with one preference that depends on their ages.
fn is_behind_filters(ifindex: u32, seat: Seat) -> io::Result<bool> {
    let filters = Connection::open()?.filters_at_ingress(ifindex)?;
    Ok(filters.iter().any(|other| other.priority <= seat.priority && !Seat::is_ours(other)))
}

/// What our filters are called where there are no links. Others number theirs from 1 or from 49152.
const HANDLE: u32 = 0xca7e;

/// The attachments of one element. All calls are made in its namespace.
#[derive(Debug)]
pub(crate) struct Attachments {
    asked: Option<Hook>,
    /// Held beside the pins, so that forwarding goes on if someone removes those.
    links: BTreeMap<u32, OwnedFd>,
}

impl Attachments {
    /// With the links that are pinned.
    pub(crate) fn open(asked: Option<Hook>, pins: &Pins) -> Result<Self, DriverError> {
        let mut links = BTreeMap::new();
        for ifindex in pins.links()? {
            // One that cannot be opened is found missing later.
            if let Ok(link) = bpf::pinned(&pins.link(ifindex)) {
                links.insert(ifindex, link);
            }
        }
        Ok(Self { asked, links })
    }

    /// Whether `program` still runs at any of these ports, whatever has become of the pins.
    pub(crate) fn any_alive<'a>(&self, program: &Program, mut ports: impl Iterator<Item = &'a u32>) -> bool {
        ports.any(|ifindex| self.held(*ifindex).is_some() || runs_by_filter(*ifindex, program))
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
        name: &str,
        program: &Program,
    ) -> Result<bool, DriverError> {
        let failed = |error: io::Error| DriverError::failed(format!("cannot attach to port {name}"), error);
        let hook = hook_at(self.asked, ifindex, program.seat).map_err(failed)?;
        if is_attached_by(hook, pins, ifindex, program) {
            return Ok(false);
        }
        match hook {
            Hook::Clsact => attach_filter(ifindex, program).map_err(failed),
            Hook::Tcx if bpf::count_tcx(ifindex).is_none() => Err(DriverError::Conflict {
                what: format!("a filter of a lower preference than {} at ingress of port {name}", program.seat.priority),
                help: "give it a higher one, or run Linux 6.6 or newer, where ours can come first: else it could let \
                       packets round the functions"
                    .to_owned(),
            }),
            Hook::Tcx => {
                self.attach_link(pins, ifindex, program).map_err(failed)?;
                detach_filter(pins, ifindex, program, false)?;
                Ok(false)
            }
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
        detach_filter(pins, ifindex, program, our_clsact)
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
            self.links.insert(
                ifindex,
                bpf::attach_tcx(program.as_fd(), ifindex, predecessor(ifindex, program.seat))?,
            );
        }
        let Some(link) = self.links.get(&ifindex) else { return Ok(()) };
        if !runs(link, program) {
            bpf::update_link(link.as_fd(), program.as_fd())?;
        }
        self.pin(pins)
    }
}

/// Whether `program` is what runs at the port, attached in the way that lasts.
pub(crate) fn is_attached(asked: Option<Hook>, pins: &Pins, ifindex: u32, wanted: &Program) -> bool {
    hook_at(asked, ifindex, wanted.seat).is_ok_and(|hook| is_attached_by(hook, pins, ifindex, wanted))
}

fn is_attached_by(hook: Hook, pins: &Pins, ifindex: u32, wanted: &Program) -> bool {
    match hook {
        Hook::Tcx => {
            bpf::pinned(&pins.link(ifindex)).is_ok_and(|link| is_at(&link, ifindex) && runs(&link, wanted))
        }
        Hook::Clsact => runs_by_filter(ifindex, wanted),
    }
}

fn runs_by_filter(ifindex: u32, wanted: &Program) -> bool {
    filter(ifindex, wanted).query().ok().and_then(program).is_some_and(|info| wanted.is(&info))
}

fn program(id: u32) -> Option<ProgramInfo> {
    bpf::program_info(bpf::program_by_id(id).ok()?.as_fd()).ok()
}

/// The program at tcx that one with this seat comes right after.
fn predecessor(ifindex: u32, seat: Seat) -> Option<u32> {
    let name = seat.behind?;
    bpf::tcx_programs(ifindex).into_iter().find(|id| program(*id).is_some_and(|info| info.name == name))
}

fn is_at(link: &OwnedFd, ifindex: u32) -> bool {
    matches!(bpf::link_info(link.as_fd()), Ok(Some(info)) if info.ifindex == ifindex)
}

fn runs(link: &OwnedFd, wanted: &Program) -> bool {
    let info = bpf::link_info(link.as_fd()).ok().flatten();
    info.and_then(|info| program(info.program)).is_some_and(|info| wanted.is(&info))
}

fn attach_filter(ifindex: u32, program: &Program) -> io::Result<bool> {
    let had_qdisc = Connection::open()?.has_ingress(ifindex)?;
    let mut hook = filter(ifindex, program);
    if !had_qdisc {
        hook.create().map_err(io::Error::other)?;
    }
    hook.attach().map_err(io::Error::other)?;
    Ok(!had_qdisc)
}

fn detach_filter(pins: &Pins, ifindex: u32, program: &Program, our_clsact: bool) -> Result<(), DriverError> {
    let failed = |error| DriverError::failed(format!("cannot take the tc filter off port {ifindex}"), error);
    let our_clsact = pins.inherit_clsact(ifindex) || our_clsact;
    let mut connection = Connection::open().map_err(failed)?;
    if !connection.has_ingress(ifindex).map_err(failed)? {
        return Ok(());
    }
    let mut hook = filter(ifindex, program);
    if hook.query().is_ok() {
        hook.detach().map_err(|error| failed(io::Error::other(error)))?;
    }
    if !our_clsact {
        return Ok(());
    }
    if connection.filters_at_ingress(ifindex).map_err(failed)?.iter().any(Seat::is_ours) {
        pins.leave_clsact(ifindex)
    } else if connection.has_filters(ifindex).map_err(failed)? {
        Ok(())
    } else {
        let destroyed = hook.attach_point(TC_INGRESS | TC_EGRESS).destroy();
        destroyed.map_err(|error| failed(io::Error::other(error)))
    }
}

fn filter(ifindex: u32, program: &Program) -> TcHook {
    TcHookBuilder::new(program.as_fd())
        .ifindex(ifindex as i32)
        .replace(true)
        .handle(HANDLE)
        .priority(program.seat.priority)
        .hook(TC_INGRESS)
}
