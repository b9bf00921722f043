//! Repairs a journal whose files another program has truncated, deleted or replaced. The writer continues
//! in new files, and readers count the missing records.

use super::super::files::{self, copies_path, is_at, spare_path};
use super::super::segment::{self, Segment};
use super::{Copies, Marks, Slots, Writer};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Writer {
    /// Creates missing files again. The next record starts a new segment.
    pub(super) fn repair(&mut self) {
        self.shared.amiss.store(false, Ordering::Relaxed);
        let repaired = self.try_repair();
        if let Err(error) = &repaired
            && !self.failing
        {
            tracing::error!(
                "the journal at {} was truncated or removed by another program and cannot be created again: {error}; events are dropped until it can: make the folder writable and free some space",
                self.folder.display()
            );
        }
        self.failing = repaired.is_err();
    }

    fn try_repair(&mut self) -> io::Result<()> {
        segment::make_folder(&self.folder)?;
        self.repair_marks()?;
        if !copies_path(&self.folder).exists() {
            self.copies = Copies::default();
        }
        let Some(segment) = self.segment.take() else {
            return self.start_anew();
        };
        let path = segment::path_of(&self.folder, self.first);
        let bytes = segment.file().metadata()?.len();
        let is_whole = !segment.is_lost() && bytes == self.options.segment_bytes;
        if is_whole && is_at(&segment.file(), &path) {
            self.segment = Some(segment);
            return Ok(());
        }
        tracing::error!(
            "{} was {} by another program: leave the journal's folder to watershed. A new segment is started; records that were not read yet are {}",
            path.display(),
            if is_whole { "removed" } else { "truncated" },
            if is_whole {
                "written again"
            } else {
                "lost, and counted as damaged"
            },
        );
        let mut kept = 0;
        if is_whole && self.first < self.next {
            write_again(&path, &segment.as_bytes()[..self.offset])?;
            kept = self.offset as u64;
        } else if is_at(&segment.file(), &path) && self.first < self.next {
            kept = bytes;
        }
        drop(segment);
        let reserved = self.options.segment_bytes;
        self.options.quota.give(reserved.saturating_sub(kept));
        self.start_anew()
    }

    /// Starts a segment without the spare one, which may be damaged, too.
    fn start_anew(&mut self) -> io::Result<()> {
        let reserved = self.options.segment_bytes;
        let path = segment::path_of(&self.folder, self.next);
        if self.shared.slots().spare.take().is_some() {
            // It may be deleted already.
            let _ = std::fs::remove_file(spare_path(&self.folder));
            self.options.quota.give(reserved);
        }
        if !self.options.quota.take(reserved) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let segment =
            Segment::create(&path, reserved).inspect_err(|_| self.options.quota.give(reserved))?;
        self.begin(segment);
        Ok(())
    }

    fn repair_marks(&mut self) -> io::Result<()> {
        let path = self.folder.join(files::LOCK);
        if !self.marks.is_lost() && self.marks.are_at(&path) {
            return Ok(());
        }
        if !is_at(self.marks.file(), &path) {
            // Until now, another process could have adopted the journal.
            let lock = files::lock(&self.folder)?.ok_or(io::ErrorKind::WouldBlock)?;
            self.shared.slots().relocked = Some(lock);
        }
        self.marks = Marks::of(&path)?.following(&self.marks);
        self.shared.slots().marks = Some(self.marks.file().try_clone()?);
        Ok(())
    }
}

/// Writes a removed file again, in one step.
fn write_again(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("tmp");
    let mut file = segment::private()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&next)?;
    file.write_all(bytes)?;
    std::fs::rename(next, path)
}

impl Slots {
    /// Whether another program changed a file of the journal.
    pub(super) fn are_amiss(&self, folder: &Path, segment_bytes: u64) -> bool {
        let is_gone = |(file, path): &(Arc<File>, PathBuf)| {
            !is_at(file, path)
                || file
                    .metadata()
                    .is_ok_and(|found| found.len() < segment_bytes)
        };
        let lock = folder.join(files::LOCK);
        self.current.as_ref().is_some_and(is_gone)
            || self
                .marks
                .as_ref()
                .is_some_and(|marks| !Marks::stand(marks, &lock))
    }
}
