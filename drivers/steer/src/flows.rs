//! The flow table, from outside. The program that goes over it is in the kernel: it counts and forgets as the others do,
//! without a copy of the table.

use catena_driver::DriverError;
use catena_model::forwarding::{PathId, SiteId};
use zerocopy::IntoBytes;

use std::os::fd::AsFd;

use crate::bpf;
use crate::layout::{SWEEP_COUNT, SWEEP_IDLE, SWEEP_PATH, SWEEP_STRANGERS, SWEEP_TALLIES, SweepRequest};
use crate::program::Program;

/// What one run goes over the table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// To forget flows that have ended, or that nothing has been seen of for long. A packet that comes just now makes
    /// its entry anew, by the policy of now.
    Idle,
    /// To count the flows of a path that are alive.
    Count(PathId),
    /// To forget the flows of a site whose addresses are not its own any more; `None` for those of any site.
    Strangers(Option<SiteId>),
    /// To forget the flows of a path; `None` for those of all paths that are not installed.
    Path(Option<PathId>),
    /// To add up what packets of known flows were counted in, so that [`counters::read`](crate::counters::read) finds it.
    Tallies,
}

const ETHERNET_HEADER: usize = 14;
/// The shortest frame that there is.
const FRAME: usize = 64;

/// How many flows were meant.
pub(crate) fn sweep(program: &Program, sweep: Sweep) -> Result<u64, DriverError> {
    let (task, of) = match sweep {
        Sweep::Idle => (SWEEP_IDLE, 0),
        Sweep::Count(path) => (SWEEP_COUNT, path.0),
        Sweep::Strangers(site) => (SWEEP_STRANGERS, site.map_or(0, |site| site.0)),
        Sweep::Tallies => (SWEEP_TALLIES, 0),
        Sweep::Path(path) => (SWEEP_PATH, path.map_or(0, |path| path.0)),
    };
    let mut frame = vec![0; ETHERNET_HEADER];
    frame.extend_from_slice(SweepRequest { task, of }.as_bytes());
    frame.resize(FRAME, 0);
    bpf::run(program.as_fd(), &frame)
        .map(u64::from)
        .map_err(|error| DriverError::failed("cannot go over the flow table", error))
}
