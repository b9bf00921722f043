//! Headers that every response of the admin API has, and error pages for people.

use crate::admin::http::error::Said;
use crate::admin::http::html::{message_page, wants_html};
use axum::extract::Request;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;

/// Of what is no page nothing is ever run or framed, whatever it may be taken for.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Dresses an answer.
pub async fn dress(request: Request, next: Next) -> Response {
    let is_person = wants_html(request.headers());
    let mut answer = next.run(request).await;
    if let Some(Said(why)) = answer.extensions().get::<Said>().filter(|_| is_person) {
        let mut told = message_page(answer.status(), &sentence(why));
        for name in [RETRY_AFTER, WWW_AUTHENTICATE] {
            if let Some(value) = answer.headers().get(&name) {
                told.headers_mut().insert(name, value.clone());
            }
        }
        answer = told;
    }
    let headers = answer.headers_mut();
    let alone = HeaderValue::from_static("same-origin");
    let unsniffed = HeaderValue::from_static("nosniff");
    headers.insert(RESOURCE_POLICY, alone);
    headers.insert(X_CONTENT_TYPE_OPTIONS, unsniffed);
    let policy = headers.entry(CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(NOTHING));
    answer
}

fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}
