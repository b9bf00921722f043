//! Events that the visitors' browsers report, as `navigator.sendBeacon` or `fetch` send them. They
//! count for users that the proxy has exposed; for anybody else the ledger has no place.

use super::body::Answer;
use super::handle::consents;
use super::record;
use super::snapshot::{Snapshot, Worker};
use crate::experiment::identity;
use crate::experiment::reported::{self, EVENTS_MAX};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST,
    ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Instant;

/// Answers a report, or the question whether another site's page may send one.
pub async fn answer(
    worker: &Worker,
    snapshot: &Snapshot,
    head: &Parts,
    body: Incoming,
    now: Instant,
) -> Response<Answer> {
    let foreign = match head.headers.get(ORIGIN) {
        Some(origin) if !is_own(head, origin) => Some(origin),
        _ => None,
    };
    let allowed = foreign.is_none_or(|origin| snapshot.plan.beacon.origins.contains(origin));
    let mut response = match head.method {
        _ if !allowed => said(
            StatusCode::FORBIDDEN,
            json!({"error": "this origin is not in `events.origins`"}),
        ),
        Method::OPTIONS => preflight(),
        Method::POST => match report(worker, snapshot, head, body, now).await {
            Ok(taken) => said(StatusCode::ACCEPTED, taken),
            Err((status, error)) => said(status, json!({ "error": error })),
        },
        _ => {
            let mut response = said(
                StatusCode::METHOD_NOT_ALLOWED,
                json!({"error": "events are reported by POST"}),
            );
            let post = HeaderValue::from_static("POST, OPTIONS");
            response.headers_mut().insert(ALLOW, post);
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = foreign.filter(|_| allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // The ID stands in a cookie.
        let yes = HeaderValue::from_static("true");
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    response
}

/// Whether a page of this very site asks. Which scheme the site is served by, a proxy before this
/// one may know better.
fn is_own(head: &Parts, origin: &HeaderValue) -> bool {
    let origin = origin.as_bytes();
    let host = origin
        .strip_prefix(b"https://")
        .or(origin.strip_prefix(b"http://"));
    let named = head.headers.get(HOST).map(HeaderValue::as_bytes);
    let named = named.or(head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes()));
    host.is_some_and(|host| named.is_some_and(|named| host.eq_ignore_ascii_case(named)))
}

fn preflight() -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn report(
    worker: &Worker,
    snapshot: &Snapshot,
    head: &Parts,
    body: Incoming,
    now: Instant,
) -> Result<Value, (StatusCode, String)> {
    let plan = &*snapshot.plan;
    let limits = &plan.beacon;
    let collecting = Limited::new(body, limits.body_bytes_max).collect();
    let bytes = match tokio::time::timeout(plan.timeouts.body, collecting).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = format!("more than {} bytes", limits.body_bytes_max);
            return Err((StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        Ok(Err(error)) => return Err((StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "too slow".to_owned())),
    };
    let events = reported::read(&bytes, EVENTS_MAX)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let visitor = match consents(plan, &head.headers) {
        true => identity::find(&plan.identity, head),
        // Nothing is recorded, and the page need not know.
        false => return Ok(json!({"accepted": 0, "unknown": []})),
    };
    let Some(visitor) = visitor else {
        let error = "no user ID: only visitors that were here before are counted";
        return Err((StatusCode::FORBIDDEN, error.to_owned()));
    };
    let user = visitor.user().as_bytes();
    if !worker
        .rates
        .admit_events(user, now, events.len(), limits.per_minute)
    {
        let error = format!("more than {} events in a minute", limits.per_minute);
        return Err((StatusCode::TOO_MANY_REQUESTS, error));
    }
    let (mut accepted, mut unknown) = (0, Vec::new());
    for reported in &events {
        match record::event(worker, snapshot, &visitor, reported) {
            true => accepted += 1,
            false => unknown.push(&reported.event.name),
        }
    }
    Ok(json!({"accepted": accepted, "unknown": unknown}))
}

fn said(status: StatusCode, what: Value) -> Response<Answer> {
    let text = Bytes::from(format!("{what}\n"));
    let mut response = Response::new(Answer::Own(Full::new(text)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
