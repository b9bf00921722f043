//! Pages as responses, with the headers that restrict them.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// Forbids resources of other hosts, inline scripts and styles, and frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "told.html")]
struct Told<'a> {
    told: &'a str,
    /// Whether it may be had by and by: the page waits for it.
    waits: bool,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    wrong: bool,
}

/// Whether the client would rather have a page.
pub fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).map(HeaderValue::as_bytes);
    accept.is_some_and(|accept| memchr::memmem::find(accept, b"text/html").is_some())
}

/// A page that says one thing, with the way back.
pub fn message_page(status: StatusCode, told: &str) -> Response {
    let waits = status == StatusCode::SERVICE_UNAVAILABLE;
    page_response(status, Told { told, waits }.render())
}

/// What is said of a form that is not of the session it comes with.
pub fn stale_form_page() -> Response {
    let said = "This form is of another session: go back, load the page again, and send it again.";
    message_page(StatusCode::FORBIDDEN, said)
}

/// A response with a page and the headers that protect it in browsers.
pub fn page_response(status: StatusCode, page: Result<String, askama::Error>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A form that says nothing of where it comes from would be taken for a stranger's.
        (REFERRER_POLICY, "same-origin"),
    ];
    match page {
        Ok(page) => (status, headers, page).into_response(),
        Err(error) => {
            tracing::error!("a page cannot be made: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The page that asks for a token.
pub fn login_page(status: StatusCode, wrong: bool) -> Response {
    page_response(status, LoginPage { wrong }.render())
}
