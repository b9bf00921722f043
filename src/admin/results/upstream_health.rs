//! The health of upstreams and their endpoints, as this process sees it.

use crate::admin::format::{minute, rfc3339};
use crate::admin::results::latency::Latency;
use crate::config::plan::{Plan, Upstream};
use crate::experiment::Group;
use crate::telemetry::{BOUNDS_US, HistogramSum, TrafficSum};
use crate::upstream::{EndpointCondition, HealthRegistry};
use serde::Serialize;
use utoipa::ToSchema;

/// The endpoints of all upstreams, as this process sees them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpstreamReports {
    /// In the order of the file.
    pub upstreams: Vec<UpstreamReport>,
}

/// The endpoints of an upstream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpstreamReport {
    /// Its name in the file.
    pub name: String,
    /// In the order of the file.
    pub endpoints: Vec<EndpointReport>,
    /// Times to the head of its responses since the process started, with retries, as the upper bounds of
    /// the buckets that have them.
    pub latency_ms: Latency,
    /// Requests that were sent again since the process started.
    pub retries: u64,
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointReport {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port.
    pub address: String,
    /// `healthy`, `ejected` (connections or requests failed: it gets requests only where all others
    /// are ejected too, until a pause is over) or `unhealthy` (its health checks fail: it gets none).
    pub state: &'static str,
    /// When it became so; `null` for one that was never anything else.
    pub since: Option<String>,
    /// Why it is not healthy, or in doubt.
    pub reason: Option<String>,
    /// Whether it was ejected, and nothing has succeeded since: it gets the next request, and may fail again.
    pub in_doubt: bool,
    /// Whether `health` of its upstream asks for checks.
    pub checked: bool,
    /// How often it was ejected since the process started.
    pub ejections: u64,
    /// Requests that wait for one of its connections.
    pub waiting: u32,
    /// Requests that it responded to since the process started.
    pub requests: u64,
    /// Those with a status of 5xx.
    pub errors: u64,
}

/// Endpoints that are not healthy, in a few words: changes when one of them changes.
pub(crate) fn troubles(plan: &Plan, health_registry: &HealthRegistry) -> String {
    let reports = reports(plan, health_registry, &TrafficSum::default()).into_iter();
    let endpoints = reports.flat_map(|upstream| upstream.endpoints);
    let troubled = endpoints.filter(|endpoint| endpoint.state != "healthy");
    troubled
        .map(|endpoint| format!(" {} {}", endpoint.address, endpoint.state))
        .collect()
}

/// Why no endpoint of a group's upstream gets requests, if none does.
pub(crate) fn down(plan: &Plan, group: &Group, health_registry: &HealthRegistry) -> Option<String> {
    let upstream = plan.upstream(group.upstream?);
    let reports = upstream.endpoints.iter().map(|endpoint| {
        let report = health_registry.of(upstream, endpoint).report();
        (report.condition != EndpointCondition::Healthy).then_some((endpoint, report))
    });
    let reports: Vec<_> = reports.collect::<Option<_>>()?;
    let (endpoint, report) = reports.first()?;
    let why = report.reason.as_deref().unwrap_or("no answer");
    let since = report.since_ms.and_then(rfc3339);
    let since = since.map_or(String::new(), |since| format!(" since {}", minute(&since)));
    Some(format!("{endpoint} is down{since}: {why}"))
}

/// What is known of each endpoint of the plan that is served.
pub(crate) fn reports(
    plan: &Plan,
    health_registry: &HealthRegistry,
    traffic: &TrafficSum,
) -> Vec<UpstreamReport> {
    let upstream = |upstream: &Upstream| {
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            let standing = health_registry.of(upstream, endpoint);
            let report = standing.report();
            let (requests, errors) = responses(traffic, &upstream.name, &endpoint.to_string());
            EndpointReport {
                scheme: endpoint.scheme(),
                address: endpoint.to_string(),
                state: match report.condition {
                    EndpointCondition::Healthy => "healthy",
                    EndpointCondition::Ejected => "ejected",
                    EndpointCondition::Unhealthy => "unhealthy",
                },
                since: report.since_ms.and_then(rfc3339),
                in_doubt: report.is_in_doubt && report.condition == EndpointCondition::Healthy,
                reason: report.reason,
                checked: upstream.health.is_some(),
                ejections: report.ejections,
                waiting: standing.waiting(),
                requests,
                errors,
            }
        });
        let sum = traffic.upstreams.get(&upstream.name);
        UpstreamReport {
            name: upstream.name.to_string(),
            endpoints: endpoints.collect(),
            latency_ms: sum.map_or_else(Latency::default, |sum| latency(&sum.head)),
            retries: sum.map_or(0, |sum| sum.retries),
        }
    };
    plan.upstreams.iter().map(upstream).collect()
}

/// Returns the requests of an endpoint, and those with a status of 5xx.
fn responses(traffic: &TrafficSum, upstream: &str, endpoint: &str) -> (u64, u64) {
    let all = traffic.requests.iter();
    let own = all.filter(|((of, at, _), _)| **of == *upstream && **at == *endpoint);
    own.fold((0, 0), |(requests, errors), ((_, _, kind), count)| {
        let is_error = kind.class == "5xx";
        (requests + count, errors + if is_error { *count } else { 0 })
    })
}

/// Returns quantiles of a histogram; `None` where they are beyond the last bound, or nothing was counted.
fn latency(histogram: &HistogramSum) -> Latency {
    let all: u64 = histogram.buckets.iter().sum();
    let quantile = |share: f64| {
        let rank = (share * all as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let place = histogram.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        BOUNDS_US.get(place?).map(|us| *us as f64 / 1000.0)
    };
    Latency {
        p50: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let mut histogram = HistogramSum::default();
        assert_eq!(latency(&histogram).p50, None);
        histogram.buckets[2] = 90;
        histogram.buckets[4] = 9;
        *histogram.buckets.last_mut().unwrap() = 1;
        let found = latency(&histogram);
        assert_eq!(
            (found.p50, found.p95, found.p99),
            (Some(2.5), Some(10.0), Some(10.0))
        );
        *histogram.buckets.last_mut().unwrap() = 100;
        assert_eq!(latency(&histogram).p95, None);
    }
}
