//! Forgets the users of experiments that have ended.

use super::{Store, StoreError, phases};
use crate::experiment::record::Declaration;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTERVAL: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;

/// Runs every hour until its future is dropped. `ask` returns how long users are kept after their
/// experiment's last response (`None` for ever), and the experiments of the plan.
pub async fn keep(store: Arc<dyn Store>, ask: impl Fn() -> (Option<Duration>, Declaration)) {
    loop {
        if let (Some(kept), declaration) = ask() {
            let now_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_millis() as u64);
            let swept = async {
                let running = running(&*store, &declaration).await?;
                sweep(&*store, kept, &running, now_ms).await
            };
            match swept.await {
                Ok(forgotten) => {
                    for experiment in forgotten {
                        tracing::info!(
                            "{experiment} has ended: its users are forgotten, its counts are kept"
                        );
                    }
                }
                // Ingestion reports an unavailable store.
                Err(error) => tracing::debug!("users cannot be forgotten now: {error}"),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Returns the phases that run.
async fn running(store: &dyn Store, declaration: &Declaration) -> Result<Vec<String>, StoreError> {
    let mut running = Vec::new();
    for experiment in declaration.experiments.iter().filter(|it| it.running) {
        let located = phases::locate(store, experiment, &declaration.metrics).await?;
        running.push(located.placement.key);
    }
    Ok(running)
}

/// Forgets the users of phases that do not run and whose last response is older than `kept`. Returns
/// those phases.
pub async fn sweep(
    store: &dyn Store,
    kept: Duration,
    running: &[String],
    now_ms: u64,
) -> Result<Vec<String>, StoreError> {
    let mut forgotten = Vec::new();
    for experiment in store.experiments().await? {
        if running.contains(&experiment) {
            continue;
        }
        let hours = store.hours(&experiment).await?;
        let last = hours.iter().map(|hour| (hour.hour + 1) * HOUR_MS).max();
        if last.is_some_and(|last| last + kept.as_millis() as u64 <= now_ms) {
            store.forget_users(&experiment).await?;
            forgotten.push(experiment);
        }
    }
    Ok(forgotten)
}
