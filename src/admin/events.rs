//! `POST /admin/events`: conversions that happen behind the site, such as a payment that a bank
//! confirms. The same shape as a browser's report, with a `user` in each event.

use super::failure::{Failure, Refused};
use super::{Door, health};
use crate::experiment::reported::{self, Reported};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
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

/// Asks the house to journal events.
#[derive(Debug)]
pub struct EventsRequest {
    /// Each with its user.
    pub events: Vec<Reported>,
    /// What became of them.
    pub done: oneshot::Sender<Taken>,
}

/// What became of reported events.
#[derive(Debug)]
pub struct Taken {
    /// How many count for a metric and are journaled.
    pub accepted: usize,
    /// The names of those that count for none.
    pub unknown: Vec<String>,
    /// How many the journal had no room for.
    pub dropped: usize,
}

/// A report, as [`reported::read`] reads it: one event or many.
struct Report;

impl ToSchema for Report {}

impl PartialSchema for Report {
    fn schema() -> RefOr<Schema> {
        let (one, many) = (Event::schema(), ArrayBuilder::new());
        let many = many.items(one.clone()).max_items(Some(EVENTS_MAX));
        OneOfBuilder::new().item(one).item(many).into()
    }
}

/// What somebody did. Further numbers are its parameters, such as an `amount`.
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
}

/// Report conversions that happen behind the site
///
/// Such as a payment that a bank confirms. Nothing counts when one of the events is unsound.
#[utoipa::path(
    post,
    path = "/admin/events",
    operation_id = "events",
    tag = "events",
    params(Once),
    request_body = inline(Report),
    responses(
        (status = 202, description = "They are journaled, and count soon", body = Accepted),
        (status = 400, description = "One of the events is unsound", body = Refused),
        (status = 413, description = "The report is longer than 8 MiB", body = Refused),
        (
            status = 503,
            description = "The journal has no room: send the same again later",
            body = Refused,
        ),
    )
)]
pub(super) async fn take(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Accepted>), Failure> {
    let bad = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let mut events = reported::read(&body?, EVENTS_MAX).map_err(|error| bad(error.to_string()))?;
    let key = headers.get("idempotency-key");
    let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()));
    for (place, reported) in events.iter_mut().enumerate() {
        if reported.user.is_none() {
            return Err(bad(format!("event {place}: has no `user`")));
        }
        // Sent again with the same key, an event is known by its place.
        if let (None, Some(key)) = (&reported.id, &key) {
            reported.id = Some(format!("{key}/{place}"));
        }
    }
    let (done, taken) = oneshot::channel();
    let request = EventsRequest { events, done };
    let asked = door.house.events.send(request).await;
    asked.map_err(|_| health::stopping())?;
    let taken = taken.await.map_err(|_| health::stopping())?;
    let (accepted, unknown) = (taken.accepted, taken.unknown);
    match taken.dropped {
        0 => Ok((StatusCode::ACCEPTED, Json(Accepted { accepted, unknown }))),
        dropped => {
            let error = format!(
                "the journal has no room for {dropped} of the events: send them again later, with the same IDs or Idempotency-Key"
            );
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error))
        }
    }
}
