//! On which cores the kernel has carried packets.

use anyhow::{Context as _, Result};

/// How many packets each core had taken from its backlog, at some time. (`/proc/net/softnet_stat` has a line for each
/// core; the first column is the number of packets, the thirteenth that of the core, both in hexadecimal.)
pub struct Processed(Vec<(usize, u64)>);

impl Processed {
    pub fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/net/softnet_stat").context("no softnet_stat")?;
        let line = |(row, line): (usize, &str)| {
            let column = |at| u64::from_str_radix(line.split_whitespace().nth(at)?, 16).ok();
            Some((column(12).map_or(row, |core| core as usize), column(0)?))
        };
        Ok(Self(text.lines().enumerate().filter_map(line).collect()))
    }

    /// The share of all packets since that cores other than `core` have taken.
    pub fn elsewhere_than(&self, core: usize) -> Result<f64> {
        let now = Self::now()?;
        let (mut here, mut elsewhere) = (0, 0);
        for ((number, after), (_, before)) in now.0.iter().zip(&self.0) {
            // The columns are 32 bits wide.
            let count = u64::from((*after as u32).wrapping_sub(*before as u32));
            *(if *number == core { &mut here } else { &mut elsewhere }) += count;
        }
        Ok(elsewhere as f64 / (here + elsewhere).max(1) as f64)
    }
}
