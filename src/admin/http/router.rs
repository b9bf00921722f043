//! Every path of the admin API. Each stands at its handler, with what it takes and what it answers: what
//! is served and what `/admin/openapi.json` says of it are one.

use crate::admin::decisions::api;
use crate::admin::decisions::form;
use crate::admin::http::assets;
use crate::admin::http::error::Failure;
use crate::admin::http::events;
use crate::admin::http::export;
use crate::admin::http::health;
use crate::admin::http::login;
use crate::admin::http::metrics;
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

/// Where the guard asks who comes in.
pub fn guarded() -> OpenApiRouter<AdminState> {
    let events_max = DefaultBodyLimit::max(events::BYTES_MAX);
    let decision_max = DefaultBodyLimit::max(api::BYTES_MAX);
    OpenApiRouter::default()
        .routes(routes!(results::all))
        .routes(routes!(sse::live))
        .routes(routes!(results::one))
        .routes(routes!(users::assignments_of, users::forget))
        .routes(routes!(export::export))
        .routes(routes!(events::take).layer(events_max))
        .routes(routes!(form::ask, api::take).layer(decision_max))
        .routes(routes!(login::leave))
        .routes(routes!(api::acts))
        .merge(numbers())
        .routes(routes!(upstreams::upstreams))
        .routes(routes!(health::config))
        .routes(routes!(health::reload))
        .routes(routes!(openapi::openapi))
}

/// Where nobody is asked.
pub fn open() -> OpenApiRouter<AdminState> {
    probes()
        .routes(routes!(login::ask, login::take))
        .routes(routes!(assets::style))
        .routes(routes!(assets::script))
        .routes(routes!(home))
        .routes(routes!(admin))
}

/// Numbers of the process.
pub fn numbers() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default().routes(routes!(metrics::metrics))
}

/// Whether the process is well.
pub fn probes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// What the listener for health has besides: shorter names of the same.
pub fn health() -> OpenApiRouter<AdminState> {
    OpenApiRouter::default()
        .routes(routes!(health::live_short))
        .routes(routes!(health::ready_short))
        .routes(routes!(metrics::metrics_short))
}

/// Everywhere else on the listener for health.
pub async fn nothing_else() -> Failure {
    let hint = "this listener has /healthz, /readyz and /metrics only; the rest is at admin.listen";
    Failure::new(StatusCode::NOT_FOUND, hint)
}

/// Everywhere else while all connections of the admin API are in use.
pub async fn full() -> Response {
    let why = "all connections of the admin API, or this address's share of them, are in use: close some, or try again";
    let mut refused = Failure::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    let seconds = HeaderValue::from_static("5");
    refused.headers_mut().insert(RETRY_AFTER, seconds);
    refused
}

/// Everywhere else.
pub async fn unknown() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no such path; try /admin/results")
}

/// To the results
#[utoipa::path(
    get,
    path = "/",
    operation_id = "home",
    tag = "pages",
    responses((status = 307, description = "To `/admin/results`", headers(("location" = String))))
)]
async fn home() -> Redirect {
    Redirect::temporary("/admin/results")
}

/// To the results
#[utoipa::path(
    get,
    path = "/admin",
    operation_id = "admin",
    tag = "pages",
    responses((status = 307, description = "To `/admin/results`", headers(("location" = String))))
)]
async fn admin() -> Redirect {
    home().await
}
