//! Journals that are to be archived.

use crate::journal::Follower;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Journals that are to be archived and were found lately.
#[derive(Clone, Debug, Default)]
pub struct FoundJournals(Arc<Mutex<Vec<Follower>>>);

impl FoundJournals {
    /// Adds a journal.
    pub fn add(&self, follower: Follower) {
        self.all().push(follower);
    }

    /// Returns the journals that were added since the last call.
    pub fn take(&self) -> Vec<Follower> {
        std::mem::take(&mut *self.all())
    }

    fn all(&self) -> MutexGuard<'_, Vec<Follower>> {
        // No code that holds this lock can leave the list half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was done to archived files so that they hold no forgotten user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The files that were read.
    pub read: u64,
    /// Those that were replaced.
    pub replaced: u64,
}
