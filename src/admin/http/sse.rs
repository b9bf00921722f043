//! Tells pages when there is something new to show (server-sent events).

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

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a stream goes on; browsers then ask again.
const WITHIN: Duration = Duration::from_secs(3600);

/// One event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "said of what axum writes")]
struct Told {
    /// `changed`.
    event: String,
    /// Stays the same while nothing but clocks moves.
    data: String,
}

/// Told when there is something new
///
/// An event `changed` at first, and whenever results have changed. It ends with the token or the
/// session of who listens, and after an hour: ask again.
#[utoipa::path(
    get,
    path = "/admin/results/live",
    operation_id = "live",
    tag = "results",
    responses((
        status = 200,
        description = "Server-sent events, each of this shape",
        content_type = "text/event-stream",
        body = inline(Told),
    ))
)]
pub async fn live(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let begun = (state, headers, None::<String>);
    let changes = stream::unfold(begun, move |(state, headers, shown)| async move {
        loop {
            if auth::known(&state, peer.ip(), &headers).is_err() {
                return None;
            }
            // A store that is away is something to show, too.
            let tag = match state.results(ResultsRequest::default()).await {
                Ok(results) => {
                    results.tag() + &troubles(&state.plan(), &state.server.health_registry)
                }
                Err(error) => error.to_string(),
            };
            if shown.as_ref() != Some(&tag) {
                let event = Event::default().event("changed").data(&tag);
                return Some((Ok(event), (state, headers, Some(tag))));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    let changes = changes.take_until(Box::pin(tokio::time::sleep(WITHIN)));
    Sse::new(changes).keep_alive(KeepAlive::default())
}
