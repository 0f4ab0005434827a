//! The paper's world as `examples/paper` has it, and Catena at work in it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::story::engine::Engine;
use crate::{command, workspace};

/// The world in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    /// The user at acme's site.
    pub alice: &'static str,
    /// The user at globex's site.
    pub bob: &'static str,
    pub server: &'static str,
    /// Another address of the server's, which the firewall forbids.
    pub forbidden: &'static str,
    /// What answers on alice's direct way.
    pub direct_way: [&'static str; 3],
    /// Source ports from here on are this family's.
    first_port: u16,
    /// The bytes before the payload of a TCP segment on an established connection, with timestamps (RFC 7323).
    pub headers: usize,
}

pub const V4: Family = Family {
    name: "IPv4",
    alice: "172.16.1.10",
    bob: "172.16.2.10",
    server: "198.51.100.10",
    forbidden: "198.51.100.66",
    direct_way: ["172.16.1.1", "203.0.113.1", "198.51.100.10"],
    first_port: 20_000,
    headers: 52,
};

pub const V6: Family = Family {
    name: "IPv6",
    alice: "2001:db8:a1::10",
    bob: "2001:db8:b1::10",
    server: "2001:db8:ffff::10",
    forbidden: "2001:db8:ffff::66",
    direct_way: ["2001:db8:a1::1", "2001:db8:c1::1", "2001:db8:ffff::10"],
    first_port: 25_000,
    headers: 72,
};

pub const FAMILIES: [Family; 2] = [V4, V6];

/// The largest inner packet of acme's tunnel: 1500 bytes less the outer IPv4 header and GRE with a key.
pub const TUNNEL_MTU: usize = 1472;

/// A function's instance and the host that is it have the same name; its inner side is its port `in`.
pub const INSTANCES: [&str; 4] = ["fw-1", "ips-1", "ips-2", "web-1"];

impl Family {
    /// A source port by its number in the story, so that both families can tell their parts at once.
    pub fn port(&self, number: u16) -> u16 {
        self.first_port + number
    }

    pub fn url(&self, address: &str, path: &str) -> String {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("http://{host}/{path}")
    }
}

/// Runs `work` for both families at once.
pub fn in_both_families<T: Send>(work: impl Fn(Family) -> Result<T> + Sync) -> Result<[T; 2]> {
    std::thread::scope(|scope| {
        let [four, six] = FAMILIES.map(|family| {
            let work = &work;
            scope.spawn(move || work(family).with_context(|| format!("over {}", family.name)))
        });
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<T>>| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a part of this check panicked"),
        };
        Ok([joined(four)?, joined(six)?])
    })
}

/// The `catena` program.
#[derive(Clone, Debug)]
pub struct Catena(pub PathBuf);

impl Catena {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        // Paths as a person would type them.
        command.args(arguments).current_dir(workspace::root()).env("NO_COLOR", "1");
        command
    }

    /// What the program prints for people.
    pub fn say(&self, arguments: &[&str]) -> Result<String> {
        command::read("catena", &mut self.command(arguments))
    }

    /// What the program prints for programs.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.say(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("catena {} prints no JSON", arguments.join(" ")))
    }

    /// The way of a packet and that of its reply.
    pub fn trace(&self, from: &str, to: &str, arguments: &[&str]) -> Result<[Way; 2]> {
        let trace = self.json(&[&["trace", "--from", from, "--to", to], arguments].concat())?;
        Ok([Way::of(&trace["request"]), Way::of(&trace["reply"])])
    }
}

/// A packet's way as `catena trace` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// With the instances of functions where they are passed.
    pub nodes: Vec<String>,
    pub functions: Vec<String>,
    pub delivered: bool,
}

impl Way {
    fn of(walk: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let mut way =
            Self { nodes: Vec::new(), functions: Vec::new(), delivered: walk["end"]["end"] == "delivered" };
        for visit in walk["visits"].as_array().into_iter().flatten() {
            way.nodes.push(text(&visit["node"]));
            for decision in visit["decisions"].as_array().into_iter().flatten() {
                if let Some(function) = decision.get("function") {
                    way.nodes.push(text(&function["instance"]));
                    way.functions.push(text(&function["instance"]));
                }
            }
        }
        way
    }
}

