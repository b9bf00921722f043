//! Sessions of the admin API that were ended before their time: a sorted set.

use super::RedisLedger;
use crate::ledger::{ENDED_SESSIONS_MAX, LedgerError, keys};
use ::redis::Script;
use std::sync::LazyLock;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sessions.lua")));

/// See [`crate::ledger::Ledger::ended_sessions`].
pub async fn exchange(
    ledger: &RedisLedger,
    ours: &[(u64, String)],
    now_s: u64,
) -> Result<Vec<(u64, String)>, LedgerError> {
    let mut call = EXCHANGE.prepare_invoke();
    call.key(keys::ended_sessions_key(&ledger.prefix))
        .arg(ENDED_SESSIONS_MAX)
        .arg(now_s);
    for (until_s, nonce) in ours {
        call.arg(until_s).arg(nonce);
    }
    let ended: Vec<(String, u64)> = ledger
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    let pair = |(nonce, until_s)| (until_s, nonce);
    Ok(ended.into_iter().map(pair).collect())
}
