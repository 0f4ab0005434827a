//! Chapter 3: what the functions forbid is blocked for the tenant that has a chain, and for nobody else.

use anyhow::{Result, ensure};

use crate::story::Story;
use crate::story::node::{Request, Web, ping};
use crate::story::world::{Family, World, in_both_families};

pub fn tell(_: &World, story: &mut Story) {
    story.check("fw forbids an address to alice, not to bob", || {
        blocked(Web::Silence, |family| family.url(family.forbidden, ""), &[])
    });
    story.check("ips lets nobody of acme have a file with the signature that it knows", || {
        blocked(Web::Silence, |family| family.url(family.server, "eicar.txt"), &[])
    });
    story.check("web refuses a site to alice by a packet of its own", || {
        blocked(Web::Reset, |family| family.url(family.server, ""), &["--header", "Host: blocked.example"])
    });
    story.check("what the chain does not claim is not blocked: alice can ping the forbidden address", || {
        in_both_families(|family| {
            ensure!(ping("alice", family.forbidden)?, "{} does not answer", family.forbidden);
            Ok(())
        })?;
        Ok("")
    });
}

/// Fails unless the request comes to `end` for alice and succeeds for bob.
fn blocked(end: Web, url: impl Fn(Family) -> String + Sync, arguments: &[&str]) -> Result<String> {
    in_both_families(|family| {
        let url = url(family);
        let allowed = Request::new("bob", &url).with(arguments).send()?;
        ensure!(allowed == Web::Status(200), "bob gets {allowed:?} from {url}");
        let web = Request::new("alice", &url).with(arguments).send()?;
        ensure!(web == end, "alice gets {web:?} from {url}, not {end:?}");
        Ok(())
    })?;
    Ok(String::new())
}
