//! What was decided about experiments: a hash and a list in one slot.

use super::RedisLedger;
use crate::store::controls::{ACTS_MAX, Act, Control, Controls};
use crate::store::{LedgerError, keys, read_json, written};
use ::redis::Script;
use std::sync::LazyLock;

static CONTROL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("control.lua")));

pub async fn controls(ledger: &RedisLedger) -> Result<Controls, LedgerError> {
    let key = keys::controls_key(&ledger.prefix);
    let mut controls = Controls::new();
    for (name, text) in ledger.texts(&key).await? {
        let control = ledger.damage.skip(read_json(&key, &text))?;
        controls.extend(control.map(|control| (name, control)));
    }
    Ok(controls)
}

pub async fn control(
    ledger: &RedisLedger,
    before_ms: u64,
    next: &Control,
    act: &Act,
) -> Result<bool, LedgerError> {
    let mut call = CONTROL.prepare_invoke();
    call.key(keys::controls_key(&ledger.prefix))
        .key(keys::acts_key(&ledger.prefix))
        .arg(&act.experiment)
        .arg(before_ms)
        .arg(written(next)?)
        .arg(written(act)?)
        .arg(ACTS_MAX);
    ledger
        .with(async |connection| call.invoke_async(connection).await)
        .await
}

pub async fn note(ledger: &RedisLedger, act: &Act) -> Result<(), LedgerError> {
    let mut push = ::redis::cmd("LPUSH");
    push.arg(keys::acts_key(&ledger.prefix)).arg(written(act)?);
    // The next decision cuts the list.
    let _: u64 = ledger.ask(&push).await?;
    Ok(())
}

pub async fn acts(ledger: &RedisLedger, max: usize) -> Result<Vec<Act>, LedgerError> {
    let key = keys::acts_key(&ledger.prefix);
    let mut range = ::redis::cmd("LRANGE");
    range.arg(&key).arg(0).arg(max.min(ACTS_MAX) as i64 - 1);
    let all = ledger.ask(&range).await?;
    let mut acts = Vec::new();
    for text in ledger.readable(&key, all)? {
        acts.extend(ledger.damage.skip(read_json(&key, &text))?);
    }
    Ok(acts)
}
