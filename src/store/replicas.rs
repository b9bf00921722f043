//! Announces this process to the store, so that results can warn if replicas serve different
//! definitions.

use super::{Replica, Store};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTERVAL: Duration = Duration::from_secs(5);

/// Announces this process until its future is dropped. `definition` returns the digest of what is served;
/// a change of it is announced within a second.
pub async fn announce(store: Arc<dyn Store>, id: String, definition: impl Fn() -> String) {
    let mut last: Option<(tokio::time::Instant, String)> = None;
    loop {
        let now = definition();
        let due = last
            .as_ref()
            .is_none_or(|(at, announced)| at.elapsed() >= INTERVAL || *announced != now);
        if due {
            let replica = Replica {
                id: id.clone(),
                definition: now.clone(),
                seen_ms: now_ms(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            match store.announce(&replica).await {
                Ok(()) => last = Some((tokio::time::Instant::now(), now)),
                // Ingestion reports an unavailable store.
                Err(error) => tracing::debug!("this replica cannot be announced: {error}"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}
