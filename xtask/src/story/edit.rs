//! Chapter 6: one line of the chain's file is edited and applied again, while a connection goes on.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::story::Story;
use crate::story::chained::{passes_in_order, planned_elements};
use crate::story::journey::follow;
use crate::story::node::Web;
use crate::story::talk::{Talk, Watched};
use crate::story::world::{FAMILIES, SCRATCH, V4, World};
use crate::workspace;

pub fn tell(world: &World, story: &mut Story) {
    let edited = match edited_chain() {
        Ok(path) => path.display().to_string(),
        Err(error) => return story.check::<String>("the chain's file is edited", || Err(error)),
    };
    story.check("catena plan tells what the edit will change, element by element", || {
        let report = world.catena.json(&["plan", "-f", &edited])?;
        let elements = planned_elements(&report);
        ensure!(elements.contains("br-int"), "it changes {elements:?}");
        for line in world.catena.say(&["plan", "-f", &edited])?.lines() {
            println!("      {line}");
        }
        Ok("")
    });
    story.check(
        "after apply, new connections pass ips before fw; one that was open stays on its path",
        || {
            let server = SocketAddr::new(V4.server.parse::<IpAddr>()?, 80);
            let open = Watched::start("alice", &Talk { server, sizes: vec![100, 1000], milliseconds: 2500 })?;
            std::thread::sleep(Duration::from_millis(500));
            world.catena.say(&["apply", "-f", &edited])?;
            let before = passed(world, 1)?;
            let mut shown = String::new();
            for family in FAMILIES {
                let journey = follow(family, "alice", family.port(301))?;
                ensure!(
                    journey.web == Web::Status(200),
                    "the answer over {}: {:?}",
                    family.name,
                    journey.web
                );
                shown = passes_in_order(&journey, &["ips-", "fw-1", "web-1"])?;
            }
            let said = open.wait().context("the connection that was open")?;
            let on_old_path = passed(world, 1)? - before;
            // Each message is a request and an answer at least, each way.
            ensure!(on_old_path > said.messages, "{on_old_path} packets of {} messages", said.messages);
            Ok(format!("{shown}; {} messages on the open connection, nothing lost", said.messages))
        },
    );
}

/// How many packets the first function of a chain's generation has been given.
fn passed(world: &World, generation: u64) -> Result<u64> {
    let counters = world.catena.json(&["get", "counters"])?;
    let all = counters.as_array().into_iter().flatten();
    let first_hop = all.filter(|counter| {
        counter["counted"] == "hop" && counter["position"] == 0 && counter["generation"] == generation
    });
    Ok(first_hop.filter_map(|counter| counter["packets"].as_u64()).sum())
}

/// A copy of the chain's file, one line of it edited.
fn edited_chain() -> Result<PathBuf> {
    let text = std::fs::read_to_string(workspace::root().join(World::CHAIN)).context("no chain")?;
    let edited = text.replacen("[fw, ips, web]", "[ips, fw, web]", 1);
    let different = text.lines().zip(edited.lines()).filter(|(old, new)| old != new).count();
    ensure!(different == 1, "{different} lines of {} were edited", World::CHAIN);
    let path = Path::new(SCRATCH).join("chain.yaml");
    std::fs::write(&path, edited).context("cannot write the edited chain")?;
    Ok(path)
}
