//! What can be set for an element: how much room there is, and how long things last.

use std::time::Duration;

use crate::layout::Element;

/// How large the maps are, and what one tenant may take of what all share. Maps keep the size that they were made with
/// for as long as the element has any object; all other settings can be changed at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many tenants there is room for, with several prefixes and rules each. Room that is not used takes little memory.
    pub tenants: u32,
    /// How many flows are remembered, of each IP version. More are forwarded too, by the same choice of instances.
    pub flows: u32,
    /// How many flows of one site are remembered; 0 for any number.
    pub tenant_flows: u32,
    /// How many flows of one site are remembered that were seen in one direction only; 0 for any number.
    pub tenant_half_open: u32,
    /// How many flows one site may open in a second, on average; packets that would open more are dropped. 0 for any
    /// number.
    pub tenant_new_per_second: u32,
    /// Whether senders are told of packets that do not fit a port (ICMP "fragmentation needed", ICMPv6 "packet too big").
    pub tell_too_big: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenants: 32_768,
            flows: 262_144,
            tenant_flows: 65_536,
            tenant_half_open: 16_384,
            tenant_new_per_second: 0,
            tell_too_big: false,
        }
    }
}

impl Settings {
    /// How many entries a map is made for; `None` for one whose size does not depend on settings.
    pub(crate) fn entries(&self, map: &str) -> Option<u32> {
        let per_tenant = |count: u32| Some(self.tenants.max(1).saturating_mul(count));
        match map {
            "prefixes" | "counters" => per_tenant(8),
            // Two revisions of a path stand side by side while an edit goes on, and new rules beside the old.
            "rules" | "paths" => per_tenant(4),
            "policies" => per_tenant(2),
            "loads" | "tunnels" | "tunnel_ends" | "tunnel_locals" => per_tenant(1),
            "flows4" | "flows6" => Some(self.flows.max(1)),
            _ => None,
        }
    }
}

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A flow counts as alive for this long after its last packet: as long as its path is kept for it.
    pub alive: Duration,
    /// A TCP connection whose end was seen is alive, and remembered, for this long.
    pub closed: Duration,
    /// A flow that was seen in one direction only is remembered for this long.
    pub unanswered: Duration,
    /// A TCP connection is remembered for this long (RFC 5382 section 5 asks for no less than 2 h 4 min).
    pub connection: Duration,
    /// UDP is (RFC 4787 section 4.3 recommends 5 min).
    pub conversation: Duration,
    /// Any other flow is.
    pub other: Duration,
    /// Flows are swept this often.
    pub sweep: Duration,
    /// Attachments are looked at this often, see `events`.
    pub look: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            alive: Duration::from_secs(30),
            closed: Duration::from_secs(2),
            unanswered: Duration::from_secs(30),
            connection: Duration::from_secs(2 * 3600 + 4 * 60),
            conversation: Duration::from_secs(5 * 60),
            other: Duration::from_secs(5 * 60),
            sweep: Duration::from_secs(5),
            look: Duration::from_millis(250),
        }
    }
}

/// What may be used at once of the flows that a site may open: those of a second.
const BURST: Duration = Duration::from_secs(1);

/// `element` with what the programs have to know of the settings.
pub(crate) fn write(settings: &Settings, times: &Times, element: Element) -> Element {
    let interval = match settings.tenant_new_per_second {
        0 => 0,
        rate => nanoseconds(Duration::from_secs(1)) / u64::from(rate),
    };
    Element {
        flows: settings.tenant_flows,
        half_open: settings.tenant_half_open,
        tells_too_big: settings.tell_too_big.into(),
        interval,
        burst: nanoseconds(BURST),
        closed: nanoseconds(times.closed),
        unanswered: nanoseconds(times.unanswered),
        connection: nanoseconds(times.connection),
        conversation: nanoseconds(times.conversation),
        other: nanoseconds(times.other),
        alive: nanoseconds(times.alive),
        ..element
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
