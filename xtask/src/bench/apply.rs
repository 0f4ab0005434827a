//! How long applying the paper's chain takes in the demo's world: from the request at the daemon's socket to the answer,
//! which says that it is installed and confirmed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::story::engine::Engine;
use crate::story::world::World;
use crate::workspace::{Profile, build_catena};
use crate::{apt, command, workspace};

/// Before each request, so that it does not wait for what the daemon does on its own after the one before: people do not
/// delete and apply in one breath.
const REST: Duration = Duration::from_millis(300);

pub fn apply(n: usize) -> Result<Value> {
    ensure!(n > 0, "measure at least once");
    apt::install()?;
    apt::need_root()?;
    let catena = build_catena(Profile::Release)?;
    let this = workspace::own_program()?;
    let mut lab = Command::new(&catena);
    lab.current_dir(workspace::root()).args(["lab", "run", "-f", World::NETWORK, "--"]);
    lab.arg(this).args(["bench", "apply-inside"]).arg(&catena).arg(n.to_string());
    let figures = command::read("applying and deleting the chain", &mut lab)?;
    serde_json::from_str(&figures).context("the lab does not print figures")
}

/// What runs in the lab. Prints the figures.
pub fn inside(catena: &Path, n: usize) -> Result<()> {
    let mut world = World::new(catena, Engine::default())?;
    world.start_daemon()?;
    world.inventory("apply")?;
    let text = std::fs::read_to_string(workspace::root().join(World::CHAIN)).context("no chain")?;
    let request = json!({"sources": [{"name": World::CHAIN, "text": text}]});
    let (mut applied, mut deleted) = (Vec::new(), Vec::new());
    // The first is not measured: it finds cold caches.
    for round in 0..=n {
        std::thread::sleep(REST);
        let there = ask("apply", &request)?;
        std::thread::sleep(REST);
        let gone = ask("delete", &request)?;
        if round > 0 {
            applied.push(there);
            deleted.push(gone);
        }
    }
    world.stop_daemon()?;
    let figures = json!({
        "p50_ms": percentile(&mut applied, 50),
        "p99_ms": percentile(&mut applied, 99),
        "n": n,
        "delete_p50_ms": percentile(&mut deleted, 50),
    });
    println!("{figures}");
    Ok(())
}

/// Puts a question to the daemon, and says how long the answer took.
fn ask(question: &str, body: &Value) -> Result<Duration> {
    let socket = std::env::var("CATENA_SOCKET").context("not in a lab")?;
    let body = body.to_string();
    let start = Instant::now();
    let mut stream = UnixStream::connect(&socket).with_context(|| format!("no daemon at {socket}"))?;
    write!(
        stream,
        "POST /v1alpha1/{question} HTTP/1.1\r\nHost: catena\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let time = start.elapsed();
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{question} was answered:\n{answer}");
    }
    Ok(time)
}

/// In milliseconds: the smallest time that so many per cent of all do not exceed.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(f64::NAN, |time| (time.as_secs_f64() * 1e6).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), 100.0);
        assert_eq!(percentile(&mut times, 99), 198.0);
        assert_eq!(percentile(&mut [Duration::from_millis(7)], 99), 7.0);
    }
}
