use std::time::Duration;

/// What a controller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Carry out requests, and keep everything as it must be.
    #[default]
    Control,
    /// Look, and answer: nothing is repaired, requests are dry runs, the store is only read.
    Look,
}

/// The controller's times and sizes, and what it may do.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// How long to wait for more events of an element after the first, before it is looked at.
    pub debounce: Duration,
    /// The same where nothing but the owner's routing has changed: routers may change theirs all the time, and everything
    /// is verified after each look.
    pub routing_debounce: Duration,
    /// How often everything is looked at, although nothing was told: the safety net.
    pub resync: Duration,
    /// How long a path without new flows stays for the old ones, at most.
    pub drain: Duration,
    /// How often its flows are counted meanwhile.
    pub drain_poll: Duration,
    /// How long to wait after an element could not be reached or repaired, at first; doubles with each failure …
    pub retry_first: Duration,
    /// … up to this.
    pub retry_most: Duration,
    /// How long an element that has left the model is tried when it cannot be reached, to take away what is ours.
    pub give_up: Duration,
    /// How long a driver may take for one call.
    pub driver_timeout: Duration,
    /// How many requests and reports can wait; who comes later waits outside.
    pub queue: usize,
    /// How many events are remembered.
    pub events: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            debounce: Duration::from_millis(20),
            routing_debounce: Duration::from_millis(200),
            resync: Duration::from_secs(60),
            drain: Duration::from_secs(300),
            drain_poll: Duration::from_secs(1),
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(30),
            give_up: Duration::from_secs(300),
            driver_timeout: Duration::from_secs(60),
            queue: 256,
            events: 1000,
        }
    }
}

impl Settings {
    /// How long a verdict is good for: it is found out anew with each look at everything, unless something is wrong with us.
    pub(crate) fn verdict_good_for(&self) -> Duration {
        3 * self.resync
    }

    /// How long to wait after this many failures in a row.
    pub(crate) fn retry_after(&self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1));
        self.retry_first.saturating_mul(factor).min(self.retry_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_ever_later_up_to_a_limit() {
        let settings = Settings::default();
        let waits: Vec<u128> = (1..=11).map(|failures| settings.retry_after(failures).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(settings.retry_after(u32::MAX), settings.retry_most);
    }
}
