//! What must hold all the time: nothing that a chain claims goes round the functions, and others' objects stay.

use anyhow::{Result, ensure};

use crate::command;
use crate::story::capture::Captures;
use crate::story::node;

/// It means no site's packets: one from 192.0.2.0/24 to a site would be led astray by it, and the verifier would say so.
const FOREIGN_RULE: &str = "from 192.0.2.0/24 to 198.18.0.0/15 lookup main";

const FOREIGN_FILTER: &str = "pref 77 bpf";

/// Other people's: a policy-routing rule on an element that we program, and a tc program on a port that we steer by.
pub fn add_foreign_objects() -> Result<()> {
    node::ask("qrouter-1234", &format!("ip rule add {FOREIGN_RULE} priority 5000 protocol 99"))?;
    node::ask("br-int", "tc qdisc add dev vr clsact")?;
    let mut filter = node::on("br-int", "tc");
    filter
        .args(["filter", "add", "dev", "vr", "ingress", "pref", "77", "protocol", "all", "bpf", "bytecode"]);
    // Classic BPF that returns 0: it matches no packet.
    command::read("adding a foreign filter", filter.arg("1,6 0 0 0,")).map(drop)
}

/// Looks for claimed packets where only unclaimed ones may be.
pub struct Watch(Captures);

impl Watch {
    pub fn start() -> Result<Self> {
        // On acme's direct way, and on the virtual router's own way to the gateway. Inside the tunnel is not seen here.
        let places = [("access-a", "wan"), ("gateway", "vr")];
        let claimed = "tcp and (port 80 or port 443) and (net 172.16.1.0/24 or net 2001:db8:a1::/64)";
        Ok(Self(Captures::start(&places, claimed)?))
    }

    pub fn stop(self) -> Result<String> {
        for (node, seen) in self.0.stop()? {
            ensure!(seen.is_empty(), "{} packets did at {node}", seen.len());
        }
        Ok(String::new())
    }
}

/// Fails if anything of somebody else's is not there any more.
pub fn foreign_objects_are_there() -> Result<()> {
    let rules = node::ask("qrouter-1234", "ip rule show")?;
    ensure!(rules.contains(FOREIGN_RULE), "the foreign rule is gone:\n{rules}");
    let filters = node::ask("br-int", "tc filter show dev vr ingress")?;
    ensure!(filters.contains(FOREIGN_FILTER), "the foreign tc program is gone:\n{filters}");
    Ok(())
}
