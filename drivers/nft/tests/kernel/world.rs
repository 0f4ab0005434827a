//! The router of the tests with this driver, and how to look at it from outside.

use std::ops::Deref;

use catena_driver_nft::{NftConfig, NftDriver};
use catena_model::resource::LinuxSpec;
use catena_testbed::run;

#[derive(Default)]
pub struct World(catena_testbed::World);

impl Deref for World {
    type Target = catena_testbed::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl World {
    pub fn driver(&self) -> NftDriver {
        NftDriver::new(NftConfig {
            element: "qrouter-1234".parse().unwrap(),
            netns: self.router.clone(),
            spec: LinuxSpec::in_netns("qrouter-1234"),
        })
    }

    pub fn nft(&self, arguments: &str) -> String {
        run(&self.router, &format!("nft '{arguments}'"))
    }

    /// All rules, all routes of all tables, and all of nftables but for handles, which number what was ever made.
    pub fn snapshot(&self) -> String {
        self.shown(&["rule show", "route show table all"]) + &self.nft("list ruleset")
    }
}
