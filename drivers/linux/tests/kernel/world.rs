//! The router of the tests with this driver, and how to look at it from outside.

use std::ops::Deref;

use catena_driver_linux::{LinuxConfig, LinuxDriver};
use catena_model::resource::LinuxSpec;

#[derive(Default)]
pub struct World(catena_testbed::World);

impl Deref for World {
    type Target = catena_testbed::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl World {
    pub fn driver(&self) -> LinuxDriver {
        LinuxDriver::new(LinuxConfig {
            element: "qrouter-1234".parse().unwrap(),
            netns: self.router.clone(),
            spec: LinuxSpec::in_netns("qrouter-1234"),
        })
    }

    /// All rules, all routes of all tables and all addresses.
    pub fn snapshot(&self) -> String {
        self.shown(&["rule show", "route show table all", "address show"])
    }
}
