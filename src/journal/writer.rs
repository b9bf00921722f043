//! Appends facts. One writer belongs to one worker; what it shares with the reader and the keeper
//! is touched once per segment, but for one counter.

mod repair;

use super::clock::MonotonicClock;
use super::files::{copies_path, spare_path};
use super::frame::{self, Key, SEGMENT_HEAD_BYTES};
use super::layout;
use super::marks::Marks;
use super::options::{JournalError, Options};
use super::segment::{self, Segment};
use crate::experiment::record::{Declaration, Record};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use uuid::Uuid;

/// A declaration as the journal keeps it, made once per plan.
#[derive(Clone, Debug)]
pub struct DeclaredPlan {
    /// Names it; records refer to it by this.
    pub digest: u64,
    payload: Vec<u8>,
}

impl DeclaredPlan {
    /// Encodes a declaration.
    pub fn new(declaration: &Declaration) -> DeclaredPlan {
        DeclaredPlan {
            digest: declaration.digest,
            payload: layout::encode_declaration(declaration),
        }
    }
}

/// The journal cannot take a record: it is at its quota or the disk is full. The record is
/// dropped and must be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFull;

/// What a writer shares with its reader and its keeper.
#[derive(Debug)]
pub struct WriterState {
    /// The sequence number of the last frame that is wholly written.
    pub(super) written: AtomicU64,
    /// How many facts could not be taken.
    pub(super) dropped: AtomicU64,
    /// Whether a file is not what the writer made: see `repair`.
    amiss: AtomicBool,
    slots: Mutex<Slots>,
    keeper: Mutex<Option<Thread>>,
}

#[derive(Debug, Default)]
struct Slots {
    /// The segment that is being written, and where it should be.
    current: Option<(Arc<File>, PathBuf)>,
    /// The file of the journal's marks.
    marks: Option<File>,
    /// The lock of a folder that had to be made anew: held as long as reader or writer have it.
    relocked: Option<File>,
    /// Made ahead by the keeper.
    spare: Option<Segment>,
    /// The files to make durable: the one written now, last.
    unsynced: Vec<Arc<File>>,
    /// Whether a segment has come into the folder since it was last made durable.
    folder_changed: bool,
    closed: bool,
}

/// Appends one worker's facts.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    options: Options,
    shared: Arc<WriterState>,
    segment: Option<Segment>,
    offset: usize,
    next: u64,
    /// The number of the segment's first record.
    first: u64,
    /// The journal's UUID: names it, and seals its frames.
    id: Uuid,
    /// The declarations that the segment holds; the last one asked for comes last.
    declared: Vec<u64>,
    copies: Copies,
    marks: Marks,
    /// Whether the last repair failed.
    failing: bool,
    clock: MonotonicClock,
}

impl Writer {
    /// Begins a journal in an empty folder. Without room in the quota it begins full: everything
    /// is dropped until the keeper has found room.
    pub(super) fn new(
        id: Uuid,
        folder: &Path,
        options: Options,
        marks: Marks,
        clock: MonotonicClock,
    ) -> Result<Writer, JournalError> {
        let shared = WriterState {
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            amiss: AtomicBool::new(false),
            slots: Mutex::default(),
            keeper: Mutex::default(),
        };
        let mut writer = Writer {
            folder: folder.to_owned(),
            options,
            shared: Arc::new(shared),
            segment: None,
            offset: 0,
            next: 1,
            first: 1,
            id,
            declared: Vec::new(),
            copies: Copies::default(),
            marks,
            failing: false,
            clock,
        };
        writer.shared.slots().marks = writer.marks.file().try_clone().ok();
        if writer.options.quota.take(writer.options.segment_bytes) {
            let path = segment::path_of(folder, writer.next);
            match Segment::create(&path, writer.options.segment_bytes) {
                Ok(first) => writer.begin(first),
                Err(source) => return Err(JournalError::Disk { path, source }),
            }
        }
        Ok(writer)
    }

    /// What the reader and the keeper share with this writer.
    pub fn shared(&self) -> Arc<WriterState> {
        Arc::clone(&self.shared)
    }

    /// The time of this journal's facts.
    pub fn clock(&self) -> &MonotonicClock {
        &self.clock
    }

    /// The sequence number of the last fact written.
    pub fn written(&self) -> u64 {
        self.next - 1
    }

