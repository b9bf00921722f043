//! Running minima in Redis, in the experiment's first shard.

use super::client::RedisStore;
use crate::store::StoreError;
use crate::store::running_minima::{RunningMinima, time_field, timed, write};
use redis::Script;
use std::sync::LazyLock;

static MERGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("merge_minima.lua")));

pub(super) async fn read(
    store: &RedisStore,
    experiment: &str,
) -> Result<RunningMinima, StoreError> {
    if store.known_shards(experiment).await? == 0 {
        return Ok(RunningMinima::default());
    }
    let keys = store.keys(experiment, 0).await?;
    let texts = store.texts(&keys.lowest).await?;
    let number = |(field, text): (String, String)| match text.parse::<f64>() {
        Ok(value) if !value.is_nan() => Some((field, value)),
        _ => {
            store.damage.note(&keys.lowest, &text);
            None
        }
    };
    let mut minima = RunningMinima {
        first: store.texts(&keys.first).await?.into_iter().collect(),
        ..RunningMinima::default()
    };
    for (field, value) in texts.into_iter().filter_map(number) {
        match timed(&field) {
            Some(of) => minima
                .lowest_at
                .insert(of.to_owned(), value as u64)
                .is_some(),
            None => minima.lowest.insert(field, value).is_some(),
        };
    }
    Ok(minima)
}

pub(super) async fn merge(
    store: &RedisStore,
    experiment: &str,
    more: &RunningMinima,
) -> Result<(), StoreError> {
    let keys = store.keys(experiment, 0).await?;
    let mut call = MERGE.prepare_invoke();
    call.key(keys.lowest).key(keys.first).arg(more.lowest.len());
    for (field, &value) in &more.lowest {
        let at_ms = more.lowest_at.get(field);
        let at_ms = at_ms.map_or(String::new(), u64::to_string);
        call.arg(field).arg(write(value));
        call.arg(time_field(field)).arg(at_ms);
    }
    for (field, text) in &more.first {
        call.arg(field).arg(text);
    }
    store
        .with(async |connection| call.invoke_async(connection).await)
        .await
}
