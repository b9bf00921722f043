//! The log of the process, and the access log.

use crate::config::ConfigWarning;
use crate::config::plan::{AccessLog, LogTo};
use crate::proxy::log_lines::Sink;
use crate::tasks;
use anyhow::Context;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The most bytes of lines that wait to be written. Further lines are lost, and counted.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How often losses are logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The access log, written by a thread of its own. Dropping it writes the lines that wait.
pub struct Requests {
    queue: Arc<Queue>,
    writing: Option<JoinHandle<()>>,
}

/// Lines that wait for the thread that writes them.
#[derive(Debug)]
struct Queue {
    sender: Sender<Waiting>,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

enum Waiting {
    Lines(Vec<u8>),
    /// Reopens the file, which was moved.
    Reopen,
    End,
}

impl Sink for Queue {
    fn take(&self, lines: Vec<u8>, count: u64) {
        let bytes = lines.len();
        let waiting = self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let taken =
            waiting + bytes <= WAITING_BYTES_MAX && self.sender.send(Waiting::Lines(lines)).is_ok();
        if !taken {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            self.lost.fetch_add(count, Ordering::SeqCst);
        }
    }
}

/// Starts logging to standard error, as much as `RUST_LOG` asks for (levels of modules, such as
/// `info,watershed::proxy=debug`) or else `default`, and the access log if there is one.
pub fn start(default: &str, access: Option<&AccessLog>) -> anyhow::Result<Option<Requests>> {
    let wanted = std::env::var("RUST_LOG").ok();
    let filter: Targets = match wanted.and_then(|wanted| wanted.parse().ok()) {
        Some(wanted) => wanted,
        None => default.parse()?,
    };
    let requests = access.map(|access| open(&access.to)).transpose()?;
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let own = fmt::layer().with_writer(io::stderr).with_ansi(ansi);
    // A second call in tests has no effect.
    let _ = tracing_subscriber::registry()
        .with(own.with_filter(filter))
        .try_init();
    Ok(requests)
}

fn open(to: &LogTo) -> anyhow::Result<Requests> {
    let (sink, file): (Box<dyn Write + Send>, _) = match to {
        LogTo::Stdout => (Box::new(io::stdout()), None),
        LogTo::Stderr => (Box::new(io::stderr()), None),
        LogTo::File(path) => {
            let file = append_to(path).with_context(|| {
                format!("the access log cannot be written to {}", path.display())
            })?;
            (Box::new(file), Some(path.clone()))
        }
    };
    let (sender, receiver) = mpsc::channel();
    let queue = Arc::new(Queue {
        sender,
        bytes: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
    });
    let lines = Lines {
        sink,
        file,
        torn: false,
    };
    let own = Arc::clone(&queue);
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    let writing = thread.spawn(move || lines.write(&receiver, &own))?;
    Ok(Requests {
        queue,
        writing: Some(writing),
    })
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // It shows who visited what.
    options.append(true).create(true).mode(0o600);
    options.open(path)
}

impl Drop for Requests {
    fn drop(&mut self) {
        if self.queue.sender.send(Waiting::End).is_ok()
            && let Some(writing) = self.writing.take()
        {
            // The thread has logged its errors.
            let _ = writing.join();
        }
    }
}

impl Requests {
    /// Returns the sink for the lines of workers.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.queue) as Arc<dyn Sink>
    }

    fn reopen(&self) {
        // The receiving thread lives longer than `self`.
        let _ = self.queue.sender.send(Waiting::Reopen);
    }

    /// Reopens the file on SIGUSR1 and SIGHUP, for log rotation, and logs how many lines were lost.
    pub async fn keep(&self) -> anyhow::Result<()> {
        let mut rotated =
            signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut tick = tokio::time::interval(REPORT_INTERVAL);
        let mut known = 0;
        loop {
            tokio::select! {
                _ = rotated.recv() => self.reopen(),
                _ = hangup.recv() => self.reopen(),
                _ = tick.tick() => {
                    let lost = self.queue.lost.load(Ordering::SeqCst);
                    if lost > known {
                        tracing::warn!("{} lines of the access log were lost: it cannot be written fast enough, or not at all", lost - known);
                    }
                    known = lost;
                }
            }
        }
    }
}

/// Logs what is valid in a routes file, but probably not meant.
pub fn warn_of(warnings: &[ConfigWarning]) {
    for warning in warnings {
        tracing::warn!("{}", warning.line());
    }
}

/// Handles SIGUSR1 without an access log, because the signal would end the process.
pub async fn without_requests() -> anyhow::Result<()> {
    let mut rotated = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    while rotated.recv().await.is_some() {
        tracing::info!("SIGUSR1: there is no log file to reopen");
    }
    Ok(())
}

/// Writes whole lines, many at once.
struct Lines {
    sink: Box<dyn Write + Send>,
    /// The file to reopen.
    file: Option<PathBuf>,
    /// Whether the last line is written only in part.
    torn: bool,
}

impl Lines {
    /// Reopens the file. Called between two lines, so that no line is split between two files.
    fn reopen(&mut self) {
        let Some(path) = &self.file else {
            return;
        };
        match append_to(path) {
            Ok(file) => {
                self.sink = Box::new(file);
                self.torn = false;
            }
            Err(error) => tracing::warn!(
                "the access log cannot be reopened at {}: {error}; still writing to the old file",
                path.display()
            ),
        }
    }

    /// Writes lines until the end.
    fn write(mut self, waiting: &Receiver<Waiting>, queue: &Queue) {
        loop {
            let lines = match waiting.recv() {
                Ok(Waiting::Lines(lines)) => lines,
                Ok(Waiting::Reopen) => {
                    self.reopen();
                    continue;
                }
                Ok(Waiting::End) | Err(_) => break,
            };
            // The thread must survive a panic with some lines.
            let put = std::panic::catch_unwind(AssertUnwindSafe(|| {
                tasks::failpoint("access-log");
                self.put(&lines)
            }));
            let lost = put.unwrap_or_else(|_| count(&lines));
            queue.lost.fetch_add(lost, Ordering::SeqCst);
            queue.bytes.fetch_sub(lines.len(), Ordering::SeqCst);
        }
        // An error cannot be reported any more.
        let _ = self.sink.flush();
    }

    /// Writes these lines. Returns how many of them are lost.
    fn put(&mut self, lines: &[u8]) -> u64 {
        let mut rest = lines;
        // A line that a full disk cut off must not damage the next one.
        if self.torn && self.sink.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        while !self.torn && !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let whole = lines.len() == rest.len() || lines[..lines.len() - rest.len()].ends_with(b"\n");
        self.torn |= !whole;
        count(rest)
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}
