//! How a driver broke a promise, in words for the person who writes the driver.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use catena_model::forwarding::{ElementState, Kind, Object};

use crate::DriverError;

#[derive(Debug, thiserror::Error)]
pub enum Breach {
    #[error("the sample has objects of the kinds {kinds:?}, but the driver installs {capabilities:?}")]
    Sample { kinds: BTreeSet<Kind>, capabilities: BTreeSet<Kind> },
    #[error("{doing} failed: {}", chain(error))]
    Failed { doing: &'static str, error: DriverError },
    #[error("{when}, the driver observes something else than what is there:\n{difference}")]
    State { when: &'static str, difference: String },
    #[error("the element did not stay as it was after {what}:\n{difference}")]
    Changed { what: &'static str, difference: String },
    #[error("the element looks the same with the sample as without: the fixture's snapshot shows too little")]
    Invisible,
    #[error("{when}, foreign objects are gone or changed: {}", lost.join("; "))]
    Foreign { when: &'static str, lost: Vec<String> },
    #[error("for a moment there was neither\n  {old:?}\nnor\n  {new:?}")]
    Gap { old: Box<Object>, new: Box<Object> },
    #[error("this was not replaced:\n  {old:?}\nby\n  {new:?}")]
    NotReplaced { old: Box<Object>, new: Box<Object> },
    #[error("our objects were damaged and no event told of it within {0:?}")]
    Silent(Duration),
    #[error("our objects were damaged and the driver observes them as if they were not")]
    Blind,
    #[error("a change of an older epoch was not refused as stale: {}", outcome(.0))]
    NotStale(Option<String>),
    #[error("a port that does not exist was not refused by its name: {}", outcome(.0))]
    PortNotNamed(Option<String>),
}

impl Breach {
    pub(super) fn unless_equal(
        when: &'static str,
        expected: &ElementState,
        observed: &ElementState,
    ) -> Result<(), Self> {
        let mut difference = String::new();
        for object in expected.iter().filter(|object| !observed.contains(object)) {
            let _ = writeln!(difference, "  missing    {object:?}");
        }
        for object in observed.iter().filter(|object| !expected.contains(object)) {
            let _ = writeln!(difference, "  unexpected {object:?}");
        }
        if difference.is_empty() { Ok(()) } else { Err(Self::State { when, difference }) }
    }
}

/// The difference of two snapshots is a breach.
pub(super) fn unchanged(what: &'static str, before: &str, after: &str) -> Result<(), Breach> {
    if before == after {
        return Ok(());
    }
    let mut difference = String::new();
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    for line in old.iter().filter(|line| !new.contains(line)) {
        let _ = writeln!(difference, "  - {line}");
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        let _ = writeln!(difference, "  + {line}");
    }
    if difference.is_empty() {
        let _ = writeln!(difference, "  the same lines in another order or number:\n{after}");
    }
    Err(Breach::Changed { what, difference })
}

pub(super) trait Call<T> {
    /// Says what was being done when a call failed.
    fn call(self, doing: &'static str) -> Result<T, Breach>;
}

impl<T> Call<T> for Result<T, DriverError> {
    fn call(self, doing: &'static str) -> Result<T, Breach> {
        self.map_err(|error| Breach::Failed { doing, error })
    }
}

fn chain(error: &DriverError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn outcome(error: &Option<String>) -> String {
    match error {
        Some(error) => format!("it failed with '{error}'"),
        None => "it succeeded".to_owned(),
    }
}
