//! What the loop knows of one element: its connection, its health, when to try again.

use std::sync::Arc;

use catena_model::name::NodeName;
use catena_model::resource::Element;
use tokio::time::Instant;

use crate::drivers::Connection;
use crate::report::{ElementState, Timestamp};
use crate::settings::Settings;

/// So many repairs in a row are made at once. After that, somebody works against us: the next ones are made ever later.
const REPAIRS_AT_ONCE: u32 = 16;

#[derive(Clone, Debug)]
pub struct Tracked {
    pub element: Element,
    pub connection: Option<Arc<Connection>>,
    pub state: ElementState,
    pub since: Timestamp,
    pub last_error: Option<String>,
    /// In a row.
    failures: u32,
    /// When to look at it again, if something is wrong.
    pub retry_at: Option<Instant>,
    /// How many repairs succeeded, none long after the one before it, and when the last one did.
    repairs: u32,
    repaired_at: Option<Instant>,
}

impl Tracked {
    /// An element that nothing is known of: to be looked at now.
    pub fn new(element: Element) -> Self {
        Self {
            element,
            connection: None,
            state: ElementState::Unreachable,
            since: Timestamp::now(),
            last_error: None,
            failures: 0,
            retry_at: Some(Instant::now()),
            repairs: 0,
            repaired_at: None,
        }
    }

    pub fn name(&self) -> &NodeName {
        &self.element.name
    }

    pub fn is_in_sync(&self) -> bool {
        self.state == ElementState::InSync
    }

    pub fn is_unreachable(&self) -> bool {
        self.state == ElementState::Unreachable
    }

    /// It was read, and does what it must.
    pub fn succeed(&mut self) {
        self.enter(ElementState::InSync);
        self.last_error = None;
        self.failures = 0;
        self.retry_at = None;
    }

    /// It could not be read or not be repaired: try again later, later each time. Says whether that is news.
    pub fn fail(&mut self, state: ElementState, error: String, settings: &Settings) -> bool {
        let news = self.state != state || self.last_error.as_ref() != Some(&error);
        self.enter(state);
        self.last_error = Some(error);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + settings.retry_after(self.failures));
        news
    }

    /// It differed, and does what it must again.
    pub fn succeed_after_repair(&mut self, settings: &Settings) {
        let now = Instant::now();
        let long_ago = self.repaired_at.is_none_or(|at| now >= at + 2 * settings.retry_most);
        self.repairs = if long_ago { 1 } else { self.repairs.saturating_add(1) };
        self.repaired_at = Some(now);
        self.succeed();
    }

    /// If it was repaired too often lately, waits before the next time. Says whether it does.
    pub fn rest(&mut self, settings: &Settings) -> bool {
        let Some(last) = self.repaired_at else { return false };
        let Some(excess @ 1..) = self.repairs.checked_sub(REPAIRS_AT_ONCE) else { return false };
        let until = last + settings.retry_after(excess);
        let rests = Instant::now() < until;
        if rests {
            self.retry_at = Some(until);
        }
        rests
    }

    /// Something happened that may have removed the cause of failures: do not wait for long.
    pub fn hasten(&mut self, settings: &Settings) {
        self.failures = 0;
        let soon = Instant::now() + settings.retry_first;
        self.retry_at = self.retry_at.map(|at| at.min(soon));
    }

    pub fn enter(&mut self, state: ElementState) {
        if self.state != state {
            self.state = state;
            self.since = Timestamp::now();
        }
    }
}
