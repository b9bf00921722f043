//! A report that is sent again counts once: by the IDs of its events or by its key, from every
//! source, after crashes and restarts, in both stores.

use crate::store_model::shop;
use crate::support::client::{Answer, Client};
use crate::support::origin::Origin;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::{Value, json};
use std::num::NonZeroU64;
use tempfile::TempDir;
use watershed::experiment::EpochDigest;
use watershed::store::event_ids::{KEEP_MS, OF_USER_MAX};
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::sqlite::SqliteStore;
use watershed::store::waiting::BYTES_MAX;
use watershed::store::{
    Applied, Delta, EpochDefinition, EventAt, ExposureAt, JournalRange, Store, UserDelta,
};

const KEY: &str = "Idempotency-Key: batch-1\r\nContent-Type: application/json\r\n";

/// What the proxies of a site are started with.
fn routes(origin: &Origin, store: &str, lines: &str) -> String {
    let at = origin.address;
    format!(
        "{store}user: {{ cookie: uid }}\n{lines}upstreams: {{ a: \"http://{at}\", b: \"http://{at}\" }}\nexperiments: {{ shop: {{ match: {{ path: /shop/** }}, groups: {{ control: {{ weight: 50, upstream: a }}, b: {{ weight: 50, upstream: b }} }} }} }}\nmetrics:\n  purchase: {{ event: purchase, kind: count }}\n  revenue: {{ event: purchase, value: amount, kind: mean, max: 10000 }}\n"
    )
}

fn report(proxy: &Proxy, headers: &str, body: &Value) -> Answer {
    Client::admin(proxy.admin).post("/admin/events", headers, &body.to_string())
}

/// Events and the hundredfold of their amounts, over both groups.
fn counted(proxy: &Proxy) -> (u64, i64) {
    let results = proxy.results();
    let metrics = results["experiments"][0]["metrics"].as_array().unwrap();
    let sum = |metric: &str, what: &str| -> f64 {
        let found = metrics.iter().find(|it| it["name"] == metric).unwrap();
        (0..2)
            .map(|it| found["groups"][it][what].as_f64().unwrap())
            .sum()
    };
    let cents = (sum("revenue", "sum") * 100.0).round() as i64;
    (sum("purchase", "count") as u64, cents)
}

fn hundred(with_ids: bool) -> Value {
    let event = |number: usize| match with_ids {
        true => json!({"event": "purchase", "amount": 1, "user": "u", "id": format!("o-{number}")}),
        false => json!({"event": "purchase", "amount": 1, "user": "u"}),
    };
    (0..100).map(event).collect()
}

/// Reports again and again, through crashes of the proxy and of the store.
fn counts_once(redis: Option<&mut Redis>) {
    let origin = Origin::start("site");
    let store = redis
        .as_ref()
        .map_or(String::new(), |redis| format!("store: {}\n", redis.url()));
    let routes = routes(&origin, &store, "");
    let mut proxy = Proxy::start(&routes);
    proxy.client().get("/shop/", "Cookie: uid=u\r\n");
    for _ in 0..3 {
        let taken = report(&proxy, KEY, &hundred(true));
        assert_eq!(
            (taken.status, &taken.json()["accepted"]),
            (202, &json!(100))
        );
    }
    assert_eq!(counted(&proxy), (100, 10_000));
    for _ in 0..3 {
        report(&proxy, KEY, &hundred(false));
    }
    assert_eq!(counted(&proxy), (200, 20_000));
    // What was acknowledged right before a crash is known after it.
    report(
        &proxy,
        KEY,
        &json!([{"event": "purchase", "amount": 5, "user": "u", "id": "late"}]),
    );
    proxy.kill();
    if let Some(redis) = redis {
        redis.kill();
        redis.up();
    }
    proxy.again(&routes);
    report(
        &proxy,
        KEY,
        &json!([{"event": "purchase", "amount": 6, "user": "u", "id": "late"}]),
    );
    report(&proxy, KEY, &hundred(true));
    report(&proxy, KEY, &hundred(false));
    // The first amount stands.
    assert_eq!(counted(&proxy), (201, 20_500));
    // Another replica, where there may be one.
    if !store.is_empty() {
        let other = Proxy::start(&routes);
        report(&other, KEY, &hundred(true));
        report(&other, KEY, &hundred(false));
        assert_eq!(counted(&other), (201, 20_500));
    }
}

#[test]
fn retried_report_counts_once_through_crashes_in_sqlite() {
    counts_once(None);
}

#[test]
fn retried_report_counts_once_through_crashes_in_redis() {
    counts_once(Some(&mut Redis::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ])));
}

