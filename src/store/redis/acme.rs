//! Entries of ACME, and its lease: a hash and a text that expires, in one slot.

use super::client::RedisStore;
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::{StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static CHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("acme.lua")));

/// See [`crate::store::Store::acme_entries`].
pub(super) async fn entries(store: &RedisStore) -> Result<AcmeEntries, StoreError> {
    let key = keys::acme_keys(&store.prefix).entries;
    Ok(store.texts(&key).await?.into_iter().collect())
}

/// See [`crate::store::Store::lease_acme`].
pub(super) async fn lease(store: &RedisStore, lease: AcmeLease<'_>) -> Result<bool, StoreError> {
    change(store, lease.owner, &lease.for_ms.to_string(), &[]).await
}

/// See [`crate::store::Store::write_acme`].
pub(super) async fn write(
    store: &RedisStore,
    lease: AcmeLease<'_>,
    changes: &[(String, Option<String>)],
) -> Result<bool, StoreError> {
    change(store, lease.owner, "", changes).await
}

async fn change(
    store: &RedisStore,
    owner: &str,
    for_ms: &str,
    changes: &[(String, Option<String>)],
) -> Result<bool, StoreError> {
    let keys = keys::acme_keys(&store.prefix);
    let mut call = CHANGE.prepare_invoke();
    call.key(keys.lease).key(keys.entries);
    call.arg(owner).arg(for_ms);
    for (name, text) in changes {
        call.arg(name).arg(text.as_deref().unwrap_or_default());
    }
    let has: i64 = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    Ok(has == 1)
}
