//! Security headers of every response of the admin API, and error pages for browsers.

use crate::admin::http::error::ErrorMessage;
use crate::admin::http::html::{message_page, wants_html};
use axum::extract::Request;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;

/// The policy of responses that are not pages: nothing in them runs or is framed, even if a browser
/// takes one for a page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Adds security headers to a response, and makes a page of an error if the client accepts HTML.
pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let is_browser = wants_html(request.headers());
    let mut response = next.run(request).await;
    let error = response.extensions().get::<ErrorMessage>();
    if let Some(ErrorMessage(error)) = error.filter(|_| is_browser) {
        let mut page = message_page(response.status(), &sentence(error));
        for name in [RETRY_AFTER, WWW_AUTHENTICATE] {
            if let Some(value) = response.headers().get(&name) {
                page.headers_mut().insert(name, value.clone());
            }
        }
        response = page;
    }
    let headers = response.headers_mut();
    let same_origin = HeaderValue::from_static("same-origin");
    let no_sniffing = HeaderValue::from_static("nosniff");
    headers.insert(RESOURCE_POLICY, same_origin);
    headers.insert(X_CONTENT_TYPE_OPTIONS, no_sniffing);
    let policy = headers.entry(CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(NO_PAGE));
    response
}

/// Returns an error message as a sentence, with a capital and a full stop.
fn sentence(error: &str) -> String {
    let mut chars = error.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}
