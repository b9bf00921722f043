//! Tells pages when there is something new to show (server-sent events).

use crate::admin::Door;
use crate::admin::http::auth;
use crate::admin::http::upstreams;
use crate::admin::results::gather::Wish;
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
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let begun = (door, headers, None::<String>);
    let changes = stream::unfold(begun, move |(door, headers, shown)| async move {
        loop {
            if auth::known(&door, peer.ip(), &headers).is_err() {
                return None;
            }
            // A store that is away is something to show, too.
            let tag = match door.results(Wish::default()).await {
                Ok(results) => results.tag() + &upstreams::troubles(&door),
                Err(error) => error.to_string(),
            };
            if shown.as_ref() != Some(&tag) {
                let event = Event::default().event("changed").data(&tag);
                return Some((Ok(event), (door, headers, Some(tag))));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    let changes = changes.take_until(Box::pin(tokio::time::sleep(WITHIN)));
    Sse::new(changes).keep_alive(KeepAlive::default())
}
