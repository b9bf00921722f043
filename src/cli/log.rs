//! What the program says of itself, and the log of requests.

use crate::config::plan::{AccessLog, LogTo};
use crate::proxy::ACCESS_LOG;
use crate::tasks;
use anyhow::Context;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// How many lines may wait to be written; more are lost, and counted.
const LINES_MAX: usize = 65_536;
/// How often losses are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The log of requests, as it is written behind the workers' backs. Lines that wait are written
/// when this is dropped.
pub struct Requests {
    _guard: WorkerGuard,
    lost: ErrorCounter,
    unwritten: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    writer: NonBlocking,
}

/// Logs to standard error, `RUST_LOG` says how much; and requests where the file says.
pub fn start(default: &str, access: Option<&AccessLog>) -> anyhow::Result<Option<Requests>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let (writer, requests) = match access {
        None => (None, None),
        Some(access) => {
            let (writer, requests) = open(&access.to)?;
            (Some(writer), Some(requests))
        }
    };
    let lines = writer.map(|writer| {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_level(false)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(SystemTime)
            .with_writer(writer)
            .with_filter(Targets::new().with_target(ACCESS_LOG, Level::INFO))
    });
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::registry()
        .with(own(filter))
        .with(lines)
        .try_init();
    Ok(requests)
}

/// What the program says of itself, as far as the filter lets it.
fn own(filter: EnvFilter) -> impl Layer<Registry> {
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Together with its level, and said to have one: else every crate's finest spans are made.
    let others = filter_fn(|it| it.target() != ACCESS_LOG).with_max_level_hint(LevelFilter::TRACE);
    fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_filter(filter.and(others))
}

fn open(to: &LogTo) -> anyhow::Result<(NonBlocking, Requests)> {
    let reopen = Arc::<AtomicBool>::default();
    let unwritten = Arc::<AtomicU64>::default();
    let (sink, file): (Box<dyn Write + Send + Sync>, _) = match to {
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
    let sink = Lines {
        sink,
        file,
        reopen: Arc::clone(&reopen),
        unwritten: Arc::clone(&unwritten),
        torn: false,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("access-log")
        .finish(sink);
    let lost = writer.error_counter();
    Ok((
        writer.clone(),
        Requests {
            _guard: guard,
            lost,
            unwritten,
            reopen,
            writer,
        },
    ))
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // It tells who visited what.
    options.append(true).create(true).mode(0o600);
    options.open(path)
}

impl Requests {
    fn reopen(&self) {
        self.reopen.store(true, Ordering::SeqCst);
        // An empty line wakes the thread that writes, which reopens the file when it flushes.
        let _ = self.writer.clone().write(&[]);
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
                    let lost = self.lost.dropped_lines() as u64 + self.unwritten.load(Ordering::SeqCst);
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

/// Takes whole lines, one with each call. Those that cannot be written are counted, which is
/// nobody else's concern.
struct Lines {
    sink: Box<dyn Write + Send + Sync>,
    /// What is opened anew when it is asked to be.
    file: Option<PathBuf>,
    reopen: Arc<AtomicBool>,
    unwritten: Arc<AtomicU64>,
    /// The last line stands there in part.
    torn: bool,
}

impl Lines {
    fn open_if_asked(&mut self) {
        if self.reopen.swap(false, Ordering::SeqCst) {
            self.open_anew();
        }
    }

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

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            // What the disk had no room for must not spoil the line that it has room for again.
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.open_if_asked();
        // The thread that writes must outlive whatever goes wrong with one line.
        let put = std::panic::catch_unwind(AssertUnwindSafe(|| {
            tasks::failpoint("access-log");
            self.put(line)
        }));
        if !matches!(put, Ok(Ok(()))) {
            self.unwritten.fetch_add(1, Ordering::SeqCst);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open_if_asked();
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_not_even_made() {
        let hint = own(EnvFilter::new("info")).max_level_hint();
        assert_eq!(hint, Some(LevelFilter::INFO));
    }
}
