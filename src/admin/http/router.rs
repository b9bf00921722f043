//! Every path of the admin API. Each handler declares its path, parameters and responses; both the
//! router and `/admin/openapi.json` are built from these declarations.

use crate::admin::decisions::api;
use crate::admin::decisions::form;
use crate::admin::http::assets;
use crate::admin::http::error::Failure;
use crate::admin::http::events;
use crate::admin::http::export;
use crate::admin::http::gate;
use crate::admin::http::health;
use crate::admin::http::history;
use crate::admin::http::login;
use crate::admin::http::metrics;
use crate::admin::http::new_experiment;
use crate::admin::http::ofrep;
use crate::admin::http::openapi;
use crate::admin::http::results;
use crate::admin::http::sse;
use crate::admin::http::upstreams;
use crate::admin::http::users;
use crate::admin::state::AdminState;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// Routes that require authentication.
pub(crate) fn guarded() -> OpenApiRouter<AdminState> {
    let events_max = DefaultBodyLimit::max(events::BYTES_MAX);
    let decision_max = DefaultBodyLimit::max(api::BYTES_MAX);
    OpenApiRouter::default()
        .routes(routes!(results::all))
        .routes(routes!(sse::live))
        .routes(routes!(results::one))
        .routes(routes!(users::assignments_of, users::forget))
        .routes(routes!(export::export))
        .routes(routes!(events::take).layer(events_max))
        .routes(routes!(gate::read, gate::read_by_post))
        .routes(routes!(form::ask, api::take).layer(decision_max))
        .routes(routes!(login::log_out))
        .routes(routes!(api::acts))
        .routes(routes!(history::list))
        .routes(routes!(history::file))
        .merge(metrics())
        .routes(routes!(upstreams::upstreams))
        .routes(routes!(new_experiment::new_experiment))
        .routes(routes!(health::config))
        .routes(routes!(health::reload))
        .routes(routes!(openapi::openapi))
}

/// Routes of flags, for callers who may evaluate them.
pub(crate) fn flags() -> OpenApiRouter<AdminState> {
    let request_max = || DefaultBodyLimit::max(ofrep::BYTES_MAX);
    OpenApiRouter::default()
        .routes(routes!(ofrep::one).layer(request_max()))
        .routes(routes!(ofrep::all).layer(request_max()))
}

/// The stream of changes of flags, whose address has a key.
pub(crate) fn flag_changes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default().routes(routes!(ofrep::changes))
}

/// Routes without authentication.
pub(crate) fn open() -> OpenApiRouter<AdminState> {
    probes()
        .routes(routes!(login::form, login::log_in))
        .routes(routes!(assets::style))
        .routes(routes!(assets::script))
        .routes(routes!(home))
        .routes(routes!(admin))
}

/// The metrics route.
pub(crate) fn metrics() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default().routes(routes!(metrics::metrics))
}

/// Health checks.
pub(crate) fn probes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// Short paths of health checks and metrics, on the health listener.
pub(crate) fn health() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default()
        .routes(routes!(health::live_short))
        .routes(routes!(health::ready_short))
        .routes(routes!(metrics::metrics_short))
}

/// Fallback of the health listener.
pub(crate) async fn nothing_else() -> Failure {
    let hint = "this listener serves only /healthz, /readyz and /metrics; use admin.listen for everything else";
    Failure::new(StatusCode::NOT_FOUND, hint)
}

/// Fallback of reserved connections, while all others are in use.
pub(crate) async fn full() -> Response {
    let error = "all connections of the admin API, or this address's share of them, are in use: close some, or try again";
    let mut refused = Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    let seconds = HeaderValue::from_static("5");
    refused.headers_mut().insert(RETRY_AFTER, seconds);
    refused
}

/// Fallback of all other paths.
pub(crate) async fn unknown() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "this path does not exist; try /admin/results",
    )
}

/// Redirect to the results
#[utoipa::path(
    get,
    path = "/",
    operation_id = "home",
    tag = "pages",
    responses((status = 307, description = "Redirects to `/admin/results`", headers(("location" = String))))
)]
async fn home() -> Redirect {
    Redirect::temporary("/admin/results")
}

/// Redirect to the results
#[utoipa::path(
    get,
    path = "/admin",
    operation_id = "admin",
    tag = "pages",
    responses((status = 307, description = "Redirects to `/admin/results`", headers(("location" = String))))
)]
async fn admin() -> Redirect {
    home().await
}
