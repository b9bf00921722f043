//! The secrets of all replicas: a list.

use super::client::RedisStore;
use crate::store::{SECRETS_MAX, StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("secrets.lua")));

/// See [`crate::store::Store::secrets`].
pub(super) async fn exchange(
    store: &RedisStore,
    ours: &[String],
) -> Result<Vec<String>, StoreError> {
    let mut call = EXCHANGE.prepare_invoke();
    let key = keys::secrets_key(&store.prefix);
    call.key(&key).arg(SECRETS_MAX).arg(ours);
    let all = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    store.readable(&key, all)
}
