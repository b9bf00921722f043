//! What a worker reads (one snapshot, swapped whole) and what it writes (its own).

use crate::config::declaration::declaration;
use crate::config::plan::Plan;
use crate::experiment::metric::{NearMiss, Observed};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::journal::{DeclaredPlan, Writer};
use crate::otel::Outbox;
use crate::proxy::buffer_pool::BufferPool;
use crate::proxy::changes;
use crate::proxy::connection_limits::ConnectionLimits;
use crate::proxy::headers::plan_headers::PlanHeaders;
use crate::proxy::mirror::slots::CopySlots;
use crate::proxy::observe::event_log::EventLog;
use crate::proxy::observe::log_lines::{LogLines, Sink};
use crate::proxy::returned_ids::ReturnedIds;
use crate::proxy::robot_cache::RobotCache;
use crate::rate_limit::RateLimiter;
use crate::telemetry::{
    MetricRules, MirrorCounts, Mirrors, RuleCounts, Telemetry, Traffic, UpstreamTraffic,
    WorkerTelemetry,
};
use crate::upstream::{HealthRegistry, Upstreams};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// How long a time to the second is, as RFC 3339 writes it.
const SECOND_BYTES: usize = 19;

/// What workers share.
#[derive(Clone, Debug, Default)]
pub struct SharedState {
    /// How often clients have asked.
    pub rates: Arc<RateLimiter>,
    /// What is known of endpoints.
    pub health_registry: Arc<HealthRegistry>,
    /// Which connections of clients are open.
    pub slots: Arc<ConnectionLimits>,
    /// Their numbers.
    pub telemetry: Arc<Telemetry>,
    /// How many connections of clients there is room for, whatever the file says.
    pub connections_max: Option<usize>,
    /// Where spans go; `None` where nobody exports any.
    pub outbox: Option<Outbox>,
    /// Where the lines of the access log go, if there is one.
    pub log: Option<Arc<dyn Sink>>,
}

/// What one request reads, from its beginning to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// What the file means.
    pub plan: Arc<Plan>,
    /// This worker's connections.
    pub upstreams: Upstreams,
    /// Header values made once.
    pub plan_headers: PlanHeaders,
    /// The plan as the journal keeps it.
    pub declared: DeclaredPlan,
    /// Where spans go, if the plan exports any.
    pub outbox: Option<Outbox>,
    /// Whether requests are logged, exported, or given what tells them apart.
    pub has_extras: bool,
    /// Whether the file changes requests or responses.
    pub has_changes: bool,
    /// Whether requests of some experiment are copied.
    pub has_mirrors: bool,
    /// Which clients of this worker are robots.
    pub robots: RobotCache,
    /// By metric: what responses were to its rule.
    rules: Box<[Arc<RuleCounts>]>,
    /// By experiment: the copies of its requests, where there are any.
    mirrors: Box<[Option<Arc<MirrorCounts>>]>,
    /// What this worker served for each upstream, and at last for none.
    traffic: Box<[Arc<UpstreamTraffic>]>,
}

/// One worker. Held by `Rc`, so that the compiler proves that workers share nothing they write.
#[derive(Debug)]
pub struct Worker {
    snapshot: RefCell<Rc<Snapshot>>,
    /// This worker's facts.
    pub journal: RefCell<Writer>,
    telemetry: Arc<Telemetry>,
    /// How often clients have asked, shared by all workers.
    pub rates: Arc<RateLimiter>,
    health_registry: Arc<HealthRegistry>,
    /// Which connections of clients are open, over all workers.
    pub slots: Arc<ConnectionLimits>,
    connections_max: usize,
    outbox: Option<Outbox>,
    index: usize,
    /// Client connections that are open.
    pub open: Cell<usize>,
    /// Room for what is read and written.
    pub buffers: BufferPool,
    /// Set when connections are to finish: how long those without a request may still begin one.
    pub quiet_until: Cell<Option<Instant>>,
    /// Tells those that wait.
    pub stopped: Notify,
    date: RefCell<(u64, Box<[u8]>)>,
    second: Cell<(u64, [u8; SECOND_BYTES])>,
    /// Lines of the access log, if there is one.
    pub log: Option<LogLines>,
    /// When it was last told that no more can be taken.
    pub told: Cell<Option<Instant>>,
    /// What it logs of reported events.
    pub event_log: EventLog,
    /// Minted IDs that came back to this worker.
    pub returned: ReturnedIds,
    /// Copies of requests that are in flight.
    pub copies: CopySlots,
}

impl Worker {
    /// A worker that reads this plan and writes this journal; `index` is its place in `telemetry`.
    pub fn new(plan: Arc<Plan>, journal: Writer, shared: SharedState, index: usize) -> Worker {
        let SharedState {
            rates,
            health_registry,
            slots,
            telemetry,
            connections_max,
            outbox,
            log,
        } = shared;
        let shared = (&*health_registry, telemetry.workers[index].kept());
        let snapshot = Snapshot::new(plan, shared, outbox.as_ref(), None);
        let snapshot = RefCell::new(Rc::new(snapshot));
        Worker {
            snapshot,
            journal: RefCell::new(journal),
            telemetry,
            rates,
            health_registry,
            slots,
            connections_max: connections_max.unwrap_or(usize::MAX),
            outbox,
            index,
            open: Cell::new(0),
            buffers: BufferPool::default(),
            quiet_until: Cell::new(None),
            stopped: Notify::new(),
            date: RefCell::default(),
            second: Cell::default(),
            log: log.map(LogLines::new),
            told: Cell::default(),
            event_log: EventLog::default(),
            returned: ReturnedIds::default(),
            copies: CopySlots::default(),
        }
    }

