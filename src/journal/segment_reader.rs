//! Reads one file of frames: every valid frame in order, whatever is damaged around it.

use super::frame::{FrameFormat, FrameHead};
use super::layout;
use crate::regular_file;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How many bytes of a file are read at once.
const READ_BYTES: usize = 256 * 1024;
/// The size of a page. A page that the disk cannot read is skipped.
const PAGE_BYTES: u64 = 4096;
/// A head of format 1 has no seal, so a search computes the checksum of all that looks like a frame: in
/// all, at most this many times the bytes of the file.
const SUMMED_MAX: u64 = 64;

#[derive(Debug)]
pub(super) struct SegmentReader {
    file: File,
    /// The sequence number in the name of the file.
    pub first: u64,
    format: FrameFormat,
    /// The sequence number of the frame at the cursor, unless it is damaged.
    expected: u64,
    /// The offset of `buffer[0]` in the file.
    offset: u64,
    buffer: Vec<u8>,
    cursor: usize,
    /// The number of the last declaration that was found; declarations do not increase it.
    declared: u64,
    /// Valid frames that a search has found and that are not read yet: their numbers and offsets, the next
    /// one last.
    index: Vec<(u64, u64)>,
    /// Bytes whose checksums may still be computed for heads without a seal.
    budget: u64,
}

/// A valid frame.
#[derive(Clone, Debug)]
pub(super) struct FoundFrame {
    /// Its sequence number.
    pub sequence: u64,
    payload: Range<usize>,
}

impl SegmentReader {
    pub(super) fn new(first: u64, path: &Path, format: FrameFormat) -> io::Result<SegmentReader> {
        let named = |error: io::Error| {
            let name = path.file_name().unwrap_or_default().display();
            io::Error::new(error.kind(), format!("{name}: {error}"))
        };
        let file = regular_file::open(path).map_err(named)?;
        let budget = SUMMED_MAX * file.metadata()?.len();
        Ok(SegmentReader {
            file,
            first,
            format,
            expected: first,
            offset: format.frames_from() as u64,
            buffer: Vec::new(),
            cursor: 0,
            declared: 0,
            index: Vec::new(),
            budget,
        })
    }

    /// Finds the next valid frame. `None` if none with a sequence number up to `last` is left; the next call
    /// continues at the same offset. It searches beyond damage only for frames up to `last`, which are
    /// known to be written.
    pub(super) fn next(&mut self, last: u64) -> io::Result<Option<FoundFrame>> {
        if let Some(found) = self.next_indexed()? {
            return Ok(Some(self.take(found)));
        }
        if let Some(found) = self.at_cursor() {
            return Ok(Some(self.take(found)));
        }
        // Bytes that are no valid frame in the buffer are read again: the writer may have written them
        // since.
        self.fill(READ_BYTES)?;
        if let Some(head) = self.format.head(&self.buffer)
            && head.sequence == self.expected
        {
            let whole = self.format.head_bytes().saturating_add(head.length);
            if whole > self.buffer.len() {
                self.fill(whole)?;
            }
        }
        if let Some(found) = self.at_cursor() {
            return Ok(Some(self.take(found)));
        }
        if self.expected > last {
            return Ok(None);
        }
        self.search(last)?;
        Ok(self.next_indexed()?.map(|found| self.take(found)))
    }

    /// Returns the payload of the last frame that was found.
    pub(super) fn payload(&self, found: &FoundFrame) -> &[u8] {
        &self.buffer[found.payload.clone()]
    }

    fn at_cursor(&self) -> Option<FoundFrame> {
        let bytes = &self.buffer[self.cursor..];
        let head = self.format.head(bytes)?;
        let payload =
            self.format.head_bytes()..self.format.head_bytes().checked_add(head.length)?;
        let is_next = head.sequence == self.expected;
        let is_sound = is_next && self.format.is_sound(head, bytes.get(payload.clone())?);
        is_sound.then(|| FoundFrame {
            sequence: head.sequence,
            payload: self.cursor + payload.start..self.cursor + payload.end,
        })
    }

    fn take(&mut self, found: FoundFrame) -> FoundFrame {
        self.cursor = found.payload.end;
        let is_declaration = layout::is_declaration(self.payload(&found));
        if is_declaration {
            self.declared = self.declared.max(found.sequence);
        }
        let is_numbered = self.format == FrameFormat::First || !is_declaration;
        self.expected = found.sequence + u64::from(is_numbered);
        found
    }

