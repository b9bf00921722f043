//! Values in the store that cannot be read. They are skipped, counted and logged, so that a damaged
//! record stops neither ingestion nor the results of other experiments.

use super::StoreError;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// The most places that are counted. Further damage is skipped without counting.
const COUNTED_MAX: usize = 10_000;

/// Damage found since the start. The same place is counted once, however often it is read.
#[derive(Debug, Default)]
pub struct Damage(Mutex<HashSet<u64>>);

impl Damage {
    /// Returns the number of damaged places.
    pub fn count(&self) -> u64 {
        self.seen().len() as u64
    }

    /// Turns a value that cannot be read into `None`, and counts and logs it. Other errors stay errors.
    pub fn skip<T>(&self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Unreadable { place, found }) => {
                self.note(&place, &found);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts and logs damage at a place.
    pub fn note(&self, place: &str, found: &str) {
        let mut hasher = DefaultHasher::new();
        (place, found).hash(&mut hasher);
        let mut seen = self.seen();
        if seen.len() < COUNTED_MAX && seen.insert(hasher.finish()) {
            drop(seen);
            let found: String = found.chars().take(80).collect();
            tracing::error!(
                "{place} in the store holds {found:?}, which cannot be read: it is skipped, and counts lack it"
            );
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        // No code that holds this lock can leave the set half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