    /// What a request reads; asked once at its beginning.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Lets connections finish: each response from now on is the last one on its connection.
    pub fn stop(&self, quiet_until: Instant) {
        self.quiet_until.set(Some(quiet_until));
        self.stopped.notify_waiters();
    }

    /// Whether connections are to finish.
    pub fn is_stopping(&self) -> bool {
        self.quiet_until.get().is_some()
    }

    /// Goes over to another plan: requests that have begun finish under theirs.
    pub fn reload(&self, plan: Arc<Plan>) {
        let next = Rc::new(Snapshot::new(
            plan,
            (&self.health_registry, self.telemetry().kept()),
            self.outbox.as_ref(),
            Some(&self.snapshot().upstreams),
        ));
        *self.snapshot.borrow_mut() = next;
    }

    /// Gives the date of this time (Unix milliseconds) as heads say it (RFC 9110, 5.6.7).
    pub fn with_date<T>(&self, now_ms: u64, give: impl FnOnce(&[u8]) -> T) -> T {
        let now_s = now_ms / 1000;
        let mut date = self.date.borrow_mut();
        if date.0 != now_s {
            let now = UNIX_EPOCH + Duration::from_secs(now_s);
            *date = (now_s, httpdate::fmt_http_date(now).into_bytes().into());
        }
        give(&date.1)
    }

    /// Writes the time as `2026-11-24T10:00:00.123456`, in UTC (RFC 3339).
    pub fn write_time(&self, out: &mut [u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let (mut second, mut text) = self.second.get();
        if second != now.as_secs() {
            second = now.as_secs();
            let time = jiff::Timestamp::from_second(second as i64).unwrap_or_default();
            let written = time.to_string();
            if let Some(written) = written.as_bytes().first_chunk() {
                text = *written;
            }
            self.second.set((second, text));
        }
        out[..SECOND_BYTES].copy_from_slice(&text);
        let mut rest = now.subsec_micros();
        for digit in out[SECOND_BYTES + 1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// Lets go of upstream connections that nobody needs.
    pub fn sweep(&self) {
        self.snapshot.borrow().upstreams.sweep();
    }

    /// How many connections of clients the process may have.
    pub fn connections_max(&self) -> usize {
        let plan = &self.snapshot.borrow().plan;
        plan.limits.connections.min(self.connections_max)
    }

    /// How many of them may be of one address.
    pub fn connections_per_address_max(&self) -> usize {
        let given = self.snapshot.borrow().plan.limits.connections_per_address;
        given.unwrap_or_else(|| self.connections_max().div_ceil(2))
    }

    /// This worker's numbers.
    pub fn telemetry(&self) -> &WorkerTelemetry {
        &self.telemetry.workers[self.index]
    }
}

impl Snapshot {
    fn new(
        plan: Arc<Plan>,
        (health_registry, kept): (&HealthRegistry, (&Traffic, &MetricRules, &Mirrors)),
        outbox: Option<&Outbox>,
        before: Option<&Upstreams>,
    ) -> Snapshot {
        let outbox = outbox.filter(|_| plan.tracing.otlp.is_some()).cloned();
        let (traffic, rules, mirrors) = kept;
        let mirrors: Box<[_]> = plan
            .experiments
            .iter()
            .map(|own| {
                let to = &plan.upstream(own.mirrors()?.to).name;
                Some(mirrors.of(&own.name, to))
            })
            .collect();
        let tracing = &plan.tracing;
        let tags = tracing.request_id || tracing.start.is_some();
        Snapshot {
            has_extras: tags || plan.access_log.is_some() || outbox.is_some(),
            upstreams: Upstreams::new(&plan, health_registry, traffic, before),
            plan_headers: PlanHeaders::new(&plan),
            declared: DeclaredPlan::new(&declaration(&plan)),
            outbox,
            has_changes: changes::has_changes(&plan),
            has_mirrors: mirrors.iter().any(Option::is_some),
            mirrors,
            robots: RobotCache::default(),
            rules: plan
                .metrics
                .iter()
                .map(|it| rules.of(&it.rule_key()))
                .collect(),
            traffic: plan
                .upstreams
                .iter()
                .map(|upstream| traffic.upstream(&upstream.name))
                .chain([Arc::clone(&traffic.own)])
                .collect(),
            plan,
        }
    }

    /// Counts what a response was to the rules of metrics, and events that no metric counts.
    pub fn note_rules(&self, worker: &Worker, observed: &Observed) {
        for response in &observed.rules {
            let miss = response.miss.map(NearMiss::code);
            self.rules[response.metric.0].note(miss);
        }
        if !observed.unused.is_empty() {
            worker.telemetry().unused_events.note(&observed.unused);
        }
    }

    /// The copies of an experiment's requests, if there are any.
    pub fn mirror(&self, experiment: ExperimentIndex) -> Option<&Arc<MirrorCounts>> {
        self.mirrors.get(experiment.0)?.as_ref()
    }

    /// What this worker served for an upstream, or for none.
    pub fn traffic(&self, upstream: Option<UpstreamIndex>) -> &UpstreamTraffic {
        let place = upstream.map_or(self.traffic.len() - 1, |it| it.0);
        &self.traffic[place]
    }
}
