//! `POST /admin/events`: events that servers report, such as a payment that a bank confirms. The body
//! has the format of a browser's report, with a `user` in each event.

use crate::admin::http::error::{Failure, Refused, stopping};
use crate::admin::server_handle::EventsRequest;
use crate::admin::state::AdminState;
use crate::experiment::client_event;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// The most events in one report.
const EVENTS_MAX: usize = 10_000;
/// The most bytes of one report.
pub(crate) const BYTES_MAX: usize = 8 << 20;

/// The schema of a report as [`client_event::read`] parses it: one event, or a list.
struct Report;

impl ToSchema for Report {}

impl PartialSchema for Report {
    fn schema() -> RefOr<Schema> {
        let (one, many) = (Event::schema(), ArrayBuilder::new());
        let many = many.items(one.clone()).max_items(Some(EVENTS_MAX));
        OneOfBuilder::new().item(one).item(many).into()
    }
}

/// An event. Further keys are its parameters, such as `amount`; a number can also be given as text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `client_event::read` parses")]
struct Event {
    /// The name; at most 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    event: String,
    /// The user's ID; at most 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    user: String,
    /// Identifies the event, so that it counts once however often it is sent; at most 256 bytes. An
    /// event without an ID counts each time.
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    /// When it happened, in RFC 3339, from 30 days ago to 5 minutes ahead; without, when it is
    /// reported.
    at: Option<String>,
    #[serde(flatten)]
    parameters: BTreeMap<String, serde_json::Value>,
}

/// The headers of a report.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents a header, which need not be text")]
struct EventHeaders {
    /// Gives each event without an `id` one, derived from this key and its position, so that a repeated
    /// report counts once.
    #[param(rename = "Idempotency-Key", nullable = false)]
    idempotency_key: Option<String>,
}

/// The outcome of a report.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// The number of events that count for a metric.
    accepted: usize,
    /// The names of events that no metric counts.
    unknown: Vec<String>,
    /// Events that are not counted because a value is not a number or exceeds the metric's `max`, or
    /// because `at` is not a time of the last 30 days.
    refused: Vec<RefusedEvent>,
    /// Keys of events that count which no metric reads, such as a `timestamp` where `at` was meant; at
    /// most 64.
    unused: BTreeSet<String>,
}

/// An event that is not counted.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedEvent {
    /// The position in the report, from 0.
    place: usize,
    /// The name of the event.
    event: String,
    /// The reason.
    reason: String,
}

/// Report events from a server
///
/// Such as a payment that a bank confirms. If an event has no name or no user, the whole report is
/// refused. An event whose value is not a number or exceeds the metric's `max`, or whose `at` is not a
/// time of the last 30 days, is refused alone.
#[utoipa::path(
    post,
    path = "/admin/events",
    operation_id = "events",
    tag = "events",
    params(EventHeaders),
    request_body = inline(Report),
    responses(
        (status = 202, description = "The events are journaled and count after ingestion", body = Accepted),
        (
            status = 400,
            description = "An event has no name or no user, or all events are refused",
            body = Refused,
        ),
        (status = 413, description = "The report is longer than 8 MiB", body = Refused),
        (
            status = 503,
            description = "The journal is full: send the same report again later",
            body = Refused,
        ),
    )
)]
pub(crate) async fn take(
    State(state): State<AdminState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Accepted>), Failure> {
    let bad = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let key = headers.get(client_event::IDEMPOTENCY_KEY);
    let events = client_event::read(&body?, key.map(HeaderValue::as_bytes), EVENTS_MAX)
        .map_err(|error| bad(error.to_string()))?;
    if let Some(place) = events.iter().position(|reported| reported.user.is_none()) {
        return Err(bad(format!("event {place}: `user` is missing")));
    }
    let (done, outcome) = oneshot::channel();
    let request = EventsRequest { events, done };
    let sent = state.server.events.send(request).await;
    sent.map_err(|_| stopping())?;
    let outcome = outcome.await.map_err(|_| stopping())?;
    let first = outcome.refused.first().map(ToString::to_string);
    let refused = outcome.refused.into_iter().map(|it| RefusedEvent {
        place: it.place,
        event: it.name,
        reason: it.why,
    });
    let accepted = Accepted {
        accepted: outcome.accepted,
        unknown: outcome.unknown,
        refused: refused.collect(),
        unused: outcome.unused,
    };
    match (outcome.dropped, first) {
        (0, Some(first)) if accepted.accepted == 0 && accepted.unknown.is_empty() => {
            Err(bad(first))
        }
        (0, _) => Ok((StatusCode::ACCEPTED, Json(accepted))),
        (dropped, _) => {
            let error = format!(
                "the journal has no room for {dropped} of the events: send them again later, with the same IDs or Idempotency-Key"
            );
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error))
        }
    }
}
