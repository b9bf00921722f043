//! Facts on local disk, written before the response leaves, read back in order.
//!
//! [`open`] gives each worker a [`Writer`] and the folder of facts a [`Reader`] for each of them,
//! and one for each journal that an earlier process left. A journal is one life of one worker: a
//! restart begins new ones, so that a sequence number is never used twice, whatever a crash tore
//! off. The [`Keeper`] makes what was written durable and prepares the next segment, so that
//! appending waits for nothing.

mod clock;
mod declared;
mod frame;
pub mod layout;
mod left;
mod mapping;
mod marks;
mod open;
mod ranges;
mod reader;
mod segment;
mod writer;

pub use clock::{Clock, system_ms};
pub use layout::{Chunk, Id, OwnedRecord};
pub use left::{Adopted, LeftAlone, Why, adopt, latest_ms};
pub use reader::Reader;
pub use segment::{open as open_regular, read_regular};
pub use writer::{Declared, Full, Writer};

use crate::tasks;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How journals are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of a segment, in bytes.
    pub segment_bytes: u64,
    /// How long a segment is kept after it was folded, in case the store loses its last seconds
    /// and must be given them again.
    pub retain: Duration,
    /// The room that all journals of the folder share.
    pub quota: Arc<Quota>,
    /// Is told of problems.
    pub problems: Problems,
}

/// Takes what somebody should act on, `None` when there is no such thing any more.
#[derive(Clone)]
pub struct Problems(pub Arc<dyn Fn(Option<String>) + Send + Sync>);

impl std::fmt::Debug for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Problems")
    }
}

impl Options {
    /// For this many workers within this many bytes.
    pub fn new(quota_bytes: u64, workers: usize) -> Options {
        // A worker needs the segment it writes and a spare, twice over for those being folded.
        let fitting = quota_bytes / (4 * workers.max(1) as u64);
        Options {
            segment_bytes: fitting.clamp(1 << 20, 16 << 20),
            retain: Duration::from_secs(600),
            quota: Arc::new(Quota {
                max_bytes: quota_bytes,
                used_bytes: AtomicU64::new(0),
            }),
            problems: Problems(Arc::new(|_| {})),
        }
    }
}

/// The room that journals share.
#[derive(Debug)]
pub struct Quota {
    max_bytes: u64,
    used_bytes: AtomicU64,
}

impl Quota {
    /// The bytes that are taken.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.max_bytes);
        self.used_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn give(&self, bytes: u64) {
        let rest = |used: u64| used.saturating_sub(bytes);
        self.used_bytes
            .update(Ordering::Relaxed, Ordering::Relaxed, rest);
    }

    /// Whether what is only kept for safety must go.
    fn is_tight(&self) -> bool {
        self.used_bytes() > self.max_bytes / 2
    }
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error("cannot write the journal at {}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        let JournalError::Disk { source, .. } = self;
        match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                "a file stands in the folder's place: move it away, or write another folder at `journal.path`"
            }
            io::ErrorKind::PermissionDenied => {
                "make the folder writable for the user that runs watershed, or write another at `journal.path`"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the disk is mounted read-only: mount it writable, or write another folder at `journal.path`"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some room there, or write another folder at `journal.path`"
            }
            _ => "make the folder writable and free some room, or write another at `journal.path`",
        }
    }
}

/// All journals of a folder.
#[derive(Debug)]
pub struct Journals {
    /// One for each worker.
    pub writers: Vec<Writer>,
    /// One for each writer, and one for each journal left by an earlier process.
    pub readers: Vec<Reader>,
    /// Keeps them durable.
    pub keeper: Keeper,
    /// What stands in the folder and is not read.
    pub left_alone: Vec<LeftAlone>,
}

/// Opens the folder (made where missing): begins a journal for each worker, adopts what earlier
/// processes left, and leaves alone what another running process holds.
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
            "the clock is {} s behind the latest fact of an earlier run: facts are given times after it until the clock has caught up",
            ahead_ms / 1000
        );
    }
    let mut writers = Vec::new();
    let mut tended = Vec::new();
    for _ in 0..workers {
        let (id, own, lock) = create(folder)?;
        let marks = marks::Marks::of(&own.join(left::LOCK)).map_err(disk(&own))?;
        let clock = Clock::new(latest_ms, Instant::now(), system_ms());
        let writer = Writer::new(id, &own, options.clone(), marks, clock)?;
        readers.push(Reader::new(
            id.to_string().into(),
            frame::Format::Second(id.into()),
            &own,
            lock,
            Some(writer.shared()),
            options.clone(),
        ));
        tended.push((own, writer.shared()));
        writers.push(writer);
    }
    let keeper = Keeper::start(tended, options.clone(), sync_interval);
    Ok(Journals {
        writers,
        readers,
        keeper,
        left_alone: adopted.left_alone,
    })
}

/// How often a new journal's folder is made until no other process takes it.
const ATTEMPTS_MAX: u32 = 16;

/// A new journal's folder, and its lock.
fn create(folder: &Path) -> Result<(uuid::Uuid, PathBuf, File), JournalError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let id = uuid::Uuid::now_v7();
        let own = folder.join(left::name_of(id));
        let made = segment::make_folder(&own).and_then(|()| left::lock(&own));
        // Another process adopts journals without a lock, and removes those that are empty: it may
        // have come between.
        let error = match made {
            Ok(Some(lock)) if is_at(&lock, &own.join(left::LOCK)) => return Ok((id, own, lock)),
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

/// Whether this open file is still what stands at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let (own, there) = (file.metadata(), std::fs::metadata(path));
    own.and_then(|own| Ok(identity(own) == identity(there?)))
        .unwrap_or(false)
}

/// The thread that makes journals durable every `sync_interval` and keeps a spare segment ready.
#[derive(Debug)]
pub struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(
        tended: Vec<(PathBuf, Arc<writer::Shared>)>,
        options: Options,
        interval: Duration,
    ) -> Keeper {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let goes_on = || !stopped.load(Ordering::Acquire);
            let run = || keep(&tended, &options, interval, &stopped);
            tasks::again("journal", goes_on, run);
        });
        Keeper {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

fn keep(
    tended: &[(PathBuf, Arc<writer::Shared>)],
    options: &Options,
    interval: Duration,
    stop: &AtomicBool,
) {
    for (_, shared) in tended {
        shared.keep_here();
    }
    let mut reported = None;
    loop {
        // Asked before the work, so that the last round follows the order to stop.
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
                        "the journal at {at} was removed, replaced or shortened by another program: it is made anew within a second; leave the folder to watershed. If this stays, make the folder writable and free some room"
                    ))
                }
                Err(error) => {
                    problem = Some(format!(
                        "the journal cannot be kept at {at}: {error}; free some room there"
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
