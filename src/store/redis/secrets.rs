//! The secrets that all replicas share: a list.

use super::RedisLedger;
use crate::store::{LedgerError, SECRETS_MAX, keys};
use ::redis::Script;
use std::sync::LazyLock;

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("secrets.lua")));

/// See [`crate::store::Ledger::secrets`].
pub async fn exchange(ledger: &RedisLedger, ours: &[String]) -> Result<Vec<String>, LedgerError> {
    let mut call = EXCHANGE.prepare_invoke();
    let key = keys::secrets_key(&ledger.prefix);
    call.key(&key).arg(SECRETS_MAX).arg(ours);
    let all = ledger
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    ledger.readable(&key, all)
}
