//! Chooses the thread of ingestion: one with a lower priority than the workers, or one with the
//! same priority while ingestion lags far behind or records have waited for long.
//!
//! A worker that shares its core with a busy thread of the same priority waits for it for up to
//! three milliseconds.

use super::low_priority::LowPriorityRuntime;
use crate::store::ingest::Ingestor;
use crate::tasks::{self, Phase, PhaseWatch};
use crate::telemetry::IngestionLag;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// With a lag of so many records, ingestion gets the workers' priority. It is some seconds of full
/// load, far below the quota of a journal.
const LAG_HIGH: u64 = 200_000;
/// Records that have waited for so long get it, too: on a machine that other programs keep busy, a lower priority
/// may mean hardly any time.
const WAITED_HIGH_MS: u64 = 10_000;
/// With a lag of so few records, which have not waited for long, ingestion gets the lower priority again.
const LAG_LOW: u64 = 20_000;
/// See [`LAG_LOW`].
const WAITED_LOW_MS: u64 = 2_000;

/// Ingests every `interval` until [`Phase::Flushing`], and then the records that are left.
/// `restarted` is true after a panic.
pub(super) async fn keep(
    ingestor: Arc<Mutex<Ingestor>>,
    interval: Duration,
    phase: PhaseWatch,
    restarted: bool,
) -> io::Result<()> {
    let low_priority = LowPriorityRuntime::new("ingestion")?;
    let mut ingestor = ingestor.lock_owned().await;
    if restarted {
        ingestor.restart("panicked, and was restarted");
    }
    let mut hurries = false;
    loop {
        let mut phase = phase.clone();
        let ingestion = async move {
            let goes_on = move |lag| must_hurry(lag, hurries) == hurries;
            let stopped = ingestor
                .follow(interval, phase.reached(Phase::Flushing), goes_on)
                .await;
            (ingestor, stopped)
        };
        let ingestion = tasks::named("ingestion-thread", ingestion);
        // Aborted with this future.
        let mut on = JoinSet::new();
        match low_priority.handle().filter(|_| !hurries) {
            Some(handle) => on.spawn_on(ingestion, handle),
            None => on.spawn(ingestion),
        };
        let (back, stopped) = match on.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            // Its runtime is shutting down.
            Some(Err(_)) | None => return Err(io::Error::other("it was aborted")),
        };
        ingestor = back;
        if stopped {
            break;
        }
        hurries = !hurries;
        tracing::debug!(hurries, "ingestion changes its priority");
    }
    ingestor.finish().await;
    Ok(())
}

/// Whether ingestion needs the workers' priority. It keeps what it has in between.
fn must_hurry(lag: IngestionLag, hurries: bool) -> bool {
    match hurries {
        true => lag.records > LAG_LOW || lag.waited_ms > WAITED_LOW_MS,
        false => lag.records >= LAG_HIGH || lag.waited_ms >= WAITED_HIGH_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_or_old_records_hurry_until_few_new_ones_are_left() {
        for (records, waited_ms, from_low, from_high) in [
            (0, 0, false, false),
            (19_999, 1_000, false, false),
            (100_000, 1_000, false, true),
            (200_000, 0, true, true),
            (1, 5_000, false, true),
            (9_482, 10_000, true, true),
        ] {
            let lag = IngestionLag { records, waited_ms };
            let found = [false, true].map(|hurries| must_hurry(lag, hurries));
            assert_eq!(found, [from_low, from_high], "{lag:?}");
        }
    }
}
