//! Two things measured in turns, so that what the machine does meanwhile meets both.

use std::time::Duration;

use anyhow::Result;

use crate::line::Measurable;
use crate::statistics::Estimate;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub slice: Duration,
    /// Pairs of slices for each time that both sides are built.
    pub pairs: usize,
    /// How often both sides are built: where their data happen to lie in memory makes a per cent or two.
    pub builds: usize,
}

/// The rates of both sides, pair by pair.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
}

impl Pairs {
    /// In the order A B B A, so that a machine that gets slower or faster all the time favours neither.
    pub fn measure(
        &mut self,
        effort: Effort,
        ours: &mut dyn Measurable,
        theirs: &mut dyn Measurable,
    ) -> Result<()> {
        // Not counted: caches and the core's clock settle.
        ours.slice(effort.slice)?;
        theirs.slice(effort.slice)?;
        for pair in 0..effort.pairs {
            let (our, their);
            if pair % 2 == 0 {
                our = ours.slice(effort.slice)?;
                their = theirs.slice(effort.slice)?;
            } else {
                their = theirs.slice(effort.slice)?;
                our = ours.slice(effort.slice)?;
            }
            self.ours.push(our);
            self.theirs.push(their);
        }
        Ok(())
    }

    /// Ours ÷ theirs.
    pub fn ratio(&self) -> Estimate {
        let ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        Estimate::of(&ratios)
    }

    /// The same for what is left of each packet's time when that of sending it is taken away, of which `alone` are the
    /// rates.
    pub fn ratio_without(&self, alone: &[f64]) -> Estimate {
        let sending = 1.0 / Estimate::of(alone).median;
        let net = |(ours, theirs): (&f64, &f64)| (1.0 / theirs - sending) / (1.0 / ours - sending);
        Estimate::of(&self.ours.iter().zip(&self.theirs).map(net).collect::<Vec<_>>())
    }
}
