//! The one place where decisions are recorded: in the store with their audit entries, and in the log.

use crate::store::decisions::{AuditEntry, StandingDecision};
use crate::store::{Store, StoreError};

/// Stores a decision if the standing one is still of `before_ms` (0 for none). Returns whether it was: if not,
/// another decision was quicker, here or at another replica.
pub async fn record_decision(
    store: &dyn Store,
    before_ms: u64,
    next: &StandingDecision,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let stored = store.decide(before_ms, next, entry).await?;
    if stored {
        let AuditEntry {
            experiment,
            action,
            by,
            from,
            to,
            ..
        } = entry;
        tracing::info!("{experiment}: {action} by {by}: {from} -> {to}");
    }
    Ok(stored)
}
