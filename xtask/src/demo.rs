//! `cargo xtask demo`: the story, told in a lab of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::story::engine::Engine;
use crate::story::world::{World, eventually};
use crate::test::Tally;
use crate::workspace::{Profile, build_catena};
use crate::{apt, command, workspace};

/// What the lab that is left up is called.
const LAB: &str = "demo";

pub fn demo(keep: bool, engine: Engine) -> Result<()> {
    apt::install()?;
    apt::need_root()?;
    let catena = build_catena(Profile::Debug)?;
    let tally = tell(&catena, engine)?;
    println!("\ndemo: {} checks passed, {} failed", tally.passed, tally.failed);
    if keep {
        leave_up(&catena)?;
    }
    if tally.failed > 0 {
        bail!(
            "look at the checks with ✗ above; for a look around, `cargo xtask demo --keep` leaves the world up, and \
             `RUST_LOG=debug` makes the daemon tell more"
        );
    }
    Ok(())
}

/// Tells the story in a lab that is gone afterwards, whatever happens.
pub fn tell(catena: &Path, engine: Engine) -> Result<Tally> {
    let this = workspace::own_program()?;
    let mut lab = Command::new(catena);
    lab.current_dir(workspace::root()).args(["lab", "run", "-f", World::NETWORK, "--"]);
    lab.arg(this)
        .arg("story")
        .arg(catena)
        .args(["--engine", engine.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut running = lab.spawn().context("cannot run catena")?;
    let mut tally = None;
    for line in BufReader::new(running.stdout.take().context("the lab has no output")?).lines() {
        let line = line.context("cannot hear from the lab")?;
        match line.strip_prefix(Tally::PREFIX) {
            Some(numbers) => tally = numbers.parse().ok(),
            None => println!("{line}"),
        }
    }
    let status = running.wait().context("cannot wait for the lab")?;
    tally.with_context(|| format!("the story did not come to its end ({status})"))
}

/// Builds the world once more, with the chain and a daemon in it, and says what can be done there.
fn leave_up(catena: &Path) -> Result<()> {
    let lab = |arguments: &[&str]| {
        let mut lab = Command::new(catena);
        lab.current_dir(workspace::root()).arg("lab").args(arguments);
        lab
    };
    command::run(&mut lab(&["up", "-f", World::NETWORK, "--name", LAB]))?;
    let serve = "catena serve >/run/catena/serve.log 2>&1 &";
    command::run(&mut lab(&["exec", LAB, "--", "sh", "-c", serve]))?;
    let apply = ["exec", LAB, "--", "catena", "apply", "-f", World::CHAIN];
    let mut apply = lab(&[&apply, &World::INVENTORY[..]].concat());
    eventually(Duration::from_secs(10), || command::read("applying the chain", &mut apply).map(drop))?;
    let shown = catena.strip_prefix(workspace::root()).unwrap_or(catena).display();
    println!(
        "\nThe world is up, with a daemon and the chain in it. Try:\n\n  \
         {shown} lab exec {LAB} -- catena describe chain acme-web\n  \
         {shown} lab exec {LAB} --node alice -- curl http://198.51.100.10/\n  \
         {shown} lab exec {LAB} --node alice -- curl -m 2 http://198.51.100.66/     (the firewall forbids it)\n  \
         {shown} lab exec {LAB} -- catena trace --from 172.16.1.10 --to 198.51.100.10 --port 80\n  \
         {shown} lab exec {LAB} -- ip -n qrouter-1234 rule del priority 10136      (a damage …)\n  \
         {shown} lab exec {LAB} -- catena events                                    (… and its repair)\n  \
         {shown} lab exec {LAB}                                                     (a shell in it)\n  \
         {shown} lab down {LAB}                                                     (takes it down)"
    );
    Ok(())
}
