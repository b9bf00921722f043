//! `GET /admin/upstreams`: which endpoints get requests, and why others do not.

use crate::admin::results::upstream_health::{UpstreamReports, reports};
use crate::admin::state::AdminState;
use axum::Json;
use axum::extract::State;

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
pub async fn upstreams(State(state): State<AdminState>) -> Json<UpstreamReports> {
    Json(UpstreamReports {
        upstreams: reports(&state.plan(), &state.server.health_registry),
    })
}
