//! What is kept beside the counts, in the experiment's first shard.

use super::RedisStore;
use crate::store::StoreError;
use crate::store::kept::{Kept, time_field, timed, write};
use ::redis::Script;
use std::sync::LazyLock;

static KEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("keep.lua")));

pub async fn kept(store: &RedisStore, experiment: &str) -> Result<Kept, StoreError> {
    if store.known_shards(experiment).await? == 0 {
        return Ok(Kept::default());
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
    let mut kept = Kept {
        first: store.texts(&keys.first).await?.into_iter().collect(),
        ..Kept::default()
    };
    for (field, value) in texts.into_iter().filter_map(number) {
        match timed(&field) {
            Some(of) => kept.lowest_at.insert(of.to_owned(), value as u64).is_some(),
            None => kept.lowest.insert(field, value).is_some(),
        };
    }
    Ok(kept)
}

pub async fn keep(store: &RedisStore, experiment: &str, more: &Kept) -> Result<(), StoreError> {
    let keys = store.keys(experiment, 0).await?;
    let mut call = KEEP.prepare_invoke();
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
