//! Counters and histograms that modules write and `admin` reads.

mod counter;
mod traffic;

pub use counter::Counter;
pub use traffic::{
    BOUNDS_US, Histogram, HistogramSum, HttpProtocol, Outcome, RequestCounts, RequestKind, Traffic,
    TrafficSum, UpstreamSum, UpstreamTraffic,
};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The numbers of one worker. Only its worker writes them, so they cost no more than a plain add
/// and share no cache line with another worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTelemetry {
    /// Requests received.
    pub requests: Counter,
    /// What became of them.
    pub traffic: Traffic,
    /// Answers that watershed made itself because something went wrong.
    pub refusals: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Those that have ended.
    pub ended_connections: Counter,
    /// Connections whose protocol is known.
    pub sessions: Sessions,
    /// Connections refused, because their address or all together have as many as they may.
    pub refused_connections: Counter,
    /// The sequence number of the last fact journaled.
    pub journaled: Counter,
    /// Records that the journal could not take.
    pub dropped: Counter,
    /// Event headers that could not be read.
    pub unreadable_events: Counter,
    /// What was wrong with reported events.
    pub event_faults: EventFaults,
    /// Requests that control served because the group's upstream could not.
    pub fallbacks: Counter,
}

/// Connections of clients by what is spoken on them: HTTP/1 or HTTP/2, without and with TLS.
#[derive(Debug, Default)]
pub struct Sessions([Session; 4]);

#[derive(Debug, Default)]
struct Session {
    begun: Counter,
    ended: Counter,
}

/// Counts a connection while it is served, even if that panics.
#[derive(Debug)]
pub struct OpenSession<'a>(&'a Session);

impl Sessions {
    /// Counts a connection until the result is dropped. Only one thread may do so.
    pub fn begin(&self, http2: bool, secure: bool) -> OpenSession<'_> {
        let session = &self.0[usize::from(http2) * 2 + usize::from(secure)];
        session.begun.add();
        OpenSession(session)
    }

    /// The protocol, whether over TLS, how many began, and how many are open.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, bool, u64, u64)> {
        self.0.iter().enumerate().map(|(place, session)| {
            let protocol = ["HTTP/1", "HTTP/2"][place / 2];
            // Read first, so that no more end than began.
            let ended = session.ended.get();
            let begun = session.begun.get();
            (protocol, place % 2 == 1, begun, begun.saturating_sub(ended))
        })
    }
}

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.0.ended.add();
    }
}

/// What was wrong with reported events, by reason.
#[derive(Debug, Default)]
pub struct EventFaults([Counter; EventFaults::REASONS.len()]);

impl EventFaults {
    /// The reasons, as numbers and results name them.
    pub const REASONS: [&str; 8] = [
        "unreadable",
        "too_many",
        "not_a_number",
        "too_large",
        "missing",
        "id",
        "not_a_time",
        "time_out_of_range",
    ];

    /// Adds one of this reason. Only one thread may do so.
    pub fn add(&self, reason: &str) {
        if let Some(place) = Self::REASONS.iter().position(|known| *known == reason) {
            self.0[place].add();
        }
    }

    /// Each reason and its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(Counter::get);
        Self::REASONS.into_iter().zip(counts)
    }
}

/// The numbers of the whole process.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// One for each worker.
    pub workers: Box<[WorkerTelemetry]>,
    /// What the folder says of its work.
    pub ingestion: IngestionCounters,
    /// Batches of events that servers report.
    pub imports: Imports,
    /// How often all experiments were analyzed.
    pub analyses: AtomicU64,
    /// What the reload says of the last attempt.
    pub reload: Reload,
    /// What became of spans.
    pub spans: Spans,
    /// Panics, by the task that panicked.
    pub panics: Panics,
    /// What somebody should act on while requests are served.
    pub problems: Problems,
}

