//! The journals: records on local disk, written before the response leaves, and read back in order.
//!
//! [`open`] makes a [`Writer`] for each worker, a [`Reader`] for each of them, and one for each journal
//! that an earlier process left. A journal belongs to one worker of one process: a restart creates new
//! ones, so that no sequence number is used twice, whatever a crash tore off. [`JournalMaintenance`]
//! makes the written records durable and prepares the next segment, so that appending never waits.

mod adopt;
mod clock;
mod declarations;
mod files;
mod follower;
mod found;
mod frame;
mod hold;
pub mod layout;
mod mapping;
mod marks;
mod options;
mod position;
mod ranges;
mod reader;
pub mod rows;
mod segment;
mod segment_reader;
mod writer;

pub use adopt::{Adopted, SkipReason, SkippedJournal, adopt, latest_ms};
pub use clock::{MonotonicClock, system_ms};
pub use follower::Follower;
pub use found::FoundJournals;
pub use hold::HeldExcess;
pub use layout::{Chunk, Id, OwnedRecord};
pub use options::{JournalError, Options, ProblemReporter, Quota};
pub use reader::{Reader, held_beyond};
pub use writer::{DeclaredPlan, JournalFull, Writer};

use crate::tasks;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// All journals of a folder.
#[derive(Debug)]
pub struct Journals {
    /// One for each worker.
    pub writers: Vec<Writer>,
    /// One for each writer, and one for each journal left by an earlier process.
    pub readers: Vec<Reader>,
    /// Makes them durable.
    pub keeper: JournalMaintenance,
    /// Journals of the folder that are not read.
    pub skipped: Vec<SkippedJournal>,
}

/// Opens the folder, and creates it if missing. Creates a journal for each worker, adopts those that
/// earlier processes left, and leaves alone those of running processes.
pub fn open(
    folder: &Path,
    workers: usize,
    sync_interval: Duration,
    options: &Options,
) -> Result<Journals, JournalError> {
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::Disk { path, source }
    };
    segment::make_folder(folder).map_err(disk(folder))?;
    let adopted = adopt(folder, options).map_err(disk(folder))?;
    let mut readers = adopted.readers;
    let latest_ms = readers.iter().map(Reader::latest_ms).max().unwrap_or(0);
    let ahead_ms = latest_ms.saturating_sub(system_ms());
    if ahead_ms > 2_000 {
        tracing::warn!(
            "the clock is {} s behind the latest record of an earlier run: records get later times until the clock has caught up",
            ahead_ms / 1000
        );
    }
    let mut writers = Vec::new();
    let mut tended = Vec::new();
    for _ in 0..workers {
        let (id, own, lock) = create(folder)?;
        let marks = marks::Marks::of(&own.join(files::LOCK)).map_err(disk(&own))?;
        let clock = MonotonicClock::new(latest_ms, Instant::now(), system_ms());
        let writer = Writer::new(id, &own, options.clone(), marks, clock)?;
        readers.push(Reader::new(
            id.to_string().into(),
            frame::FrameFormat::Second(id.into()),
            &own,
            lock,
            Some(writer.shared()),
            options.clone(),
        ));
        tended.push((own, writer.shared()));
        writers.push(writer);
    }
    let keeper = JournalMaintenance::start(tended, options.clone(), sync_interval);
    Ok(Journals {
        writers,
        readers,
        keeper,
        skipped: adopted.skipped,
    })
}

/// How often a new journal's folder is created if another process removes it.
const ATTEMPTS_MAX: u32 = 16;

/// Creates a new journal's folder, and locks it.
fn create(folder: &Path) -> Result<(uuid::Uuid, PathBuf, File), JournalError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let id = uuid::Uuid::now_v7();
        let own = folder.join(adopt::name_of(id));
        let made = segment::make_folder(&own).and_then(|()| files::lock(&own));
        // Another process adopts unlocked journals and removes empty ones, perhaps between these two
        // steps.
        let error = match made {
            Ok(Some(lock)) if files::is_at(&lock, &own.join(files::LOCK)) => {
                return Ok((id, own, lock));
            }
            Ok(Some(_)) => io::ErrorKind::NotFound.into(),
            Ok(None) => io::ErrorKind::WouldBlock.into(),
            Err(error) => error,
        };
        let adopted = [io::ErrorKind::WouldBlock, io::ErrorKind::NotFound].contains(&error.kind());
        if !adopted || attempts == ATTEMPTS_MAX {
            let (path, source) = (own, error);
            return Err(JournalError::Disk { path, source });
        }
    }
}

/// The thread that makes journals durable every `sync_interval` and keeps a spare segment ready.
#[derive(Debug)]
pub struct JournalMaintenance {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl JournalMaintenance {
    fn start(
        tended: Vec<(PathBuf, Arc<writer::WriterState>)>,
        options: Options,
        interval: Duration,
    ) -> JournalMaintenance {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let goes_on = || !stopped.load(Ordering::Acquire);
            let run = || keep(&tended, &options, interval, &stopped);
            tasks::again("journal", goes_on, run);
        });
        JournalMaintenance {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for JournalMaintenance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread catches its panics.
            let _ = thread.join();
        }
    }
}

fn keep(
    tended: &[(PathBuf, Arc<writer::WriterState>)],
    options: &Options,
    interval: Duration,
    stop: &AtomicBool,
) {
    for (_, shared) in tended {
        shared.keep_here();
    }
    let mut reported = None;
    loop {
        // Read before the work, so that the last round comes after the stop.
        let last = stop.load(Ordering::Acquire);
        tasks::failpoint("journal");
        let begun = Instant::now();
        let mut problem = None;
        for (folder, shared) in tended {
            let at = folder.display();
            match shared.tend(folder, options) {
                Ok(true) => {}
                Ok(false) => {
                    problem = Some(format!(
                        "the journal at {at} was removed, replaced or shortened by another program: it is created again within a second; leave the folder to watershed. If this persists, make the folder writable and free some space"
                    ))
                }
                Err(error) => {
                    problem = Some(format!(
                        "the journal cannot be kept at {at}: {error}; free some space there"
                    ))
                }
            }
        }
        if let Some(problem) = &problem
            && reported.as_ref() != Some(problem)
        {
            tracing::error!("{problem}");
        }
        reported.clone_from(&problem);
        (options.problems.0)(problem);
        if last {
            return;
        }
        std::thread::park_timeout(interval.saturating_sub(begun.elapsed()));
    }
}
