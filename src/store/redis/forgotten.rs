//! Forgotten users in Redis: a sorted set for each shard. The member with score 0 holds the key.

use super::client::RedisStore;
use crate::store::StoreError;
use crate::store::forgotten::{ForgottenUsers, KEEP_MS, new_key, written};
use redis::Script;
use std::collections::HashSet;
use std::sync::LazyLock;

static KEY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("forgotten_key.lua")));
static KEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("forgotten.lua")));

/// The member whose score is the version.
const VERSION: &str = "version";

pub(super) async fn forgotten(
    store: &RedisStore,
    experiment: &str,
    shard: u32,
) -> Result<ForgottenUsers, StoreError> {
    let key = store.keys(experiment, shard).await?.forgotten;
    let mut range = redis::cmd("ZRANGE");
    range.arg(key).arg(0).arg(-1).arg("WITHSCORES");
    let kept: Vec<(Vec<u8>, f64)> = store.ask(&range).await?;
    let version = VERSION.as_bytes();
    let version = kept.iter().find(|(member, _)| member == version);
    let version = version.map_or(0, |(_, version)| *version as u64);
    let kept = kept
        .into_iter()
        .map(|(digest, at_ms)| (String::from_utf8_lossy(&digest).into_owned(), at_ms as u64));
    Ok(ForgottenUsers::new(version, kept))
}

/// Adds forgotten users of a shard.
pub(super) async fn keep(
    store: &RedisStore,
    key: &str,
    users: &HashSet<Vec<u8>>,
    until_ms: u64,
) -> Result<(), StoreError> {
    let mut call = KEY.prepare_invoke();
    call.key(key).arg(new_key()?);
    let key_entry: String = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    let mut call = KEEP.prepare_invoke();
    call.key(key).arg(until_ms).arg(KEEP_MS).arg(&key_entry);
    for user in users {
        call.arg(written(&key_entry, user));
    }
    store
        .with(async |connection| call.invoke_async(connection).await)
        .await
}
