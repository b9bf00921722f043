//! Tells pages when there is something new to show (server-sent events).

use super::Door;
use super::results::Wish;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use std::convert::Infallible;
use std::time::Duration;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);

/// `GET /admin/results/live`: an event `changed` whenever the results have.
pub async fn live(State(door): State<Door>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let begun = (door, None::<String>);
    let changes = stream::unfold(begun, |(door, shown)| async move {
        loop {
            // A store that is away is something to show, too.
            let tag = match door.results(Wish::default()).await {
                Ok(results) => results.tag(),
                Err(error) => error.to_string(),
            };
            if shown.as_ref() != Some(&tag) {
                let event = Event::default().event("changed").data(&tag);
                return Some((Ok(event), (door, Some(tag))));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    Sse::new(changes).keep_alive(KeepAlive::default())
}
