//! Opening the store that the plan names.

use super::Hinted;
use crate::config::plan::Store;
use crate::store::Ledger;
use crate::store::redis::{RedisLedger, TlsFiles};
use crate::store::sqlite::SqliteLedger;
use anyhow::anyhow;
use std::sync::Arc;

/// The ledger that the plan names. It is opened when it is used, so that a server starts without
/// it.
pub(super) fn ledger_of(store: &Store) -> anyhow::Result<Arc<dyn Ledger>> {
    match store {
        Store::Embedded { path } => Ok(Arc::new(SqliteLedger::at(path))),
        Store::Redis {
            url,
            prefix,
            ca,
            identity,
        } => {
            let tls = TlsFiles {
                ca: ca.clone(),
                identity: identity.clone(),
            };
            let ledger = RedisLedger::at(url.reveal(), tls, prefix).map_err(|error| {
                let hint = "correct the address at `store` (redis://[user:password@]host:port), or leave `store` out to keep counts in a file";
                Hinted::new(format!("cannot use the Redis store: {:#}", anyhow!(error)), hint)
            })?;
            Ok(Arc::new(ledger))
        }
    }
}

/// Opens the ledger that the plan names, for a command that does nothing without it.
pub async fn open_ledger(store: &Store) -> anyhow::Result<Arc<dyn Ledger>> {
    let ledger = ledger_of(store)?;
    ledger
        .ping()
        .await
        .map_err(|error| anyhow!("cannot use the store: {}", error.with_advice()))?;
    Ok(ledger)
}
