//! Counters of those who read journals beside ingestion: the archive, and destinations of exposures and events.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// The archive since the start, but for what waits.
#[derive(Debug, Default)]
pub struct ArchiveCounters {
    /// Records that were archived.
    pub records: AtomicU64,
    /// Files that were written.
    pub files: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Records that were deleted before they were archived.
    pub dropped: AtomicU64,
    /// Records that wait now.
    pub waiting: AtomicU64,
    /// Bytes of the journal that are kept for the archive alone.
    pub held_bytes: AtomicU64,
}

/// Destinations of exposures and events, by name.
#[derive(Debug, Default)]
pub struct ForwardedTo(Mutex<BTreeMap<String, Arc<ForwardCounters>>>);

/// One destination since the start, but for what waits.
#[derive(Debug, Default)]
pub struct ForwardCounters {
    /// Records that were read, and all of whose messages are settled.
    pub records: AtomicU64,
    /// Messages that the destination accepted.
    pub messages: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Records that were deleted before they were read.
    pub dropped: AtomicU64,
    /// Messages that were too old when their turn came.
    pub expired: AtomicU64,
    /// Messages that the destination refused although it accepted others.
    pub refused: AtomicU64,
    /// Records that wait now.
    pub waiting: AtomicU64,
    /// Bytes of the journal that are kept because the destination needs them.
    pub held_bytes: AtomicU64,
}

impl ForwardedTo {
    /// Returns the counters of a destination, which are made if it has none.
    pub fn of(&self, name: &str) -> Arc<ForwardCounters> {
        // No code that holds this lock can leave the map half-changed.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Returns all destinations with their counters.
    pub fn all(&self) -> Vec<(String, Arc<ForwardCounters>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter();
        each.map(|(name, counters)| (name.clone(), Arc::clone(counters)))
            .collect()
    }
}
