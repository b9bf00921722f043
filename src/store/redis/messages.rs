//! Messages to webhooks: hashes and sorted sets in one slot.

use super::client::RedisStore;
use crate::store::json::{read_json, written};
use crate::store::messages::{
    EVENTS_MAX, Enqueued, EventMark, PENDING_MAX, PendingMessage, TakenMessages, Taker,
};
use crate::store::{StoreError, keys};
use redis::Script;
use std::sync::LazyLock;

static ENQUEUE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("enqueue.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take_messages.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle_message.lua")));

/// See [`crate::store::Store::enqueue`].
pub(super) async fn enqueue(
    store: &RedisStore,
    event: EventMark<'_>,
    messages: &[PendingMessage],
) -> Result<Enqueued, StoreError> {
    let keys = keys::message_keys(&store.prefix);
    let mut call = ENQUEUE.prepare_invoke();
    call.key(keys.reported)
        .key(keys.messages)
        .key(keys.due)
        .arg(event.key)
        .arg(event.at_ms)
        .arg(event.quiet_ms)
        .arg(EVENTS_MAX)
        .arg(PENDING_MAX);
    for message in messages {
        call.arg(message.entry()).arg(written(message)?);
    }
    let became: String = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    Ok(match &*became {
        "new" => Enqueued::New,
        "full" => Enqueued::Full,
        _ => Enqueued::Known,
    })
}

/// See [`crate::store::Store::reported_ms`].
pub(super) async fn reported_ms(
    store: &RedisStore,
    event: &str,
) -> Result<Option<u64>, StoreError> {
    let key = keys::message_keys(&store.prefix).reported;
    let mut score = redis::cmd("ZSCORE");
    let at_ms: Option<f64> = store.ask(score.arg(key).arg(event)).await?;
    Ok(at_ms.map(|at_ms| at_ms as u64))
}

/// See [`crate::store::Store::take_messages`].
pub(super) async fn take(
    store: &RedisStore,
    taker: Taker<'_>,
) -> Result<TakenMessages, StoreError> {
    let keys = keys::message_keys(&store.prefix);
    let mut call = TAKE.prepare_invoke();
    call.key(&keys.messages)
        .key(keys.due)
        .key(keys.taken)
        .arg(taker.name)
        .arg(taker.now_ms)
        .arg(taker.until_ms)
        .arg(taker.max)
        .arg(u8::from(taker.has_restarted));
    let answer: Vec<Vec<u8>> = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    let mut texts = answer.iter().map(|text| String::from_utf8_lossy(text));
    let pending = texts.next().and_then(|count| count.parse().ok());
    let mut taken = TakenMessages {
        messages: Vec::new(),
        pending: pending.unwrap_or(0),
    };
    while let (Some(entry), Some(text)) = (texts.next(), texts.next()) {
        match store.damage.skip(read_json(&keys.messages, &text))? {
            Some(message) => taken.messages.push(message),
            None => put(store, &entry, "", None).await?,
        }
    }
    Ok(taken)
}

/// See [`crate::store::Store::settle_message`].
pub(super) async fn settle(
    store: &RedisStore,
    message: &PendingMessage,
    due_ms: Option<u64>,
) -> Result<(), StoreError> {
    put(store, &message.entry(), &written(message)?, due_ms).await
}

/// Replaces a message, or removes it if it is not due any more.
async fn put(
    store: &RedisStore,
    entry: &str,
    message: &str,
    due_ms: Option<u64>,
) -> Result<(), StoreError> {
    let keys = keys::message_keys(&store.prefix);
    let mut call = SETTLE.prepare_invoke();
    call.key(keys.messages)
        .key(keys.due)
        .key(keys.taken)
        .arg(entry)
        .arg(message)
        .arg(due_ms.map_or(String::new(), |due_ms| due_ms.to_string()));
    let _: i64 = store
        .with(async |connection| call.invoke_async(connection).await)
        .await?;
    Ok(())
}
