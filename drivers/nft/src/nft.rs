//! Running nft(8) in the element's namespace.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use catena_driver::DriverError;
use catena_driver::hops::Place;
use catena_driver::netns::NetNs;
use serde_json::{Value, json};

use crate::ruleset::{Ruleset, TABLE};

/// So many of our own transactions can be told from others' when the kernel tells of them, a moment later.
const REMEMBERED: usize = 32;

pub(crate) struct Nft {
    place: Place,
    netns: NetNs,
    /// Process ids of our last calls: the kernel calls a program's first netlink socket by the program's.
    own: Mutex<VecDeque<u32>>,
}

impl Nft {
    pub(crate) fn new(place: Place, netns: NetNs) -> Self {
        Self { place, netns, own: Mutex::default() }
    }

    /// Our table; `None` if there is none.
    pub(crate) fn list(&self) -> Result<Option<Ruleset>, DriverError> {
        let doing = format!("nft -jn list table inet {TABLE}");
        let output = self.run(&["-jn", "list", "table", "inet", TABLE], "", &doing)?;
        let error = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && error.contains("No such file or directory") {
            return Ok(None);
        }
        self.expect_success(&output, &doing)?;
        let listing: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| self.failed(&doing, error))?;
        let objects =
            listing["nftables"].as_array().ok_or_else(|| self.failed(&doing, "not a list of objects"))?;
        Ok(Some(Ruleset::read(objects)))
    }

    /// Makes all of these changes at once, or none.
    pub(crate) fn commit(&self, commands: &[Value]) -> Result<(), DriverError> {
        if commands.is_empty() {
            return Ok(());
        }
        const DOING: &str = "nft -j -f -";
        let output = self.run(&["-j", "-f", "-"], &json!({"nftables": commands}).to_string(), DOING)?;
        self.expect_success(&output, DOING)?;
        tracing::info!(element = %self.place.element, commands = commands.len(), "{DOING}");
        Ok(())
    }

    /// Whether a socket with this number made one of our own last changes.
    pub(crate) fn is_own(&self, socket: u32) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(&socket)
    }

    fn run(&self, arguments: &[&str], input: &str, doing: &str) -> Result<Output, DriverError> {
        let mut command = Command::new("nft");
        // What it says is looked at.
        command.args(arguments).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let finished = self.netns.run(|| {
            let mut child = command.spawn()?;
            self.remember(child.id());
            if let Some(mut stdin) = child.stdin.take() {
                // One that ends early has said why.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        });
        finished.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DriverError::Unsupported {
                what: format!("{}: nft(8) is not there", self.place),
                help: "install nftables (apt-get install nftables), or leave out the driver's engine"
                    .to_owned(),
            },
            _ => self.failed(doing, error),
        })
    }

    fn remember(&self, process: u32) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.push_back(process);
        if own.len() > REMEMBERED {
            own.pop_front();
        }
    }

    fn expect_success(&self, output: &Output, doing: &str) -> Result<(), DriverError> {
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("Operation not permitted") {
            return Err(DriverError::Unsupported {
                what: format!("{}: {doing}: {}", self.place, said.trim()),
                help: "give the controller CAP_NET_ADMIN in this namespace, or run it as root".to_owned(),
            });
        }
        Err(self.failed(doing, said.trim()))
    }

    fn failed(
        &self,
        doing: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> DriverError {
        DriverError::failed(format!("{}: {doing}", self.place), source)
    }
}
