//! Chapter 6: one line of the chain's file is edited and applied again, while a connection goes on.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::story::Story;
use crate::story::chained::{passes_in_order, planned_elements};
use crate::story::journey::follow;
use crate::story::node::Web;
use crate::story::talk::{Client, Talk};
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
    story.check("after apply, new connections pass ips before fw; one that was open goes on", || {
        let server = SocketAddr::new(V4.server.parse::<IpAddr>()?, 80);
        let talk = Talk { server, sizes: vec![100, 1000], milliseconds: 2500 };
        let open = Client::start("alice", &talk)?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        world.catena.say(&["apply", "-f", &edited])?;
        let mut shown = String::new();
        for family in FAMILIES {
            let journey = follow(family, "alice", family.port(301))?;
            ensure!(journey.web == Web::Status(200), "the answer over {}: {:?}", family.name, journey.web);
            shown = passes_in_order(&journey, &["ips-", "fw-1", "web-1"])?;
        }
        let said = open.wait().context("the connection that was open")?;
        Ok(format!(
            "{shown}; {} messages on the open connection, the slowest took {} ms",
            said.messages,
            said.longest.as_millis()
        ))
    });
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
