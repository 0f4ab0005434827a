//! What the loop knows of one element: its connection, its health, when to try again.

use std::sync::Arc;

use catena_model::name::NodeName;
use catena_model::resource::Element;
use tokio::time::Instant;

use crate::drivers::Connection;
use crate::report::{ElementState, Timestamp};
use crate::settings::Settings;

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
