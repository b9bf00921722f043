//! Decisions: a hash and a list in one slot.

use super::client::RedisStore;
use crate::store::decisions::{
    AUDIT_LOG_MAX, AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions,
};
use crate::store::json::{read_json, written};
use crate::store::{StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static DECIDE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("decision.lua")));

pub(super) async fn read(store: &RedisStore) -> Result<StandingDecisions, StoreError> {
    let key = keys::decisions_key(&store.prefix);
    let mut decisions = StandingDecisions::new();
    for (name, text) in store.texts(&key).await? {
        let decision = store.damage.skip(read_json(&key, &text))?;
        decisions.extend(decision.map(|decision| (name, decision)));
    }
    Ok(decisions)
}

pub(super) async fn decide(
    store: &RedisStore,
    before_ms: u64,
    next: &StandingDecision,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let mut call = DECIDE.prepare_invoke();
    call.key(keys::decisions_key(&store.prefix))
        .key(keys::audit_log_key(&store.prefix))
        .arg(&entry.experiment)
        .arg(before_ms)
        .arg(written(next)?)
        .arg(written(entry)?)
        .arg(AUDIT_LOG_MAX);
    store
        .with(async |connection| call.invoke_async(connection).await)
        .await
}

pub(super) async fn definitions(store: &RedisStore) -> Result<StoredDefinitions, StoreError> {
    let key = keys::definitions_key(&store.prefix);
    let mut definitions = StoredDefinitions::new();
    for (name, text) in store.texts(&key).await? {
        let definition = store.damage.skip(read_json(&key, &text))?;
        definitions.extend(definition.map(|definition| (name, definition)));
    }
    Ok(definitions)
}

pub(super) async fn define(
    store: &RedisStore,
    changed: &StoredDefinitions,
) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut set = redis::cmd("HSET");
    set.arg(keys::definitions_key(&store.prefix));
    for (name, definition) in changed {
        set.arg(name).arg(written(definition)?);
    }
    let _: u64 = store.ask(&set).await?;
    Ok(())
}

pub(super) async fn record_action(
    store: &RedisStore,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let mut push = redis::cmd("LPUSH");
    push.arg(keys::audit_log_key(&store.prefix))
        .arg(written(entry)?);
    // The next decision trims the list.
    let _: u64 = store.ask(&push).await?;
    Ok(())
}

pub(super) async fn audit_log(
    store: &RedisStore,
    max: usize,
) -> Result<Vec<AuditEntry>, StoreError> {
    let key = keys::audit_log_key(&store.prefix);
    let mut range = redis::cmd("LRANGE");
    range
        .arg(&key)
        .arg(0)
        .arg(max.min(AUDIT_LOG_MAX) as i64 - 1);
    let all = store.ask(&range).await?;
    let mut entries = Vec::new();
    for text in store.readable(&key, all)? {
        entries.extend(store.damage.skip(read_json(&key, &text))?);
    }
    Ok(entries)
}
