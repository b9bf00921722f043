//! Appends records. A writer belongs to one worker. Except for one counter, it touches the state that it
//! shares with the reader and the maintenance thread once per segment.

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

/// An encoded declaration, made once per plan.
#[derive(Clone, Debug)]
pub struct DeclaredPlan {
    /// The digest by which records refer to it.
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

/// The journal is at its quota or the disk is full: the record is dropped and must be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFull;

/// The state that a writer shares with its reader and the maintenance thread.
#[derive(Debug)]
pub struct WriterState {
    /// The sequence number of the last frame that is completely written.
    pub(super) written: AtomicU64,
    /// The number of dropped records.
    pub(super) dropped: AtomicU64,
    /// Whether a file was changed by another program: see `repair`.
    amiss: AtomicBool,
    slots: Mutex<Slots>,
    keeper: Mutex<Option<Thread>>,
}

#[derive(Debug, Default)]
struct Slots {
    /// The segment that is being written, and its path.
    current: Option<(Arc<File>, PathBuf)>,
    /// The file of the marks.
    marks: Option<File>,
    /// The lock of a folder that was created again; held as long as the reader or the writer lives.
    relocked: Option<File>,
    /// The spare segment, made by the maintenance thread.
    spare: Option<Segment>,
    /// The files to sync; the one being written is last.
    unsynced: Vec<Arc<File>>,
    /// Whether a segment was added to the folder since the folder was last synced.
    folder_changed: bool,
    closed: bool,
}

/// Appends the records of one worker.
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
    /// The journal's UUID, which names it and seals its frames.
    id: Uuid,
    /// The declarations in the segment; the last one used is last.
    declared: Vec<u64>,
    copies: Copies,
    marks: Marks,
    /// Whether the last repair failed.
    failing: bool,
    clock: MonotonicClock,
}

impl Writer {
    /// Creates a journal in an empty folder. Without space in the quota it starts full: records are dropped
    /// until the maintenance thread has found space.
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

    /// Returns the state that this writer shares.
    pub fn shared(&self) -> Arc<WriterState> {
        Arc::clone(&self.shared)
    }

    /// Returns the clock of this journal's records.
    pub fn clock(&self) -> &MonotonicClock {
        &self.clock
    }

    /// Returns the sequence number of the last written record.
    pub fn written(&self) -> u64 {
        self.next - 1
    }

    /// Appends one record, and before it its declaration if the segment does not have it yet. This takes no
    /// system call, except when a segment is full.
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
            // This fails if the record is too long or the disk is full.
            let _ = self.roll();
        }
        if self.fits(declared, record) {
            return Ok(());
        }
        if self.is_lost() {
            // The spare segment was truncated, too, or the new one immediately.
            self.repair();
            if self.fits(declared, record) {
                return Ok(());
            }
        }
        let dropped = self.marks.drop_one();
        self.shared.dropped.store(dropped, Ordering::Relaxed);
        Err(JournalFull)
    }

    /// Restores files that the maintenance thread found removed or truncated. It is also called once a
    /// second, for a journal without records.
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
            // The record may be lost, so it counts as not written.
            Some(_) if segment.is_lost() => false,
            Some(bytes) => {
                self.offset += bytes;
                self.marks.reach(self.next, record.at_ms);
                // The reader may read up to this number: `Release` publishes the record before it.
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
        // A declaration has the number of the record that follows it, so that only records are counted.
        match layout::write_payload(room, self.next, &declared.payload, Key::from(self.id)) {
            Some(bytes) => {
                self.offset += bytes;
                self.declared.push(declared.digest);
                true
            }
            None => false,
        }
    }

    /// Continues in a new segment: the spare one, or one that is created here.
    fn roll(&mut self) -> Result<(), JournalFull> {
        if self.segment.is_some() && self.first == self.next {
            // It does not fit into a whole segment.
            return Err(JournalFull);
        }
        let path = segment::path_of(&self.folder, self.next);
        let spare = self.shared.slots().spare.take();
        let renamed = spare.and_then(|spare| {
            let renamed = std::fs::rename(spare_path(&self.folder), &path);
            // Another program has removed it.
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

    /// Creates a segment on the request path, if the maintenance thread was too slow. If the disk is full,
    /// it does not try again until the maintenance thread has succeeded.
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
        // Held while the segment is truncated: the maintenance thread would take that for damage.
        let mut slots = self.shared.slots();
        // If truncating fails, the next start skips the zeros.
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
        // No code that holds this lock can leave the state half-changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_keeper(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &*keeper {
            thread.unpark();
        }
    }

    /// Registers the calling maintenance thread, so that it can be woken.
    pub(super) fn keep_here(&self) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// Whether the writer was dropped.
    pub(super) fn closed(&self) -> bool {
        self.slots().closed
    }

    /// Syncs one journal and prepares a spare segment. Returns false if another program changed its
    /// files.
    pub(super) fn tend(&self, folder: &Path, options: &Options) -> io::Result<bool> {
        let (files, folder_changed) = {
            let mut slots = self.slots();
            let all = std::mem::take(&mut slots.unsynced);
            // The last one is still being written.
            slots.unsynced.extend(all.last().cloned());
            (all, std::mem::take(&mut slots.folder_changed))
        };
        for file in files {
            file.sync_data()?;
        }
        if !self.closed() && self.slots().are_amiss(folder, options.segment_bytes) {
            // The writer creates it again before its next record.
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
                // The writer was dropped in the meantime.
                std::fs::remove_file(spare_path(folder))?;
                options.quota.give(options.segment_bytes);
            } else {
                slots.spare = Some(spare);
            }
        }
        Ok(true)
    }
}

/// The sequence number of all declarations in this file.
pub(super) const COPY: u64 = 1;

/// A second copy of the declarations, in a file of its own: records are useless without their
/// declaration.
#[derive(Debug, Default)]
struct Copies {
    kept: Vec<u64>,
}

impl Copies {
    /// Copies a declaration that is new to this journal: one system call per plan. The copy is read only if
    /// the one in the segment is damaged, so a failure does no harm now.
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
