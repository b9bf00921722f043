//! Segments that are kept for a second reader of a journal.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a second reader still needs of a journal. The first reader, which deletes segments, shares it.
#[derive(Debug)]
pub(super) struct Hold {
    /// The last record that the second reader needs no more.
    through: AtomicU64,
    /// The last record that was deleted.
    released: AtomicU64,
    /// The bytes that are kept for the second reader alone.
    bytes: AtomicU64,
}

impl Hold {
    /// Holds everything after `released`, the last record that was deleted before.
    pub fn new(released: u64) -> Hold {
        Hold {
            through: AtomicU64::new(released),
            released: AtomicU64::new(released),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether the second reader still needs records up to this one.
    pub fn holds(&self, last: u64) -> bool {
        self.through.load(Ordering::Acquire) < last
    }

    /// The second reader needs no more records up to this one.
    pub fn free(&self, through: u64) {
        self.through.fetch_max(through, Ordering::AcqRel);
    }

    /// Records up to this one were deleted.
    pub fn release(&self, through: u64) {
        self.released.fetch_max(through, Ordering::AcqRel);
    }

    /// Returns the last record that was deleted.
    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Sets the bytes that are kept for the second reader alone.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes that are kept for the second reader alone.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