/// On both HTTP/1 paths.
#[test]
fn event_with_one_id_counts_once_from_all_sources() {
    for lines in ["", "timeouts: { total: 60s }\n"] {
        let origin = Origin::start("site");
        let proxy = Proxy::start(&routes(&origin, "", lines));
        let user = "Cookie: uid=u\r\n";
        proxy.client().get("/shop/", user);
        let order = json!({"event": "purchase", "amount": 7, "user": "u", "id": "o-1"});
        for again in 0..2 {
            let header = "/shop/?event=purchase;amount=5;id=%22o-1%22,%20purchase;amount=2;id=o-2";
            proxy.client().get(header, user);
            if again == 0 {
                assert_eq!(counted(&proxy), (2, 700), "{lines}");
            }
            proxy
                .client()
                .post("/_watershed/events", user, &order.to_string());
            report(&proxy, "", &order);
        }
        assert_eq!(counted(&proxy), (2, 700), "{lines}");
        // A browser's key, too; and nobody else's ID is taken.
        let keyed = format!("{user}Idempotency-Key: page-1\r\n");
        let event = json!({"event": "purchase", "amount": 1}).to_string();
        for _ in 0..3 {
            proxy.client().post("/_watershed/events", &keyed, &event);
        }
        proxy.client().get("/shop/", "Cookie: uid=other\r\n");
        proxy.client().post(
            "/_watershed/events",
            "Cookie: uid=other\r\n",
            &order.to_string(),
        );
        assert_eq!(counted(&proxy), (4, 1500), "{lines}");
    }
}

/// A full journal takes nothing, and says so: what is acknowledged is counted, once.
#[test]
fn event_beyond_the_journal_quota_is_not_acknowledged() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let origin = Origin::start("site");
    let store = format!("store: {}\n", redis.url());
    let lines = "journal: { quota: 32MiB }\nevents: { body: 64KiB, per_minute: 1000000, per_minute_per_address: 1000000 }\n";
    let proxy = Proxy::start(&routes(&origin, &store, lines));
    let user = format!("Cookie: uid={}\r\n", "u".repeat(250));
    proxy.client().get("/shop/", &user);
    assert_eq!(counted(&proxy), (0, 0));
    redis.kill();
    let batch: Vec<Value> = (0..100)
        .map(|number| {
            let (id, user) = (format!("o-{number}"), "u".repeat(250));
            json!({"event": "purchase", "amount": 1, "id": id, "user": user})
        })
        .collect();
    let (mut accepted, mut refused) = (0, None);
    let mut client = proxy.client();
    for _ in 0..3_000 {
        // Without IDs in a browser's report, so that each would count.
        let body: Vec<Value> = vec![json!({"event": "purchase", "amount": 1}); 100];
        let answer = client.post("/_watershed/events", &user, &json!(body).to_string());
        accepted += answer.json()["accepted"].as_u64().unwrap();
        if answer.status == 503 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let refused = refused.expect("a full journal");
    assert!(refused.header("retry-after").is_some());
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("the journal has no room for"), "{error}");
    // Servers are told the same.
    let told = until("a full journal of servers' reports", || {
        let headers = "Content-Type: application/json\r\n";
        let told = report(&proxy, headers, &json!(batch));
        match told.status {
            503 => Ok(told),
            status => Err(status),
        }
    });
    assert!(told.text().contains("the journal has no room for"));
    redis.up();
    // A whole journal is behind, and this Redis syncs each write.
    until("a full journal in the store", || {
        let store = proxy.ask("/admin/results").json()["store"].take();
        (store["lag_events"] == 0).then_some(()).ok_or(store)
    });
    // The servers' reports had IDs, so that they count for a hundred events in all.
    let (events, _) = counted(&proxy);
    assert_eq!(events, accepted + 100);
}

fn delta(after: u64, users: Vec<UserDelta>, remember_from_ms: u64) -> Delta {
    Delta {
        epochs: vec![EpochDefinition {
            digest: EpochDigest(7),
            traffic: 1.0,
            groups: vec![("control".to_owned(), 1.0)],
            first_ms: 1,
            series: Vec::new(),
        }],
        ranges: vec![JournalRange {
            journal: "journal".into(),
            after,
            through: after + 1,
        }],
        users,
        remember_from_ms,
        ..Delta::nothing("exp")
    }
}

fn event(id: u64, at_ms: u64) -> EventAt {
    EventAt {
        at_ms,
        reported_ms: at_ms,
        metric: "m".to_owned(),
        within_ms: None,
        cap: None,
        covariate_ms: None,
        count: 1,
        sum: 1,
        base: 0,
        id: Some(id),
    }
}

fn user(name: &str, events: Vec<EventAt>) -> UserDelta {
    let exposure = ExposureAt {
        at_ms: 1,
        epoch: EpochDigest(7),
        group: "control".to_owned(),
        latency: 9,
        segments: String::new(),
    };
    UserDelta {
        user: name.as_bytes().to_vec(),
        came_back_ms: NonZeroU64::new(1),
        exposures: vec![exposure],
        events,
    }
}

