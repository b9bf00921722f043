//! Reads a journal back, in order, while it is being written or long after.

use super::layout::{self, Chunk, Fact, Found, OwnedRecord};
use super::open::Open;
use super::writer::Shared;
use super::{Options, marks, segment};
use crate::experiment::record::Declaration;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reads one journal. Its place is a sequence number: the next frame to be read.
#[derive(Debug)]
pub struct Reader {
    id: Arc<str>,
    folder: PathBuf,
    options: Options,
    /// Held, so that no other process reads or writes this journal.
    lock: File,
    /// What the writer shares; `None` for a journal that an earlier process left.
    live: Option<Arc<Shared>>,
    /// For a journal that was left: the last sequence number in it.
    left_at: u64,
    declarations: HashMap<u64, Arc<Declaration>, RandomState>,
    open: Option<Open>,
    /// The first sequence number of the segment last read to its end.
    exhausted: Option<u64>,
    next: u64,
    lost: u64,
    /// Losses up to here are counted, however often they are read over.
    lost_through: u64,
}

#[expect(
    clippy::large_enum_variant,
    reason = "never kept: moved once, on the stack"
)]
enum Step {
    Record(u64, OwnedRecord),
    Passed,
    /// Nothing more stands in this segment; `broken` when something unsound does.
    End {
        broken: bool,
    },
}

impl Reader {
    pub(super) fn new(
        id: Arc<str>,
        folder: &Path,
        lock: File,
        live: Option<Arc<Shared>>,
        options: Options,
    ) -> Reader {
        let mut reader = Reader {
            id,
            folder: folder.to_owned(),
            options,
            lock,
            live,
            left_at: 0,
            declarations: HashMap::default(),
            open: None,
            exhausted: None,
            next: 1,
            lost: 0,
            lost_through: 0,
        };
        if reader.live.is_none() {
            reader.left_at = reader.last_sequence().unwrap_or(0);
        }
        reader
    }

    /// The journal's name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The time of the latest fact that an earlier life wrote, in Unix milliseconds; 0 without one.
    pub fn latest_ms(&self) -> u64 {
        marks::left(&self.lock).0
    }

    /// How many facts the journal could not take, since its beginning.
    pub fn dropped(&self) -> u64 {
        match &self.live {
            Some(live) => live.dropped.load(Ordering::Relaxed),
            None => marks::left(&self.lock).1,
        }
    }

    /// Whether a worker of this process writes it, or did.
    pub fn is_ours(&self) -> bool {
        self.live.is_some()
    }

