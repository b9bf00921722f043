//! Logs about reported events, a few times a minute.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often one worker logs about events.
const EVERY: Duration = Duration::from_secs(10);

/// When a worker last logged about events, and how many events it has not logged since.
#[derive(Debug, Default)]
pub struct EventLog {
    last: Cell<Option<Instant>>,
    unlogged: Cell<usize>,
}

impl EventLog {
    /// Logs the first of `count` things, unless another was logged shortly before.
    pub fn log(&self, now: Instant, count: usize, what: impl Display) {
        let unlogged = self.unlogged.get() + count;
        if self.last.get().is_some_and(|last| now < last + EVERY) {
            self.unlogged.set(unlogged);
            return;
        }
        self.last.set(Some(now));
        self.unlogged.set(0);
        match unlogged {
            1 => tracing::warn!("{what}"),
            more => tracing::warn!("{what} (one of {more} since the last such line)"),
        }
    }
}
