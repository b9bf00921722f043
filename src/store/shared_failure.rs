//! The failure of an attempt to connect, for all who waited for it. Otherwise each would try and wait as long again,
//! one after the other, and so would a stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The last failed attempt.
#[derive(Debug)]
pub(super) struct SharedFailure<E> {
    failed: AtomicU64,
    last: Mutex<Option<E>>,
}

impl<E> Default for SharedFailure<E> {
    fn default() -> SharedFailure<E> {
        SharedFailure {
            failed: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }
}

impl<E: Clone> SharedFailure<E> {
    /// Returns the number of failed attempts. A caller reads it before it waits for its turn.
    pub(super) fn count(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Returns the error of an attempt that failed while the caller waited.
    pub(super) fn since(&self, count: u64) -> Option<E> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|_| self.count() != count)
    }

    /// Notes a failed attempt.
    pub(super) fn note(&self, error: E) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.failed.fetch_add(1, Ordering::SeqCst);
    }
}
