//! The style sheet and the script of the admin pages.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

/// Style sheet of the admin pages
#[utoipa::path(
    get,
    path = "/admin/page.css",
    operation_id = "style",
    tag = "pages",
    responses((
        status = 200,
        description = "The style sheet",
        content_type = "text/css",
        body = String,
    ))
)]
pub(crate) async fn style() -> Response {
    asset(
        "text/css; charset=utf-8",
        include_str!("../../../templates/page.css"),
    )
}

/// Script that updates the results page
#[utoipa::path(
    get,
    path = "/admin/page.js",
    operation_id = "script",
    tag = "pages",
    responses((
        status = 200,
        description = "The script",
        content_type = "text/javascript",
        body = String,
    ))
)]
pub(crate) async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../../../templates/page.js"),
    )
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
