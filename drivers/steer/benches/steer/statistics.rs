//! The middle of some samples, and how well it is known.

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// Nothing is assumed about how the samples are distributed: the interval's ends are two of them, so far from both
    /// ends of their order that the true median lies between with a probability of 95 % or more (a sign test, turned
    /// round). Of fewer than six samples no interval can promise that; then it holds all of them.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let left_out = left_out_at_each_end(sorted.len());
        let at = |rank: usize| sorted.get(rank).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self {
            median: (at(last / 2) + at(sorted.len() / 2)) / 2.0,
            low: at(left_out),
            high: at(last - left_out),
        }
    }
}

/// How many samples at each end of their order the interval does without: the most for which a fair coin, thrown `n`
/// times, shows so few heads with a probability of 2.5 % or less.
fn left_out_at_each_end(n: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut at_most = 0.0;
    for heads in 0..n {
        at_most += probability;
        if at_most > 0.025 {
            return heads.saturating_sub(1);
        }
        probability *= (n - heads) as f64 / (heads + 1) as f64;
    }
    0
}