async fn sum(store: &dyn Store, name: &str) -> i64 {
    let record = store.user("exp", name.as_bytes()).await.unwrap().unwrap();
    record.metrics["m"].sum
}

/// IDs are remembered by time, up to a bound that is reported, and forgotten with their user.
async fn ids_are_bounded(store: &dyn Store) {
    store.shards("exp").await.unwrap();
    let kind = store.kind();
    let mut after = 0;
    let mut apply = async |users: Vec<UserDelta>, from_ms: u64| {
        assert_eq!(
            store.apply(&delta(after, users, from_ms)).await.unwrap(),
            Applied::Added
        );
        after += 1;
    };
    let day = KEEP_MS / 2;
    apply(vec![user("u", vec![event(1, 10), event(1, 10)])], 0).await;
    apply(vec![user("u", vec![event(1, day)])], 0).await;
    apply(vec![user("u", vec![event(1, 2 * day)])], 10).await;
    assert_eq!(sum(store, "u").await, 1, "{kind}");
    // What is older than what is remembered counts anew.
    apply(vec![user("u", vec![event(1, 3 * day)])], 11).await;
    assert_eq!(sum(store, "u").await, 2, "{kind}");
    // Far more than one user may have, in several deltas, and all of it again.
    for again in 0..2 {
        for first in (0..OF_USER_MAX + 500).step_by(2_500) {
            let ids = first..(first + 2_500).min(OF_USER_MAX + 500);
            let events = ids.map(|id| event(1_000 + id, 3 * day)).collect();
            apply(vec![user("busy", events)], 11).await;
        }
        let most = i64::try_from(OF_USER_MAX).unwrap();
        assert_eq!(sum(store, "busy").await, most, "{kind}");
        let uncounted = store.totals("exp").await.unwrap().uncounted;
        assert_eq!(uncounted.refused_ids, 500 * (again + 1), "{kind}");
    }
    // Others are not held up, and one who is forgotten is forgotten whole.
    apply(vec![user("u", vec![event(2, 3 * day)])], 11).await;
    assert_eq!(sum(store, "u").await, 3, "{kind}");
    assert!(store.forget_user("exp", b"busy", 0).await.unwrap());
    apply(vec![user("busy", vec![event(1_000, 3 * day)])], 11).await;
    assert_eq!(sum(store, "busy").await, 1, "{kind}");
}

/// Events that wait are bounded in bytes, of a user and of all; those of users without any exposure
/// give way first, and what gives way is counted.
async fn waiting_is_bounded(store: &dyn Store) {
    store.shards("exp").await.unwrap();
    let kind = store.kind();
    let mut after = 0;
    let mut apply = async |users: Vec<UserDelta>| {
        let delta = delta(after, users, 0);
        assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
        after += 1;
    };
    let dropped = async || store.totals("exp").await.unwrap().uncounted.dropped_waiting;
    let unexposed = |name: &str, events: Vec<EventAt>| UserDelta {
        exposures: Vec::new(),
        ..user(name, events)
    };
    let many = |count: u64| -> Vec<EventAt> {
        let plain = |number| EventAt {
            id: None,
            ..event(0, 10 + number)
        };
        (0..count).map(plain).collect()
    };
    // Of one user.
    apply(vec![unexposed("one", many(70))]).await;
    assert_eq!(dropped().await, 6, "{kind}");
    let long = |number| EventAt {
        metric: format!("{}-{number}", "m".repeat(1_000)),
        ..event(number, 10)
    };
    apply(vec![unexposed("long", (0..10).map(long).collect())]).await;
    let of_users = dropped().await;
    assert_eq!(of_users, 6 + 7, "{kind}");
    // The same event waits once, however often it is reported.
    for _ in 0..70 {
        apply(vec![unexposed("again", vec![event(5, 10)])]).await;
    }
    assert_eq!(dropped().await, of_users, "{kind}");
    // Somebody whose exposure is known, and whose event came before it: the longest waiting.
    let mut late = user("late", vec![event(6, 1)]);
    late.exposures[0].at_ms = 5_000;
    apply(vec![late]).await;
    // Users who fill the room by their IDs, of which each byte counts twice.
    let name = |number: u64| format!("{number:08}{}", "x".repeat(59_992));
    let users = BYTES_MAX / 120_000 + 41;
    for first in (0..users).step_by(50) {
        let numbers = first..(first + 50).min(users);
        let flood = numbers.map(|number| unexposed(&name(number), vec![event(1, 20 + number)]));
        apply(flood.collect()).await;
    }
    let gone = dropped().await - of_users;
    // First those from above whose last event is as old: three and one.
    assert!((4 + 35..4 + 45).contains(&gone), "{kind}: {gone}");
    // Those that are exposed now: the newest is counted, the oldest is not, the exposed one is.
    let exposed = |number| user(&name(number), Vec::new());
    apply(vec![exposed(0), exposed(users - 1)]).await;
    assert_eq!(sum(store, &name(users - 1)).await, 1, "{kind}");
    let oldest = store.user("exp", name(0).as_bytes()).await.unwrap();
    assert!(oldest.unwrap().metrics.is_empty(), "{kind}");
    apply(vec![user("late", Vec::new())]).await;
    assert_eq!(sum(store, "late").await, 1, "{kind}");
    // There is room again, as much as was given up.
    let before = dropped().await;
    assert!(
        store
            .forget_user("exp", name(users - 2).as_bytes(), 0)
            .await
            .unwrap()
    );
    apply(vec![unexposed(&name(users), vec![event(1, 20 + users)])]).await;
    assert_eq!(dropped().await, before, "{kind}");
}

