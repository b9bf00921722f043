//! One segment that is being read.

use super::layout::{self, Found};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How much is read of a file at once.
const READ_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub struct Open {
    file: File,
    pub path: PathBuf,
    pub first: u64,
    /// Where in the file `buffer[cursor]` stands.
    pub offset: u64,
    buffer: Vec<u8>,
    pub cursor: usize,
}

impl Open {
    pub fn new(first: u64, path: PathBuf) -> io::Result<Open> {
        let file = File::open(&path)?;
        Ok(Open {
            file,
            path,
            first,
            offset: 0,
            buffer: Vec::new(),
            cursor: 0,
        })
    }

    /// What stands at the cursor. What the buffer does not show as a sound frame is read again:
    /// the writer may have written it since.
    pub fn look(&mut self) -> io::Result<Found<'_>> {
        let is_sound = |found| matches!(found, Found::Frame(_));
        if is_sound(layout::read_frame(&self.buffer[self.cursor..])) {
            return Ok(layout::read_sound(&self.buffer[self.cursor..]));
        }
        self.fill(READ_BYTES)?;
        if let Found::More(bytes) = layout::read_frame(&self.buffer) {
            self.fill(bytes)?;
        }
        Ok(layout::read_frame(&self.buffer))
    }

    /// Passes over a broken frame at the cursor, if a sound one follows it.
    pub fn pass_over(&mut self) -> bool {
        let bytes = layout::pass_over(&self.buffer[self.cursor..]);
        self.cursor += bytes.unwrap_or(0);
        bytes.is_some()
    }

    /// Reads up to `wanted` bytes from the cursor on into the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        self.offset += self.cursor as u64;
        self.cursor = 0;
        // A damaged length may ask for gigabytes that the file does not hold.
        let rest = self.file.metadata()?.len().saturating_sub(self.offset);
        self.buffer.resize((wanted as u64).min(rest) as usize, 0);
        let mut read = 0;
        while read < self.buffer.len() {
            let place = self.offset + read as u64;
            match self.file.read_at(&mut self.buffer[read..], place) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(read);
        Ok(read)
    }
}
