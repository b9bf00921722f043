//! `POST /admin/events`: conversions that happen behind the site, such as a payment that a bank
//! confirms. The same shape as a browser's report, with a `user` in each event.

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
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// The most events in one report.
const EVENTS_MAX: usize = 10_000;
/// The most bytes of one report.
pub const BYTES_MAX: usize = 8 << 20;

/// A report, as [`client_event::read`] reads it: one event or many.
struct Report;

impl ToSchema for Report {}

impl PartialSchema for Report {
    fn schema() -> RefOr<Schema> {
        let (one, many) = (Event::schema(), ArrayBuilder::new());
        let many = many.items(one.clone()).max_items(Some(EVENTS_MAX));
        OneOfBuilder::new().item(one).item(many).into()
    }
}

/// What somebody did. Further keys are its parameters, such as an `amount`: a number, also as
/// text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "said of what is read elsewhere")]
struct Event {
    /// Its name, of at most 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    event: String,
    /// Who did it: an ID of at most 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    user: String,
    /// What it is known again by, of at most 256 bytes; without, it counts each time.
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    #[serde(flatten)]
    parameters: BTreeMap<String, serde_json::Value>,
}

/// What the sender says of a report.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read from the headers: it may be no text")]
struct Once {
    /// Gives events without an `id` one, by their place: sent again, they count once.
    #[param(rename = "Idempotency-Key", nullable = false)]
    idempotency_key: Option<String>,
}

/// What became of a report.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// How many events count for a metric.
    accepted: usize,
    /// The names of those that count for none.
    unknown: Vec<String>,
    /// Those that are not counted, because a value is no number or beyond the metric's `max`.
    refused: Vec<RefusedEvent>,
}

/// An event that is not counted.
#[derive(Serialize, ToSchema)]
pub struct RefusedEvent {
    /// Its place in the report, counted from 0.
    place: usize,
    /// Its name.
    event: String,
    /// What is wrong with it.
    reason: String,
}

/// Report conversions that happen behind the site
///
/// Such as a payment that a bank confirms. Nothing counts when one of the events has no name or no
/// user. One whose value is no number, or beyond the metric's `max`, is refused alone.
#[utoipa::path(
    post,
    path = "/admin/events",
    operation_id = "events",
    tag = "events",
    params(Once),
    request_body = inline(Report),
    responses(
        (status = 202, description = "They are journaled, and count soon", body = Accepted),
        (
            status = 400,
            description = "One of the events has no name or no user, or all of them are refused",
            body = Refused,
        ),
        (status = 413, description = "The report is longer than 8 MiB", body = Refused),
        (
            status = 503,
            description = "The journal has no room: send the same again later",
            body = Refused,
        ),
    )
)]
pub async fn take(
    State(state): State<AdminState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Accepted>), Failure> {
    let bad = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let key = headers.get(client_event::IDEMPOTENCY_KEY);
    let events = client_event::read(&body?, key.map(HeaderValue::as_bytes), EVENTS_MAX)
        .map_err(|error| bad(error.to_string()))?;
    if let Some(place) = events.iter().position(|reported| reported.user.is_none()) {
        return Err(bad(format!("event {place}: has no `user`")));
    }
    let (done, taken) = oneshot::channel();
    let request = EventsRequest { events, done };
    let asked = state.server.events.send(request).await;
    asked.map_err(|_| stopping())?;
    let taken = taken.await.map_err(|_| stopping())?;
    let first = taken.refused.first().map(ToString::to_string);
    let refused = taken.refused.into_iter().map(|it| RefusedEvent {
        place: it.place,
        event: it.name,
        reason: it.why,
    });
    let accepted = Accepted {
        accepted: taken.accepted,
        unknown: taken.unknown,
        refused: refused.collect(),
    };
    match (taken.dropped, first) {
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
