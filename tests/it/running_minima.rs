//! What is kept beside the counts, in every store.

use crate::store_model::shop;
use crate::support::postgres::Postgres;
use crate::support::redis::{Cluster, Redis};
use std::sync::Arc;
use tempfile::TempDir;
use watershed::experiment::EpochDigest;
use watershed::store::acme::AcmeLease;
use watershed::store::decisions::{AuditEntry, DecidedState, StandingDecision};
use watershed::store::redis::{RedisStore, TlsFiles};
use watershed::store::running_minima::RunningMinima;
use watershed::store::sqlite::SqliteStore;
use watershed::store::{Delta, ENDED_SESSIONS_MAX, EpochDefinition, SECRETS_MAX, Store};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn number(field: &str, value: f64) -> RunningMinima {
    RunningMinima {
        lowest: [(field.to_owned(), value)].into(),
        ..RunningMinima::default()
    }
}

/// With its time.
fn timed(field: &str, value: f64, at_ms: u64) -> RunningMinima {
    RunningMinima {
        lowest_at: [(field.to_owned(), at_ms)].into(),
        ..number(field, value)
    }
}

fn text(field: &str, text: &str) -> RunningMinima {
    RunningMinima {
        first: [(field.to_owned(), text.to_owned())].into(),
        ..RunningMinima::default()
    }
}

/// Two replicas keep at the same time.
async fn the_smallest_and_the_first_stay(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    assert!(one.running_minima("site").await.unwrap().is_empty());
    let keeping = |store: &Arc<dyn Store>, replica: u32| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            // Down and up again; the smallest of all is 1e-300, kept once.
            for step in 0..60_u32 {
                let value = 10f64.powi(-((step * 7 + replica) as i32 % 60));
                store
                    .merge_minima("site", &number("p|a", value))
                    .await
                    .unwrap();
                let mine = text(&format!("detect|{step}"), &format!("{replica}"));
                store.merge_minima("site", &mine).await.unwrap();
                let kept = store.running_minima("site").await.unwrap();
                assert!(kept.lowest["p|a"] <= value, "{kept:?}");
                seen(&kept, replica, step);
            }
            let both = RunningMinima {
                lowest: [("p|a".to_owned(), 1e-300), ("p|b".to_owned(), 1.0 / 3.0)].into(),
                lowest_at: [("p|a".to_owned(), 1_777_800_000_000)].into(),
                first: [("detect|0".to_owned(), "late".to_owned())].into(),
            };
            store.merge_minima("site", &both).await.unwrap();
            store.running_minima("site").await.unwrap()
        })
    };
    let (first, second) = tokio::join!(keeping(&one, 0), keeping(&two, 1));
    let (first, second) = (first.unwrap(), second.unwrap());
    let kept = one.running_minima("site").await.unwrap();
    assert_eq!(kept, two.running_minima("site").await.unwrap());
    assert_eq!(kept.lowest["p|a"], 1e-300);
    assert_eq!(kept.lowest["p|b"], 1.0 / 3.0);
    for step in 0..60 {
        let text = &kept.first[&format!("detect|{step}")];
        assert!(["0", "1"].contains(&&**text), "{text}");
        // What was seen once is what stands.
        for earlier in [&first, &second] {
            let earlier = earlier.first.get(&format!("detect|{step}"));
            assert!(earlier.is_none_or(|earlier| earlier == text));
        }
    }
    assert!(one.running_minima("other").await.unwrap().is_empty());
    // Numbers that a double can hold, and nothing at all.
    one.merge_minima("site", &number("p|c", 5e-324))
        .await
        .unwrap();
    one.merge_minima("site", &number("p|c", 0.0)).await.unwrap();
    one.merge_minima("site", &RunningMinima::default())
        .await
        .unwrap();
    assert_eq!(two.running_minima("site").await.unwrap().lowest["p|c"], 0.0);
    // A time goes with its number, and with it only.
    assert_eq!(
        kept.lowest_at,
        [("p|a".to_owned(), 1_777_800_000_000)].into()
    );
    for (more, at_ms) in [
        (timed("p|d", 0.5, 1), Some(1)),
        (timed("p|d", 0.75, 2), Some(1)),
        (timed("p|d", 0.25, 3), Some(3)),
        (number("p|d", 0.125), None),
    ] {
        one.merge_minima("site", &more).await.unwrap();
        let kept = two.running_minima("site").await.unwrap();
        assert_eq!(kept.lowest_at.get("p|d").copied(), at_ms, "{more:?}");
    }
}

