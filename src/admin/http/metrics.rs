//! `GET /admin/metrics`: metrics of this process and of experiments, for Prometheus. Label values are
//! names from the routes file, groups and states, never users or paths.

mod followers;
#[cfg(target_os = "linux")]
mod process;
mod text_format;
mod traffic;

use crate::admin::http::error::Failure;
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::schema::{ExperimentResult, MetricResult, Results};
use crate::admin::state::AdminState;
use crate::experiment::not_counted::NotCounted;
use crate::telemetry::{AcmeCounters, MessageCounters, Spans, Telemetry};
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// Metrics for Prometheus
///
/// While the store is unavailable, only the metrics of this process are returned.
#[utoipa::path(
    get,
    path = "/admin/metrics",
    operation_id = "metrics",
    tag = "process",
    responses((
        status = 200,
        description = "OpenMetrics, or the Prometheus text format for clients that accept only that",
        content(
            (String = "application/openmetrics-text"),
            (String = "text/plain"),
        ),
    ))
)]
pub(crate) async fn metrics(
    State(state): State<AdminState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let mut metrics = Metrics(Registry::with_prefix("watershed"));
    metrics.process(&state.telemetry);
    metrics.ingestion(&state.telemetry);
    metrics.traffic(&state.telemetry);
    metrics.reload(&state.telemetry);
    let plan = state.plan();
    metrics.endpoints(&plan, &state.server.health_registry);
    metrics.certificates(&plan);
    if plan.tls.as_ref().is_some_and(|tls| tls.acme.is_some()) {
        metrics.acme(&state.telemetry.acme);
    }
    metrics.mirrors(&plan, &state.telemetry);
    metrics.spans(&state.telemetry.spans);
    metrics.messages(&state.telemetry.messages);
    if state.plan().archive.is_some() {
        metrics.archive(&state.telemetry.archive);
    }
    metrics.forward(&state.telemetry.forward.all());
    let results = state.results(ResultsRequest::default()).await;
    metrics.gauge(
        "store_up",
        "1 if the store is available and accepts data",
        [(vec![], up(&results))],
    );
    if let Ok(results) = &results {
        metrics.experiments(results);
    }
    let mut text = String::new();
    encode_registry(&mut text, &metrics.0).map_err(unwritable)?;
    #[cfg(target_os = "linux")]
    {
        // These names are the same in all programs, so they have no prefix.
        let mut process = Metrics(Registry::default());
        process.operating_system();
        encode_registry(&mut text, &process.0).map_err(unwritable)?;
    }
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if text_format::is_wanted(accept.unwrap_or_default()) {
        let text = text_format::of_openmetrics(&text);
        return Ok(([(CONTENT_TYPE, text_format::TYPE)], text).into_response());
    }
    encode_eof(&mut text).map_err(unwritable)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn unwritable(error: std::fmt::Error) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Metrics for Prometheus, on the health listener
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics_short",
    tag = "process",
    responses((
        status = 200,
        description = "OpenMetrics, or the Prometheus text format for clients that accept only that",
        content(
            (String = "application/openmetrics-text"),
            (String = "text/plain"),
        ),
    ))
)]
pub(crate) async fn metrics_short(
    state: State<AdminState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    metrics(state, headers).await
}

fn up<E>(results: &Result<Results, E>) -> f64 {
    let healthy = results.as_ref().is_ok_and(|results| results.store.healthy);
    f64::from(u8::from(healthy))
}

struct Metrics(Registry);

/// Reads the value of a metric from the results of an experiment.
type ValueOf = fn(&ExperimentResult) -> f64;

