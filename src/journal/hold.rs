//! Segments that are kept for further readers of a journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a further reader still needs of a journal. The first reader, which deletes segments, shares it.
#[derive(Debug)]
pub(super) struct Hold {
    /// Whose it is: a place in [`Options::hold_bytes_max`](super::Options::hold_bytes_max).
    owner: usize,
    /// The last record that the further reader needs no more.
    through: AtomicU64,
    /// The last record that was deleted.
    released: AtomicU64,
    /// The bytes that are kept because the further reader needs them.
    bytes: AtomicU64,
}

/// For each owner: the bytes that are kept for it beyond those that may be. By default nobody may keep any.
#[derive(Clone, Debug, Default)]
pub struct HeldExcess(Vec<u64>);

impl HeldExcess {
    /// Compares what is kept for each owner with the most that may be.
    pub(super) fn new<'a>(
        holds: impl Iterator<Item = &'a Arc<Hold>>,
        bytes_max: &[u64],
    ) -> HeldExcess {
        let mut held = vec![0_u64; bytes_max.len()];
        for hold in holds {
            if let Some(held) = held.get_mut(hold.owner) {
                *held += hold.bytes();
            }
        }
        let beyond = held.iter().zip(bytes_max);
        HeldExcess(
            beyond
                .map(|(held, max)| held.saturating_sub(*max))
                .collect(),
        )
    }

    /// Whether too much is kept for the owner of a hold.
    pub(super) fn is_of(&self, hold: &Hold) -> bool {
        self.0.get(hold.owner).is_none_or(|excess| *excess > 0)
    }

    /// So many bytes are kept no longer for the owner of a hold.
    pub(super) fn lessen(&mut self, hold: &Hold, bytes: u64) {
        if let Some(excess) = self.0.get_mut(hold.owner) {
            *excess = excess.saturating_sub(bytes);
        }
    }
}

impl Hold {
    /// Holds everything after `released`, the last record that was deleted before.
    pub(super) fn new(owner: usize, released: u64) -> Hold {
        Hold {
            owner,
            through: AtomicU64::new(released),
            released: AtomicU64::new(released),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether the further reader still needs records up to this one.
    pub(super) fn holds(&self, last: u64) -> bool {
        self.through.load(Ordering::Acquire) < last
    }

    /// The further reader needs no more records up to this one.
    pub(super) fn free(&self, through: u64) {
        self.through.fetch_max(through, Ordering::AcqRel);
    }

    /// Records up to this one were deleted.
    pub(super) fn release(&self, through: u64) {
        self.released.fetch_max(through, Ordering::AcqRel);
    }

    /// Returns the last record that was deleted.
    pub(super) fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Sets the bytes that are kept for the further reader.
    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes that are kept for the further reader.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
