//! `GET /admin/upstreams`: the health and the traffic of every endpoint.

use crate::admin::format::{self, thousands};
use crate::admin::http::auth::Caller;
use crate::admin::http::error::{Query, Refused};
use crate::admin::http::html::{page_response, wants_html};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::schema::ReplicaResult;
use crate::admin::results::upstream_health::{UpstreamReport, UpstreamReports, reports};
use crate::admin::state::AdminState;
use crate::admin::view::html::Viewer;
use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// The query.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UpstreamsQuery {
    /// The format; by default HTML for clients that accept it, else JSON.
    #[param(inline)]
    format: Option<UpstreamsFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum UpstreamsFormat {
    Json,
    Html,
}

#[derive(Template)]
#[template(path = "upstreams.html")]
struct UpstreamsPage<'a> {
    viewer: &'a Viewer<'a>,
    upstreams: &'a [UpstreamReport],
    replicas: &'a [ReplicaResult],
    in_flight: u64,
    error: Option<String>,
}

impl UpstreamsPage<'_> {
    fn title(&self) -> &'static str {
        "Upstreams - watershed"
    }

    fn count(&self, count: &u64) -> String {
        thousands(*count)
    }

    fn part(&self, count: &u64, all: &u64) -> String {
        format::part(*count, *all)
    }

    fn latency(&self, ms: &Option<f64>) -> String {
        ms.map_or("–".to_owned(), |ms| {
            format!("≤ {}", format::latency(Some(ms)))
        })
    }

    fn minute(&self, at: &str) -> String {
        format::minute(at)
    }
}

/// List the endpoints of upstreams
///
/// The state of each endpoint as this process sees it: healthy or not, since when, and why; its requests,
/// errors and latencies. The page also has the replicas.
#[utoipa::path(
    get,
    path = "/admin/upstreams",
    operation_id = "upstreams",
    tag = "process",
    params(UpstreamsQuery),
    responses(
        (
            status = 200,
            description = "All upstreams with their endpoints",
            content((UpstreamReports = "application/json"), (String = "text/html")),
        ),
        (status = 400, description = "The format does not exist", body = Refused),
    )
)]
pub(crate) async fn upstreams(
    State(state): State<AdminState>,
    Query(query): Query<UpstreamsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let (traffic, in_flight) = state.telemetry.traffic();
    let upstreams = reports(&state.plan(), &state.server.health_registry, &traffic);
    let is_page = match query.format {
        Some(format) => format == UpstreamsFormat::Html,
        None => wants_html(&headers),
    };
    if !is_page {
        return Json(UpstreamReports { upstreams }).into_response();
    }
    // An experiment of this name cannot exist, so no results are computed.
    let request = ResultsRequest {
        only: Some(""),
        ..ResultsRequest::default()
    };
    let (replicas, error) = match state.results(request).await {
        Ok(results) => (results.replicas, None),
        Err(error) => (
            Vec::new(),
            Some(format!("The store is unavailable: {error}")),
        ),
    };
    let page = UpstreamsPage {
        viewer: &caller.viewer(),
        upstreams: &upstreams,
        replicas: &replicas,
        in_flight,
        error,
    };
    page_response(StatusCode::OK, page.render())
}
