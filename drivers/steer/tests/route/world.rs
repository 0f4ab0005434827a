//! The router of the tests with this driver, and how to look at it from outside.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use catena_driver_steer::{Hook, RouteConfig, RouteDriver};
use catena_model::resource::LinuxSpec;
use catena_testbed::run;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

#[derive(Default)]
pub struct World {
    testbed: catena_testbed::World,
    pub pins: Pins,
    hook: Option<Hook>,
}

impl Deref for World {
    type Target = catena_testbed::World;

    fn deref(&self) -> &Self::Target {
        &self.testbed
    }
}

/// A folder that is a BPF file system of its own.
pub struct Pins(TempDir);

impl Default for Pins {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }
}

impl Pins {
    /// As the element's engines are told.
    pub fn element(&self) -> PathBuf {
        self.0.path().join("catena").join("qrouter-1234")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

impl World {
    pub fn with(hook: Option<Hook>) -> Self {
        Self { hook, ..Self::default() }
    }

    pub fn driver(&self) -> RouteDriver {
        let config = RouteConfig {
            element: "qrouter-1234".parse().unwrap(),
            netns: self.router.clone(),
            pins: self.pins.element(),
            spec: LinuxSpec::in_netns("qrouter-1234"),
            hook: self.hook,
            look: Duration::from_millis(100),
        };
        RouteDriver::new(config).unwrap()
    }

    /// All rules, all routes of all tables, what stands at the ports, and all pins.
    pub fn snapshot(&self) -> String {
        self.shown(&["rule show", "route show table all"]) + &self.attached() + &self.pinned()
    }

    /// Programs have a number of their own each time that they are loaded.
    pub fn attached(&self) -> String {
        let ports = ["qr-abc", "qg-ext", "qg-def"].iter();
        let shown = ports.filter(|port| self.exists(port)).map(|port| {
            let filters = run(&self.router, &format!("tc filter show dev {port} ingress"));
            let filters = filters.lines().map(|line| line.split(" id ").next().unwrap_or_default());
            let filters: Vec<_> = filters.collect();
            format!(
                "{port}: {}{}",
                run(&self.router, &format!("tc qdisc show dev {port}")),
                filters.join("\n")
            )
        });
        shown.collect()
    }

    fn exists(&self, port: &str) -> bool {
        self.router
            .run(|| Command::new("ip").args(["link", "show", "dev", port]).output())
            .unwrap()
            .status
            .success()
    }

    fn pinned(&self) -> String {
        let listed = Command::new("find").arg(self.pins.0.path()).args(["-mindepth", "1"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let mut names: Vec<_> = listed.lines().collect();
        names.sort_unstable();
        names.join("\n")
    }
}
