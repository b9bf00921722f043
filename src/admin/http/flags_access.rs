//! Who may evaluate flags: bearers of any token, and pages of the origins that the file lists.

use crate::admin::http::auth::{self, AuthError, Caller};
use crate::admin::http::error::Failure;
use crate::admin::state::AdminState;
use crate::config::plan::{Origins, Plan};
use crate::experiment::key_ring::KeyRing;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::net::SocketAddr;

/// The header in which OFREP also carries a token.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What a page may send: the token, the tag of what it has, and whether evaluation exposes.
const REQUEST_HEADERS: &str =
    "authorization, content-type, if-none-match, last-event-id, watershed-exposure, x-api-key";
const METHODS: &str = "GET, POST";
const RESPONSE_HEADERS: &str = "etag, retry-after";
/// How long a browser keeps the answer to a preflight, in seconds.
const PREFLIGHT_S: &str = "3600";
/// A key of the event stream is valid until the end of the next period of so many seconds.
const KEY_PERIOD_S: u64 = 43_200;

/// Passes a request on if its caller may evaluate flags.
pub(crate) async fn authorize(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match caller(&state, peer, &request) {
        Ok(caller) if is_forged(&state.plan(), &caller, request.headers()) => {
            let error = "pages of this origin may not evaluate flags: admin.flags.origins lists those that may";
            Failure::new(StatusCode::FORBIDDEN, error).into_response()
        }
        Ok(_) => {
            auth::admit(&request);
            next.run(request).await
        }
        Err(error) => auth::refusal(error, &request),
    }
}

/// Answers preflights of allowed origins, and lets their pages read responses (CORS).
pub(crate) async fn share(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = origin.filter(|origin| allows(&state.plan(), origin));
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match allowed.is_some() && is_preflight {
        true => preflight(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let readable = HeaderValue::from_static(RESPONSE_HEADERS);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    }
    response
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_S),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn allows(plan: &Plan, origin: &HeaderValue) -> bool {
    match &plan.admin.flag_origins {
        Origins::All => true,
        Origins::Listed(listed) => listed.contains(origin),
    }
}

/// Whether a page makes a browser send credentials that are not the page's.
fn is_forged(plan: &Plan, caller: &Caller, headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN);
    let is_allowed = origin.is_some_and(|origin| allows(plan, origin));
    caller.ambient.is_some() && !is_allowed && !auth::is_same_origin(headers)
}

/// The caller of a request, by a key of the event stream, or as elsewhere, with the token in either header.
fn caller(state: &AdminState, peer: SocketAddr, request: &Request) -> Result<Caller, AuthError> {
    let headers = request.headers();
    let Some(key) = headers
        .get(API_KEY)
        .filter(|_| !headers.contains_key(AUTHORIZATION))
    else {
        return auth::authenticate(state, peer.ip(), headers);
    };
    let bearer = [b"Bearer ", key.as_bytes()].concat();
    let bearer = HeaderValue::from_bytes(&bearer).map_err(|_| AuthError::NoValidToken)?;
    let mut headers = headers.clone();
    headers.insert(AUTHORIZATION, bearer);
    auth::authenticate(state, peer.ip(), &headers)
}

/// The path and query of the event stream. Browsers cannot send a token with a stream, so the address has a key
/// of its own. It stays the same for hours, so that clients keep their stream.
pub(crate) fn stream_target(keys: &KeyRing, now_s: u64) -> String {
    let until = ((now_s / KEY_PERIOD_S + 2) * KEY_PERIOD_S).to_string();
    let key = URL_SAFE_NO_PAD.encode(keys.sign(&[b"flags", until.as_bytes()]));
    format!("/ofrep/v1/stream?until={until}&key={key}")
}

/// Whether a key of the event stream is valid. Compared in constant time.
pub(crate) fn is_stream_key(keys: &KeyRing, until: &str, key: &str, now_s: u64) -> bool {
    let tag = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
    let is_signed = keys.verify(&[b"flags", until.as_bytes()], &tag).is_some();
    is_signed && until.parse().is_ok_and(|until: u64| now_s < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_key_is_valid_for_hours_and_no_longer() {
        let keys = KeyRing::new("session", b"secret", []);
        let target = stream_target(&keys, 100);
        let (until, key) = target
            .strip_prefix("/ofrep/v1/stream?until=")
            .and_then(|rest| rest.split_once("&key="))
            .unwrap();
        assert_eq!(until, "86400");
        assert_eq!(stream_target(&keys, 43_199), target);
        assert_ne!(stream_target(&keys, 43_200), target);
        assert!(is_stream_key(&keys, until, key, 86_399));
        assert!(!is_stream_key(&keys, until, key, 86_400));
        assert!(!is_stream_key(&keys, "96400", key, 100));
        assert!(!is_stream_key(&keys, until, "", 100));
        let others = KeyRing::new("session", b"another", []);
        assert!(!is_stream_key(&others, until, key, 100));
    }
}
