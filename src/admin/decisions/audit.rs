//! The audit trail of actions that are no decisions about an experiment.

use crate::admin::clock::now_ms;
use crate::store::decisions::AuditEntry;
use crate::store::{Store, chain};

/// Records an action that has already taken effect. A failure of the store is only logged because
/// the action cannot be undone.
pub async fn record(store: &dyn Store, act: AuditEntry) {
    tracing::info!("{} by {}: {} -> {}", act.action, act.by, act.from, act.to);
    if let Err(error) = store.record_action(&act).await {
        let (action, error) = (&act.action, chain(&error));
        tracing::warn!("{action} by {} is not kept: {error}", act.by);
    }
}

/// Builds the record of an action that took place now.
pub fn act(action: &str, by: String, from: String, to: String) -> AuditEntry {
    AuditEntry {
        experiment: String::new(),
        action: action.to_owned(),
        from,
        to,
        at_ms: now_ms(),
        by,
        reason: None,
    }
}
