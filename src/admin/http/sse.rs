//! `GET /admin/results/live`: notifies pages of changed results (server-sent events).

use crate::admin::http::auth;
use crate::admin::results::gather::ResultsRequest;
use crate::admin::results::upstream_health::troubles;
use crate::admin::state::AdminState;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use utoipa::ToSchema;

/// How often results are compared with the last ones.
const INTERVAL: Duration = Duration::from_secs(2);
/// The duration of a stream; browsers then reconnect.
const WITHIN: Duration = Duration::from_secs(3600);

/// One event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what axum writes")]
struct ChangedEvent {
    /// Always `changed`.
    event: String,
    /// A tag that changes only when the results do.
    data: String,
}

/// Subscribe to changes of the results
///
/// Sends a `changed` event at first and whenever the results change. The stream ends after an hour, or
/// when the caller's token or session ends; reconnect to continue.
#[utoipa::path(
    get,
    path = "/admin/results/live",
    operation_id = "live",
    tag = "results",
    responses((
        status = 200,
        description = "Server-sent events",
        content_type = "text/event-stream",
        body = inline(ChangedEvent),
    ))
)]
pub(crate) async fn live(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let start = (state, headers, None::<String>);
    let changes = stream::unfold(start, move |(state, headers, sent)| async move {
        loop {
            if auth::authenticate(&state, peer.ip(), &headers).is_err() {
                return None;
            }
            // Pages also show that the store is unavailable.
            let tag = match state.results(ResultsRequest::default()).await {
                Ok(results) => {
                    results.tag() + &troubles(&state.plan(), &state.server.health_registry)
                }
                Err(error) => error.to_string(),
            };
            if sent.as_ref() != Some(&tag) {
                let event = Event::default().event("changed").data(&tag);
                return Some((Ok(event), (state, headers, Some(tag))));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    let changes = changes.take_until(Box::pin(tokio::time::sleep(WITHIN)));
    Sse::new(changes).keep_alive(KeepAlive::default())
}
