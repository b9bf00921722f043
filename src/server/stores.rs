//! Opens the store of the plan.

use super::ErrorWithHint;
use crate::config::plan::StoreConfig;
#[cfg(not(feature = "redis"))]
use crate::features::{Feature, MissingFeature};
use crate::store::Store;
#[cfg(feature = "redis")]
use crate::store::redis::{RedisStore, TlsFiles};
use crate::store::sqlite::SqliteStore;
use anyhow::anyhow;
use std::sync::Arc;

/// Makes the store of the plan. It connects when it is used, so that a server starts without it.
pub(super) fn store_of(store: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    match store {
        StoreConfig::Embedded { path } => Ok(Arc::new(SqliteStore::at(path))),
        // `config` refuses such a file already.
        #[cfg(not(feature = "redis"))]
        StoreConfig::Redis { .. } => {
            let missing = MissingFeature(Feature::Redis);
            Err(ErrorWithHint::new(missing.to_string(), missing.hint()).into())
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis {
            url,
            prefix,
            ca,
            identity,
        } => {
            let tls = TlsFiles {
                ca: ca.clone(),
                identity: identity.clone(),
            };
            let store = RedisStore::at(url.reveal(), tls, prefix).map_err(|error| {
                let hint = "correct the address at `store` (redis://[user:password@]host:port), or leave `store` out to keep counts in a file";
                ErrorWithHint::new(format!("cannot use the Redis store: {:#}", anyhow!(error)), hint)
            })?;
            Ok(Arc::new(store))
        }
    }
}

/// Opens the store of the plan, for a command that needs it.
pub async fn open_store(store: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    let store = store_of(store)?;
    store
        .ping()
        .await
        .map_err(|error| anyhow!("cannot use the store: {}", error.with_advice()))?;
    Ok(store)
}
