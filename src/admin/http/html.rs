//! HTML pages as responses, with the headers that protect them in browsers.

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
#[template(path = "message.html")]
struct MessagePage<'a> {
    message: &'a str,
    /// Whether the cause may pass: the page then reloads by itself.
    is_temporary: bool,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    is_wrong_token: bool,
}

/// Whether the client accepts HTML, as browsers do.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).map(HeaderValue::as_bytes);
    accept.is_some_and(|accept| memchr::memmem::find(accept, b"text/html").is_some())
}

/// Returns a page with one message and a link to the results.
pub(crate) fn message_page(status: StatusCode, message: &str) -> Response {
    let page = MessagePage {
        message,
        is_temporary: status == StatusCode::SERVICE_UNAVAILABLE,
    };
    page_response(status, page.render())
}

/// Returns the page for a form of another session.
pub(crate) fn stale_form_page() -> Response {
    let message = "This form belongs to another session. Go back, reload the page and try again.";
    message_page(StatusCode::FORBIDDEN, message)
}

/// Returns a response with a page and the headers that protect it in browsers.
pub(crate) fn page_response(status: StatusCode, page: Result<String, askama::Error>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, browsers send `Origin: null` with forms, which then look cross-site.
        (REFERRER_POLICY, "same-origin"),
    ];
    match page {
        Ok(page) => (status, headers, page).into_response(),
        Err(error) => {
            tracing::error!("a page cannot be rendered: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns the login page, with a message after a wrong token.
pub(crate) fn login_page(status: StatusCode, is_wrong_token: bool) -> Response {
    page_response(status, LoginPage { is_wrong_token }.render())
}
