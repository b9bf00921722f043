//! Options of journals: sizes, times, and their quota.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Options of journals.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of a segment, in bytes.
    pub segment_bytes: u64,
    /// How long a segment is kept after it was ingested, in case the store loses its last seconds and
    /// needs them again.
    pub retain: Duration,
    /// The quota of all journals of the folder.
    pub quota: Arc<Quota>,
    /// For each owner of further readers: the most bytes that are kept because they need them, over all journals of
    /// the folder.
    pub hold_bytes_max: Box<[u64]>,
    /// Receives each problem, and `None` when it is solved.
    pub problems: ProblemReporter,
}

/// Receives a problem that a person should solve, and `None` when it is solved.
#[derive(Clone)]
pub struct ProblemReporter(pub Arc<dyn Fn(Option<String>) + Send + Sync>);

impl std::fmt::Debug for ProblemReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProblemReporter")
    }
}

impl Options {
    /// Makes options for this many workers within this many bytes.
    pub fn new(quota_bytes: u64, workers: usize) -> Options {
        // A worker needs the segment that it writes and a spare one; twice, for those being ingested.
        let fitting = quota_bytes / (4 * workers.max(1) as u64);
        Options {
            segment_bytes: fitting.clamp(1 << 20, 16 << 20),
            retain: Duration::from_secs(600),
            quota: Arc::new(Quota {
                max_bytes: quota_bytes,
                used_bytes: AtomicU64::new(0),
            }),
            hold_bytes_max: Box::default(),
            problems: ProblemReporter(Arc::new(|_| {})),
        }
    }
}

/// The quota of all journals.
#[derive(Debug)]
pub struct Quota {
    max_bytes: u64,
    used_bytes: AtomicU64,
}

impl Quota {
    /// Returns the bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.max_bytes);
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// Counts bytes that exist already, also beyond the maximum.
    pub(super) fn add(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give(&self, bytes: u64) {
        let rest = |used: u64| Some(used.saturating_sub(bytes));
        // It always gives a new value, so this never fails.
        let _ = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    }

    /// Whether segments that are kept only for safety must be deleted.
    pub(super) fn is_tight(&self) -> bool {
        self.used_bytes() > self.max_bytes / 2
    }
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("cannot write the journal at {}", path.display())]
    Disk {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl JournalError {
    /// Returns the fix.
    pub fn advice(&self) -> &'static str {
        let JournalError::Disk { source, .. } = self;
        match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                "there is a file instead of the folder: move it away, or write another folder at `journal.path`"
            }
            io::ErrorKind::PermissionDenied => {
                "make the folder writable for the user that runs watershed, or write another at `journal.path`"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the disk is mounted read-only: mount it writable, or write another folder at `journal.path`"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there, or write another folder at `journal.path`"
            }
            _ => "make the folder writable and free some space, or write another at `journal.path`",
        }
    }
}