#[test]
fn waiting_events_are_bounded_in_every_store() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        waiting_is_bounded(&SqliteStore::open(&folder.path().join("watershed.db")).unwrap()).await;
        let url = redis.url();
        let store = RedisStore::connect(&url, TlsFiles::default(), "ws")
            .await
            .unwrap();
        waiting_is_bounded(&store).await;
        waiting_is_bounded(&shop(&Postgres::start())).await;
    });
}

#[test]
fn event_ids_expire_and_are_bounded_in_every_store() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    let postgres = Postgres::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        ids_are_bounded(&SqliteStore::open(&folder.path().join("watershed.db")).unwrap()).await;
        let url = redis.url();
        let store = RedisStore::connect(&url, TlsFiles::default(), "ws")
            .await
            .unwrap();
        ids_are_bounded(&store).await;
        ids_are_bounded(&shop(&postgres)).await;
    });
    let ids = postgres.sql("SELECT count(*) FROM watershed.event_ids");
    assert_eq!(ids.unwrap(), [["3"]]);
    // Nothing of a user who is forgotten stays, and old IDs go.
    let held = |key: &str| redis.command(&["ZCARD", key]).unwrap();
    until("the IDs that are left", || {
        let (ids, times) = (
            held("ws:{exp:0}:event-ids"),
            held("ws:{exp:0}:event-ids-at"),
        );
        (ids == "int(3)" && times == ids)
            .then_some(())
            .ok_or((ids, times))
    });
}

/// The clock of one process that is a year ahead ends nothing that others remember in a shared store: IDs of
/// events, events that wait, users that were forgotten, and sessions that were ended.
#[test]
fn wrong_clock_of_one_replica_does_not_affect_others() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let check = async |store: &dyn Store| {
        store.shards("exp").await.unwrap();
        let now_ms = watershed::journal::system_ms();
        let ahead_ms = now_ms + 365 * 24 * 3_600_000;
        let bound = |now_ms: u64| now_ms - KEEP_MS;
        let waits = UserDelta {
            exposures: Vec::new(),
            ..user("late", vec![event(5, now_ms)])
        };
        let first = delta(
            0,
            vec![user("u", vec![event(1, now_ms)]), waits],
            bound(now_ms),
        );
        assert_eq!(store.apply(&first).await.unwrap(), Applied::Added);
        let of_one_ahead = Delta {
            wait_from_ms: ahead_ms,
            ..delta(
                1,
                vec![user("w", vec![event(9, ahead_ms)])],
                bound(ahead_ms),
            )
        };
        assert_eq!(store.apply(&of_one_ahead).await.unwrap(), Applied::Added);
        let again = delta(
            2,
            vec![user("u", vec![event(1, now_ms)]), user("late", Vec::new())],
            bound(now_ms),
        );
        assert_eq!(store.apply(&again).await.unwrap(), Applied::Added);
        assert_eq!(sum(store, "u").await, 1, "{}", store.kind());
        assert_eq!(sum(store, "late").await, 1, "{}", store.kind());
        store.forget_user("exp", b"gone", now_ms).await.unwrap();
        store.forget_user("exp", b"other", ahead_ms).await.unwrap();
        let forgotten = store.forgotten("exp", 0).await.unwrap();
        assert_eq!(forgotten.until_ms(b"gone"), now_ms);
        let ended = vec![(now_ms / 1000 + 3_600, "nonce".to_owned())];
        store.ended_sessions(&ended, now_ms / 1000).await.unwrap();
        let kept = store.ended_sessions(&[], ahead_ms / 1000).await.unwrap();
        assert_eq!(kept, ended);
    };
    runtime.block_on(async {
        let url = redis.url();
        let store = RedisStore::connect(&url, TlsFiles::default(), "ws").await;
        check(&store.unwrap()).await;
        check(&shop(&postgres)).await;
    });
}
