//! The health of upstreams and their endpoints, as this process sees it.

use crate::admin::format::rfc3339;
use crate::config::plan::{Plan, Upstream};
use crate::upstream::{EndpointCondition, HealthRegistry};
use serde::Serialize;
use utoipa::ToSchema;

/// The endpoints of all upstreams, as this process sees them.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamReports {
    /// In the order of the file.
    pub upstreams: Vec<UpstreamReport>,
}

/// The endpoints of an upstream.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamReport {
    /// Its name in the file.
    pub name: String,
    /// In the order of the file.
    pub endpoints: Vec<EndpointReport>,
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointReport {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port.
    pub address: String,
    /// `healthy`, `ejected` (connections or requests failed: it gets requests only where all others
    /// are ejected too, until a pause is over) or `unhealthy` (its health checks fail: it gets none).
    pub state: &'static str,
    /// When it became so; `null` for one that was never anything else.
    pub since: Option<String>,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Whether `health` of its upstream asks for checks.
    pub checked: bool,
    /// How often it was ejected since the process started.
    pub ejections: u64,
    /// Requests that wait for one of its connections.
    pub waiting: u32,
}

/// Endpoints that are not healthy, in a few words: changes when one of them changes.
pub fn troubles(plan: &Plan, health_registry: &HealthRegistry) -> String {
    let reports = reports(plan, health_registry).into_iter();
    let endpoints = reports.flat_map(|upstream| upstream.endpoints);
    let troubled = endpoints.filter(|endpoint| endpoint.state != "healthy");
    troubled
        .map(|endpoint| format!(" {} {}", endpoint.address, endpoint.state))
        .collect()
}

/// What is known of each endpoint of the plan that is served.
pub fn reports(plan: &Plan, health_registry: &HealthRegistry) -> Vec<UpstreamReport> {
    let upstream = |upstream: &Upstream| {
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            let standing = health_registry.of(upstream, endpoint);
            let report = standing.report();
            EndpointReport {
                scheme: endpoint.scheme(),
                address: endpoint.to_string(),
                state: match report.condition {
                    EndpointCondition::Healthy => "healthy",
                    EndpointCondition::Ejected => "ejected",
                    EndpointCondition::Unhealthy => "unhealthy",
                },
                since: report.since_ms.and_then(rfc3339),
                reason: report.reason,
                checked: upstream.health.is_some(),
                ejections: report.ejections,
                waiting: standing.waiting(),
            }
        });
        UpstreamReport {
            name: upstream.name.to_string(),
            endpoints: endpoints.collect(),
        }
    };
    plan.upstreams.iter().map(upstream).collect()
}
