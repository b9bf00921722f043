//! The thread that exports: it looks for what has ended, and posts it in batches.

use super::post::{Heard, Way};
use super::queue::Inbox;
use super::sampled_request::SampledRequest;
use super::semantics;
use crate::config::plan::{Otlp, Plan};
use crate::tasks::{self, Phase, PhaseWatch};
use crate::telemetry::{Spans, Telemetry};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot, watch};

/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long spans wait for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// With how many they go at once.
const BATCH_SPANS: usize = 512;
/// How long the spans that are left are exported when the process stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);
/// How often losses are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Exports the spans of the queue to the collector of the newest plan. From [`Phase::Closing`] on, it
/// exports the spans that are left, for at most [`FLUSH_WITHIN`]. It starts its thread with the first
/// plan that has a collector. After a panic it can be run again with the same queue.
pub async fn run(
    inbox: Arc<Mutex<Inbox>>,
    mut plans: watch::Receiver<Arc<Plan>>,
    telemetry: Arc<Telemetry>,
    mut phase: PhaseWatch,
) -> io::Result<()> {
    tokio::select! {
        wanted = plans.wait_for(|plan| plan.tracing.otlp.is_some()) => {
            if wanted.is_err() {
                return Ok(());
            }
        }
        () = phase.reached(Phase::Closing) => return Ok(()),
    }
    // What it found counts as seen: it is to be seen in there.
    plans.mark_changed();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (ends, ended) = oneshot::channel();
    // Dropped with this future, which ends the thread.
    let (_held, abandoned) = oneshot::channel::<Infallible>();
    let thread = std::thread::Builder::new().name("spans".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            let exporting = async {
                let mut inbox = inbox.lock().await;
                export(&mut inbox, plans, &telemetry.spans, phase).await;
            };
            tokio::select! {
                () = tasks::named("spans-thread", exporting) => {}
                _ = abandoned => {}
            }
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        // Nobody listens if this was abandoned.
        let _ = ends.send(());
    })?;
    let panicked = |_| io::Error::other("its thread panicked");
    ended.await.map_err(panicked)
}

async fn export(
    inbox: &mut Inbox,
    plans: watch::Receiver<Arc<Plan>>,
    counts: &Spans,
    mut phase: PhaseWatch,
) {
    let unsettled = Cell::new(0);
    let mut teller = Teller::default();
    {
        let watched = (plans, phase.clone());
        let mut work = std::pin::pin!(work(&mut *inbox, watched, counts, &unsettled, &mut teller));
        tokio::select! {
            () = &mut work => return,
            () = phase.reached(Phase::Closing) => {}
        }
        let _ = tokio::time::timeout(FLUSH_WITHIN, work).await;
    }
    let mut left = unsettled.get();
    while let Ok(exchange) = inbox.try_recv() {
        left += exchange.spans();
    }
    counts.undelivered.fetch_add(left, Ordering::Relaxed);
    if left > 0 {
        teller.why = Some("there was no more time".to_owned());
    }
    teller.tell(counts);
}

async fn work(
    inbox: &mut Inbox,
    (mut plans, mut phase): (watch::Receiver<Arc<Plan>>, PhaseWatch),
    counts: &Spans,
    unsettled: &Cell<u64>,
    teller: &mut Teller,
) {
    let mut collector = None;
    let mut batch = Batch::default();
    loop {
        // Who gives plans may be gone already, when what is left is exported.
        if plans.has_changed().unwrap_or(false) {
            let plan = Arc::clone(&plans.borrow_and_update());
            // Where nothing is exported any more, what began before still goes where it was to go.
            if let Some(otlp) = &plan.tracing.otlp {
                collector = Some(Collector::of(otlp));
            }
        }
        let stopping = phase.now() >= Phase::Closing;
        while batch.spans.len() < BATCH_SPANS
            && let Ok(exchange) = inbox.try_recv()
        {
            batch.add(*exchange);
        }
        unsettled.set(batch.spans.len() as u64);
        if batch.is_due(stopping) {
            teller.heard(settle(&collector, batch.take(), counts).await);
            unsettled.set(0);
            teller.tell_at_times(counts);
            continue;
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = phase.reached(Phase::Closing) => {}
        }
        teller.tell_at_times(counts);
    }
}

