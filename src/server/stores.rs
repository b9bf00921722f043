//! Opens the store of the plan.

use super::ErrorWithHint;
use crate::config::plan::StoreConfig;
#[cfg(not(all(feature = "redis", feature = "postgres")))]
use crate::features::{Feature, MissingFeature};
use crate::store::Store;
#[cfg(feature = "postgres")]
use crate::store::postgres::PostgresStore;
#[cfg(feature = "redis")]
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
#[cfg(any(feature = "redis", feature = "postgres"))]
use crate::tls::TlsFiles;
use anyhow::anyhow;
#[cfg(any(feature = "redis", feature = "postgres"))]
use std::path::PathBuf;
use std::sync::Arc;

/// Makes the store of the plan. It connects when it is used, so that a server starts without it.
pub(super) fn store_of(store: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    match store {
        StoreConfig::Embedded { path } => Ok(Arc::new(SqliteStore::at(path))),
        // `config` refuses such files already.
        #[cfg(not(feature = "redis"))]
        StoreConfig::Redis { .. } => Err(missing(Feature::Redis)),
        #[cfg(feature = "redis")]
        StoreConfig::Redis {
            url,
            prefix,
            ca,
            identity,
        } => {
            let store = RedisStore::at(url.reveal(), files(ca, identity), prefix).map_err(|error| {
                let hint = "correct the address at `store` (redis://[user:password@]host:port), or leave `store` out to keep counts in a file";
                ErrorWithHint::new(format!("cannot use the Redis store: {:#}", anyhow!(error)), hint)
            })?;
            Ok(Arc::new(store))
        }
        #[cfg(not(feature = "postgres"))]
        StoreConfig::Postgres { .. } => Err(missing(Feature::Postgres)),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres {
            url,
            schema,
            ca,
            identity,
        } => {
            let store = PostgresStore::at(url.reveal(), files(ca, identity), schema).map_err(|error| {
                let hint = "correct the address at `store` (postgres://user:password@host/database), or leave `store` out to keep counts in a file";
                ErrorWithHint::new(format!("cannot use PostgreSQL: {error}"), hint)
            })?;
            Ok(Arc::new(store))
        }
    }
}

#[cfg(not(all(feature = "redis", feature = "postgres")))]
fn missing(feature: Feature) -> anyhow::Error {
    let missing = MissingFeature(feature);
    ErrorWithHint::new(missing.to_string(), missing.hint()).into()
}

#[cfg(any(feature = "redis", feature = "postgres"))]
fn files(ca: &Option<PathBuf>, identity: &Option<(PathBuf, PathBuf)>) -> TlsFiles {
    TlsFiles {
        ca: ca.clone(),
        identity: identity.clone(),
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
