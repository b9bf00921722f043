//! `GET /admin/upstreams`: which endpoints get requests, and why others do not.

use crate::admin::Door;
use crate::admin::results::gather::rfc3339;
use crate::upstream::Condition;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// The endpoints of all upstreams, as this process sees them.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamReports {
    upstreams: Vec<UpstreamReport>,
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

/// The endpoints of upstreams
///
/// Which of them are healthy, since when, and why others are not, as this process sees it.
#[utoipa::path(
    get,
    path = "/admin/upstreams",
    operation_id = "upstreams",
    tag = "process",
    responses((status = 200, description = "Each endpoint", body = UpstreamReports))
)]
pub async fn upstreams(State(door): State<Door>) -> Json<UpstreamReports> {
    Json(UpstreamReports {
        upstreams: reports(&door),
    })
}

/// Endpoints that are not healthy, in a few words: changes when one of them changes.
pub fn troubles(door: &Door) -> String {
    let reports = reports(door).into_iter();
    let endpoints = reports.flat_map(|upstream| upstream.endpoints);
    let troubled = endpoints.filter(|endpoint| endpoint.state != "healthy");
    troubled
        .map(|endpoint| format!(" {} {}", endpoint.address, endpoint.state))
        .collect()
}

/// What is known of each endpoint of the plan that is served.
pub fn reports(door: &Door) -> Vec<UpstreamReport> {
    let plan = door.plan();
    let upstream = |upstream: &crate::config::plan::Upstream| {
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            let standing = door.house.health_registry.of(upstream, endpoint);
            let report = standing.report();
            EndpointReport {
                scheme: endpoint.scheme(),
                address: endpoint.to_string(),
                state: match report.condition {
                    Condition::Healthy => "healthy",
                    Condition::Ejected => "ejected",
                    Condition::Unhealthy => "unhealthy",
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