/// Posts a batch and counts what became of it; says what went wrong.
async fn settle(
    collector: &Option<Result<Collector, ExporterBuildError>>,
    spans: Vec<SpanData>,
    counts: &Spans,
) -> Option<String> {
    let count = spans.len() as u64;
    let posted = match collector {
        Some(Ok(collector)) => collector.post(spans).await,
        Some(Err(error)) => Err(error.to_string()),
        None => Err("there is nowhere to go".to_owned()),
    };
    let (lost, why) = match posted {
        Ok((rejected, why)) => (rejected.min(count), why),
        Err(why) => (count, Some(why)),
    };
    counts.exported.fetch_add(count - lost, Ordering::Relaxed);
    counts.undelivered.fetch_add(lost, Ordering::Relaxed);
    why.filter(|_| lost > 0)
}

/// Spans that go together.
#[derive(Default)]
struct Batch {
    spans: Vec<SpanData>,
    since: Option<Instant>,
    scope: Option<InstrumentationScope>,
}

impl Batch {
    fn add(&mut self, exchange: SampledRequest) {
        let scope = self.scope.get_or_insert_with(|| {
            let scope = InstrumentationScope::builder("watershed");
            scope.with_version(VERSION).build()
        });
        self.since.get_or_insert_with(Instant::now);
        self.spans.extend(semantics::spans(exchange, scope));
    }

    fn is_due(&self, stopping: bool) -> bool {
        let late = self.since.is_some_and(|since| since.elapsed() >= GATHER);
        !self.spans.is_empty() && (stopping || late || self.spans.len() >= BATCH_SPANS)
    }

    fn take(&mut self) -> Vec<SpanData> {
        self.since = None;
        std::mem::take(&mut self.spans)
    }
}

/// Where spans go.
struct Collector {
    exporter: opentelemetry_otlp::SpanExporter,
    heard: Arc<Heard>,
    to: String,
}

impl Collector {
    /// Of the environment only what the file leaves open is heeded, such as
    /// `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES`.
    fn of(otlp: &Otlp) -> Result<Collector, ExporterBuildError> {
        let (way, heard) = Way::to(otlp);
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(way)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(otlp.to.to_string())
            .build()?;
        exporter.set_resource(&resource(otlp.service.as_deref()));
        Ok(Collector {
            exporter,
            heard,
            to: otlp.to.to_string(),
        })
    }

    /// How many spans were rejected, and why; or why none were taken.
    async fn post(&self, spans: Vec<SpanData>) -> Result<(u64, Option<String>), String> {
        let posted = self.exporter.export(spans).await;
        let (rejected, why) = (self.heard.rejected(), self.heard.why());
        match posted {
            Ok(()) => Ok((rejected, why.map(|why| format!("{}: {why}", self.to)))),
            Err(error) => Err(format!(
                "{}: {}",
                self.to,
                why.unwrap_or_else(|| error.to_string())
            )),
        }
    }
}

/// Who exports. What OpenTelemetry calls a service without a name is called watershed.
fn resource(service: Option<&str>) -> Resource {
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", VERSION));
    if let Some(service) = service {
        return builder.with_service_name(service.to_owned()).build();
    }
    let found = builder.build();
    let name = found.get(&Key::new("service.name"));
    let unnamed = name.is_none_or(|name| name.as_str().starts_with("unknown_service"));
    match unnamed {
        true => Resource::builder()
            .with_attribute(KeyValue::new("service.version", VERSION))
            .with_service_name("watershed")
            .build(),
        false => found,
    }
}

/// Tells of losses, not too often.
#[derive(Default)]
struct Teller {
    /// How many were known when it was last told.
    known: u64,
    at: Option<Instant>,
    why: Option<String>,
}

impl Teller {
    fn heard(&mut self, why: Option<String>) {
        self.why = why.or(self.why.take());
    }

    fn tell_at_times(&mut self, counts: &Spans) {
        if self.at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.tell(counts);
        }
    }

    fn tell(&mut self, counts: &Spans) {
        let lost = counts.lost();
        if lost > self.known {
            let why = self.why.take();
            let why = why.unwrap_or_else(|| "they end faster than they are taken".to_owned());
            tracing::warn!("{} spans were lost: {why}", lost - self.known);
            self.at = Some(Instant::now());
        }
        self.known = lost;
    }
}
