//! Events that the visitors' browsers report, as `navigator.sendBeacon` or `fetch` send them. They
//! count for users that the proxy has exposed; those of others wait for an exposure for a while.

use crate::config::plan::Plan;
use crate::experiment::client_event::{self, EVENTS_MAX};
use crate::experiment::http_view::HeaderView;
use crate::experiment::identity::{self, Visitor};
use crate::experiment::metric;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::request_head::Request;
use crate::proxy::headers::believed_client;
use crate::proxy::observe::event_faults;
use crate::proxy::observe::exposure_log::{self, EventOutcome};
use crate::proxy::policy::{self, consents};
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::rate_limit::Reporter;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE,
    ORIGIN, RETRY_AFTER, VARY,
};
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

/// Answers a report, or the question whether another site's page may send one.
pub(super) fn answer(
    worker: &Worker,
    snapshot: &Snapshot,
    (head, peer): (&Request<'_>, IpAddr),
    body: Result<Vec<u8>, ErrorCode>,
    now: Instant,
) -> Response<Vec<u8>> {
    let foreign = head.first(&ORIGIN);
    let foreign = foreign.and_then(|origin| HeaderValue::from_bytes(origin).ok());
    let foreign = match &foreign {
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
        Method::POST => match report(worker, snapshot, (head, peer), body, now) {
            Ok(taken) => said(StatusCode::ACCEPTED, taken),
            Err(error) => error.response(),
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
fn is_own(head: &Request<'_>, origin: &HeaderValue) -> bool {
    let origin = origin.as_bytes();
    let host = origin
        .strip_prefix(b"https://")
        .or(origin.strip_prefix(b"http://"));
    let named = head.host_text();
    host.is_some_and(|host| named.is_some_and(|named| host.eq_ignore_ascii_case(named)))
}

fn preflight() -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Idempotency-Key",
        ),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a report is not taken.
struct Rejection {
    status: StatusCode,
    /// After how many seconds it may be sent again.
    retry_after_s: Option<u64>,
    said: Value,
}

impl Rejection {
    fn new(status: StatusCode, error: impl Into<String>) -> Rejection {
        Rejection {
            status,
            retry_after_s: None,
            said: json!({"error": error.into()}),
        }
    }

    fn response(self) -> Response<Vec<u8>> {
        let mut response = said(self.status, self.said);
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The answer to whoever is not counted by requests either.
fn not_counted(
    worker: &Worker,
    snapshot: &Snapshot,
    head: &Request<'_>,
    visitor: Option<&Visitor<'_>>,
) -> Option<Value> {
    let rules = (&*snapshot.plan, &snapshot.robots);
    let why = policy::not_counted(rules, head, visitor)?;
    worker.telemetry().not_counted.add(why as usize);
    let why = why.name();
    Some(json!({"accepted": 0, "unknown": [], "refused": [], "unused": [], "not_counted": why}))
}

fn report(
    worker: &Worker,
    snapshot: &Snapshot,
    (head, peer): (&Request<'_>, IpAddr),
    body: Result<Vec<u8>, ErrorCode>,
    now: Instant,
) -> Result<Value, Rejection> {
    let plan = &*snapshot.plan;
    let bytes = body.map_err(|reason| broken(plan, reason))?;
    let key = head.first(&client_event::IDEMPOTENCY_KEY);
    let events = client_event::read(&bytes, key, EVENTS_MAX);
    let visitor = match consents(plan, head) {
        true => identity::find(&plan.identity, head),
        // Nothing is recorded, and the page need not know.
        false => return Ok(json!({"accepted": 0, "unknown": [], "refused": [], "unused": []})),
    };
    if let Some(answer) = not_counted(worker, snapshot, head, visitor.as_ref()) {
        return Ok(answer);
    }
    let user = visitor.as_ref().map(|visitor| visitor.user().as_bytes());
    let client_ip = head.client.unwrap_or(peer);
    // A report that cannot be read counts as one event.
    let count = events.as_ref().map_or(1, |events| events.len().max(1));
    admit(worker, plan, (client_ip, user), count, now)?;
    let events =
        events.map_err(|error| Rejection::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let Some(visitor) = visitor else {
        let error = "no user ID: only visitors that were here before are counted";
        return Err(Rejection::new(StatusCode::FORBIDDEN, error));
    };
    let units = policy::units(plan, head);
    let (mut accepted, mut dropped) = (0, 0);
    let (mut unknown, mut refused, mut unused) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (place, reported) in events.iter().enumerate() {
        match exposure_log::event(worker, snapshot, (&visitor, units.as_deref()), reported) {
            EventOutcome::Journaled => {
                accepted += 1;
                metric::note_unused(&plan.metrics, &reported.event, &mut unused);
            }
            EventOutcome::Unknown => unknown.push(&reported.event.name),
            EventOutcome::Refused(fault) => refused.push(reported.refused(place, &fault)),
            EventOutcome::Dropped => dropped += 1,
        }
    }
    let first = refused.first().map(ToString::to_string);
    let listed: Vec<Value> = refused
        .iter()
        .map(|it| json!({"place": it.place, "event": it.name, "reason": it.why}))
        .collect();
    let mut taken =
        json!({"accepted": accepted, "unknown": unknown, "refused": listed, "unused": unused});
    let (status, retry_after_s, error) = match first {
        _ if dropped > 0 => {
            let error = format!(
                "the journal has no room for {dropped} of the events: send them again later, with the same IDs"
            );
            (StatusCode::SERVICE_UNAVAILABLE, Some(5), error)
        }
        Some(first) if accepted == 0 && unknown.is_empty() => {
            (StatusCode::BAD_REQUEST, None, first)
        }
        _ => return Ok(taken),
    };
    taken["error"] = error.into();
    Err(Rejection {
        status,
        retry_after_s,
        said: taken,
    })
}

/// Why the body of a report has not come.
fn broken(plan: &Plan, code: ErrorCode) -> Rejection {
    let (status, token) = (code.status(), code.token());
    match code {
        ErrorCode::BodyTooLong => {
            let max = plan.beacon.body_bytes_max;
            Rejection::new(status, format!("more than {max} bytes"))
        }
        ErrorCode::BodyTimedOut => Rejection::new(status, "too slow"),
        _ => Rejection::new(status, token),
    }
}

/// Refuses a user or an address that reports too often. The client chooses its ID, so the address
/// is what bounds it; an address that is trusted speaks for many. The user comes first: what its
/// limit refuses costs others behind the address nothing.
fn admit(
    worker: &Worker,
    plan: &Plan,
    (client_ip, user): (IpAddr, Option<&[u8]>),
    events: usize,
    now: Instant,
) -> Result<(), Rejection> {
    let limits = &plan.beacon;
    let by_address = limits.per_minute_per_address;
    let of_user = user.map(|user| (Reporter::User(user), limits.per_minute, "user"));
    let of_address = (!believed_client::trusts(plan, client_ip)).then_some((
        Reporter::Address(client_ip),
        by_address,
        "address",
    ));
    for (reporter, per_minute, whose) in of_user.into_iter().chain(of_address) {
        let admitted = worker.rates.admit_events(reporter, now, events, per_minute);
        if let Err(seconds) = admitted {
            if matches!(reporter, Reporter::Address(_)) {
                event_faults::too_many(worker, client_ip, per_minute, events, now);
            }
            let error = format!("more than {per_minute} events of one {whose} in a minute");
            return Err(Rejection {
                retry_after_s: Some(seconds),
                ..Rejection::new(StatusCode::TOO_MANY_REQUESTS, error)
            });
        }
    }
    Ok(())
}

fn said(status: StatusCode, what: Value) -> Response<Vec<u8>> {
    let mut response = Response::new(format!("{what}\n").into_bytes());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
