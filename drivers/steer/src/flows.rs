//! The flow table, from outside: which flows are alive, and the sweeping out of those that are not.

use std::time::Duration;

use catena_driver::DriverError;
use catena_model::address::Protocol;
use catena_model::forwarding::PathId;
use nix::time::{ClockId, clock_gettime};

use crate::Times;
use crate::layout::{FIN_BOTH, Flow, FlowKey, RESET, SEEN_BOTH};
use crate::maps::Maps;

/// How many flows of `path` are alive.
pub(crate) fn live(maps: &Maps, times: &Times, path: PathId) -> Result<u64, DriverError> {
    let now = now()?;
    let mut count = 0;
    for entry in maps.flows.batches()? {
        let (_, flow) = entry?;
        let patience = if is_closed(&flow) { times.closed } else { times.alive };
        count += u64::from(flow.path == path.0 && idle(&flow, now) < patience);
    }
    Ok(count)
}

/// Removes the entries of flows that have ended, or that nothing has been seen of for long. A packet that comes just
/// now makes its entry anew, by the policy of now.
pub(crate) fn sweep(maps: &Maps, times: &Times) -> Result<u64, DriverError> {
    let now = now()?;
    let mut count = 0;
    for entry in maps.flows.batches()? {
        let (key, flow) = entry?;
        if idle(&flow, now) >= patience(&key, &flow, times) {
            maps.flows.remove(&key)?;
            count += 1;
        }
    }
    Ok(count)
}

fn patience(key: &FlowKey, flow: &Flow, times: &Times) -> Duration {
    if is_closed(flow) {
        times.closed
    } else if flow.state & SEEN_BOTH != SEEN_BOTH {
        times.unanswered
    } else if Protocol(key.protocol) == Protocol::TCP {
        times.connection
    } else {
        times.conversation
    }
}

fn is_closed(flow: &Flow) -> bool {
    flow.state & RESET != 0 || flow.state & FIN_BOTH == FIN_BOTH
}

fn idle(flow: &Flow, now: Duration) -> Duration {
    now.saturating_sub(Duration::from_nanos(flow.seen))
}

/// The clock of `bpf_ktime_get_ns`.
pub(crate) fn now() -> Result<Duration, DriverError> {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .map_err(|error| DriverError::failed("cannot read the clock", error))
}
