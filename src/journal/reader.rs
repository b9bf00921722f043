//! Reads a journal back, in order, while it is being written or long after.

use super::files::{self, LOCK};
use super::frame::FrameFormat;
use super::hold::{HeldExcess, Hold};
use super::layout::{self, Chunk, JournalEntry, OwnedRecord};
use super::options::Options;
use super::ranges::Ranges;
use super::segment_reader::SegmentReader;
use super::writer::{self, WriterState};
use super::{marks, segment};
use crate::experiment::record::Declaration;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reads one journal. Its position is the sequence number of the next frame.
#[derive(Debug)]
pub struct Reader {
    id: Arc<str>,
    format: FrameFormat,
    folder: PathBuf,
    options: Options,
    /// The lock, so that no other process reads or writes this journal.
    lock: File,
    /// The state of the writer; `None` for a journal of an earlier process.
    live: Option<Arc<WriterState>>,
    /// For a journal of an earlier process: its last sequence number.
    left_at: u64,
    declarations: HashMap<u64, Arc<Declaration>, RandomState>,
    /// Declarations of which all copies are damaged.
    missing: HashSet<u64, RandomState>,
    open: Option<SegmentReader>,
    /// The highest sequence number that the open segment can hold.
    holds_up_to: u64,
    /// The first sequence number of the segment last read to its end.
    exhausted: Option<u64>,
    next: u64,
    lost: u64,
    /// The last record that was deleted after it was read.
    released: u64,
    /// The lost records. Each counts once, however often its place is read.
    lost_ones: Ranges,
    /// What further readers need.
    holds: Vec<Arc<Hold>>,
    /// Whether this is a further reader: the first one reports what is lost.
    is_further: bool,
}

/// Returns what is kept for further readers beyond what may be.
pub fn held_beyond(readers: &[Reader]) -> HeldExcess {
    for reader in readers {
        // A folder that cannot be read now is measured the next time.
        let _ = reader.measure_held();
    }
    let holds = readers.iter().flat_map(|reader| &reader.holds);
    let most = readers.first().map(|it| &*it.options.hold_bytes_max);
    HeldExcess::new(holds, most.unwrap_or_default())
}

#[expect(
    clippy::large_enum_variant,
    reason = "a step is used at once, and a box would allocate for each record"
)]
enum Step {
    Record(u64, OwnedRecord),
    Passed,
    /// The segment has no more frames.
    End,
}

impl Reader {
    pub(super) fn new(
        id: Arc<str>,
        format: FrameFormat,
        folder: &Path,
        lock: File,
        live: Option<Arc<WriterState>>,
        options: Options,
    ) -> Reader {
        Reader {
            id,
            format,
            folder: folder.to_owned(),
            options,
            lock,
            live,
            left_at: 0,
            declarations: HashMap::default(),
            missing: HashSet::default(),
            open: None,
            holds_up_to: u64::MAX,
            exhausted: None,
            next: 1,
            lost: 0,
            released: 0,
            lost_ones: Ranges::default(),
            holds: Vec::new(),
            is_further: false,
        }
    }

    /// Makes a further reader of this journal. Segments are kept until it has read them, too, as far as its owner
    /// may keep them: see [`Options::hold_bytes_max`].
    pub(super) fn further(&mut self, owner: usize) -> io::Result<(Reader, Arc<Hold>)> {
        // The lock ends with the last copy of its file.
        let lock = self.lock.try_clone()?;
        let (id, live) = (Arc::clone(&self.id), self.live.clone());
        let options = self.options.clone();
        let further = Reader::new(id, self.format, &self.folder, lock, live, options);
        let hold = Arc::new(Hold::new(owner, self.released));
        self.holds.push(Arc::clone(&hold));
        let further = Reader {
            left_at: self.left_at,
            released: self.released,
            next: self.released + 1,
            is_further: true,
            ..further
        };
        Ok((further, hold))
    }

    /// Opens a journal of an earlier process. It is an error if its end cannot be read: the journal would
    /// count as completely read.
    pub(super) fn of_left(
        id: Arc<str>,
        format: FrameFormat,
        folder: &Path,
        lock: File,
        options: Options,
    ) -> io::Result<Reader> {
        let left = marks::left(&lock);
        let mut reader = Reader::new(id, format, folder, lock, None, options);
        let first = segment::list(folder)?.first().map(|&(first, _)| first);
        // An earlier version did not store what it deleted.
        let before = first.unwrap_or(1).saturating_sub(1);
        reader.released = left.released.unwrap_or(before);
        let last = reader.last_sequence(left.written)?;
        reader.left_at = last.max(left.written);
        Ok(reader)
    }

