//! Metrics of requests, connections, endpoints, certificates and reloads.

use super::{Labels, Metrics};
use crate::admin::results::mirror;
use crate::config::plan::{Plan, TlsCertificate, Transport};
use crate::telemetry::{BOUNDS_US, HistogramSum, MirrorSum, Telemetry};
use crate::tls;
use crate::upstream::{EndpointCondition, EndpointHistory, HealthRegistry};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const US_PER_S: f64 = 1e6;

/// A histogram that the workers have already counted.
#[derive(Clone, Debug, Default)]
struct Counted(Arc<Mutex<HistogramSum>>);

impl TypedMetric for Counted {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Counted {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / US_PER_S);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(sum.buckets).collect();
        let count = sum.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(sum.sum_us as f64 / US_PER_S, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Counted::TYPE
    }
}

/// The name of a counter of copies, what it counts, and its value.
type MirrorCount = (&'static str, &'static str, fn(&MirrorSum) -> u64);

/// A cause of a change of an endpoint, and its counter.
type Cause = (&'static str, fn(&EndpointHistory) -> &AtomicU64);

fn label(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

fn of_endpoint(upstream: &str, endpoint: &str) -> Labels {
    vec![label("upstream", upstream), label("endpoint", endpoint)]
}

impl Metrics {
    /// Adds counts and durations of requests.
    pub(super) fn traffic(&mut self, telemetry: &Telemetry) {
        let (sum, in_flight) = telemetry.traffic();
        let requests = sum.requests.iter();
        self.counter(
            "http_requests",
            "Completed requests, by upstream, endpoint, client protocol, status class and responder",
            requests.map(|((upstream, endpoint, kind), count)| {
                let mut labels = of_endpoint(upstream, endpoint);
                labels.push(label("protocol", kind.protocol));
                labels.push(label("class", kind.class));
                labels.push(label("responder", kind.responder));
                (labels, *count)
            }),
        );
        self.gauge(
            "requests_in_flight",
            "Requests whose response is not complete",
            [(vec![], in_flight as f64)],
        );
        let upstreams = || sum.upstreams.iter();
        let named = |name: &str| vec![label("upstream", name)];
        self.histogram(
            "http_request_duration_seconds",
            "Time from the head of a request to the last byte of its response",
            upstreams().map(|(name, it)| (named(name), it.duration.clone())),
        );
        let with_upstream = || upstreams().filter(|(name, _)| !name.is_empty());
        self.histogram(
            "upstream_response_head_seconds",
            "Time from the head of a request to the head of the upstream's response, with retries",
            with_upstream().map(|(name, it)| (named(name), it.head.clone())),
        );
        self.counter(
            "upstream_retries",
            "Requests that were sent again because a connection broke or closed before a response",
            with_upstream().map(|(name, it)| (named(name), it.retries)),
        );
        self.connections(telemetry);
    }

    fn connections(&mut self, telemetry: &Telemetry) {
        let sessions = || telemetry.workers.iter().flat_map(|it| it.sessions.counts());
        let labels = |protocol: &str, tls: bool| {
            let tls = if tls { "true" } else { "false" };
            vec![label("protocol", protocol), label("tls", tls)]
        };
        self.counter(
            "client_connections",
            "Client connections whose protocol is known",
            sessions().map(|(protocol, tls, begun, _)| (labels(protocol, tls), begun)),
        );
        let mut open = std::collections::BTreeMap::new();
        for (protocol, tls, _, count) in sessions() {
            *open.entry((protocol, tls)).or_default() += count;
        }
        let open = open.into_iter();
        self.gauge(
            "client_connections_open",
            "Open client connections whose protocol is known",
            open.map(|((protocol, tls), count): (_, u64)| (labels(protocol, tls), count as f64)),
        );
        let ended = telemetry.sum(|it| &it.ended_connections);
        let all = telemetry.sum(|it| &it.connections).saturating_sub(ended);
        self.gauge(
            "connections_open",
            "Open client connections, including those that have not sent anything yet",
            [(vec![], all as f64)],
        );
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Labels, HistogramSum)>,
    ) {
        let family = Family::<Labels, Counted>::default();
        for (labels, value) in values {
            let counted = family.get_or_create_owned(&labels);
            *counted.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
        self.0.register(name, help, family);
    }

    /// Adds counters of endpoints, and the health of those in the plan.
    pub(super) fn endpoints(&mut self, plan: &Plan, health_registry: &HealthRegistry) {
        let histories = health_registry.histories().clone();
        let counted = |causes: &'static [Cause]| {
            histories
                .iter()
                .flat_map(move |((upstream, endpoint), it)| {
                    causes.iter().map(move |(cause, number)| {
                        let mut labels = of_endpoint(upstream, endpoint);
                        labels.extend((!cause.is_empty()).then(|| label("cause", cause)));
                        (labels, number(it).load(Ordering::Relaxed))
                    })
                })
        };
        self.counter(
            "endpoint_ejections",
            "Ejections of an endpoint, after failed connections or requests, or failed health checks",
            counted(&[("failures", |it| &it.ejections), ("health_check", |it| &it.failed_checks)]),
        );
        self.counter(
            "endpoint_returns",
            "Returns of an ejected endpoint",
            counted(&[
                ("failures", |it| &it.returns),
                ("health_check", |it| &it.passed_checks),
            ]),
        );
        self.counter(
            "endpoint_connections",
            "Connections to an endpoint",
            counted(&[("", |it| &it.connections)]),
        );
        self.counter(
            "endpoint_failed_connections",
            "Failed attempts to connect to an endpoint",
            counted(&[("", |it| &it.failed_connections)]),
        );
        let endpoints = plan.upstreams.iter().flat_map(|upstream| {
            upstream.endpoints.iter().map(move |endpoint| {
                let condition = health_registry.of(upstream, endpoint).report().condition;
                let healthy = f64::from(u8::from(condition == EndpointCondition::Healthy));
                (of_endpoint(&upstream.name, &endpoint.to_string()), healthy)
            })
        });
        self.gauge(
            "endpoint_healthy",
            "0 while an endpoint is ejected or its health checks fail, else 1",
            endpoints,
        );
    }

    /// Adds the expiry of certificates.
    pub(super) fn certificates(&mut self, plan: &Plan) {
        let of_admin = plan.admin.tls.iter().map(|tls| &tls.certificate);
        let shown = plan.tls.iter().flat_map(|tls| &tls.certificates);
        let shown = shown.chain(of_admin).map(|certificate| ("", certificate));
        let to_upstreams = plan.upstreams.iter().filter_map(|upstream| {
            // All endpoints of an upstream get the same client certificate.
            let Transport::Https(tls) = &upstream.endpoints.first()?.transport else {
                return None;
            };
            Some((&*upstream.name, tls.certificate.as_ref()?))
        });
        let labels = |file: &str, upstream: &str| {
            vec![label("certificate", file), label("upstream", upstream)]
        };
        let expiry = |(upstream, certificate): (&str, &TlsCertificate)| {
            let expires_s = certificate.expires_s?;
            Some((labels(&certificate.file, upstream), expires_s as f64))
        };
        let acme = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        let obtained = acme.and_then(|acme| {
            let certificate = acme.obtained.certificate()?;
            let first = acme.settings.names.first()?;
            let expires_s = tls::expires_s(&certificate)?;
            Some((labels(&format!("acme:{first}"), ""), expires_s as f64))
        });
        self.gauge(
            "certificate_expiry_timestamp_seconds",
            "Expiry of a server certificate or of a client certificate for an upstream, in Unix time",
            shown.chain(to_upstreams).filter_map(expiry).chain(obtained),
        );
    }

    /// Adds copies of requests, and what comparisons of their responses found.
    pub(super) fn mirrors(&mut self, plan: &Plan, telemetry: &Telemetry) {
        let sums = mirror::sums(plan, telemetry);
        let named = |name: &str| vec![label("experiment", name)];
        let counted = |of: fn(&MirrorSum) -> u64| {
            let values = sums.iter().map(move |(name, sum)| (named(name), of(sum)));
            values.collect::<Vec<_>>()
        };
        let counts: [MirrorCount; 4] = [
            (
                "mirror_copies",
                "Requests that were copied to another version",
                |it| it.copies,
            ),
            (
                "mirror_dropped",
                "Requests that were not copied, because too many copies were in flight",
                |it| it.dropped,
            ),
            (
                "mirror_failed",
                "Copied requests without a comparison, because a version gave no response",
                |it| it.failed,
            ),
            (
                "mirror_asked_again",
                "Copied requests for which the version that had served was asked once more",
                |it| it.asked_again,
            ),
        ];
        for (name, help, of) in counts {
            self.counter(name, help, counted(of));
        }
        self.counter(
            "mirror_comparisons",
            "Comparisons of two versions' responses, by result: equal, or the first difference",
            sums.iter().flat_map(|(name, sum)| {
                let outcomes = mirror::outcomes(&sum.compared).into_iter();
                outcomes.map(move |(result, count)| {
                    let mut labels = named(name);
                    labels.push(label("result", result));
                    (labels, count)
                })
            }),
        );
    }

    /// Adds the outcome of the last reload.
    pub(super) fn reload(&mut self, telemetry: &Telemetry) {
        let reload = &telemetry.reload;
        let error = reload.error.lock().unwrap_or_else(PoisonError::into_inner);
        let successful = f64::from(u8::from(error.is_none()));
        drop(error);
        self.gauge(
            "config_last_reload_successful",
            "1 if the last reload of the configuration succeeded, or if there was none",
            [(vec![], successful)],
        );
        let loaded_at_ms = reload.loaded_at_ms.load(Ordering::Relaxed);
        self.gauge(
            "config_last_reload_success_timestamp_seconds",
            "Time at which the active configuration was loaded, in Unix time",
            [(vec![], loaded_at_ms as f64 / 1e3)],
        );
    }
}
