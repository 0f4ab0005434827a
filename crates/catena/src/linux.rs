//! What installs forwarding state on an element that is a Linux network namespace.

use std::sync::Arc;
use std::time::Duration;

use catena_driver::{Driver, DriverError};
use catena_driver_linux::{LinuxConfig, LinuxDriver};
use catena_driver_nft::{NftConfig, NftDriver};
use catena_driver_steer::{Config, RouteConfig, RouteDriver, Settings, SteerDriver, Times};
use catena_model::resource::{Engine, IdleTimes, SteerSettings};
use catena_replay::{Place, Workshop};

use crate::engine::Routing;

/// For rules and tables, by the engine that the element's settings name.
pub fn routing(place: &Place) -> Result<Arc<dyn Driver>, DriverError> {
    let linux = owner(place);
    let Place { element, netns, spec, pins } = place.clone();
    Ok(match spec.engine {
        Engine::Rules => Arc::new(linux),
        Engine::Nft => {
            let nft = NftDriver::new(NftConfig { element, netns, spec });
            Arc::new(Routing::new(Arc::new(nft), linux))
        }
        Engine::Steer => {
            let look = times(&spec.steer.idle).look;
            let config = RouteConfig { element, netns, pins, spec, hook: None, look };
            Arc::new(Routing::new(Arc::new(RouteDriver::new(config)?), linux))
        }
    })
}

/// For all other objects.
pub fn steering(place: &Place, settings: Settings) -> Result<Arc<dyn Driver>, DriverError> {
    let Place { element, netns, spec, pins } = place.clone();
    let (mark, times) = (spec.mark, times(&spec.steer.idle));
    let config = Config { element, netns, pins, mark, hook: None, settings, times };
    Ok(Arc::new(SteerDriver::new(config)?))
}

/// What the element's settings say of the steering engine's room.
pub fn settings(steer: &SteerSettings) -> Settings {
    let SteerSettings { tenants, flows, tenant_limits, tell_too_big, idle: _ } = *steer;
    Settings {
        tenants,
        flows,
        tenant_flows: tenant_limits.flows,
        tenant_half_open: tenant_limits.half_open,
        tenant_new_per_second: tenant_limits.new_per_second,
        tell_too_big,
    }
}

/// The drivers of a copy's elements, which few flows are to pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfCopies;

impl OfCopies {
    /// Flows that an element of a copy has room for.
    const FLOWS: u32 = 8192;
}

impl Workshop for OfCopies {
    fn routing(&self, place: &Place) -> Result<Arc<dyn Driver>, DriverError> {
        routing(place)
    }

    fn steering(&self, place: &Place) -> Result<Arc<dyn Driver>, DriverError> {
        let steer = &place.spec.steer;
        let room = Settings {
            flows: Self::FLOWS.min(steer.flows),
            tenant_flows: 0,
            tenant_half_open: 0,
            tenant_new_per_second: 0,
            ..settings(steer)
        };
        steering(place, room)
    }

    fn owner(&self, place: &Place) -> Arc<dyn Driver> {
        Arc::new(owner(place))
    }
}

fn owner(place: &Place) -> LinuxDriver {
    let Place { element, netns, spec, pins: _ } = place.clone();
    LinuxDriver::new(LinuxConfig { element, netns, spec })
}

fn times(idle: &IdleTimes) -> Times {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Times {
        connection: seconds(idle.tcp),
        closed: seconds(idle.tcp_closing),
        unanswered: seconds(idle.half_open),
        conversation: seconds(idle.udp),
        other: seconds(idle.other),
        ..Times::default()
    }
}