/// Problems that do not stop requests, each a sentence with its cause and its fix.
#[derive(Debug, Default)]
pub struct Problems(Mutex<BTreeMap<&'static str, String>>);

impl Problems {
    /// Keeps the problem with a subject, `None` when it has none; whether that is news.
    pub fn set(&self, subject: &'static str, problem: Option<String>) -> bool {
        // Nothing that holds this lock can leave it half-changed.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => all.insert(subject, problem.clone()) != Some(problem),
            None => all.remove(subject).is_some(),
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

impl Telemetry {
    /// For this many workers, all at zero.
    pub fn new(workers: usize) -> Telemetry {
        Telemetry {
            workers: (0..workers).map(|_| WorkerTelemetry::default()).collect(),
            ..Telemetry::default()
        }
    }

    /// Facts that are journaled and not yet in the store.
    pub fn lag_events(&self) -> u64 {
        let ingestion = &self.ingestion;
        // Read before what was journaled, so that the difference is never short.
        let reached = ingestion.reached.load(Ordering::Acquire);
        let journaled = self.sum(|worker| &worker.journaled);
        journaled.saturating_sub(reached) + ingestion.left.load(Ordering::Relaxed)
    }

    /// What was wrong with reported events, by reason, over all workers.
    pub fn event_faults(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (reason, count) in self.workers.iter().flat_map(|it| it.event_faults.counts()) {
            *sums.entry(reason).or_default() += count;
        }
        sums
    }

    /// What all workers served, and how many requests are in flight.
    pub fn traffic(&self) -> (TrafficSum, u64) {
        let mut sum = TrafficSum::default();
        for worker in &self.workers {
            sum.add(&worker.traffic);
        }
        // Read after those that have ended, so that the difference is never short.
        let in_flight = self
            .sum(|worker| &worker.requests)
            .saturating_sub(sum.ended);
        (sum, in_flight)
    }

    /// The sum of one number over all workers.
    pub fn sum(&self, of: impl Fn(&WorkerTelemetry) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).sum()
    }
}

/// How far the store is behind the journals.
#[derive(Debug, Default)]
pub struct IngestionCounters {
    /// The sum of the sequence numbers up to which the workers' journals are folded.
    pub reached: AtomicU64,
    /// Facts in journals of earlier processes that are not folded yet.
    pub left: AtomicU64,
    /// The store has everything that was written up to this time, in Unix milliseconds.
    pub caught_up_ms: AtomicU64,
    /// Facts found damaged on disk since the start.
    pub lost: AtomicU64,
    /// Of those, the facts that the store does not know of yet.
    pub lost_unreported: AtomicU64,
    /// Facts that journals could not take and the store does not know of yet.
    pub dropped_unreported: AtomicU64,
    /// Facts folded since the start.
    pub ingested: AtomicU64,
    /// Whether the store took what it was last given.
    pub failing: AtomicBool,
    /// The last error of the store.
    pub error: Mutex<Option<String>>,
}

/// Batches of events that servers report: analyses wait until a batch is counted as a whole,
/// because one that is sorted by group shows effects where there are none until then.
#[derive(Debug, Default)]
pub struct Imports {
    /// Batches whose journaling has begun.
    begun: AtomicU64,
    /// Batches whose journaling is over.
    ended: AtomicU64,
    /// When the first of several batches in close succession began, in Unix milliseconds.
    since_ms: AtomicU64,
    /// When journaling of the last one was over, in Unix milliseconds.
    until_ms: AtomicU64,
}

/// How far reported batches are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// As a whole.
    Wholly,
    /// The last one as a whole, but another one may follow: nothing is kept or acted on yet.
    MoreMayFollow,
    /// Only in part: nothing is decided.
    Partly,
}

impl Imports {
    /// Batches that follow each other within this time belong together.
    pub const QUIET_MS: u64 = 10_000;
    /// Batches that never end are not waited for any longer than this.
    pub const WAIT_MAX_MS: u64 = 3_600_000;

    /// Begins a batch, which ends when the answer is dropped. Only one may be open at a time.
    pub fn begin(&self) -> OpenImport<'_> {
        let now_ms = now_ms();
        if now_ms > self.until_ms.load(Ordering::Relaxed) + Imports::QUIET_MS {
            self.since_ms.store(now_ms, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Release);
        OpenImport(self)
    }

    /// How many batches have begun: two reads of it say whether one did in between.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// What a store holds of the batches, that has everything written up to `caught_up_ms`.
    pub fn counted(&self, caught_up_ms: u64, now_ms: u64) -> Counted {
        let ended = self.ended.load(Ordering::Acquire);
        if self.begun() == 0 {
            return Counted::Wholly;
        }
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        // A clock that was set back says nothing of a batch before, and nothing waits for it.
        let is_back = now_ms < until_ms;
        if ended != self.begun() || caught_up_ms <= until_ms && !is_back {
            Counted::Partly
        } else if is_back
            || now_ms > until_ms + Imports::QUIET_MS
            || now_ms > since_ms + Imports::WAIT_MAX_MS
        {
            Counted::Wholly
        } else {
            Counted::MoreMayFollow
        }
    }
}

/// A batch that is being journaled.
#[derive(Debug)]
pub struct OpenImport<'a>(&'a Imports);