fn seen(kept: &RunningMinima, replica: u32, step: u32) {
    let text = kept.first.get(&format!("detect|{step}"));
    assert!(text.is_some(), "replica {replica}: {kept:?}");
}

/// Two replicas decide at the same time: each decision follows the one that its maker has seen.
async fn decisions_follow_each_other(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    assert!(one.decisions().await.unwrap().is_empty());
    let deciding = |store: &Arc<dyn Store>, name: &'static str| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut taken = 0;
            while taken < 20 {
                let before = store.decisions().await.unwrap().get("site").cloned();
                let before_ms = before.map_or(0, |before| before.at_ms);
                let next = StandingDecision {
                    state: DecidedState::Promoted,
                    group: Some("experiment".to_owned()),
                    salt: "site".to_owned(),
                    at_ms: before_ms + 1,
                    by: name.to_owned(),
                    weights: std::collections::BTreeMap::new(),
                    ramp: None,
                    planned_ms: 0,
                };
                let act = AuditEntry {
                    experiment: "site".to_owned(),
                    action: "promote".to_owned(),
                    from: before_ms.to_string(),
                    to: next.at_ms.to_string(),
                    at_ms: next.at_ms,
                    by: name.to_owned(),
                    reason: None,
                    source: None,
                };
                taken += u32::from(store.decide(before_ms, &next, &act).await.unwrap());
            }
        })
    };
    let (a, b) = (deciding(&one, "a"), deciding(&two, "b"));
    a.await.unwrap();
    b.await.unwrap();
    let acts = one.audit_log(100).await.unwrap();
    let chain: Vec<_> = acts.iter().map(|act| (&*act.from, &*act.to)).collect();
    let numbers: Vec<_> = (0..=40).rev().map(|number| number.to_string()).collect();
    let pairs = numbers.windows(2).map(|pair| (&*pair[1], &*pair[0]));
    assert_eq!(chain, pairs.collect::<Vec<_>>());
    assert_eq!(two.decisions().await.unwrap()["site"].at_ms, 40);
    assert_eq!(two.audit_log(3).await.unwrap(), acts[..3]);
    // What is no decision is kept among them, and decides nothing.
    let reload = AuditEntry {
        experiment: String::new(),
        action: "reload".to_owned(),
        ..acts[0].clone()
    };
    two.record_action(&reload).await.unwrap();
    assert_eq!(one.audit_log(2).await.unwrap(), [reload, acts[0].clone()]);
    assert_eq!(one.decisions().await.unwrap()["site"].at_ms, 40);
}

/// Replicas that start at the same time on an empty store agree on the secret that signs.
async fn replicas_agree_on_secrets(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    let none: &[String] = &[];
    assert_eq!(one.secrets(none).await.unwrap(), none);
    let offering = |store: &Arc<dyn Store>, secret: &str| {
        let (store, ours) = (Arc::clone(store), vec![secret.to_owned()]);
        tokio::spawn(async move { store.secrets(&ours).await.unwrap() })
    };
    let (first, second) = tokio::join!(offering(&one, "one"), offering(&two, "two"));
    let (first, second) = (first.unwrap(), second.unwrap());
    let all = one.secrets(none).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((&first[0], &second[0]), (&all[0], &all[0]), "one signs");
    // Known ones are not added again, whatever their order.
    let again = ["two".to_owned(), "one".to_owned()];
    assert_eq!(two.secrets(&again).await.unwrap(), all);
    // There is room for so many, and the first one stays the first.
    let many: Vec<_> = (0..2 * SECRETS_MAX).map(|it| it.to_string()).collect();
    let full = two.secrets(&many).await.unwrap();
    assert_eq!(full.len(), SECRETS_MAX);
    assert_eq!(full[..2], all);
    assert_eq!(one.secrets(&many).await.unwrap(), full);
}

