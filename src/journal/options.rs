//! How journals are kept: sizes, times, and the room that they share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// Receives each problem, and `None` when it is over.
    pub problems: ProblemReporter,
}

/// Takes what somebody should act on, `None` when there is no such thing any more.
#[derive(Clone)]
pub struct ProblemReporter(pub Arc<dyn Fn(Option<String>) + Send + Sync>);

impl std::fmt::Debug for ProblemReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProblemReporter")
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
            problems: ProblemReporter(Arc::new(|_| {})),
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

    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.max_bytes);
        self.used_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// Counts bytes that are there already, also beyond the maximum.
    pub(super) fn add(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give(&self, bytes: u64) {
        let rest = |used: u64| used.saturating_sub(bytes);
        self.used_bytes
            .update(Ordering::Relaxed, Ordering::Relaxed, rest);
    }

    /// Whether what is only kept for safety must go.
    pub(super) fn is_tight(&self) -> bool {
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
