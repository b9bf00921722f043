//! The marks of a journal: numbers that must survive the process.
//!
//! The lock file of a journal holds:
//!
//! ```text
//! offset  size  field, little-endian
//!      0     8  the time of the latest record, in Unix milliseconds
//!      8     8  the number of dropped records
//!     16     8  the sequence number of the last record
//!     24     8  its complement, and
//!     32     8  that of the number at 8; a number that does not match its complement is damaged
//!     40     8  "WTRMARKS"
//!     48     4  format; 2. The name of the journal's folder has it, too, and takes precedence
//!     52     8  the sequence number of the last record in a segment that was deleted once it was
//!               read; 0 without one
//!     60     8  its complement
//! ```
//!
//! In format 1, it ends after 16 bytes.

use super::files::is_at;
use super::frame::FORMAT;
use super::mapping::Mapping;
use super::segment;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BYTES: usize = 68;
const RELEASED: usize = 52;
const BYTES_FIRST: usize = 16;
const MAGIC: &[u8; 8] = b"WTRMARKS";

/// The marks of a journal that is being written, kept in its lock file.
#[derive(Debug)]
pub(super) struct Marks {
    map: Mapping,
    file: File,
    latest_ms: u64,
    dropped: u64,
}

impl Marks {
    /// Opens the marks in this lock file, which this process holds.
    pub(super) fn of(path: &Path) -> io::Result<Marks> {
        // Opened again: a mapping of the locked file would hold the lock, too.
        let file = File::options().read(true).write(true).open(path)?;
        segment::reserve(&file, BYTES as u64)?;
        let map = Mapping::of(&file)?;
        let mut marks = Marks {
            map,
            file,
            latest_ms: 0,
            dropped: 0,
        };
        marks.put(24, !0);
        marks.put(32, !0);
        marks.put(RELEASED + 8, !0);
        marks.map[40..48].copy_from_slice(MAGIC);
        marks.map[48..52].copy_from_slice(&FORMAT.to_le_bytes());
        Ok(marks)
    }

    /// Continues from other marks.
    pub(super) fn following(mut self, others: &Marks) -> Marks {
        let number = |at: usize| {
            let bytes = others.map[at..at + 8].try_into();
            bytes.map_or(0, u64::from_le_bytes)
        };
        self.reach(number(16), others.latest_ms);
        self.put(RELEASED, number(RELEASED));
        self.put(RELEASED + 8, number(RELEASED + 8));
        self.dropped = others.dropped;
        self.put(8, self.dropped);
        self.put(32, !self.dropped);
        self
    }

    /// Returns the file of the marks.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the file was truncated while it was written.
    pub(super) fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// Whether the file is still at this path, and complete.
    pub(super) fn are_at(&self, path: &Path) -> bool {
        Marks::stand(&self.file, path)
    }

    /// Whether this file of marks is still at the path, and complete.
    pub(super) fn stand(file: &File, path: &Path) -> bool {
        is_at(file, path)
            && file
                .metadata()
                .is_ok_and(|found| found.len() >= BYTES as u64)
    }

    /// Stores the number and the time of a written record.
    pub(super) fn reach(&mut self, sequence: u64, ms: u64) {
        self.put(16, sequence);
        self.put(24, !sequence);
        if ms > self.latest_ms {
            self.latest_ms = ms;
            self.put(0, ms);
        }
    }

    /// Counts a dropped record. Returns the number of them.
    pub(super) fn drop_one(&mut self) -> u64 {
        self.dropped += 1;
        self.put(8, self.dropped);
        self.put(32, !self.dropped);
        self.dropped
    }

    fn put(&mut self, at: usize, number: u64) {
        // The size that was reserved.
        self.map[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
}

/// The marks that an earlier process left in its lock file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredMarks {
    /// The time of its latest record, in Unix milliseconds; 0 if it is not known.
    pub latest_ms: u64,
    /// The number of records that it dropped.
    pub dropped: u64,
    /// The sequence number of its last record; 0 if it is not known.
    pub written: u64,
    /// The sequence number of the last record that was deleted after it was read; `None` if it is not
    /// known.
    pub released: Option<u64>,
}

/// Reads the marks of an earlier process.
pub(super) fn left(lock: &File) -> StoredMarks {
    let mut bytes = [0; BYTES];
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    if lock.read_exact_at(&mut bytes, 0).is_err() {
        let mut first = [0; BYTES_FIRST];
        let is_there = lock.read_exact_at(&mut first, 0).is_ok();
        return match is_there {
            true => StoredMarks {
                latest_ms: number(&first, 0),
                dropped: number(&first, 8),
                ..StoredMarks::default()
            },
            false => StoredMarks::default(),
        };
    }
    let checked = |at: usize, complement: usize| {
        let found = number(&bytes, at);
        (found == !number(&bytes, complement)).then_some(found)
    };
    StoredMarks {
        latest_ms: number(&bytes, 0),
        dropped: checked(8, 32).unwrap_or(0),
        written: checked(16, 24).unwrap_or(0),
        released: checked(RELEASED, RELEASED + 8),
    }
}

/// Stores in the lock file at this path up to which record segments are deleted. The writer's numbers
/// stay untouched.
pub(super) fn keep_released(path: &Path, sequence: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..].copy_from_slice(&(!sequence).to_le_bytes());
    file.write_all_at(&bytes, RELEASED as u64)
}
