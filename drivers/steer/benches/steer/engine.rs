//! The engine that is measured, by its front door: the driver.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use catena_driver::{Counted, Driver as _, Epoch};
use catena_driver_steer::{Config, Settings, SteerDriver, Times};
use catena_model::forwarding::{Change, Kind, Object};
use tokio::runtime::Runtime;

use crate::world::{Host, Pins};

/// There is room for these.
const TENANTS: u32 = 100_000;

pub struct Engine {
    driver: SteerDriver,
    runtime: Runtime,
    pins: Pins,
}

impl Engine {
    /// On a host, with nothing installed.
    pub fn start(host: &Host) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pins = Pins::new()?;
        let driver = {
            let _context = runtime.enter();
            SteerDriver::new(Config {
                element: "bench".parse().map_err(anyhow::Error::msg)?,
                netns: host.netns.clone(),
                pins: pins.folder(),
                mark: 0x0400_0000,
                hook: None,
                settings: Settings {
                    tenants: TENANTS,
                    tenant_flows: 0,
                    tenant_half_open: 0,
                    ..Settings::default()
                },
                times: Times::default(),
            })
        };
        Ok(Self { driver: driver.context("cannot start the engine")?, runtime, pins })
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

    pub fn can(&self, kind: Kind) -> bool {
        self.driver.capabilities().contains(&kind)
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

pub fn puts(objects: impl IntoIterator<Item = Object>) -> Vec<Change> {
    objects.into_iter().map(|new| Change::Put { new, old: None }).collect()
}
