//! Doing things on the nodes of the lab: each is a network namespace of its name.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// A command that runs on a node.
pub fn on(node: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", node, program]);
    command
}

/// Runs a line of shell-like words on a node and gives back what it prints.
pub fn ask(node: &str, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("no command")?;
    command::read(line, on(node, program).args(words))
}

/// What came of a web request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Web {
    /// The server answered with this status.
    Status(u16),
    /// Something on the way sent a TCP reset.
    Reset,
    /// Nothing came back.
    Silence,
}

/// A web request by curl.
pub struct Request<'a> {
    pub from: &'a str,
    pub url: &'a str,
    pub arguments: &'a [&'a str],
}

impl<'a> Request<'a> {
    /// Long enough for one lost SYN to be sent again.
    const PATIENCE: &'static str = "2.5";

    pub fn new(from: &'a str, url: &'a str) -> Self {
        Self { from, url, arguments: &[] }
    }

    pub fn with(self, arguments: &'a [&'a str]) -> Self {
        Self { arguments, ..self }
    }

    pub fn send(&self) -> Result<Web> {
        let mut curl = on(self.from, "curl");
        curl.args([
            "--silent",
            "--show-error",
            "--globoff",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        curl.args(["--max-time", Self::PATIENCE]).args(self.arguments).arg(self.url);
        let output = command::output(&format!("{} asks for {}", self.from, self.url), &mut curl)?;
        // Exit codes from curl(1).
        match output.status.code() {
            Some(0) => {
                let status = String::from_utf8_lossy(&output.stdout);
                Ok(Web::Status(status.trim().parse().with_context(|| format!("not a status: {status}"))?))
            }
            Some(7 | 35 | 56) => Ok(Web::Reset),
            Some(28) => Ok(Web::Silence),
            _ => bail!("`{}` failed{}", command::shown(&curl), command::indented(&output)),
        }
    }
}

/// Whether a ping is answered.
pub fn ping(from: &str, to: &str) -> Result<bool> {
    let mut ping = on(from, "ping");
    ping.args(["-n", "-c", "1", "-W", "3", to]);
    Ok(command::output(&format!("{from} pings {to}"), &mut ping)?.status.success())
}

/// The routers on the way, as they answer to packets whose time to live runs out, and last the destination itself.
pub fn routers(from: &str, to: &str) -> Result<Vec<String>> {
    const FARTHEST: u8 = 10;
    let mut way = Vec::new();
    for hops in 1..=FARTHEST {
        let mut ping = on(from, "ping");
        ping.args(["-n", "-c", "1", "-W", "3", "-t", &hops.to_string(), to]);
        let output = command::output(&format!("{from} looks for hop {hops} to {to}"), &mut ping)?;
        if output.status.success() {
            way.push(to.to_owned());
            return Ok(way);
        }
        // `From 203.0.113.1 icmp_seq=1 Time to live exceeded`, with IPv6 `From 2001:db8::1: icmp_seq=1 …` at times
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let router = text.lines().find_map(|line| line.strip_prefix("From ")?.split(' ').next());
        way.push(router.unwrap_or("?").trim_end_matches(':').to_owned());
    }
    bail!("{to} is not reached within {FARTHEST} hops: {}", way.join(", "))
}
