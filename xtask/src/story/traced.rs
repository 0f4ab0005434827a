//! Chapter 5: `catena trace` tells the way of a packet, and packets take the way that it tells.

use anyhow::ensure;

use crate::story::Story;
use crate::story::journey::follow;
use crate::story::node::Web;
use crate::story::world::{V4, World, in_both_families};

pub fn tell(world: &World, story: &mut Story) {
    story.check("it names the inspector that the flow then takes, and the same one for the reply", || {
        let mut shown = Vec::new();
        // Other source ports are other flows; of four, some take either inspector.
        for source_port in 20201..20205 {
            let port = source_port.to_string();
            let arguments = ["--protocol", "tcp", "--port", "80", "--source-port", &port];
            let [there, back] = world.catena.trace(V4.alice, V4.server, &arguments)?;
            ensure!(there.functions.len() == 3, "it names {:?}", there.functions);
            ensure!(there.delivered && back.delivered, "it does not arrive by what trace says");
            let mut reversed = back.functions.clone();
            reversed.reverse();
            ensure!(reversed == there.functions, "there {:?}, back {:?}", there.functions, back.functions);
            let journey = follow(V4, "alice", source_port)?;
            ensure!(journey.web == Web::Status(200), "the answer: {:?}", journey.web);
            ensure!(
                journey.functions() == there.functions,
                "trace says {:?}, the packets went {}",
                there.functions,
                journey.shown()
            );
            shown.push(format!("{port}: {}", there.functions.join(" → ")));
        }
        Ok(shown.join("; "))
    });
    story.check("it knows what the chain does not claim, and both families", || {
        in_both_families(|family| {
            let protocol = if family == V4 { "icmp" } else { "icmpv6" };
            let [ping, _] = world.catena.trace(family.alice, family.server, &["--protocol", protocol])?;
            ensure!(ping.functions.is_empty(), "a ping goes through {:?}", ping.functions);
            let [web, _] =
                world.catena.trace(family.alice, family.server, &["--protocol", "tcp", "--port", "443"])?;
            ensure!(web.functions.len() == 3, "a web request goes through {:?}", web.functions);
            Ok(())
        })?;
        Ok("")
    });
}
