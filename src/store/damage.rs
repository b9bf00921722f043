//! What stands in the store and cannot be read: it is skipped, counted and logged, so that one
//! damaged record stops neither ingestion nor the results of others.

use super::StoreError;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// So many are told apart; more are skipped all the same.
const COUNTED_MAX: usize = 10_000;

/// Damage found since the start. The same place is counted once, however often it is read.
#[derive(Debug, Default)]
pub struct Damage(Mutex<HashSet<u64>>);

impl Damage {
    /// How many places there are.
    pub fn count(&self) -> u64 {
        self.seen().len() as u64
    }

    /// What was read; `None`, counted and logged, for what cannot be read. Other errors stay.
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

    /// Counts and logs what stands at a place.
    pub fn note(&self, place: &str, found: &str) {
        let mut hasher = DefaultHasher::new();
        (place, found).hash(&mut hasher);
        let mut seen = self.seen();
        if seen.len() < COUNTED_MAX && seen.insert(hasher.finish()) {
            drop(seen);
            let found: String = found.chars().take(80).collect();
            tracing::error!(
                "{place} in the store holds {found:?}, which cannot be read: it is skipped, and counts are short of it"
            );
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        // Nothing that holds this lock can leave it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
