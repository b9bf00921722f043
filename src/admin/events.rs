//! `POST /admin/events`: conversions that happen behind the site, such as a payment that a bank
//! confirms. The same shape as a browser's report, with a `user` in each event.

use super::{Door, Failure};
use crate::experiment::reported::{self, Reported};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::oneshot;

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

/// Takes a report. Nothing of it counts when an event is unsound.
pub(super) async fn take(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let bad = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let mut events = reported::read(&body, EVENTS_MAX).map_err(|error| bad(error.to_string()))?;
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
    let stopping = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    let request = EventsRequest { events, done };
    door.house
        .events
        .send(request)
        .await
        .map_err(|_| stopping())?;
    let taken = taken.await.map_err(|_| stopping())?;
    let said = json!({"accepted": taken.accepted, "unknown": taken.unknown});
    match taken.dropped {
        0 => Ok((StatusCode::ACCEPTED, Json(said)).into_response()),
        dropped => {
            let error = format!(
                "the journal has no room for {dropped} of the events: send them again later, with the same IDs or Idempotency-Key"
            );
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error))
        }
    }
}