impl Metrics {
    /// Adds a counter. Its name gets the suffix `_total`.
    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Gauges::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds quantiles as a metric of unknown type, because OpenMetrics allows no gauge with quantiles.
    fn quantiles(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Quantile>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).0.set(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds a counter of seconds, which need not be whole.
    #[cfg(target_os = "linux")]
    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn process(&mut self, telemetry: &Telemetry) {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauge("build_info", "Version of the program", [(version, 1.0)]);
        let one = |value| [(vec![], value)];
        let sum = |of: fn(&crate::telemetry::WorkerTelemetry) -> &crate::telemetry::Counter| {
            one(telemetry.sum(of))
        };
        let all: [(&str, &str, _); 9] = [
            ("requests", "Requests received", sum(|it| &it.requests)),
            (
                "refusals",
                "Error responses of watershed itself",
                sum(|it| &it.refusals),
            ),
            (
                "connections",
                "Client connections accepted",
                sum(|it| &it.connections),
            ),
            (
                "connections_refused",
                "Client connections refused because too many were open, in total or of one address",
                sum(|it| &it.refused_connections),
            ),
            (
                "fallbacks",
                "Requests that another version served because the group's failed",
                sum(|it| &it.fallbacks),
            ),
            (
                "assets_followed",
                "Requests that one version answered with 404, and another one served",
                sum(|it| &it.assets_followed),
            ),
            (
                "requests_pinned",
                "Requests that the version of their open page served, and not that of the user's group",
                sum(|it| &it.requests_pinned),
            ),
            (
                "unreadable_events",
                "Event headers that could not be parsed",
                sum(|it| &it.unreadable_events),
            ),
            (
                "journal_dropped_facts",
                "Records that did not fit into the journal",
                sum(|it| &it.dropped),
            ),
        ];
        for (name, help, value) in all {
            self.counter(name, help, value);
        }
        self.users_and_events(telemetry);
        let panics = telemetry.panics.all().into_iter();
        self.counter(
            "panics",
            "Panics, by the task that panicked",
            panics.map(|(task, count)| (vec![("task", task)], count)),
        );
    }

    /// Adds what is not counted, or probably should not be.
    fn users_and_events(&mut self, telemetry: &Telemetry) {
        let faults = telemetry.event_faults().into_iter();
        self.counter(
            "event_faults",
            "Faults in reported events, by reason",
            faults.map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
        );
        let not_counted = NotCounted::ALL.into_iter().map(|why| {
            let workers = telemetry.workers.iter();
            let count: u64 = workers.map(|it| it.not_counted.get(why as usize)).sum();
            (vec![("reason", why.name().to_owned())], count)
        });
        self.counter(
            "requests_not_counted",
            "Requests that were served but belong to no user who is counted, by reason",
            not_counted,
        );
        self.gauge(
            "frequent_ids",
            "IDs with more than 5 % of the latest requests",
            [(Labels::new(), telemetry.frequent_ids().len() as f64)],
        );
    }

    /// Metrics of ingestion from the journal into the store, and of analyses.
    fn ingestion(&mut self, telemetry: &Telemetry) {
        let one = |number| [(vec![], read(number))];
        let ingestion = &telemetry.ingestion;
        self.counter(
            "folded_facts",
            "Records ingested into the store",
            one(&ingestion.ingested),
        );
        self.counter(
            "analyses",
            "Analyses of all experiments",
            one(&telemetry.analyses),
        );
        self.counter(
            "damaged_facts",
            "Records that were damaged on disk",
            one(&ingestion.lost),
        );
        let lag = telemetry.lag_events() as f64;
        self.gauge(
            "journal_lag_facts",
            "Records waiting for ingestion",
            [(vec![], lag)],
        );
        let reload = |result: &str, number| (vec![("result", result.to_owned())], read(number));
        self.counter(
            "reloads",
            "Reloads of the routes file, by result",
            [
                reload("done", &telemetry.reload.done),
                reload("refused", &telemetry.reload.refused),
            ],
        );
    }

    fn spans(&mut self, spans: &Spans) {
        let reason = |reason: &str, number| (vec![("reason", reason.to_owned())], read(number));
        self.counter(
            "spans_exported",
            "Spans delivered to the collector",
            [(vec![], read(&spans.exported))],
        );
        self.counter(
            "spans_dropped",
            "Spans that were not delivered to the collector",
            [
                reason("queue_full", &spans.overflowed),
                reason("undelivered", &spans.undelivered),
            ],
        );
    }

    fn messages(&mut self, messages: &MessageCounters) {
        self.counter(
            "webhook_messages_delivered",
            "Messages that receivers of webhooks accepted",
            [(vec![], read(&messages.delivered))],
        );
        self.counter(
            "webhook_attempts_failed",
            "Attempts to deliver a message that failed",
            [(vec![], read(&messages.failed))],
        );
        let reason = |reason: &str, number| (vec![("reason", reason.to_owned())], read(number));
        self.counter(
            "webhook_messages_dropped",
            "Messages that were given up, and events without room for their messages",
            [
                reason("given_up", &messages.given_up),
                reason("queue_full", &messages.full),
            ],
        );
        self.gauge(
            "webhook_messages_pending",
            "Messages to webhooks that wait, of all replicas",
            [(vec![], read(&messages.pending) as f64)],
        );
    }

    fn acme(&mut self, acme: &AcmeCounters) {
        self.counter(
            "acme_orders",
            "Certificates that this process ordered by ACME",
            [(vec![], read(&acme.orders))],
        );
        self.counter(
            "acme_failures",
            "Attempts of this process to obtain a certificate by ACME that failed",
            [(vec![], read(&acme.failures))],
        );
    }

    fn experiments(&mut self, results: &Results) {
        let all = &results.experiments;
        self.gauge(
            "store_lag_seconds",
            "Time since ingestion last caught up; 0 if no records are waiting",
            [(vec![], results.store.lag_seconds)],
        );
        self.gauge(
            "replicas_disagreeing",
            "Replicas whose experiments or metrics differ from those of this process",
            [(vec![], results.disagreeing() as f64)],
        );
        let status = |it: &ExperimentResult| (with(of(it), "status", it.status), 1.0);
        self.gauge(
            "experiment_status",
            "State of an experiment",
            all.iter().map(status),
        );
        let verdict = |it: &ExperimentResult| {
            let group = it.verdict.group.as_deref().unwrap_or_default();
            let labels = with(of(it), "state", it.verdict.state);
            (with(labels, "group", group), 1.0)
        };
        self.gauge(
            "experiment_verdict",
            "Verdict of an experiment",
            all.iter().map(verdict),
        );
        let counts: [(&str, &str, ValueOf); 4] = [
            (
                "experiment_sample_ratio_mismatch",
                "1 if group sizes do not match their weights",
                |it| f64::from(u8::from(it.sample_ratio.mismatch)),
            ),
            (
                "experiment_crossed_over_users",
                "Users who were exposed to more than one group",
                |it| it.crossed_over as f64,
            ),
            (
                "experiment_joined_ids",
                "Minted IDs that count for a known ID",
                |it| it.joined as f64,
            ),
            (
                "experiment_shared_device_ids",
                "Further known IDs from devices whose minted ID had joined another user",
                |it| it.shared_devices as f64,
            ),
        ];
        for (name, help, count) in counts {
            self.gauge(name, help, all.iter().map(|it| (of(it), count(it))));
        }
        self.groups(all);
        self.group_metrics(all);
    }

    fn groups(&mut self, all: &[ExperimentResult]) {
        let groups = || {
            all.iter().flat_map(|experiment| {
                let own = move |group| (with(of(experiment), "group", name_of(group)), group);
                experiment.groups.iter().map(own)
            })
        };
        self.gauge(
            "group_users",
            "Users who were exposed",
            groups().map(|(labels, group)| (labels, group.users as f64)),
        );
        self.gauge(
            "group_seen_once",
            "Visitors whose minted ID has not come back: they are no users",
            groups().map(|(labels, group)| (labels, group.seen_once as f64)),
        );
        self.gauge(
            "group_fallbacks",
            "Requests of a group's users that control served",
            groups().map(|(labels, group)| (labels, group.fallbacks as f64)),
        );
        self.gauge(
            "group_responses",
            "Responses to a group's users, by status class",
            groups().flat_map(|(labels, group)| {
                let class = move |(class, count): (&&'static str, &u64)| {
                    (with(labels.clone(), "class", class), *count as f64)
                };
                group.responses.iter().map(class)
            }),
        );
        let quantile = |labels: &Labels, quantile, ms: Option<f64>| {
            Some((with(labels.clone(), "quantile", quantile), ms? / 1000.0))
        };
        self.quantiles(
            "group_latency_seconds",
            "Time from the head of a request to the head of its response",
            groups().flat_map(|(labels, group)| {
                let ms = &group.latency_ms;
                [("0.5", ms.p50), ("0.95", ms.p95), ("0.99", ms.p99)]
                    .into_iter()
                    .filter_map(move |(name, ms)| quantile(&labels, name, ms))
                    .collect::<Vec<_>>()
            }),
        );
    }

    fn group_metrics(&mut self, all: &[ExperimentResult]) {
        let metrics = || {
            all.iter().flat_map(|experiment| {
                experiment
                    .metrics
                    .iter()
                    .flat_map(move |metric: &MetricResult| {
                        metric.groups.iter().map(move |group| {
                            let labels = with(of(experiment), "metric", &metric.name);
                            (with(labels, "group", &group.name), group)
                        })
                    })
            })
        };
        self.gauge(
            "metric_rate",
            "Rate of a metric in a group",
            metrics().filter_map(|(labels, group)| Some((labels, group.rate?))),
        );
        self.gauge(
            "metric_converted_users",
            "Users with at least one event",
            metrics().map(|(labels, group)| (labels, group.converted as f64)),
        );
        self.gauge(
            "metric_lift",
            "Relative difference from control",
            metrics().filter_map(|(labels, group)| Some((labels, group.lift.as_ref()?.relative?))),
        );
        self.gauge(
            "metric_p_value",
            "Always-valid p-value of the difference from control",
            metrics().filter_map(|(labels, group)| Some((labels, group.p_value?))),
        );
    }
}

/// The label that names an experiment.
fn of(experiment: &ExperimentResult) -> Labels {
    vec![("experiment", experiment.name.clone())]
}

/// Adds a label.
fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

/// A gauge that is declared as a metric of unknown type.
#[derive(Clone, Debug, Default)]
struct Quantile(Gauge<f64, AtomicU64>);

impl TypedMetric for Quantile {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Quantile {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Quantile::TYPE
    }
}

fn name_of(group: &crate::admin::results::schema::GroupResult) -> &str {
    &group.name
}
