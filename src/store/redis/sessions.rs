//! Sessions of the admin API that were ended early: a sorted set.

use super::client::RedisStore;
use super::decode::{Fields, number};
use crate::store::{ENDED_SESSIONS_MAX, StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// See [`crate::store::Store::ended_sessions`].
pub(super) async fn exchange(
    store: &RedisStore,
    ours: &[(u64, String)],
    now_s: u64,
) -> Result<Vec<(u64, String)>, StoreError> {
    let mut call = EXCHANGE.prepare_invoke();
    let key = keys::ended_sessions_key(&store.prefix);
    call.key(&key).arg(ENDED_SESSIONS_MAX).arg(now_s);
    for (until_s, nonce) in ours {
        call.arg(until_s).arg(nonce);
    }
    let all: Fields = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    let mut ended = Vec::with_capacity(all.len());
    for (nonce, until_s) in all {
        let nonce = String::from_utf8_lossy(&nonce).into_owned();
        let until_s = store.damage.skip(number(&key, &nonce, &until_s))?;
        ended.extend(until_s.map(|until_s| (until_s, nonce)));
    }
    Ok(ended)
}