/// For what the story writes. Each lab has a `/run/catena` of its own, so stories can be told side by side.
pub const SCRATCH: &str = "/run/catena/story";

/// The lab's inside: the files, the program, and the daemon once it runs.
pub struct World {
    pub catena: Catena,
    pub engine: Engine,
    network: PathBuf,
    daemon: Option<Child>,
}

impl World {
    pub const NETWORK: &str = "examples/paper/network.yaml";
    pub const INVENTORY: [&str; 6] =
        ["-f", Self::NETWORK, "-f", "examples/paper/functions.yaml", "-f", "examples/paper/tenants.yaml"];
    pub const CHAIN: &str = "examples/paper/chain.yaml";
    pub const GLOBEX_CHAIN: &str = "examples/paper/globex-chain.yaml";

    pub fn new(catena: &Path, engine: Engine) -> Result<Self> {
        std::fs::create_dir_all(SCRATCH).context("cannot make a folder for the story's files")?;
        let network = engine.network()?;
        Ok(Self { catena: Catena(catena.to_owned()), engine, network, daemon: None })
    }

    /// Applies or deletes the inventory: all but the chains.
    pub fn inventory(&self, command: &str) -> Result<Value> {
        let network = self.network.to_str().context("a path of the story's is no text")?;
        let inventory = Self::INVENTORY.map(|file| if file == Self::NETWORK { network } else { file });
        self.catena.json(&[&[command], &inventory[..]].concat())
    }

    /// Starts `catena serve` and waits until it answers.
    pub fn start_daemon(&mut self) -> Result<Duration> {
        let log =
            std::fs::File::options().append(true).create(true).open(self.log()).context("no log file")?;
        let start = Instant::now();
        let mut serve = self.catena.command(&["serve"]);
        self.daemon = Some(serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        // Without a daemon the program would answer itself, and keep the store from the one that starts. A daemon that
        // was killed has left its socket behind.
        eventually(Duration::from_secs(10), || {
            let socket = std::env::var("CATENA_SOCKET").context("not in a lab")?;
            UnixStream::connect(&socket).context("the daemon does not listen")?;
            self.catena.say(&["status"]).map(drop)
        })?;
        Ok(start.elapsed())
    }

    /// As a crash would end it: it can do nothing more.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        daemon.kill().context("cannot kill the daemon")?;
        daemon.wait().context("cannot wait for the daemon")?;
        Ok(())
    }

    /// As `systemctl stop` would end it.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        command::read("ending the daemon", Command::new("kill").arg(daemon.id().to_string()))?;
        let status = daemon.wait().context("cannot wait for the daemon")?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }

    /// What has happened since the daemon started.
    pub fn events(&self) -> Result<Vec<Value>> {
        let lines = self.catena.say(&["events", "-o", "json"])?;
        lines.lines().map(|line| serde_json::from_str(line).context("an event is no JSON")).collect()
    }

    /// The last lines that the daemon logged.
    pub fn log_end(&self) -> String {
        const LINES: usize = 25;
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        Path::new(SCRATCH).join("serve.log")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // The lab's end would end it too.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Tries until it succeeds, and says how long it took; fails as it failed last.
pub fn eventually(limit: Duration, mut attempt: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("not within {} ms", limit.as_millis())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trace_is_read() {
        let walk = json!({
            "visits": [
                {"node": "alice", "decisions": []},
                {"node": "br-int", "decisions": [{"function": {"position": 0, "instance": "fw-1"}}]},
            ],
            "end": {"end": "delivered", "node": "internet"},
        });
        let way = Way::of(&walk);
        assert_eq!(way.nodes, ["alice", "br-int", "fw-1"]);
        assert_eq!(way.functions, ["fw-1"]);
        assert!(way.delivered);
    }

    #[test]
    fn patience_ends() {
        assert!(eventually(Duration::ZERO, || bail!("never")).is_err());
        assert!(eventually(Duration::ZERO, || Ok(())).is_ok());
    }
}
