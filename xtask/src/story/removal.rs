//! Chapter 10: all is deleted, and the machine is as it was before the first command.

use anyhow::{Result, bail, ensure};

use crate::story::Story;
use crate::story::journey::follow;
use crate::story::node::Web;
use crate::story::snapshot::Snapshot;
use crate::story::watch::foreign_objects_are_there;
use crate::story::world::{World, in_both_families};

pub fn tell(world: &mut World, story: &mut Story, before: &Snapshot) {
    story.check("catena delete: alice goes the direct way again", || {
        world.catena.say(&["delete", "-f", World::CHAIN])?;
        let [four, _] = in_both_families(|family| {
            let journey = follow(family, "alice", family.port(601))?;
            ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
            ensure!(journey.functions().is_empty(), "it went {}", journey.shown());
            Ok(journey.shown())
        })?;
        Ok(four)
    });
    story.check("the inventory is deleted, the daemon stops", || {
        world.inventory("delete")?;
        world.stop_daemon()?;
        Ok("")
    });
    story.check("rules, routes, links, tc, nft and eBPF pins are as before the first command", || {
        as_before(before)
    });
}

fn as_before(before: &Snapshot) -> Result<String> {
    let differences = Snapshot::take()?.since(before);
    if !differences.is_empty() {
        bail!("{}", differences.join("\n      "));
    }
    foreign_objects_are_there()?;
    Ok("somebody else's rule and tc program among them".to_owned())
}
