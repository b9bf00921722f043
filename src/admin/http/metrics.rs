//! `GET /admin/metrics`: metrics of this process and of experiments, for Prometheus. Labels are
//! names of the file, groups and states: never users or paths.

#[cfg(target_os = "linux")]
mod process;
mod text_format;
mod traffic;

use crate::admin::http::error::Failure;
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::schema::{ExperimentResult, MetricResult, Results};
use crate::admin::state::AdminState;
use crate::telemetry::{Spans, Telemetry};
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

/// Numbers for Prometheus
///
/// Everything there is to know now. Without a store, what this process knows alone.
#[utoipa::path(
    get,
    path = "/admin/metrics",
    operation_id = "metrics",
    tag = "process",
    responses((
        status = 200,
        description = "OpenMetrics, or the text format of Prometheus for clients that accept only that",
        content(
            (String = "application/openmetrics-text"),
            (String = "text/plain"),
        ),
    ))
)]
pub async fn metrics(
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
    metrics.spans(&state.telemetry.spans);
    let results = state.results(ResultsRequest::default()).await;
    metrics.gauge(
        "store_up",
        "Whether the store answers and takes what it is given",
        [(vec![], up(&results))],
    );
    if let Ok(results) = &results {
        metrics.experiments(results);
    }
    let mut text = String::new();
    encode_registry(&mut text, &metrics.0).map_err(unwritable)?;
    #[cfg(target_os = "linux")]
    {
        // Named alike in all programs, so without a prefix.
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

/// The same on the listener for health
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics_short",
    tag = "process",
    responses((
        status = 200,
        description = "OpenMetrics, or the text format of Prometheus for clients that accept only that",
        content(
            (String = "application/openmetrics-text"),
            (String = "text/plain"),
        ),
    ))
)]
pub async fn metrics_short(
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

impl Metrics {
    /// Prometheus adds `_total` to its name.
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

    /// Quantiles, which no gauge may have: their type is unknown.
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

    /// A counter that is no whole number.
    #[cfg(target_os = "linux")]
    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn process(&mut self, telemetry: &Telemetry) {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauge("build_info", "What runs", [(version, 1.0)]);
        let one = |value| [(vec![], value)];
        let sum = |of: fn(&crate::telemetry::WorkerTelemetry) -> &crate::telemetry::Counter| {
            one(telemetry.sum(of))
        };
        let all: [(&str, &str, _); 7] = [
            ("requests", "Requests received", sum(|it| &it.requests)),
            (
                "refusals",
                "Responses that watershed made itself because of an error",
                sum(|it| &it.refusals),
            ),
            (
                "connections",
                "Client connections accepted",
                sum(|it| &it.connections),
            ),
            (
                "connections_refused",
                "Client connections refused, because of their address or in all too many were open",
                sum(|it| &it.refused_connections),
            ),
            (
                "fallbacks",
                "Requests that control served because the group's upstream could not",
                sum(|it| &it.fallbacks),
            ),
            (
                "unreadable_events",
                "Event headers that could not be read",
                sum(|it| &it.unreadable_events),
            ),
            (
                "journal_dropped_facts",
                "Facts that the journal could not take",
                sum(|it| &it.dropped),
            ),
        ];
        for (name, help, value) in all {
            self.counter(name, help, value);
        }
        let faults = telemetry.event_faults().into_iter();
        self.counter(
            "event_faults",
            "Faults of reported events",
            faults.map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
        );
        let panics = telemetry.panics.all().into_iter();
        self.counter(
            "panics",
            "Panics, by the task that panicked",
            panics.map(|(task, count)| (vec![("task", task)], count)),
        );
    }

    /// What moves events from the journal to the store, and analyzes them.
    fn ingestion(&mut self, telemetry: &Telemetry) {
        let one = |number| [(vec![], read(number))];
        let ingestion = &telemetry.ingestion;
        self.counter(
            "folded_facts",
            "Facts moved to the store",
            one(&ingestion.ingested),
        );
        self.counter(
            "analyses",
            "Times that all experiments were analyzed",
            one(&telemetry.analyses),
        );
        self.counter(
            "damaged_facts",
            "Facts that were damaged on disk",
            one(&ingestion.lost),
        );
        let lag = telemetry.lag_events() as f64;
        self.gauge(
            "journal_lag_facts",
            "Facts that are not in the store yet",
            [(vec![], lag)],
        );
        let reload = |result: &str, number| (vec![("result", result.to_owned())], read(number));
        self.counter(
            "reloads",
            "Times that the file was loaded again",
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
            "Spans that a collector took",
            [(vec![], read(&spans.exported))],
        );
        self.counter(
            "spans_dropped",
            "Spans that were lost on the way to a collector",
            [
                reason("queue_full", &spans.overflowed),
                reason("undelivered", &spans.undelivered),
            ],
        );
    }

    fn experiments(&mut self, results: &Results) {
        let all = &results.experiments;
        self.gauge(
            "store_lag_seconds",
            "For how long the store has been behind",
            [(vec![], results.store.lag_seconds)],
        );
        self.gauge(
            "replicas_disagreeing",
            "Replicas that serve other definitions",
            [(vec![], results.disagreeing() as f64)],
        );
        let of = |experiment: &ExperimentResult| vec![("experiment", experiment.name.clone())];
        let with = |mut labels: Labels, name, value: &str| {
            labels.push((name, value.to_owned()));
            labels
        };
        let status = |it: &ExperimentResult| (with(of(it), "status", it.status), 1.0);
        self.gauge("experiment_status", "What it does", all.iter().map(status));
        let verdict = |it: &ExperimentResult| {
            let group = it.verdict.group.as_deref().unwrap_or_default();
            let labels = with(of(it), "state", it.verdict.state);
            (with(labels, "group", group), 1.0)
        };
        self.gauge(
            "experiment_verdict",
            "What can be said",
            all.iter().map(verdict),
        );
        let mismatch =
            |it: &ExperimentResult| (of(it), f64::from(u8::from(it.sample_ratio.mismatch)));
        let help = "Whether groups have other sizes than their weights ask for";
        self.gauge(
            "experiment_sample_ratio_mismatch",
            help,
            all.iter().map(mismatch),
        );
        let crossed = |it: &ExperimentResult| (of(it), it.crossed_over as f64);
        let help = "Users who were seen in another group later";
        self.gauge(
            "experiment_crossed_over_users",
            help,
            all.iter().map(crossed),
        );
        let joined = |it: &ExperimentResult| (of(it), it.joined as f64);
        let help = "Minted IDs that count for a known one";
        self.gauge("experiment_joined_ids", help, all.iter().map(joined));
        let shared = |it: &ExperimentResult| (of(it), it.shared_devices as f64);
        let help = "Further known IDs from a device that had joined another user";
        self.gauge("experiment_shared_device_ids", help, all.iter().map(shared));
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
            "group_fallbacks",
            "Requests of its users that control served",
            groups().map(|(labels, group)| (labels, group.fallbacks as f64)),
        );
        self.gauge(
            "group_responses",
            "Responses to its users, by class of status",
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
            "Time to the head of a response",
            groups().flat_map(|(labels, group)| {
                let ms = &group.latency_ms;
                [("0.5", ms.p50), ("0.95", ms.p95), ("0.99", ms.p99)]
                    .into_iter()
                    .filter_map(move |(name, ms)| quantile(&labels, name, ms))
                    .collect::<Vec<_>>()
            }),
        );
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
            "The rate of a metric in a group",
            metrics().filter_map(|(labels, group)| Some((labels, group.rate?))),
        );
        self.gauge(
            "metric_converted_users",
            "Users with an event",
            metrics().map(|(labels, group)| (labels, group.converted as f64)),
        );
        self.gauge(
            "metric_lift",
            "The relative difference from control",
            metrics().filter_map(|(labels, group)| Some((labels, group.lift.as_ref()?.relative?))),
        );
        self.gauge(
            "metric_p_value",
            "The always-valid p-value of the difference from control",
            metrics().filter_map(|(labels, group)| Some((labels, group.p_value?))),
        );
    }
}

/// One quantile.
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