impl Drop for OpenImport<'_> {
    fn drop(&mut self) {
        self.0.until_ms.store(now_ms(), Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// How the last reload went.
#[derive(Debug, Default)]
pub struct Reload {
    /// Reloads that took effect.
    pub done: AtomicU64,
    /// Reloads refused because the file was unsound; the running plan stayed.
    pub refused: AtomicU64,
    /// Why the last reload was refused; `None` once one took effect.
    pub error: Mutex<Option<String>>,
    /// When the configuration that is served was loaded, in Unix milliseconds.
    pub loaded_at_ms: AtomicU64,
}

impl Reload {
    /// The configuration was loaded when the process started.
    pub fn started(&self) {
        self.loaded_at_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// A reload took effect.
    pub fn succeeded(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.started();
    }
}

/// Panics since the start.
#[derive(Debug, Default)]
pub struct Panics(Mutex<BTreeMap<String, u64>>);

impl Panics {
    /// Counts one of this task.
    pub fn add(&self, task: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(task.to_owned()).or_default() += 1;
    }

    /// How many there were, by task.
    pub fn all(&self) -> Vec<(String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(task, count)| (task.clone(), *count))
            .collect()
    }
}

/// What became of the spans of requests.
#[derive(Debug, Default)]
pub struct Spans {
    /// Spans that a collector took.
    pub exported: AtomicU64,
    /// Spans that found the queue full.
    pub overflowed: AtomicU64,
    /// Spans that no collector took, or that it rejected.
    pub undelivered: AtomicU64,
}

impl Spans {
    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed) + self.undelivered.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_is_partly_counted_until_the_store_has_caught_up() {
        let imports = Imports::default();
        assert_eq!(imports.counted(0, 0), Counted::Wholly);
        let open = imports.begin();
        assert_eq!(imports.counted(u64::MAX, 0), Counted::Partly);
        drop(open);
        imports.since_ms.store(5_000, Ordering::Relaxed);
        imports.until_ms.store(6_000, Ordering::Relaxed);
        assert_eq!(imports.counted(6_000, 60_000), Counted::Partly);
        assert_eq!(imports.counted(6_001, 16_000), Counted::MoreMayFollow);
        assert_eq!(imports.counted(6_001, 16_001), Counted::Wholly);
        // The clock was set back.
        assert_eq!(imports.counted(2_000, 2_000), Counted::Wholly);
        // Batches that follow each other for ever are not waited for.
        imports.until_ms.store(3_606_000, Ordering::Relaxed);
        assert_eq!(imports.counted(3_606_001, 3_606_002), Counted::Wholly);
    }

    #[test]
    fn panicking_import_ends_its_batch() {
        let imports = Imports::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _open = imports.begin();
            panic!("as a bug would");
        }));
        assert!(panicked.is_err());
        assert_ne!(imports.counted(u64::MAX, 0), Counted::Partly);
    }
}
