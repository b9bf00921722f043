//! What must survive the process beside the facts themselves.

use super::segment;
use memmap2::MmapMut;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BYTES: u64 = 16;

/// Two numbers of a journal, kept in its lock file: the time of its latest fact, and how many
/// facts it could not take.
#[derive(Debug)]
pub(super) struct Marks {
    map: MmapMut,
    latest_ms: u64,
    dropped: u64,
}

impl Marks {
    /// Of the journal with this lock file, which this process holds.
    pub fn of(path: &Path) -> io::Result<Marks> {
        // Opened anew: a mapping of the file that holds the lock would hold it, too.
        let file = File::options().read(true).write(true).open(path)?;
        segment::reserve(&file, BYTES)?;
        // SAFETY: the file is this journal's own, and this process holds its lock.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(Marks {
            map,
            latest_ms: 0,
            dropped: 0,
        })
    }

    /// Keeps the time of a fact, if it is the latest.
    pub fn reach(&mut self, ms: u64) {
        if ms > self.latest_ms {
            self.latest_ms = ms;
            // As long as it was reserved.
            self.map[..8].copy_from_slice(&ms.to_le_bytes());
        }
    }

    /// Counts a fact that could not be taken; how many there are.
    pub fn drop_one(&mut self) -> u64 {
        self.dropped += 1;
        // As long as it was reserved.
        self.map[8..16].copy_from_slice(&self.dropped.to_le_bytes());
        self.dropped
    }
}

/// What an earlier life left in its lock file: the time of its latest fact in Unix milliseconds,
/// and how many it could not take. Zeros where nothing was kept.
pub(super) fn left(lock: &File) -> (u64, u64) {
    let mut bytes = [0; BYTES as usize];
    if lock.read_exact_at(&mut bytes, 0).is_err() {
        return (0, 0);
    }
    let number = |at: usize| {
        (0..8).fold(0, |sum, byte| {
            sum | u64::from(bytes[at + byte]) << (8 * byte)
        })
    };
    (number(0), number(8))
}
