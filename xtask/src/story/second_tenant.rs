//! Chapter 9: globex, attached by a cable, has all its traffic inspected.

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::story::Story;
use crate::story::chained::passes_in_order;
use crate::story::direct::direct_ways;
use crate::story::journey::{everywhere, follow};
use crate::story::node::{Request, Web, on, ping};
use crate::story::world::{V4, World, in_both_families};

pub fn tell(world: &World, story: &mut Story) {
    story.check("its chain is applied: bob's connections pass ips alone", || {
        world.catena.say(&["apply", "-f", World::GLOBEX_CHAIN])?;
        let [four, _] = in_both_families(|family| {
            let journey = follow(family, "bob", family.port(501))?;
            ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
            passes_in_order(&journey, &["ips-"])
        })?;
        Ok(four)
    });
    story.check("so do bob's pings, also such as take several fragments", || {
        let seen = everywhere("bob", "host 172.16.2.10")?;
        large_ping()?;
        let seen = seen.stop()?;
        let at =
            |name: &str| seen.iter().find(|(place, _)| place == name).map_or(0, |(_, packets)| packets.len());
        let (inspectors, sent) = (at("ips-1") + at("ips-2"), at("bob"));
        ensure!(sent == 6, "bob's port saw {sent} packets, not 3 fragments each way");
        ensure!(inspectors == sent, "the inspectors saw {inspectors} of {sent} packets");
        Ok("")
    });
    story.check("what ips knows is blocked for bob now; what fw forbids to acme is not", || {
        in_both_families(|family| {
            let url = family.url(family.server, "eicar.txt");
            let web = Request::new("bob", &url).send()?;
            ensure!(web == Web::Silence, "bob gets {web:?} from {url}");
            ensure!(ping("bob", family.forbidden)?, "{} does not answer bob", family.forbidden);
            Ok(())
        })?;
        Ok("")
    });
    story.check("acme's pings go their direct way still", || direct_ways("alice"));
    story.check("globex's chain is deleted: bob goes directly again", || {
        world.catena.say(&["delete", "chain", "globex-all"])?;
        let journey = follow(V4, "bob", V4.port(502))?;
        ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
        ensure!(journey.functions().is_empty(), "it went {}", journey.shown());
        Ok(journey.shown())
    });
}

/// 3000 bytes: three fragments there, three back.
fn large_ping() -> Result<()> {
    let mut large = on("bob", "ping");
    large.args(["-n", "-c", "1", "-W", "2", "-s", "3000", V4.server]);
    command::read("bob sends a large ping", &mut large).context("the large ping is not answered").map(drop)
}