/// Only the process that has the lease of ACME writes; it expires, and can be given back.
async fn one_replica_at_a_time_writes_certificates(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    // Redis and PostgreSQL have clocks of their own: time is long here, or short.
    let now_ms = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_millis() as u64
    };
    let lease = |owner: &'static str, for_ms| AcmeLease {
        owner,
        now_ms: now_ms(),
        for_ms,
    };
    let entry = |name: &str, text: Option<&str>| (name.to_owned(), text.map(str::to_owned));
    let written = [entry("a", Some("1")), entry("b", Some("2"))];
    assert!(!one.write_acme(lease("one", 0), &written).await.unwrap());
    assert!(one.lease_acme(lease("one", 3_600_000)).await.unwrap());
    assert!(one.lease_acme(lease("one", 3_600_000)).await.unwrap());
    assert!(!two.lease_acme(lease("two", 3_600_000)).await.unwrap());
    assert!(one.write_acme(lease("one", 0), &written).await.unwrap());
    let other = [entry("a", Some("3"))];
    assert!(!two.write_acme(lease("two", 0), &other).await.unwrap());
    // Others have nothing to give back.
    assert!(!two.lease_acme(lease("two", 0)).await.unwrap());
    assert!(!two.lease_acme(lease("two", 1)).await.unwrap());
    assert!(one.lease_acme(lease("one", 0)).await.unwrap());
    assert!(two.lease_acme(lease("two", 3_600_000)).await.unwrap());
    let other = [entry("a", Some("3")), entry("b", None), entry("c", None)];
    assert!(two.write_acme(lease("two", 0), &other).await.unwrap());
    let entries = one.acme_entries().await.unwrap();
    assert_eq!(entries, [("a".to_owned(), "3".to_owned())].into());
    // A process that ended without a word holds the lease for its time only.
    assert!(two.lease_acme(lease("two", 30)).await.unwrap());
    while !one.lease_acme(lease("one", 3_600_000)).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!two.write_acme(lease("two", 0), &written).await.unwrap());
    assert!(one.lease_acme(lease("one", 0)).await.unwrap());
}

/// Sessions that were ended at one replica are known at the other, until they are over.
async fn replicas_agree_on_ended_sessions(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    let session = |until_s: u64, nonce: &str| (until_s, nonce.to_owned());
    assert_eq!(one.ended_sessions(&[], 5).await.unwrap(), []);
    let ours = [session(20, "b"), session(10, "a")];
    let both = [session(10, "a"), session(20, "b")];
    assert_eq!(one.ended_sessions(&ours, 5).await.unwrap(), both);
    assert_eq!(two.ended_sessions(&ours[1..], 9).await.unwrap(), both);
    assert_eq!(two.ended_sessions(&[], 10).await.unwrap(), both[1..]);
    // Those that end last are kept.
    let many: Vec<_> = (0..ENDED_SESSIONS_MAX as u64)
        .map(|place| session(100 + place, &format!("n{place}")))
        .collect();
    assert_eq!(one.ended_sessions(&many, 15).await.unwrap(), many);
    let earlier = [session(50, "c")];
    assert_eq!(two.ended_sessions(&earlier, 15).await.unwrap(), many);
    let last = 100 + ENDED_SESSIONS_MAX as u64;
    assert_eq!(two.ended_sessions(&[], last).await.unwrap(), []);
}

