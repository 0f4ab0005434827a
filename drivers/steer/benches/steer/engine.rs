//! The engine that is measured, by its front door: the driver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use catena_driver::{Counted, Driver, DriverError, Epoch};
use catena_driver_steer::{Config, RouteConfig, RouteDriver, Settings, SteerDriver, Times};
use catena_model::forwarding::{Change, Object};
use catena_model::resource::{LinuxSpec, SteerSettings};
use tokio::runtime::Runtime;

use crate::world::{Host, Pins};

/// There is room for these.
const TENANTS: u32 = 100_000;

pub struct Engine {
    driver: Box<dyn Driver>,
    runtime: Runtime,
    pins: Pins,
}

impl Engine {
    /// The steering engine on a host, with nothing installed.
    pub fn start(host: &Host) -> Result<Self> {
        Self::with(|pins| {
            let driver = SteerDriver::new(Config {
                element: "bench".parse().map_err(|error| DriverError::failed("its name", error))?,
                netns: host.netns.clone(),
                pins,
                mark: LinuxSpec::MARK,
                hook: None,
                settings: Settings {
                    tenants: TENANTS,
                    tenant_flows: 0,
                    tenant_half_open: 0,
                    ..Settings::default()
                },
                times: Times::default(),
            })?;
            Ok(Box::new(driver))
        })
    }

    /// The routing engine.
    pub fn routing(host: &Host) -> Result<Self> {
        Self::with(|pins| {
            let driver = RouteDriver::new(RouteConfig {
                element: "bench".parse().map_err(|error| DriverError::failed("its name", error))?,
                netns: host.netns.clone(),
                pins,
                spec: LinuxSpec {
                    steer: SteerSettings { tenants: TENANTS, ..SteerSettings::default() },
                    ..LinuxSpec::default()
                },
                hook: None,
                look: Times::default().look,
            })?;
            Ok(Box::new(driver))
        })
    }

    fn with(driver: impl FnOnce(PathBuf) -> Result<Box<dyn Driver>, DriverError>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pins = Pins::new()?;
        let driver = {
            let _context = runtime.enter();
            driver(pins.folder()).context("cannot start the engine")?
        };
        Ok(Self { driver, runtime, pins })
    }

    /// Checks and installs.
    pub fn put(&self, objects: impl IntoIterator<Item = Object>) -> Result<()> {
        let changes = puts(objects);
        self.runtime
            .block_on(self.driver.check(&changes))
            .context("the engine refuses what is to be measured")?;
        self.apply(&changes).map(drop)
    }

    /// Says how long it took.
    pub fn apply(&self, changes: &[Change]) -> Result<Duration> {
        let start = Instant::now();
        self.runtime
            .block_on(self.driver.apply(Epoch(1), changes))
            .context("the engine cannot install what is to be measured")?;
        Ok(start.elapsed())
    }

    /// Nothing that is measured is to be dropped.
    pub fn expect_no_drops(&self) -> Result<()> {
        let counters = self.runtime.block_on(self.driver.counters())?;
        let dropped = counters.iter().filter(|counter| matches!(counter.of, Counted::Dropped { .. }));
        let dropped: Vec<_> = dropped.filter(|counter| counter.packets > 0).collect();
        ensure!(dropped.is_empty(), "the engine dropped packets: {dropped:?}");
        Ok(())
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

pub fn puts(objects: impl IntoIterator<Item = Object>) -> Vec<Change> {
    objects.into_iter().map(|new| Change::Put { new, old: None }).collect()
}
