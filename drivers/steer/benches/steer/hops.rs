//! Three functions that route: steered, redirected by programs that do nothing else, and cabled one to the next.

use anyhow::Result;
use serde_json::json;

use crate::chain::{Chain, Joint, NETWORK};
use crate::engine::Engine;
use crate::figure::{Bar, Figure, Key};
use crate::flows;
use crate::line::{Line, Loss, Measurable};
use crate::pairs::{Effort, Pairs};
use crate::tcp::Stream;

pub const VS_STATIC: Key = Key {
    name: "hop_vs_static_redirect",
    what: "chain of 3, steered ÷ redirected by programs that do nothing else",
    unit: None,
    bar: Bar::AtLeast(0.95),
};
pub const VS_CABLED: Key = Key {
    name: "chain3_vs_cabled_pps",
    what: "chain of 3, steered ÷ cabled one to the next",
    unit: None,
    bar: Bar::AtLeast(0.78),
};
pub const VS_CABLED_TCP: Key = Key {
    name: "chain3_vs_cabled_tcp",
    what: "the same, one TCP stream",
    unit: None,
    bar: Bar::AtLeast(0.95),
};

const FUNCTIONS: usize = 3;
const FLOWS: usize = 1024;

/// The chains that are compared, side by side.
struct Chains {
    cabled: Chain,
    redirected: Chain,
    steered: Chain,
    engine: Engine,
}

impl Chains {
    fn new() -> Result<Self> {
        let steered = Chain::new(FUNCTIONS, Joint::Hub)?;
        let engine = steered.start_engine()?;
        engine.put(steered.site(1, &[NETWORK.to_owned()])?)?;
        Ok(Self {
            cabled: Chain::new(FUNCTIONS, Joint::Cable)?,
            redirected: Chain::new(FUNCTIONS, Joint::Redirect)?,
            steered,
            engine,
        })
    }
}

fn line(chain: &Chain) -> Result<Line> {
    Line::new(chain, flows::of_one_network(FLOWS), Loss::Forbidden)
}

fn stream(chain: &Chain) -> Result<Stream> {
    Stream::open(&chain.source()?.host, &chain.sink()?.host)
}

pub fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let [mut vs_static, mut vs_cabled, mut vs_cabled_tcp, mut floor, mut floor_tcp] =
        [(); 5].map(|()| Pairs::default());
    let mut alone = Vec::new();
    for _ in 0..effort.builds {
        let chains = Chains::new()?;
        let [mut cabled, mut redirected, mut steered] =
            [line(&chains.cabled)?, line(&chains.redirected)?, line(&chains.steered)?];
        vs_static.measure(effort, &mut steered, &mut redirected)?;
        vs_cabled.measure(effort, &mut steered, &mut cabled)?;
        floor.measure(effort, &mut redirected, &mut cabled)?;
        let [mut cabled, mut redirected, mut steered] =
            [stream(&chains.cabled)?, stream(&chains.redirected)?, stream(&chains.steered)?];
        vs_cabled_tcp.measure(effort, &mut steered, &mut cabled)?;
        floor_tcp.measure(effort, &mut redirected, &mut cabled)?;
        chains.engine.expect_no_drops()?;

        let cable = Chain::new(0, Joint::Cable)?;
        alone.push(line(&cable)?.slice(effort.slice)?);
    }
    let floor = json!({"redirected_vs_cabled": Figure::ratio(VS_CABLED, floor).to_json()});
    let floor_tcp = json!({"redirected_vs_cabled": Figure::ratio(VS_CABLED_TCP, floor_tcp).to_json()});
    let net = vs_static.ratio_without(&alone);
    Ok(vec![
        Figure::ratio(VS_STATIC, vs_static).with("without_sending", net.median).with("sending_alone", alone),
        Figure::ratio(VS_CABLED, vs_cabled).with("floor", floor),
        Figure::ratio(VS_CABLED_TCP, vs_cabled_tcp).with("floor", floor_tcp),
    ])
}
