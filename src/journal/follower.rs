//! A further reader of a journal, with a position of its own. It deletes nothing, and segments that it has
//! not read yet are kept for it, up to [`Options::hold_bytes_max`](super::Options::hold_bytes_max).

use super::hold::Hold;
use super::layout::Chunk;
use super::position;
use super::ranges::Ranges;
use super::reader::Reader;
use std::io;
use std::sync::Arc;

/// A further reader of a journal.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    hold: Arc<Hold>,
    /// Records that were deleted before they were read. Each counts once, however often its place is read.
    dropped_ones: Ranges,
    dropped: u64,
}

impl Follower {
    /// Makes a further reader of a journal. Segments are kept until it has read them, too. `owner` is its place in
    /// [`Options::hold_bytes_max`](super::Options::hold_bytes_max).
    pub fn of(first: &mut Reader, owner: usize) -> io::Result<Follower> {
        let (reader, hold) = first.further(owner)?;
        Ok(Follower {
            reader,
            hold,
            dropped_ones: Ranges::default(),
            dropped: 0,
        })
    }

    /// Returns the journal's name.
    pub fn id(&self) -> &Arc<str> {
        self.reader.id()
    }

    /// Whether a worker of this process writes or wrote it.
    pub fn is_ours(&self) -> bool {
        self.reader.is_ours()
    }

    /// Returns the sequence number of the next record.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Whether a worker of this process still writes it.
    pub fn is_live(&self) -> bool {
        self.reader.is_live()
    }

    /// Returns the sequence number of the last written record.
    pub fn written(&self) -> u64 {
        self.reader.written()
    }

    /// Returns the last record that was deleted.
    pub fn released(&self) -> u64 {
        self.hold.released()
    }

    /// Returns the number of records behind `done` that are written and were not deleted.
    pub fn waiting_after(&self, done: u64) -> u64 {
        self.written().saturating_sub(done.max(self.released()))
    }

    /// Returns how many records were deleted before they were read, because more bytes waited than are kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the bytes that are kept because this reader needs them.
    pub fn held_bytes(&self) -> u64 {
        self.hold.bytes()
    }

    /// Continues with the record after this one.
    pub fn start_after(&mut self, sequence: u64) {
        self.reader.seek(sequence + 1);
        self.skip_released();
    }

    /// Returns the position that was stored under this name: the last record that was needed no more.
    pub fn stored_position(&self, name: &str) -> io::Result<Option<u64>> {
        position::load(self.reader.folder(), name)
    }

    /// Stores under this name that records up to this one are needed no more.
    pub fn store_position(&self, name: &str, through: u64) -> io::Result<()> {
        position::store(self.reader.folder(), name, through)
    }

    /// Needs no more records up to this one.
    pub fn free(&self, through: u64) {
        self.hold.free(through);
    }

    /// Reads up to `records_max` further records, up to the sequence number `last`: see [`Reader::next`].
    pub fn next_through(&mut self, records_max: usize, last: u64) -> io::Result<Chunk> {
        loop {
            self.skip_released();
            let first = self.reader.position();
            let chunk = self.reader.next_through(records_max, last);
            if self.hold.released() < first {
                return chunk;
            }
            // Deleted while it was read: it is read again, so that exactly what is missing is counted.
            self.reader.seek(first);
        }
    }

    /// Counts records that were deleted before they were read.
    fn skip_released(&mut self) {
        let (released, next) = (self.hold.released(), self.reader.position());
        if released >= next {
            self.dropped += self.dropped_ones.add(next, released);
            self.reader.seek(released + 1);
        }
    }
}
