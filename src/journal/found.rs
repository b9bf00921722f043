//! Journals that a task is to follow.

use super::follower::Follower;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Further readers of journals that were found lately.
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
