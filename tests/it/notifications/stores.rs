//! The queue of messages is the same in every store.

use crate::store_model::shop;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use tempfile::TempDir;
use watershed::store::Store;
use watershed::store::messages::{Enqueued, EventMark, PENDING_MAX, PendingMessage, Taker};
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::sqlite::SqliteStore;

fn message(id: &str, receiver: &str) -> PendingMessage {
    PendingMessage {
        id: id.to_owned(),
        receiver: receiver.to_owned(),
        event: "an event".to_owned(),
        body: "{\"text\": \"ä\"}".to_owned(),
        created_ms: 1_700_000_000_000,
        attempts: 0,
    }
}

fn mark(key: &str, at_ms: u64, quiet_ms: u64) -> EventMark<'_> {
    EventMark {
        key,
        at_ms,
        quiet_ms,
    }
}

fn taker(name: &str, now_ms: u64, max: usize) -> Taker<'_> {
    Taker {
        name,
        now_ms,
        until_ms: now_ms + 15_000,
        max,
        has_restarted: false,
    }
}

async fn taken(store: &dyn Store, taker: Taker<'_>) -> Vec<String> {
    let taken = store.take_messages(taker).await.unwrap();
    taken.messages.iter().map(PendingMessage::entry).collect()
}

/// Goes through the life of messages.
async fn check(store: &dyn Store) {
    let both = [message("m1", "a"), message("m1", "b")];
    let once = EventMark::ONCE;
    // An event is new once, or again after a quiet time that begins with its last report.
    let enqueue = async |key, at_ms, quiet_ms, messages: &[PendingMessage]| {
        store
            .enqueue(mark(key, at_ms, quiet_ms), messages)
            .await
            .unwrap()
    };
    assert_eq!(enqueue("won", 1_000, once, &both).await, Enqueued::New);
    assert_eq!(
        enqueue("won", 9_000_000, once, &[message("m2", "a")]).await,
        Enqueued::Known
    );
    assert_eq!(enqueue("down", 1_000, 600, &[]).await, Enqueued::New);
    assert_eq!(enqueue("down", 1_599, 600, &[]).await, Enqueued::Known);
    assert_eq!(enqueue("down", 2_198, 600, &[]).await, Enqueued::Known);
    assert_eq!(enqueue("down", 2_798, 600, &[]).await, Enqueued::New);
    // A clock that is behind does not make it older.
    assert_eq!(enqueue("down", 5, 600, &[]).await, Enqueued::Known);
    assert_eq!(store.reported_ms("down").await.unwrap(), Some(2_798));
    assert_eq!(store.reported_ms("other").await.unwrap(), None);

    // One process takes a message at a time, at most as many as it asks for.
    assert_eq!(
        taken(store, taker("p", 999, 9)).await,
        [""; 0],
        "not due yet"
    );
    assert_eq!(taken(store, taker("p", 1_000, 0)).await, [""; 0]);
    let first = taken(store, taker("p", 1_000, 1)).await;
    let second = taken(store, taker("q", 1_000, 9)).await;
    assert_eq!(first.len() + second.len(), 2);
    assert_ne!(first, second);
    let none = store.take_messages(taker("r", 15_999, 9)).await.unwrap();
    assert_eq!((none.messages.len(), none.pending), (0, 2));
    // What a process took is left to others after a while, and to itself at its restart.
    let again = |name| Taker {
        has_restarted: true,
        ..taker(name, 2_000, 9)
    };
    assert_eq!(taken(store, again("p")).await, first);
    assert_eq!(taken(store, again("r")).await, [""; 0]);
    let found = store.take_messages(taker("r", 17_000, 9)).await.unwrap();
    assert_eq!(found.messages.len(), 2);
    assert!(found.messages.contains(&both[0]) && found.messages.contains(&both[1]));

    // A message that failed waits, but for a restart; one that is done with is gone.
    let failed = PendingMessage {
        attempts: 3,
        ..both[0].clone()
    };
    store.settle_message(&failed, Some(90_000)).await.unwrap();
    store.settle_message(&both[1], None).await.unwrap();
    assert_eq!(taken(store, taker("p", 89_999, 9)).await, [""; 0]);
    let restarted = Taker {
        has_restarted: true,
        ..taker("s", 20_000, 9)
    };
    let found = store.take_messages(restarted).await.unwrap();
    assert_eq!(
        (&found.messages[..], found.pending),
        (&[failed.clone()][..], 1)
    );
    store.settle_message(&failed, None).await.unwrap();
    // A late outcome brings nothing back.
    store.settle_message(&failed, Some(1)).await.unwrap();
    let found = store.take_messages(taker("p", 99_000, 9)).await.unwrap();
    assert_eq!((found.messages.len(), found.pending), (0, 0));

    // A full queue takes nothing, and forgets the event, so that it is new when there is room.
    let many = (0..PENDING_MAX).map(|number| message(&format!("n{number}"), "a"));
    let many: Vec<PendingMessage> = many.collect();
    assert_eq!(enqueue("many", 1, once, &many[1..]).await, Enqueued::New);
    assert_eq!(enqueue("late", 2, once, &both).await, Enqueued::Full);
    assert_eq!(store.reported_ms("late").await.unwrap(), None);
    assert_eq!(enqueue("one", 2, once, &many[..1]).await, Enqueued::New);
    let found = store.take_messages(taker("p", 9, 64)).await.unwrap();
    assert_eq!(
        (found.messages.len(), found.pending),
        (64, PENDING_MAX as u64)
    );
}

#[tokio::test]
async fn messages_wait_and_are_taken_alike_in_every_store() {
    let folder = TempDir::new().unwrap();
    check(&SqliteStore::open(&folder.path().join("counts.db")).unwrap()).await;
    let redis = Redis::start();
    let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws").await;
    check(&store.unwrap()).await;
    check(&shop(&Postgres::start())).await;
}

#[tokio::test]
async fn message_that_cannot_be_read_is_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.db");
    let file = SqliteStore::open(&path).unwrap();
    let redis = Redis::start();
    let shared = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws").await;
    let shared = shared.unwrap();
    let postgres = Postgres::start();
    let third = shop(&postgres);
    for store in [&file as &dyn Store, &shared, &third] {
        let both = [message("m1", "a"), message("m1", "b")];
        let mark = mark("won", 1, EventMark::ONCE);
        store.enqueue(mark, &both).await.unwrap();
    }
    let sql = "UPDATE messages SET message = '{' WHERE entry = 'm1.a'";
    let damaged = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(damaged.execute(sql, []).unwrap(), 1);
    redis
        .command(&["HSET", "ws:{webhooks}:messages", "m1.a", "{"])
        .unwrap();
    postgres
        .sql("UPDATE watershed.messages SET message = '{' WHERE entry = 'm1.a'")
        .unwrap();
    for store in [&file as &dyn Store, &shared, &third] {
        let found = store.take_messages(taker("p", 1, 9)).await.unwrap();
        let entries: Vec<String> = found.messages.iter().map(PendingMessage::entry).collect();
        assert_eq!(entries, ["m1.b"]);
        assert_eq!(store.damaged_records(), 1);
        let left = store.take_messages(taker("p", 99_999, 9)).await.unwrap();
        assert_eq!((left.messages.len(), left.pending), (1, 1));
    }
}
