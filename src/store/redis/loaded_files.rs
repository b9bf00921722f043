//! Loaded files: a list, and a hash of their contents, in one slot.

use super::client::RedisStore;
use crate::store::json::{read_json, written};
use crate::store::loaded_files::{LOADED_FILES_MAX, LoadedFile};
use crate::store::{StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static RECORD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("loaded_file.lua")));

pub(super) async fn read(store: &RedisStore, max: usize) -> Result<Vec<LoadedFile>, StoreError> {
    let key = keys::loaded_files_key(&store.prefix);
    let mut range = redis::cmd("LRANGE");
    let last = max.min(LOADED_FILES_MAX) as i64 - 1;
    range.arg(&key).arg(0).arg(last);
    let all = store.ask(&range).await?;
    let mut files = Vec::new();
    for text in store.readable(&key, all)? {
        files.extend(store.damage.skip(read_json(&key, &text))?);
    }
    Ok(files)
}

pub(super) async fn content(store: &RedisStore, number: u64) -> Result<Option<String>, StoreError> {
    let mut get = redis::cmd("HGET");
    get.arg(keys::loaded_contents_key(&store.prefix))
        .arg(number);
    store.ask(&get).await
}

pub(super) async fn record(
    store: &RedisStore,
    file: &LoadedFile,
    content: &str,
) -> Result<bool, StoreError> {
    let mut call = RECORD.prepare_invoke();
    call.key(keys::loaded_files_key(&store.prefix))
        .key(keys::loaded_contents_key(&store.prefix))
        .arg(file.number)
        .arg(written(file)?)
        .arg(content)
        .arg(LOADED_FILES_MAX);
    store
        .with(async |connection| call.invoke_async(connection).await)
        .await
}