    /// Returns the journal's name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Returns the folder of the journal.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the time of the latest record of an earlier process, in Unix milliseconds; 0 without one.
    pub fn latest_ms(&self) -> u64 {
        marks::left(&self.lock).latest_ms
    }

    /// Returns how many records the journal has dropped.
    pub fn dropped(&self) -> u64 {
        match &self.live {
            Some(live) => live.dropped.load(Ordering::Relaxed),
            None => marks::left(&self.lock).dropped,
        }
    }

    /// Whether a worker of this process writes or wrote it.
    pub fn is_ours(&self) -> bool {
        self.live.is_some()
    }

    /// Whether a worker of this process still writes it.
    pub fn is_live(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.closed())
    }

    /// Returns the sequence number of the last written record.
    pub fn written(&self) -> u64 {
        self.live
            .as_ref()
            .map_or(self.left_at, |live| live.written.load(Ordering::Acquire))
    }

    /// Returns the sequence number of the next record.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Returns the number of lost records.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads up to `records_max` further records. An empty chunk means that no more are written yet. Damage
    /// is skipped, counted and logged. Records before an error are returned first, and the next call
    /// returns the error.
    pub fn next(&mut self, records_max: usize) -> io::Result<Chunk> {
        self.next_through(records_max, u64::MAX)
    }

    /// Reads further records up to the sequence number `last`.
    pub fn next_through(&mut self, records_max: usize, last: u64) -> io::Result<Chunk> {
        // Loaded before reading: all records up to this number are in the files, or are lost.
        let written = self.written().min(last);
        let behind = (written + 1).saturating_sub(self.next);
        let mut records = Vec::with_capacity(records_max.min(behind as usize));
        while records.len() < records_max && self.next <= written {
            match self.advance(written) {
                Ok(Some(Step::Record(sequence, record))) => records.push((sequence, record)),
                Ok(Some(Step::Passed | Step::End)) => {}
                Ok(None) => break,
                Err(error) if records.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let mut declarations = HashMap::default();
        let mut last = None;
        for (_, record) in &records {
            // Most records refer to the same plan as the record before.
            if last.replace(record.declaration) != Some(record.declaration)
                && let Some(declaration) = self.declarations.get(&record.declaration)
            {
                declarations.insert(record.declaration, Arc::clone(declaration));
            }
        }
        Ok(Chunk {
            journal: Arc::clone(&self.id),
            records,
            declarations,
        })
    }

    /// Advances to the next frame, and to the next segment at the end of one. `None` if no more can be read
    /// now.
    fn advance(&mut self, written: u64) -> io::Result<Option<Step>> {
        if self.open.is_none() && !self.open_next()? {
            if self.is_live() {
                // Its segment was removed, and the writer writes it again.
                return Ok(None);
            }
            let first = self.next.max(self.released + 1);
            self.lose(first, written, "no segment holds them");
            self.next = written + 1;
            return Ok(None);
        }
        let step = self.step(written)?;
        if matches!(step, Step::End) {
            if self.is_last()? {
                self.lose(self.next, written, "the end of the journal is damaged");
                self.next = written + 1;
            } else {
                self.exhausted = self.open.take().map(|open| open.first);
            }
        }
        Ok(Some(step))
    }

    /// Goes back to the record after `after`, as far as it is still kept.
    pub fn rewind(&mut self, after: u64) {
        self.open = None;
        self.exhausted = None;
        self.next = self.next.min(after + 1);
    }

    /// Moves to the record with this sequence number.
    pub(super) fn seek(&mut self, next: u64) {
        self.open = None;
        self.exhausted = None;
        self.released = self.released.max(next.saturating_sub(1));
        self.next = next;
    }

    /// Deletes segments with records up to `through` only, once they are older than
    /// [`Options::retain`]. The newest segment stays, and so do segments that a further reader needs, except for
    /// the `excess` of its owner.
    pub fn release(&mut self, through: u64, excess: &mut HeldExcess) -> io::Result<()> {
        for pair in segment::list(&self.folder)?.windows(2) {
            let ((_, path), (following, _)) = (&pair[0], &pair[1]);
            if *following > through + 1 || !self.may_go(path)? {
                break;
            }
            let last = following.saturating_sub(1);
            if self.is_held(last, excess) {
                break;
            }
            let bytes = std::fs::metadata(path)?.len();
            for hold in self.holds.iter().filter(|hold| hold.holds(last)) {
                excess.lessen(hold, bytes);
            }
            self.released = self.released.max(last);
            for hold in &self.holds {
                hold.release(self.released);
            }
            let kept = marks::keep_released(&self.folder.join(LOCK), self.released);
            let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            // The writer creates a removed lock file again.
            if let Err(error) = kept
                && (self.is_live() || !is_gone(&error))
            {
                return Err(error);
            }
            self.delete(path)?;
        }
        Ok(())
    }

    /// Whether a further reader needs records up to this one, and not too much is kept for its owner.
    fn is_held(&self, last: u64, excess: &HeldExcess) -> bool {
        let mut holds = self.holds.iter();
        holds.any(|hold| hold.holds(last) && !excess.is_of(hold))
    }

    /// Measures the bytes that are kept because further readers need them.
    fn measure_held(&self) -> io::Result<()> {
        if self.holds.is_empty() {
            return Ok(());
        }
        let segments = segment::list(&self.folder)?;
        let mut held = vec![0; self.holds.len()];
        for (place, (_, path)) in segments.iter().enumerate() {
            let last = match segments.get(place + 1) {
                Some(&(following, _)) => following.saturating_sub(1),
                None if self.is_live() => break,
                None => self.written(),
            };
            if last >= self.next || !self.may_go(path)? {
                continue;
            }
            let bytes = std::fs::metadata(path)?.len();
            for (hold, held) in self.holds.iter().zip(&mut held) {
                *held += if hold.holds(last) { bytes } else { 0 };
            }
        }
        for (hold, held) in self.holds.iter().zip(held) {
            hold.set_bytes(held);
        }
        Ok(())
    }

    /// Whether the whole journal can be deleted: nobody writes it, all of it was read, also by further readers
    /// unless too much is kept for them, and it is as old as a released segment must be.
    pub fn is_over(&self, excess: &HeldExcess) -> bool {
        let old = |path: &Path| self.may_go(path).unwrap_or(false);
        let are_old = || {
            let segments = segment::list(&self.folder);
            segments.is_ok_and(|all| all.iter().all(|(_, path)| old(path)))
        };
        let is_held = self.is_held(self.written(), excess);
        !self.is_live() && self.next > self.written() && !is_held && are_old()
    }

    /// Deletes the whole journal, and its folder unless that holds other files.
    pub fn remove(&self) -> io::Result<()> {
        for hold in &self.holds {
            hold.release(self.written());
        }
        for (_, path) in segment::list(&self.folder)? {
            self.delete(&path)?;
        }
        for path in files::all_but_segments(&self.folder)? {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match std::fs::remove_dir(&self.folder) {
            Err(error)
                if ![io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound]
                    .contains(&error.kind()) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        let bytes = std::fs::metadata(path)?.len();
        std::fs::remove_file(path)?;
        self.options.quota.give(bytes);
        Ok(())
    }

    fn may_go(&self, path: &Path) -> io::Result<bool> {
        let age = std::fs::metadata(path)?
            .modified()?
            .elapsed()
            .unwrap_or(Duration::ZERO);
        Ok(age >= self.options.retain || self.options.quota.is_tight())
    }

    /// Finds the last sequence number of a journal of an earlier process by reading its last segment to its
    /// end. It searches beyond damage only if more is `known` to have been written, or if nothing is known.
    fn last_sequence(&self, known: u64) -> io::Result<u64> {
        let Some((first, path)) = segment::list(&self.folder)?.pop() else {
            return Ok(0);
        };
        let mut open = SegmentReader::new(first, &path, self.format)?;
        let mut last = first.saturating_sub(1);
        let until = if known == 0 { u64::MAX } else { known };
        while let Some(found) = open.next(until)? {
            if self.format == FrameFormat::First || !layout::is_declaration(open.payload(&found)) {
                last = last.max(found.sequence);
            }
        }
        Ok(last)
    }

    /// Whether the open segment is the last one.
    fn is_last(&self) -> io::Result<bool> {
        let open = self.open.as_ref().map_or(0, |open| open.first);
        let last = segment::list(&self.folder)?.pop();
        Ok(last.is_none_or(|(first, _)| first <= open))
    }

    /// Opens the segment of the next frame; false if there is none yet.
    fn open_next(&mut self) -> io::Result<bool> {
        let mut segments = segment::list(&self.folder)?;
        let place = match self.exhausted {
            Some(exhausted) => segments.iter().position(|&(first, _)| first > exhausted),
            None => {
                let holding = segments.iter().rposition(|&(first, _)| first <= self.next);
                Some(holding.unwrap_or(0))
            }
        };
        let place = place.unwrap_or(segments.len());
        // A page of a later segment may have been written to this one.
        let following = segments.get(place + 1).map(|&(first, _)| first);
        self.holds_up_to = following.map_or(u64::MAX, |first| first.saturating_sub(1));
        if place >= segments.len() {
            return Ok(false);
        }
        let (first, path) = segments.swap_remove(place);
        if first > self.next {
            let why = format!("damaged or removed before {}", path.display());
            // Released records may be requested again; they are not lost.
            self.lose(self.next.max(self.released + 1), first - 1, &why);
            self.next = first;
        }
        self.open = Some(SegmentReader::new(first, &path, self.format)?);
        Ok(true)
    }

    fn step(&mut self, written: u64) -> io::Result<Step> {
        let Some(open) = &mut self.open else {
            return Ok(Step::End);
        };
        let Some(found) = open.next(written.min(self.holds_up_to))? else {
            return Ok(Step::End);
        };
        let sequence = found.sequence;
        let entry = layout::decode(open.payload(&found));
        if let Ok(JournalEntry::Declaration(declaration)) = entry {
            if self.format == FrameFormat::First {
                self.reach(sequence);
            }
            self.declarations
                .insert(declaration.digest, Arc::new(declaration));
            return Ok(Step::Passed);
        }
        let seen_before = sequence < self.next;
        self.reach(sequence);
        match entry {
            Ok(JournalEntry::Record(record)) if !seen_before => {
                if self.knows(record.declaration) {
                    return Ok(Step::Record(sequence, record));
                }
                let why = "the declaration that they refer to is damaged, and all copies of it";
                self.lose(sequence, sequence, why);
            }
            Ok(_) => {}
            Err(unreadable) => self.lose(sequence, sequence, &unreadable.to_string()),
        }
        Ok(Step::Passed)
    }

    /// Handles a frame with this number: the records between the position and it are lost.
    fn reach(&mut self, sequence: u64) {
        self.lose(
            self.next,
            sequence.saturating_sub(1),
            "their frames are damaged",
        );
        self.next = self.next.max(sequence + 1);
    }

    /// Whether a declaration is known, from this segment or from another place of the journal.
    fn knows(&mut self, digest: u64) -> bool {
        if !self.declarations.contains_key(&digest) && !self.missing.contains(&digest) {
            tracing::warn!(journal = %self.id, "a declaration is damaged: searching for a copy");
            if let Err(error) = self.look_for_declarations() {
                tracing::warn!(journal = %self.id, "not all declarations can be read: {error}");
            }
            if !self.declarations.contains_key(&digest) {
                self.missing.insert(digest);
            }
        }
        self.declarations.contains_key(&digest)
    }

    fn look_for_declarations(&mut self) -> io::Result<()> {
        let copies = (writer::COPY, files::copies_path(&self.folder));
        let mut read = Ok(());
        for (first, path) in std::iter::once(copies).chain(segment::list(&self.folder)?) {
            // Each file is read, whatever the error of another one.
            read = read.and(self.look_into(first, &path));
        }
        read
    }

    fn look_into(&mut self, first: u64, path: &Path) -> io::Result<()> {
        let mut open = SegmentReader::new(first, path, self.format)?;
        while let Some(found) = open.next(u64::MAX)? {
            let payload = open.payload(&found);
            if layout::is_declaration(payload)
                && let Ok(JournalEntry::Declaration(declaration)) = layout::decode(payload)
            {
                self.declarations
                    .insert(declaration.digest, Arc::new(declaration));
            }
        }
        Ok(())
    }

    /// Counts and logs lost records, once however often the place is read.
    fn lose(&mut self, first: u64, last: u64, why: &str) {
        let lost = self.lost_ones.add(first, last);
        if lost > 0 {
            self.lost += lost;
            if self.is_further {
                return;
            }
            tracing::error!(journal = %self.id, first, last, "records are lost: {why}");
        }
    }
}
