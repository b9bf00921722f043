//! Counters and histograms that modules write and `admin` reads.

mod counter;
mod followers;
mod frequent_ids;
mod metric_rules;
mod mirrors;
mod traffic;

pub use counter::Counter;
pub use followers::{ArchiveCounters, ForwardCounters, ForwardedTo};
pub use frequent_ids::{FrequentId, FrequentIds};
pub use metric_rules::{MetricRules, RuleCounts, RuleSum, UnusedEvents};
pub use mirrors::{
    MIRROR_KINDS, MirrorComparison, MirrorCounts, MirrorExample, MirrorSum, MirrorTally,
    MirroredPath, Mirrors,
};
pub use traffic::{
    BOUNDS_US, Histogram, HistogramSum, HttpProtocol, Outcome, RequestCounts, RequestKind, Traffic,
    TrafficSum, UpstreamSum, UpstreamTraffic,
};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The counters of one worker. Only that worker writes them, so each costs a plain addition and shares no
/// cache line with another worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTelemetry {
    /// Requests received.
    pub requests: Counter,
    /// Their outcomes.
    pub traffic: Traffic,
    /// Error responses of watershed itself.
    pub refusals: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Connections that have ended.
    pub ended_connections: Counter,
    /// Connections whose protocol is known.
    pub sessions: Sessions,
    /// Connections that were refused at a limit of connections.
    pub refused_connections: Counter,
    /// The sequence number of the last journaled record.
    pub journaled: Counter,
    /// Records that the journal dropped.
    pub dropped: Counter,
    /// Event headers that could not be read.
    pub unreadable_events: Counter,
    /// Faults of reported events.
    pub event_faults: EventFaults,
    /// Requests that were served but not counted.
    pub not_counted: NotCountedRequests,
    /// Requests that another version served because the group's failed.
    pub fallbacks: Counter,
    /// Requests that one version answered with 404, and another one served.
    pub assets_followed: Counter,
    /// Requests that the version of their open page served, and not that of the user's group.
    pub requests_pinned: Counter,
    /// What responses were to the rules of metrics.
    pub metric_rules: MetricRules,
    /// Copies of requests.
    pub mirrors: Mirrors,
    /// Events in headers of upstreams that no metric counts.
    pub unused_events: UnusedEvents,
    /// IDs that make a large share of its requests.
    pub frequent_ids: FrequentIds,
}

impl WorkerTelemetry {
    /// What is kept over reloads, by the names of what it is about.
    pub fn kept(&self) -> (&Traffic, &MetricRules, &Mirrors) {
        (&self.traffic, &self.metric_rules, &self.mirrors)
    }
}

/// Client connections by protocol: HTTP/1 or HTTP/2, without and with TLS.
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

    /// Returns the protocol, whether over TLS, the number of all, and the number of open ones.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, bool, u64, u64)> {
        self.0.iter().enumerate().map(|(place, session)| {
            let protocol = ["HTTP/1", "HTTP/2"][place / 2];
            // Read first, so that no more have ended than begun.
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

/// Faults of reported events, by reason.
#[derive(Debug, Default)]
pub struct EventFaults([Counter; EventFaults::REASONS.len()]);

impl EventFaults {
    /// The names of the reasons in metrics and results.
    pub const REASONS: [&str; 9] = [
        "unreadable",
        "too_many",
        "not_a_number",
        "too_large",
        "missing",
        "id",
        "not_a_time",
        "time_out_of_range",
        "unknown_unit",
    ];

    /// Adds a fault. Only one thread may do so.
    pub fn add(&self, reason: &str) {
        if let Some(place) = Self::REASONS.iter().position(|known| *known == reason) {
            self.0[place].add();
        }
    }

    /// Returns each reason and its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(Counter::get);
        Self::REASONS.into_iter().zip(counts)
    }
}

/// Requests that were served but not counted, by reason. The place of a reason is that in
/// [`NotCounted::ALL`](crate::experiment::not_counted::NotCounted::ALL).
#[derive(Debug, Default)]
pub struct NotCountedRequests([Counter; 8]);

impl NotCountedRequests {
    /// Adds a request. Only one thread may do so.
    pub fn add(&self, place: usize) {
        if let Some(counter) = self.0.get(place) {
            counter.add();
        }
    }

    /// Returns the count of the reason at a place.
    pub fn get(&self, place: usize) -> u64 {
        self.0.get(place).map_or(0, Counter::get)
    }
}

/// The counters of the whole process.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Those of each worker.
    pub workers: Box<[WorkerTelemetry]>,
    /// Ingestion.
    pub ingestion: IngestionCounters,
    /// Batches of events that servers report.
    pub imports: Imports,
    /// How often all experiments were analyzed.
    pub analyses: AtomicU64,
    /// Reloads.
    pub reload: Reload,
    /// Spans.
    pub spans: Spans,
    /// Messages to webhooks.
    pub messages: MessageCounters,
    /// The archive.
    pub archive: ArchiveCounters,
    /// Certificates by ACME.
    pub acme: AcmeCounters,
    /// Destinations of exposures and events.
    pub forward: ForwardedTo,
    /// Panics, by the task that panicked.
    pub panics: Panics,
    /// Problems that a person should solve.
    pub problems: Problems,
}

