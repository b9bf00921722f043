//! One file of frames that is being read: every sound frame in it, in order, whatever is damaged
//! around them.

use super::frame::Format;
use super::layout;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read of a file at once.
const READ_BYTES: usize = 256 * 1024;
/// A page that the disk cannot read is passed over.
const PAGE_BYTES: u64 = 4096;
/// After damage, the search goes on behind the first frame that it finds, in case that an earlier
/// one follows (pages can be written to wrong places): for this many times the bytes passed over,
/// and a page; and further where more frames seem lost than fit into what is passed over.
const LOOK_AHEAD: u64 = 16;
const LOOK_FURTHER: u64 = 256 * 1024;
/// A head of format 1 has no seal, so that a search sums whatever looks like a frame: in all, this
/// many times the bytes of the file.
const SUMMED_MAX: u64 = 64;

#[derive(Debug)]
pub struct Open {
    file: File,
    /// The sequence number that the file is named by.
    pub first: u64,
    format: Format,
    /// The sequence number of the frame at the cursor, unless it is damaged.
    expected: u64,
    /// Where in the file `buffer[0]` stands.
    offset: u64,
    buffer: Vec<u8>,
    cursor: usize,
    /// Bytes that may still be summed for heads without a seal.
    budget: u64,
}

/// A sound frame.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its sequence number.
    pub sequence: u64,
    payload: Range<usize>,
}

impl Open {
    pub fn new(first: u64, path: &Path, format: Format) -> io::Result<Open> {
        let file = File::open(path)?;
        let budget = SUMMED_MAX * file.metadata()?.len();
        Ok(Open {
            file,
            first,
            format,
            expected: first,
            offset: format.frames_from() as u64,
            buffer: Vec::new(),
            cursor: 0,
            budget,
        })
    }

    /// The next sound frame. `None` when none with a sequence number up to `last` is left; after
    /// that, the file is read on from the same place. Damage is searched only for frames up to
    /// `last`, which are known to be written.
    pub fn next(&mut self, last: u64) -> io::Result<Option<Found>> {
        if let Some(found) = self.at_cursor() {
            return Ok(Some(self.take(found)));
        }
        // What the buffer does not show as a sound frame is read again: the writer may have
        // written it since.
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
        let found = self.search(last)?;
        Ok(found.map(|found| self.take(found)))
    }

    /// The payload of the frame that was found last.
    pub fn payload(&self, found: &Found) -> &[u8] {
        &self.buffer[found.payload.clone()]
    }

    fn at_cursor(&self) -> Option<Found> {
        let bytes = &self.buffer[self.cursor..];
        let head = self.format.head(bytes)?;
        let payload =
            self.format.head_bytes()..self.format.head_bytes().checked_add(head.length)?;
        let is_next = head.sequence == self.expected;
        let is_sound = is_next && self.format.is_sound(head, bytes.get(payload.clone())?);
        is_sound.then(|| Found {
            sequence: head.sequence,
            payload: self.cursor + payload.start..self.cursor + payload.end,
        })
    }

    fn take(&mut self, found: Found) -> Found {
        self.cursor = found.payload.end;
        let is_numbered =
            self.format == Format::First || !layout::is_declaration(self.payload(&found));
        self.expected = found.sequence + u64::from(is_numbered);
        found
    }

    /// The first frame by sequence number that follows the damage at the cursor.
    fn search(&mut self, last: u64) -> io::Result<Option<Found>> {
        let damaged_at = self.offset + self.cursor as u64;
        let mut best: Option<(u64, u64)> = None;
        let (mut from, mut until) = (damaged_at, u64::MAX);
        let mut latest = last;
        while let Some((sequence, at)) = self.candidate(damaged_at, from, until, latest)? {
            best = Some((sequence, at));
            if sequence == self.expected {
                break;
            }
            until = at + LOOK_AHEAD * (at - damaged_at) + PAGE_BYTES;
            if sequence - self.expected > self.fit(at - damaged_at) {
                until += LOOK_FURTHER;
            }
            (from, latest) = (at + 1, sequence - 1);
        }
        self.go_to(best.map_or(damaged_at, |(_, at)| at));
        let Some((sequence, _)) = best else {
            return Ok(None);
        };
        self.fill(READ_BYTES)?;
        let head = self.format.head(&self.buffer).map_or(0, |head| head.length);
        let whole = self.format.head_bytes() + head;
        if whole > self.buffer.len() {
            self.fill(whole)?;
        }
        self.expected = sequence;
        Ok(self.at_cursor())
    }

    /// The first sound frame in a stretch of the file, with a sequence number up to `latest`: the
    /// number, and where it stands.
    fn candidate(
        &mut self,
        damaged_at: u64,
        from: u64,
        until: u64,
        latest: u64,
    ) -> io::Result<Option<(u64, u64)>> {
        let head_bytes = self.format.head_bytes();
        self.go_to(from);
        loop {
            self.fill(READ_BYTES)?;
            if self.buffer.len() < head_bytes || self.offset >= until {
                return Ok(None);
            }
            while self.cursor + head_bytes <= self.buffer.len() {
                self.cursor += zeros(&self.buffer[self.cursor..]);
                let bytes = self.buffer.get(self.cursor..).unwrap_or_default();
                let Some(head) = self.format.head(bytes) else {
                    self.cursor += 1;
                    continue;
                };
                let at = self.offset + self.cursor as u64;
                if at >= until {
                    return Ok(None);
                }
                let is_genuine = self.format != Format::First
                    || head.sequence.saturating_sub(self.expected) <= self.fit(at - damaged_at);
                let is_likely =
                    is_genuine && head.sequence >= self.expected && head.sequence <= latest;
                if is_likely && self.is_sound_here(head.length)? {
                    return Ok(Some((head.sequence, at)));
                }
                self.cursor += 1;
            }
        }
    }

    /// Whether a sound frame with a payload of this length stands at the cursor.
    fn is_sound_here(&mut self, length: usize) -> io::Result<bool> {
        let whole = self.format.head_bytes().saturating_add(length);
        if self.buffer.len() - self.cursor < whole {
            self.fill(whole.max(READ_BYTES))?;
        }
        let bytes = &self.buffer[self.cursor..];
        let Some(payload) = bytes.get(self.format.head_bytes()..whole) else {
            return Ok(false);
        };
        if self.format == Format::First {
            if self.budget < length as u64 {
                return Ok(false);
            }
            self.budget -= length as u64;
        }
        let head = self.format.head(bytes);
        Ok(head.is_some_and(|head| self.format.is_sound(head, payload)))
    }

    /// How many frames fit into so many bytes.
    fn fit(&self, bytes: u64) -> u64 {
        bytes / (self.format.head_bytes() as u64 + 1)
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
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    // A bad sector: what stands on its page is damaged.
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

/// How many bytes at the beginning may be passed over at once: a head is not all zeros in its
/// first four bytes.
fn zeros(bytes: &[u8]) -> usize {
    const STEP: usize = 64;
    let blocks = bytes.chunks_exact(STEP);
    STEP * blocks
        .take_while(|block| block.iter().all(|&byte| byte == 0))
        .count()
        .saturating_sub(1)
}
