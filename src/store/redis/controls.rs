//! What was decided about experiments: a hash and a list in one slot.

use super::RedisStore;
use crate::store::controls::{ACTS_MAX, Act, Control, Controls};
use crate::store::{StoreError, keys, read_json, written};
use ::redis::Script;
use std::sync::LazyLock;

static CONTROL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("control.lua")));

pub async fn controls(store: &RedisStore) -> Result<Controls, StoreError> {
    let key = keys::controls_key(&store.prefix);
    let mut controls = Controls::new();
    for (name, text) in store.texts(&key).await? {
        let control = store.damage.skip(read_json(&key, &text))?;
        controls.extend(control.map(|control| (name, control)));
    }
    Ok(controls)
}

pub async fn control(
    store: &RedisStore,
    before_ms: u64,
    next: &Control,
    act: &Act,
) -> Result<bool, StoreError> {
    let mut call = CONTROL.prepare_invoke();
    call.key(keys::controls_key(&store.prefix))
        .key(keys::acts_key(&store.prefix))
        .arg(&act.experiment)
        .arg(before_ms)
        .arg(written(next)?)
        .arg(written(act)?)
        .arg(ACTS_MAX);
    store
        .with(async |connection| call.invoke_async(connection).await)
        .await
}

pub async fn note(store: &RedisStore, act: &Act) -> Result<(), StoreError> {
    let mut push = ::redis::cmd("LPUSH");
    push.arg(keys::acts_key(&store.prefix)).arg(written(act)?);
    // The next decision cuts the list.
    let _: u64 = store.ask(&push).await?;
    Ok(())
}

pub async fn acts(store: &RedisStore, max: usize) -> Result<Vec<Act>, StoreError> {
    let key = keys::acts_key(&store.prefix);
    let mut range = ::redis::cmd("LRANGE");
    range.arg(&key).arg(0).arg(max.min(ACTS_MAX) as i64 - 1);
    let all = store.ask(&range).await?;
    let mut acts = Vec::new();
    for text in store.readable(&key, all)? {
        acts.extend(store.damage.skip(read_json(&key, &text))?);
    }
    Ok(acts)
}
