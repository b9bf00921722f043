//! What the program says of itself, and the log of requests.

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
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// How many bytes of lines may wait to be written; more are lost, and counted.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How often losses are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The log of requests, as it is written behind the workers' backs. Lines that wait are written
/// when this is dropped.
pub struct Requests {
    queue: Arc<Queue>,
    writing: Option<JoinHandle<()>>,
}

/// Lines on their way to the thread that writes them.
#[derive(Debug)]
struct Queue {
    sender: Sender<Waiting>,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

enum Waiting {
    Lines(Vec<u8>),
    /// The file was moved away.
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

/// Logs to standard error, `RUST_LOG` says how much; and requests where the file says.
pub fn start(default: &str, access: Option<&AccessLog>) -> anyhow::Result<Option<Requests>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let requests = access.map(|access| open(&access.to)).transpose()?;
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let own = fmt::layer().with_writer(io::stderr).with_ansi(ansi);
    // A second call, in tests, changes nothing.
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
                format!(
                    "the log of requests cannot be written to {}",
                    path.display()
                )
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
    // It tells who visited what.
    options.append(true).create(true).mode(0o600);
    options.open(path)
}

impl Drop for Requests {
    fn drop(&mut self) {
        if self.queue.sender.send(Waiting::End).is_ok()
            && let Some(writing) = self.writing.take()
        {
            // It has said itself what went wrong.
            let _ = writing.join();
        }
    }
}

impl Requests {
    /// Where workers give their lines.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.queue) as Arc<dyn Sink>
    }

    fn reopen(&self) {
        // The thread that writes outlives this.
        let _ = self.queue.sender.send(Waiting::Reopen);
    }

    /// Reopens the file on SIGUSR1 and SIGHUP, after somebody has moved it away; and logs how many
    /// lines were lost.
    pub async fn keep(&self) -> anyhow::Result<()> {
        let mut rotated =
            signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut tick = tokio::time::interval(TELL_EVERY);
        let mut known = 0;
        loop {
            tokio::select! {
                _ = rotated.recv() => self.reopen(),
                _ = hangup.recv() => self.reopen(),
                _ = tick.tick() => {
                    let lost = self.queue.lost.load(Ordering::SeqCst);
                    if lost > known {
                        tracing::warn!("{} lines of the log of requests were lost: it cannot be written fast enough, or not at all", lost - known);
                    }
                    known = lost;
                }
            }
        }
    }
}

/// Without a log of requests SIGUSR1 has no effect. Unhandled, it would end the process.
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
    /// What is opened anew when it is asked to be.
    file: Option<PathBuf>,
    /// The last line stands there in part.
    torn: bool,
}

impl Lines {
    /// Only ever between two lines, so that none is torn between two files.
    fn open_anew(&mut self) {
        let Some(path) = &self.file else {
            return;
        };
        match append_to(path) {
            Ok(file) => {
                self.sink = Box::new(file);
                self.torn = false;
            }
            Err(error) => tracing::warn!(
                "the log of requests cannot be opened anew at {}: {error}; the old file is written on",
                path.display()
            ),
        }
    }

    /// Writes what comes until the end is told.
    fn write(mut self, waiting: &Receiver<Waiting>, queue: &Queue) {
        loop {
            let lines = match waiting.recv() {
                Ok(Waiting::Lines(lines)) => lines,
                Ok(Waiting::Reopen) => {
                    self.open_anew();
                    continue;
                }
                Ok(Waiting::End) | Err(_) => break,
            };
            // The thread that writes must outlive whatever goes wrong with some lines.
            let put = std::panic::catch_unwind(AssertUnwindSafe(|| {
                tasks::failpoint("access-log");
                self.put(&lines)
            }));
            let lost = put.unwrap_or_else(|_| count(&lines));
            queue.lost.fetch_add(lost, Ordering::SeqCst);
            queue.bytes.fetch_sub(lines.len(), Ordering::SeqCst);
        }
        // There is nobody to hear that it cannot be.
        let _ = self.sink.flush();
    }

    /// Writes these lines; how many of them are lost.
    fn put(&mut self, lines: &[u8]) -> u64 {
        let mut rest = lines;
        // What the disk had no room for must not spoil the line that it has room for again.
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