    /// Appends one record, and before it the declaration that it refers to where the segment
    /// does not hold it yet. No system call, but when a segment is full.
    pub fn append(
        &mut self,
        declared: &DeclaredPlan,
        record: &Record<'_>,
    ) -> Result<(), JournalFull> {
        debug_assert_eq!(declared.digest, record.declaration);
        self.restore();
        if self.fits(declared, record) {
            return Ok(());
        }
        if self.is_lost() {
            self.repair();
        } else {
            // In vain where this record is too long or the disk is full.
            let _ = self.roll();
        }
        if self.fits(declared, record) {
            return Ok(());
        }
        if self.is_lost() {
            // The spare segment was shortened, too, or the new one at once.
            self.repair();
            if self.fits(declared, record) {
                return Ok(());
            }
        }
        let dropped = self.marks.drop_one();
        self.shared.dropped.store(dropped, Ordering::Relaxed);
        Err(JournalFull)
    }

    /// Restores files that the keeper found removed or shortened. Called once a second, too, for
    /// a journal without records.
    pub fn restore(&mut self) {
        if self.shared.amiss.load(Ordering::Relaxed) {
            self.repair();
        }
    }

    fn fits(&mut self, declared: &DeclaredPlan, record: &Record<'_>) -> bool {
        if self.declared.last() != Some(&declared.digest) && !self.declare(declared) {
            return false;
        }
        let Some(segment) = &mut self.segment else {
            return false;
        };
        let room = &mut segment.bytes()[self.offset..];
        match layout::write_record(room, self.next, record, Key::from(self.id)) {
            // What was written may be gone, so it is not there.
            Some(_) if segment.is_lost() => false,
            Some(bytes) => {
                self.offset += bytes;
                self.marks.reach(self.next, record.at_ms);
                // The reader may read what is at or below this number: release what was written
                // before it.
                self.shared.written.store(self.next, Ordering::Release);
                self.next += 1;
                true
            }
            None => false,
        }
    }

    fn is_lost(&self) -> bool {
        self.segment.as_ref().is_some_and(Segment::is_lost)
    }

    fn declare(&mut self, declared: &DeclaredPlan) -> bool {
        if let Some(place) = self
            .declared
            .iter()
            .position(|&digest| digest == declared.digest)
        {
            let last = self.declared.len() - 1;
            self.declared.swap(place, last);
            return true;
        }
        self.copies.keep(&self.folder, declared, self.id);
        let Some(segment) = &mut self.segment else {
            return false;
        };
        let room = &mut segment.bytes()[self.offset..];
        // It has the number of the record that follows it, so that only records are counted.
        match layout::write_payload(room, self.next, &declared.payload, Key::from(self.id)) {
            Some(bytes) => {
                self.offset += bytes;
                self.declared.push(declared.digest);
                true
            }
            None => false,
        }
    }

    /// Goes on in a new segment: the keeper's spare, or one made here.
    fn roll(&mut self) -> Result<(), JournalFull> {
        if self.segment.is_some() && self.first == self.next {
            // A whole segment cannot hold it: another one could not either.
            return Err(JournalFull);
        }
        let path = segment::path_of(&self.folder, self.next);
        let spare = self.shared.slots().spare.take();
        let renamed = spare.and_then(|spare| {
            let renamed = std::fs::rename(spare_path(&self.folder), &path);
            // Somebody else has removed it.
            let gone = || self.options.quota.give(self.options.segment_bytes);
            renamed.inspect_err(|_| gone()).ok().map(|()| spare)
        });
        let next = match renamed {
            Some(spare) => Ok(spare),
            None => self.create(&path),
        };
        self.shared.wake_keeper();
        match next {
            Ok(next) => {
                self.begin(next);
                Ok(())
            }
            Err(_) => Err(JournalFull),
        }
    }

    /// Makes a segment on the request path: only when the keeper was too slow, and not again
    /// until it has caught up when the disk is full.
    fn create(&mut self, path: &Path) -> io::Result<Segment> {
        if self.segment.is_none() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let created = match self.options.quota.take(self.options.segment_bytes) {
            true => Segment::create(path, self.options.segment_bytes)
                .inspect_err(|_| self.options.quota.give(self.options.segment_bytes)),
            false => Err(io::ErrorKind::QuotaExceeded.into()),
        };
        if created.is_err() {
            self.segment = None;
        }
        created
    }

