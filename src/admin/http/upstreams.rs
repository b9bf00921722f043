//! `GET /admin/upstreams`: the health of every endpoint.

use crate::admin::results::upstream_health::{UpstreamReports, reports};
use crate::admin::state::AdminState;
use axum::Json;
use axum::extract::State;

/// List the endpoints of upstreams
///
/// The state of each endpoint as this process sees it: healthy or not, since when, and why.
#[utoipa::path(
    get,
    path = "/admin/upstreams",
    operation_id = "upstreams",
    tag = "process",
    responses((status = 200, description = "All upstreams with their endpoints", body = UpstreamReports))
)]
pub async fn upstreams(State(state): State<AdminState>) -> Json<UpstreamReports> {
    Json(UpstreamReports {
        upstreams: reports(&state.plan(), &state.server.health_registry),
    })
}
