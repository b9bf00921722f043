//! Forgets one user in all experiments of a store.

use super::error::StoreError;
use super::interface::Store;
use super::phases;
use crate::experiment::record::Declaration;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest wait for the clock to pass `until_ms`, in milliseconds.
const CLOCK_WAIT_MAX_MS: u64 = 50;

/// Forgets a user in all phases of all experiments of the store, and in those that are declared, whose
/// first records may still be in a journal. Returns the names of the experiments that knew the user.
pub async fn forget_everywhere(
    store: &dyn Store,
    declaration: &Declaration,
    user: &[u8],
    until_ms: u64,
) -> Result<Vec<String>, StoreError> {
    // Without the store, nothing is changed.
    store.ping().await?;
    let mut names: BTreeSet<String> = store.experiments().await?.into_iter().collect();
    for experiment in &declaration.experiments {
        let located = phases::locate(store, experiment, &declaration.metrics).await?;
        names.insert(located.placement.key);
    }
    let mut known = BTreeSet::new();
    for name in names {
        if store.forget_user(&name, user, until_ms).await? {
            known.insert(phases::of_key(&name).0.to_owned());
        }
    }
    // Records of a request after this one have a later time than `until_ms`, so they count.
    let mut wait_ms = until_ms.saturating_sub(now_ms()) + 1;
    while (1..=CLOCK_WAIT_MAX_MS).contains(&wait_ms) {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        wait_ms = (until_ms + 1).saturating_sub(now_ms());
    }
    Ok(known.into_iter().collect())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