#[test]
fn sqlite_keeps_minima_and_first_values() {
    let folder = TempDir::new().unwrap();
    let open = || -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&folder.path().join("watershed.db")).unwrap())
    };
    runtime().block_on(the_smallest_and_the_first_stay(open(), open()));
    runtime().block_on(decisions_follow_each_other(open(), open()));
    runtime().block_on(replicas_agree_on_secrets(open(), open()));
    runtime().block_on(replicas_agree_on_ended_sessions(open(), open()));
    runtime().block_on(one_replica_at_a_time_writes_certificates(open(), open()));
    // What is kept outlives the process, and alone makes no experiment.
    runtime().block_on(async {
        let kept = open().running_minima("site").await.unwrap();
        assert_eq!(kept.lowest["p|a"], 1e-300);
        assert_eq!(open().experiments().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn redis_keeps_minima_and_first_values() {
    let redis = Redis::start();
    runtime().block_on(async {
        let mut stores = Vec::<Arc<dyn Store>>::new();
        for _ in 0..2 {
            let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws").await;
            stores.push(Arc::new(store.unwrap()));
        }
        let two = stores.pop().unwrap();
        let one = stores.pop().unwrap();
        the_smallest_and_the_first_stay(Arc::clone(&one), Arc::clone(&two)).await;
        decisions_follow_each_other(Arc::clone(&one), Arc::clone(&two)).await;
        replicas_agree_on_secrets(Arc::clone(&one), Arc::clone(&two)).await;
        replicas_agree_on_ended_sessions(Arc::clone(&one), Arc::clone(&two)).await;
        one_replica_at_a_time_writes_certificates(one, two).await;
    });
    let said = redis.command(&["HGET", "ws:{controls}:now", "site"]);
    assert!(said.unwrap().contains("promoted"));
    // As docs/redis.md says.
    let said = redis.command(&["HGET", "ws:{site:0}:lowest", "p|a"]);
    assert!(said.unwrap().contains("1e-300"));
    let said = redis.command(&["HGET", "ws:{site:0}:first", "detect|7"]);
    assert!(said.is_ok());
}

#[test]
fn postgres_keeps_minima_and_first_values() {
    let postgres = Postgres::start();
    let open = || -> Arc<dyn Store> { Arc::new(shop(&postgres)) };
    runtime().block_on(async {
        the_smallest_and_the_first_stay(open(), open()).await;
        decisions_follow_each_other(open(), open()).await;
        replicas_agree_on_secrets(open(), open()).await;
        replicas_agree_on_ended_sessions(open(), open()).await;
        one_replica_at_a_time_writes_certificates(open(), open()).await;
        let kept = open().running_minima("site").await.unwrap();
        assert_eq!(kept.lowest["p|a"], 1e-300);
        assert_eq!(open().experiments().await.unwrap(), [""; 0]);
    });
}

#[test]
fn file_of_the_previous_version_is_migrated() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("watershed.db");
    runtime().block_on(async {
        let store = SqliteStore::open(&path).unwrap();
        let delta = Delta {
            experiment: "site".to_owned(),
            shard: 0,
            ranges: Vec::new(),
            epochs: vec![EpochDefinition {
                digest: EpochDigest(7),
                traffic: 1.0,
                groups: vec![("control".to_owned(), 1.0)],
                first_ms: 5,
                series: Vec::new(),
            }],
            users: Vec::new(),
            joins: Vec::new(),
            tallies: Vec::new(),
            wait_from_ms: 0,
            forgotten: 0,
            remember_from_ms: 0,
        };
        store.apply(&delta).await.unwrap();
    });
    // What version 2 did not have.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("DROP TABLE lowest; DROP TABLE first; DROP TABLE controls; DROP TABLE acts; DROP TABLE secrets; DROP TABLE ended_sessions; DROP TABLE damaged; DROP TABLE messages; DROP TABLE definitions; DROP TABLE loaded_files; DROP TABLE acme; DROP TABLE acme_lease; DROP TABLE reported; DROP TABLE forgotten; DROP TABLE identities; DROP TABLE identity_counts; DROP TABLE event_ids; DROP TABLE event_counts; DROP TABLE waiting_bytes; DROP TABLE seen_once; DROP TABLE seen_once_bytes; DROP TRIGGER waiting_added; DROP TRIGGER waiting_changed; DROP TRIGGER waiting_removed; PRAGMA user_version = 2;")
        .unwrap();
    drop(file);
    runtime().block_on(async {
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.experiments().await.unwrap(), ["site"]);
        store.merge_minima("site", &number("p", 0.5)).await.unwrap();
        assert_eq!(
            store.running_minima("site").await.unwrap(),
            number("p", 0.5)
        );
    });
}

#[test]
fn cluster_keeps_minima_in_one_slot() {
    let cluster = Cluster::start();
    runtime().block_on(async {
        let mut stores = Vec::<Arc<dyn Store>>::new();
        for _ in 0..2 {
            let store = RedisStore::connect(&cluster.url(), TlsFiles::default(), "ws").await;
            stores.push(Arc::new(store.unwrap()));
        }
        let two = stores.pop().unwrap();
        let one = stores.pop().unwrap();
        the_smallest_and_the_first_stay(Arc::clone(&one), Arc::clone(&two)).await;
        decisions_follow_each_other(Arc::clone(&one), Arc::clone(&two)).await;
        replicas_agree_on_secrets(Arc::clone(&one), Arc::clone(&two)).await;
        replicas_agree_on_ended_sessions(Arc::clone(&one), Arc::clone(&two)).await;
        one_replica_at_a_time_writes_certificates(one, two).await;
    });
}