/// Messages to webhooks since the start, but for those that wait.
#[derive(Debug, Default)]
pub struct MessageCounters {
    /// Delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Given up.
    pub given_up: AtomicU64,
    /// Events that found no room for their messages.
    pub full: AtomicU64,
    /// Messages that wait now, those of other replicas among them.
    pub pending: AtomicU64,
}

/// Certificates by ACME since the start, as far as this process ordered them.
#[derive(Debug, Default)]
pub struct AcmeCounters {
    /// Orders that were begun.
    pub orders: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
}

/// Problems that do not stop requests. Each is a sentence with its cause and its fix.
#[derive(Debug, Default)]
pub struct Problems(Mutex<BTreeMap<Cow<'static, str>, String>>);

impl Problems {
    /// Sets or clears the problem of a subject. Returns whether it has changed.
    pub fn set(&self, subject: impl Into<Cow<'static, str>>, problem: Option<String>) -> bool {
        // No code that holds this lock can leave the map half-changed.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = subject.into();
        match problem {
            Some(problem) => all.insert(subject, problem.clone()) != Some(problem),
            None => all.remove(&subject).is_some(),
        }
    }

    /// Returns all problems.
    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

/// How far ingestion is behind the journals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestionLag {
    /// The records that wait.
    pub records: u64,
    /// How long ago the store last had every record, in milliseconds; 0 if it has.
    pub waited_ms: u64,
}

impl Telemetry {
    /// Makes counters for this many workers, all at zero.
    pub fn new(workers: usize) -> Telemetry {
        Telemetry {
            workers: (0..workers).map(|_| WorkerTelemetry::default()).collect(),
            ..Telemetry::default()
        }
    }

    /// Returns the lag: records that are journaled and not in the store yet.
    pub fn lag_events(&self) -> u64 {
        let ingestion = &self.ingestion;
        // Read before the journaled records, so that the difference is never too small.
        let reached = ingestion.reached.load(Ordering::Acquire);
        let journaled = self.sum(|worker| &worker.journaled);
        journaled.saturating_sub(reached) + ingestion.left.load(Ordering::Relaxed)
    }

    /// Returns the lag at a time in Unix milliseconds.
    pub fn lag(&self, now_ms: u64) -> IngestionLag {
        let caught_up_ms = self.ingestion.caught_up_ms.load(Ordering::Relaxed);
        match self.lag_events() {
            0 => IngestionLag::default(),
            records => IngestionLag {
                records,
                waited_ms: now_ms.saturating_sub(caught_up_ms),
            },
        }
    }

    /// Returns the faults of reported events, by reason, over all workers.
    pub fn event_faults(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (reason, count) in self.workers.iter().flat_map(|it| it.event_faults.counts()) {
            *sums.entry(reason).or_default() += count;
        }
        sums
    }

    /// Returns the IDs with more than 5 % of the latest requests over all workers.
    pub fn frequent_ids(&self) -> Vec<FrequentId> {
        frequent_ids::most_frequent(self.workers.iter().map(|worker| &worker.frequent_ids))
    }

    /// Returns what responses were to the rule of this key, over all workers.
    pub fn metric_rule(&self, key: &str) -> RuleSum {
        let mut sum = RuleSum::default();
        for worker in &self.workers {
            sum.add(&worker.metric_rules.of(key));
        }
        sum
    }

    /// Returns the copies of an experiment's requests to an upstream, over all workers.
    pub fn mirror(&self, experiment: &str, to: &str) -> MirrorSum {
        let mut sum = MirrorSum::default();
        for worker in &self.workers {
            sum.add(&worker.mirrors.of(experiment, to));
        }
        sum
    }

    /// Returns events that no metric counts, with their number, over all workers.
    pub fn unused_events(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (name, count) in self.workers.iter().flat_map(|it| it.unused_events.all()) {
            *sums.entry(name).or_default() += count;
        }
        sums
    }

    /// Returns the traffic of all workers, and the number of requests in flight.
    pub fn traffic(&self) -> (TrafficSum, u64) {
        let mut sum = TrafficSum::default();
        for worker in &self.workers {
            sum.add(&worker.traffic);
        }
        // Read after the ended requests, so that the difference is never too small.
        let in_flight = self
            .sum(|worker| &worker.requests)
            .saturating_sub(sum.ended);
        (sum, in_flight)
    }

    /// Returns the sum of a counter over all workers.
    pub fn sum(&self, of: impl Fn(&WorkerTelemetry) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).sum()
    }
}