    /// Finds all valid frames that are not read yet. Pages may have been written to wrong places, so frames
    /// are read in the order of their numbers, wherever they are.
    fn search(&mut self, last: u64) -> io::Result<()> {
        let damaged_at = self.offset + self.cursor as u64;
        let head_bytes = self.format.head_bytes();
        let mut index = Vec::new();
        self.go_to(match self.format {
            // Without a seal, an older frame proves nothing.
            FrameFormat::First => damaged_at,
            FrameFormat::Second(_) => self.format.frames_from() as u64,
        });
        loop {
            self.fill(READ_BYTES)?;
            if self.buffer.len() < head_bytes {
                break;
            }
            while self.cursor + head_bytes <= self.buffer.len() {
                self.cursor += zeros(&self.buffer[self.cursor..]);
                let at = self.offset + self.cursor as u64;
                let bytes = self.buffer.get(self.cursor..).unwrap_or_default();
                let head = self.format.head(bytes);
                let likely =
                    head.filter(|head| self.is_likely(*head, at.saturating_sub(damaged_at), last));
                match likely {
                    Some(head) if self.is_sound_here(head.length)? => {
                        self.cursor += head_bytes;
                        let is_record = !layout::is_declaration(&self.buffer[self.cursor..]);
                        let is_new = is_record || head.sequence > self.declared;
                        if is_new && head.sequence >= self.expected {
                            index.push((head.sequence, is_record, at));
                        }
                        self.cursor += head.length;
                    }
                    _ => self.cursor += 1,
                }
            }
        }
        self.go_to(damaged_at);
        // A declaration comes before the record with its number; one of two copies is enough.
        index.sort_unstable();
        index.dedup_by_key(|&mut (sequence, is_record, _)| (sequence, is_record));
        self.index = index
            .into_iter()
            .rev()
            .map(|(sequence, _, at)| (sequence, at))
            .collect();
        Ok(())
    }

    /// Whether a head may be that of a frame here.
    fn is_likely(&self, head: FrameHead, passed: u64, last: u64) -> bool {
        match self.format {
            FrameFormat::Second(_) => head.sequence <= last,
            // At most as many frames were lost as fit into the skipped bytes.
            FrameFormat::First => {
                let fit = passed / (self.format.head_bytes() as u64 + 1);
                (self.expected..=last.min(self.expected.saturating_add(fit)))
                    .contains(&head.sequence)
            }
        }
    }

    /// Returns the next of the frames that a search has found.
    fn next_indexed(&mut self) -> io::Result<Option<FoundFrame>> {
        while let Some((sequence, at)) = self.index.pop() {
            if sequence < self.expected {
                continue;
            }
            let head_bytes = self.format.head_bytes();
            let place = usize::try_from(at.wrapping_sub(self.offset)).unwrap_or(usize::MAX);
            if place.saturating_add(head_bytes) <= self.buffer.len() {
                self.cursor = place;
            } else {
                self.go_to(at);
                self.fill(READ_BYTES)?;
            }
            let head = self.format.head(&self.buffer[self.cursor..]);
            let whole = head_bytes + head.map_or(0, |head| head.length);
            if self.buffer.len() - self.cursor < whole {
                self.fill(whole.max(READ_BYTES))?;
            }
            self.expected = sequence;
            if let Some(found) = self.at_cursor() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether there is a valid frame with a payload of this length at the cursor.
    fn is_sound_here(&mut self, length: usize) -> io::Result<bool> {
        let whole = self.format.head_bytes().saturating_add(length);
        if self.buffer.len() - self.cursor < whole {
            self.fill(whole.max(READ_BYTES))?;
        }
        let bytes = &self.buffer[self.cursor..];
        let Some(payload) = bytes.get(self.format.head_bytes()..whole) else {
            return Ok(false);
        };
        if self.format == FrameFormat::First {
            if self.budget < length as u64 {
                return Ok(false);
            }
            self.budget -= length as u64;
        }
        let head = self.format.head(bytes);
        Ok(head.is_some_and(|head| self.format.is_sound(head, payload)))
    }

    fn go_to(&mut self, at: u64) {
        self.offset = at;
        self.cursor = 0;
        self.buffer.clear();
    }

    /// Reads up to `wanted` bytes from the cursor on into the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.offset += self.cursor as u64;
        self.cursor = 0;
        // A damaged length may be gigabytes that the file does not have.
        let rest = self.file.metadata()?.len().saturating_sub(self.offset);
        self.buffer.resize((wanted as u64).min(rest) as usize, 0);
        let mut read = 0;
        while read < self.buffer.len() {
            let place = self.offset + read as u64;
            match self.file.read_at(&mut self.buffer[read..], place) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    // A bad sector: its page counts as damaged.
                    let page = (PAGE_BYTES - place % PAGE_BYTES) as usize;
                    let end = (read + page).min(self.buffer.len());
                    self.buffer[read..end].fill(0);
                    read = end;
                }
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(read);
        Ok(())
    }
}

/// Returns how many bytes at the beginning may be skipped at once: the first four bytes of a head are not
/// all zeros.
fn zeros(bytes: &[u8]) -> usize {
    const STEP: usize = 64;
    let blocks = bytes.chunks_exact(STEP);
    STEP * blocks
        .take_while(|block| **block == [0; STEP][..])
        .count()
        .saturating_sub(1)
}
