//! Chapter 1: without a chain everybody reaches the Internet directly, and no function sees a packet.

use anyhow::{Result, ensure};

use crate::story::Story;
use crate::story::journey::everywhere;
use crate::story::node::{Request, Web, ping, routers};
use crate::story::world::{Family, INSTANCES, World, in_both_families};

pub fn tell(world: &World, story: &mut Story) {
    story.check("the inventory is applied, and nothing has to be installed for it", || {
        let report = world.inventory("apply")?;
        ensure!(report["plan"].as_array().is_some_and(Vec::is_empty), "it installs {}", report["plan"]);
        let resources = report["resources"].as_array().map_or(0, Vec::len);
        Ok(format!("{resources} resources"))
    });
    story.check("alice and bob reach the web server, and no function sees a packet of it", || {
        let seen = everywhere("alice", "host 172.16.1.10 or host 2001:db8:a1::10")?;
        in_both_families(|family| {
            for user in ["alice", "bob"] {
                let web = Request::new(user, &family.url(family.server, "")).send()?;
                ensure!(web == Web::Status(200), "{user} gets {web:?}");
                ensure!(ping(user, family.server)?, "{user}'s ping is not answered");
            }
            Ok(())
        })?;
        for (place, packets) in seen.stop()? {
            let function = INSTANCES.contains(&place.as_str());
            ensure!(packets.is_empty() == function, "{place} saw {} packets", packets.len());
        }
        Ok("")
    });
    story.check("alice's way is the direct one", || direct_ways("alice"));
    story.check("catena trace says the same", || {
        in_both_families(|family| {
            let ways =
                world.catena.trace(family.alice, family.server, &["--protocol", "tcp", "--port", "80"])?;
            let [there, back] = ways;
            ensure!(
                there.nodes == ["alice", "access-a", "core", "internet"],
                "the way there: {:?}",
                there.nodes
            );
            ensure!(
                back.nodes == ["internet", "core", "access-a", "alice"],
                "the way back: {:?}",
                back.nodes
            );
            ensure!(there.delivered && back.delivered, "it does not arrive");
            Ok(())
        })?;
        Ok("")
    });
}

/// Fails unless packets that no chain claims go the direct way, as the routers on it answer.
pub fn direct_ways(user: &str) -> Result<String> {
    let [four, _] = in_both_families(|family: Family| {
        let way = routers(user, family.server)?;
        ensure!(way == family.direct_way, "it is {}", way.join(" → "));
        Ok(way.join(" → "))
    })?;
    Ok(four)
}