/// The progress of ingestion.
#[derive(Debug, Default)]
pub struct IngestionCounters {
    /// The sum of the sequence numbers up to which the workers' journals are ingested.
    pub reached: AtomicU64,
    /// Records in journals of earlier processes that are not ingested yet.
    pub left: AtomicU64,
    /// The store has all records up to this time, in Unix milliseconds.
    pub caught_up_ms: AtomicU64,
    /// Damaged records on disk since the start.
    pub lost: AtomicU64,
    /// Of those, the records that the store does not know of yet.
    pub lost_unreported: AtomicU64,
    /// Records that journals dropped and the store does not know of yet.
    pub dropped_unreported: AtomicU64,
    /// Records ingested since the start.
    pub ingested: AtomicU64,
    /// Whether the last batch failed.
    pub failing: AtomicBool,
    /// The last error of the store.
    pub error: Mutex<Option<String>>,
}

/// Batches of events that servers report. Analyses wait until a batch is completely counted, because a
/// batch that is sorted by group shows false effects until then.
#[derive(Debug, Default)]
pub struct Imports {
    /// Batches whose journaling has begun.
    begun: AtomicU64,
    /// Batches whose journaling has ended.
    ended: AtomicU64,
    /// When the first of several batches in close succession began, in Unix milliseconds.
    since_ms: AtomicU64,
    /// When journaling of the last batch ended, in Unix milliseconds.
    until_ms: AtomicU64,
}

/// How much of the reported batches is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// All of them, completely.
    Wholly,
    /// All of them, but another batch may follow: running minima and decisions wait.
    MoreMayFollow,
    /// The last one only in part: there is no verdict.
    Partly,
}

impl Imports {
    /// Batches that follow each other within this time belong together.
    pub const QUIET_MS: u64 = 10_000;
    /// The longest wait for batches that never end.
    pub const WAIT_MAX_MS: u64 = 3_600_000;

    /// Begins a batch, which ends when the result is dropped. Only one may be open at a time.
    pub fn begin(&self) -> OpenImport<'_> {
        let now_ms = now_ms();
        if now_ms > self.until_ms.load(Ordering::Relaxed) + Imports::QUIET_MS {
            self.since_ms.store(now_ms, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Release);
        OpenImport(self)
    }

    /// Returns how many batches have begun. Two calls show whether one began in between.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Returns how much of the batches is counted in a store that has all records up to `caught_up_ms`.
    pub fn counted(&self, caught_up_ms: u64, now_ms: u64) -> Counted {
        let ended = self.ended.load(Ordering::Acquire);
        if self.begun() == 0 {
            return Counted::Wholly;
        }
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        // After the clock was set back, nothing waits for earlier batches.
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

/// Reloads of the configuration.
#[derive(Debug, Default)]
pub struct Reload {
    /// Reloads that took effect.
    pub done: AtomicU64,
    /// Reloads that were refused because the file was invalid.
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
    /// Counts a panic of a task.
    pub fn add(&self, task: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(task.to_owned()).or_default() += 1;
    }

    /// Returns the number of panics by task.
    pub fn all(&self) -> Vec<(String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(task, count)| (task.clone(), *count))
            .collect()
    }
}

/// The spans of requests.
#[derive(Debug, Default)]
pub struct Spans {
    /// Spans that a collector accepted.
    pub exported: AtomicU64,
    /// Spans that found the queue full.
    pub overflowed: AtomicU64,
    /// Spans that no collector accepted.
    pub undelivered: AtomicU64,
}

impl Spans {
    /// Returns how many spans were lost.
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
