//! A journal that is forwarded to one destination, and how far.

use super::delivery::BatchState;
use crate::journal::{Chunk, Follower};
use std::io;

/// The most records of a batch.
const RECORDS_MAX: usize = 2_000;

/// A journal that is forwarded.
pub(super) struct ForwardedJournal {
    follower: Follower,
    /// The destination, whose name the position has.
    name: Box<str>,
    /// The last record that is settled.
    done: u64,
    /// What is known of the records after it.
    pub batch: BatchState,
}

impl ForwardedJournal {
    /// Continues after the stored position.
    pub(super) fn new(follower: Follower, name: &str) -> io::Result<ForwardedJournal> {
        // A damaged position is none: what is still kept is sent again.
        let stored = follower.stored_position(name)?.unwrap_or(0);
        let done = stored.min(follower.written()).max(follower.position() - 1);
        follower.free(done);
        Ok(ForwardedJournal {
            follower,
            name: name.into(),
            done,
            batch: BatchState::default(),
        })
    }

    /// Returns the number of records that are written and not settled.
    pub(super) fn waiting(&self) -> u64 {
        self.follower.waiting_after(self.done)
    }

    /// Returns the number of records that were deleted before they were read.
    pub(super) fn dropped(&self) -> u64 {
        self.follower.dropped()
    }

    /// Returns the bytes that are kept because the destination needs them.
    pub(super) fn held_bytes(&self) -> u64 {
        self.follower.held_bytes()
    }

    /// Whether nobody writes it, and all of it is settled or deleted.
    pub(super) fn is_over(&self) -> bool {
        !self.follower.is_live() && self.waiting() == 0
    }

    /// Reads the records after those that are settled, and the number of the last one; `None` if nothing new is
    /// written. The same records are read again until they are settled.
    pub(super) fn next(&mut self) -> io::Result<Option<(Chunk, u64)>> {
        if self.follower.position() != self.done + 1 {
            self.follower.start_after(self.done);
        }
        let chunk = self.follower.next_through(RECORDS_MAX, u64::MAX)?;
        let last = self.follower.position() - 1;
        Ok((last > self.done).then_some((chunk, last)))
    }

    /// Records up to this one are settled.
    pub(super) fn settle(&mut self, last: u64) -> io::Result<()> {
        self.done = last;
        self.batch = BatchState::default();
        self.follower.free(last);
        self.follower.store_position(&self.name, last)
    }
}