    fn begin(&mut self, mut segment: Segment) {
        segment.bytes()[..SEGMENT_HEAD_BYTES].copy_from_slice(&frame::segment_head(self.id));
        let mut slots = self.shared.slots();
        slots.unsynced.push(segment.file());
        slots.current = Some((segment.file(), segment::path_of(&self.folder, self.next)));
        slots.folder_changed = true;
        drop(slots);
        self.segment = Some(segment);
        self.offset = SEGMENT_HEAD_BYTES;
        self.first = self.next;
        self.declared.clear();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let reserved = self.options.segment_bytes;
        let are_amiss = self.shared.slots().are_amiss(&self.folder, reserved);
        if are_amiss {
            self.repair();
        }
        // Held while the segment is shortened: the keeper would take that for damage.
        let mut slots = self.shared.slots();
        // What cannot be given back to the disk here is passed over as zeros by the next start.
        if let Some(segment) = self.segment.take()
            && segment.close(self.offset as u64).is_ok()
        {
            self.options.quota.give(reserved - self.offset as u64);
        }
        slots.closed = true;
        slots.current = None;
        slots.marks = None;
        if slots.spare.take().is_some() && std::fs::remove_file(spare_path(&self.folder)).is_ok() {
            self.options.quota.give(reserved);
        }
        drop(slots);
        self.shared.wake_keeper();
    }
}

impl WriterState {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Nothing that holds this lock can leave it half-changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_keeper(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &*keeper {
            thread.unpark();
        }
    }

    /// Called by the keeper's thread, so that it can be woken.
    pub(super) fn keep_here(&self) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// Whether the writer is gone.
    pub(super) fn closed(&self) -> bool {
        self.slots().closed
    }

    /// The keeper's work on one journal: make durable what was written, keep a spare segment. False
    /// where its files are not what the writer made.
    pub(super) fn tend(&self, folder: &Path, options: &Options) -> io::Result<bool> {
        let (files, folder_changed) = {
            let mut slots = self.slots();
            let all = std::mem::take(&mut slots.unsynced);
            // The last one goes on being written.
            slots.unsynced.extend(all.last().cloned());
            (all, std::mem::take(&mut slots.folder_changed))
        };
        for file in files {
            file.sync_data()?;
        }
        if !self.closed() && self.slots().are_amiss(folder, options.segment_bytes) {
            // The writer makes it anew before its next record.
            self.amiss.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        if folder_changed {
            File::open(folder)?.sync_all()?;
        }
        if self.slots().spare.is_none()
            && !self.closed()
            && options.quota.take(options.segment_bytes)
        {
            let spare = Segment::create(&spare_path(folder), options.segment_bytes)
                .inspect_err(|_| options.quota.give(options.segment_bytes))?;
            let mut slots = self.slots();
            if slots.closed {
                // The writer left in the meantime.
                std::fs::remove_file(spare_path(folder))?;
                options.quota.give(options.segment_bytes);
            } else {
                slots.spare = Some(spare);
            }
        }
        Ok(true)
    }
}

/// The sequence number of all of them.
pub(super) const COPY: u64 = 1;

/// Declarations are written a second time, where what damages a segment does not reach them: the
/// records of a segment are worth nothing without them.
#[derive(Debug, Default)]
struct Copies {
    kept: Vec<u64>,
}

impl Copies {
    /// Writes a declaration where it is new to this journal: one system call for each plan. It is
    /// read only when the segment's own is damaged, so a copy that fails costs nothing now.
    fn keep(&mut self, folder: &Path, declared: &DeclaredPlan, id: Uuid) {
        if self.kept.contains(&declared.digest) {
            return;
        }
        let mut frame = vec![0; frame::HEAD_BYTES + declared.payload.len()];
        let mut kept = || -> io::Result<()> {
            layout::write_payload(&mut frame, COPY, &declared.payload, Key::from(id))
                .ok_or(io::ErrorKind::FileTooLarge)?;
            let path = copies_path(folder);
            let mut file = segment::private().create(true).append(true).open(path)?;
            if file.metadata()?.len() == 0 {
                file.write_all(&frame::segment_head(id))?;
            }
            file.write_all(&frame)
        };
        match kept() {
            Ok(()) => self.kept.push(declared.digest),
            Err(error) => tracing::debug!("a declaration is not copied: {error}"),
        }
    }
}