    /// Whether a worker of this process still writes it.
    pub fn is_live(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.closed())
    }

    /// The sequence number of the last frame written.
    pub fn written(&self) -> u64 {
        self.live
            .as_ref()
            .map_or(self.left_at, |live| live.written.load(Ordering::Acquire))
    }

    /// The sequence number of the next frame to be read.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// How many frames were damaged and passed over.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Up to `records_max` records that follow what was read before. An empty chunk means that
    /// nothing more is written yet. Damage is passed over, counted and logged.
    pub fn next(&mut self, records_max: usize) -> io::Result<Chunk> {
        let written = self.written().saturating_sub(self.next - 1);
        let mut records = Vec::with_capacity(records_max.min(written as usize));
        while records.len() < records_max && self.next <= self.written() {
            if self.open.is_none() && !self.open_next()? {
                break;
            }
            match self.step()? {
                Step::Record(sequence, record) => records.push((sequence, record)),
                Step::Passed => {}
                Step::End { broken } => self.close(broken)?,
            }
        }
        let mut declarations = HashMap::default();
        let mut last = None;
        for (_, record) in &records {
            // Most refer to what the one before refers to.
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
            through: self.next - 1,
        })
    }

    /// Goes back so that what follows `after` is read again, as far as it is still kept.
    pub fn rewind(&mut self, after: u64) {
        self.open = None;
        self.exhausted = None;
        self.next = self.next.min(after + 1);
    }

    /// Deletes segments of which everything is at or before `through`, once they are older than
    /// the time that they are kept in case the ledger loses its last seconds. The newest segment
    /// stays.
    pub fn release(&mut self, through: u64) -> io::Result<()> {
        for pair in segment::list(&self.folder)?.windows(2) {
            let ((_, path), (following, _)) = (&pair[0], &pair[1]);
            if *following > through + 1 || !self.may_go(path)? {
                break;
            }
            self.delete(path)?;
        }
        Ok(())
    }

    /// Whether the whole journal can go: nobody writes it, everything was read, and it is as old
    /// as a released segment must be.
    pub fn is_over(&self) -> bool {
        let old = |path: &Path| self.may_go(path).unwrap_or(false);
        let segments = || segment::list(&self.folder).unwrap_or_default();
        !self.is_live()
            && self.next > self.written()
            && segments().iter().all(|(_, path)| old(path))
    }

    /// Deletes the whole journal.
    pub fn remove(self) -> io::Result<()> {
        for (_, path) in segment::list(&self.folder)? {
            self.delete(&path)?;
        }
        std::fs::remove_dir_all(&self.folder)
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

    /// The last sequence number of a journal that was left: its last segment is read to its end.
    fn last_sequence(&mut self) -> io::Result<u64> {
        let Some((first, path)) = segment::list(&self.folder)?.pop() else {
            return Ok(0);
        };
        let mut open = Open::new(first, path)?;
        let mut last = first.saturating_sub(1);
        loop {
            match open.look()? {
                Found::Frame(frame) => {
                    last = last.max(frame.sequence);
                    let bytes = frame.bytes;
                    open.cursor += bytes;
                }
                Found::Broken => {
                    if !open.pass_over() {
                        return Ok(last);
                    }
                }
                Found::End | Found::More(_) => return Ok(last),
            }
        }
    }

    /// Opens the segment that holds the next frame; false when there is none yet.
    fn open_next(&mut self) -> io::Result<bool> {
        let segments = segment::list(&self.folder)?;
        let found = match self.exhausted {
            Some(exhausted) => segments.into_iter().find(|&(first, _)| first > exhausted),
            None => {
                let holding = segments.iter().rposition(|&(first, _)| first <= self.next);
                segments.into_iter().nth(holding.unwrap_or(0))
            }
        };
        let Some((first, path)) = found else {
            return Ok(false);
        };
        if first > self.next {
            if self.exhausted.is_some() {
                self.lose(
                    self.next,
                    first - 1,
                    &format!("damaged before {}", path.display()),
                );
            }
            self.next = first;
        }
        self.open = Some(Open::new(first, path)?);
        Ok(true)
    }

    fn step(&mut self) -> io::Result<Step> {
        let Some(open) = &mut self.open else {
            return Ok(Step::End { broken: false });
        };
        let frame = match open.look()? {
            Found::Frame(frame) => frame,
            Found::End => return Ok(Step::End { broken: false }),
            Found::Broken => {
                if !open.pass_over() {
                    return Ok(Step::End { broken: true });
                }
                let why = format!("damaged in {}", open.path.display());
                self.lose(self.next, self.next, &why);
                self.next += 1;
                return Ok(Step::Passed);
            }
            Found::More(_) => return Ok(Step::End { broken: true }),
        };
        let (sequence, bytes) = (frame.sequence, frame.bytes);
        let fact = layout::decode(frame.payload);
        open.cursor += bytes;
        let seen_before = sequence < self.next;
        self.lose(self.next, sequence.saturating_sub(1), "frames are missing");
        self.next = self.next.max(sequence + 1);
        Ok(match fact {
            Ok(Fact::Record(record)) if !seen_before => {
                if self.declarations.contains_key(&record.declaration) {
                    return Ok(Step::Record(sequence, record));
                }
                self.lose(
                    sequence,
                    sequence,
                    "the declaration it refers to is damaged",
                );
                Step::Passed
            }
            Ok(Fact::Record(_)) => Step::Passed,
            Ok(Fact::Declaration(declaration)) => {
                self.declarations
                    .insert(declaration.digest, Arc::new(declaration));
                Step::Passed
            }
            Err(unreadable) => {
                self.lose(sequence, sequence, &unreadable.to_string());
                Step::Passed
            }
        })
    }

    /// Counts and tells that facts are lost; once, however often the place is read over.
    fn lose(&mut self, first: u64, last: u64, why: &str) {
        let first = first.max(self.lost_through + 1);
        if first <= last {
            self.lost += last + 1 - first;
            self.lost_through = last;
            tracing::error!(journal = %self.id, first, last, "facts are lost: {why}");
        }
    }

    /// Leaves a segment behind. A broken one is set aside unless its writer was only cut short.
    fn close(&mut self, broken: bool) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        self.exhausted = Some(open.first);
        if broken && self.next <= self.written() {
            let aside = open.path.with_extension("damaged");
            tracing::error!(
                journal = %self.id,
                "a journal segment is damaged at byte {}; it is set aside as {}",
                open.offset + open.cursor as u64,
                aside.display(),
            );
            std::fs::rename(&open.path, aside)?;
        }
        Ok(())
    }
}
