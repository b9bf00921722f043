//! The audit log of actions that are not decisions about an experiment.

use crate::admin::clock::now_ms;
use crate::store::decisions::{AuditEntry, DecidedBy};
use crate::store::{Store, chain};

/// Records an action that has already taken effect. A failure of the store is only logged because
/// the action cannot be undone.
pub(crate) async fn record(store: &dyn Store, entry: AuditEntry) {
    let AuditEntry {
        action,
        by,
        from,
        to,
        ..
    } = &entry;
    tracing::info!("{action} by {by}: {from} -> {to}");
    if let Err(error) = store.record_action(&entry).await {
        let error = chain(&error);
        tracing::warn!("{action} by {by} is not in the audit log: {error}");
    }
}

/// Builds the entry of an action that took place now.
pub(crate) fn entry(action: &str, by: String, from: String, to: String) -> AuditEntry {
    AuditEntry {
        experiment: String::new(),
        action: action.to_owned(),
        from,
        to,
        at_ms: now_ms(),
        by,
        reason: None,
        source: Some(DecidedBy::Person),
    }
}
