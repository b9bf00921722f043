//! From chunks of journals to counts: however the facts are cut into batches and in whatever order
//! the journals take turns, the counts are the same.

use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use tempfile::TempDir;
use watershed::experiment::assign::{Share, Weight};
use watershed::experiment::metric::{MetricGoal, MetricKind, Observation};
use watershed::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric, Exposure, Served,
};
use watershed::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex};
use watershed::journal::{Chunk, OwnedRecord};
use watershed::store::aggregate;
use watershed::store::applied_cache::AppliedCache;
use watershed::store::buckets::Buckets;
use watershed::store::sqlite::SqliteStore;
use watershed::store::{Applied, ExperimentTotals, Store};

/// Later than all that is folded here.
const NOW_MS: u64 = 1 << 50;

fn declaration() -> Declaration {
    let group = |name: &str| DeclaredGroup {
        name: name.to_owned(),
        weight: Weight::new(1.0).unwrap(),
        upstream: None,
    };
    let metric = |name: &str, within_ms| DeclaredMetric {
        name: name.to_owned(),
        kind: MetricKind::Mean,
        goal: MetricGoal::Increase,
        scale: 2,
        within_ms,
        cap: None,
        covariate_ms: None,
        definition: None,
    };
    let experiment = |name: &str, metrics| DeclaredExperiment {
        name: name.to_owned(),
        epoch: EpochDigest(9),
        traffic: Share::ALL,
        groups: vec![group("control"), group("b")],
        metrics,
        running: true,
        salt: None,
        unit: None,
    };
    Declaration {
        digest: 1,
        experiments: vec![experiment("one", vec![0, 1]), experiment("two", vec![1])],
        metrics: vec![metric("m", None), metric("w", Some(1_000_000_000))],
    }
}

/// A request by one of a few users, whose group is most often the same one. Times go to and fro
/// over seconds and over the end of an hour.
fn record() -> impl Strategy<Value = OwnedRecord> {
    let served = prop_oneof![8 => Just(Served::Own), 1 => Just(Served::Fallback), 1 => Just(Served::Override)];
    (
        0u8..12,
        0u64..9000,
        0usize..20,
        served,
        0usize..3,
        -50i64..500,
        prop_oneof![Just(200u16), Just(503)],
    )
        .prop_map(
            |(user, at_ms, other, served, events, sum, status)| OwnedRecord {
                at_ms: 3_595_000 + at_ms,
                user: [b'u', user][..].into(),
                declaration: 1,
                status,
                latency_us: at_ms,
                exposures: (0..2)
                    // Some requests of the second experiment's users are not eligible.
                    .filter(|&experiment| experiment == 0 || at_ms % 3 > 0)
                    .map(|experiment| Exposure {
                        experiment: ExperimentIndex(experiment),
                        group: GroupIndex(usize::from(user % 2 == u8::from(other > 0))),
                        served,
                        epoch: None,
                    })
                    .collect(),
                segments: String::new(),
                observations: (0..events)
                    .map(|metric| Observation {
                        metric: MetricIndex(metric % 2),
                        count: 1,
                        sum,
                        base: 0,
                        event_id: None,
                        at_ms: None,
                    })
                    .collect(),
                minted: None,
                is_new: false,
                unit: String::new(),
            },
        )
}

fn chunk(journal: usize, first: u64, records: &[OwnedRecord]) -> Chunk {
    let numbered = records
        .iter()
        .enumerate()
        .map(|(place, record)| (first + place as u64, record.clone()));
    Chunk {
        journal: format!("journal-{journal}").into(),
        records: numbered.collect(),
        declarations: [(1, Arc::new(declaration()))].into_iter().collect(),
    }
}

/// Folds these chunks one batch after the other, each sent twice, and says what came out.
async fn totals(batches: &[Vec<Chunk>]) -> (ExperimentTotals, ExperimentTotals) {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&folder.path().join("watershed.db")).unwrap();
    let mut known = AppliedCache::default();
    for name in ["one", "two"] {
        known
            .experiments
            .insert(name.to_owned(), vec![HashMap::default()]);
    }
    for chunks in batches {
        let batch = aggregate::aggregate(chunks, &known, &Buckets::new(), NOW_MS);
        for delta in &batch.deltas {
            assert_eq!(store.apply(delta).await.unwrap(), Applied::Added);
            assert_eq!(store.apply(delta).await.unwrap(), Applied::AlreadyApplied);
            known.seen.remember(delta);
            for range in &delta.ranges {
                known.experiments.get_mut(&delta.experiment).unwrap()[0]
                    .insert(range.journal.clone(), range.through);
            }
        }
        // What was given is not given again.
        assert_eq!(
            aggregate::aggregate(chunks, &known, &Buckets::new(), NOW_MS).deltas,
            []
        );
    }
    (
        store.totals("one").await.unwrap(),
        store.totals("two").await.unwrap(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn counts_do_not_depend_on_batches(
        a in proptest::collection::vec(record(), 1..30),
        b in proptest::collection::vec(record(), 1..30),
        size in 1usize..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let at_once = vec![vec![chunk(0, 1, &a), chunk(1, 1, &b)]];
        let cut = |journal: usize, records: &[OwnedRecord]| -> Vec<Chunk> {
            records.chunks(size).enumerate().map(|(place, records)| chunk(journal, 1 + (place * size) as u64, records)).collect()
        };
        let one_by_one: Vec<Vec<Chunk>> = cut(1, &b).into_iter().chain(cut(0, &a)).map(|chunk| vec![chunk]).collect();
        let (whole, pieces) = runtime.block_on(async { (totals(&at_once).await, totals(&one_by_one).await) });
        prop_assert_eq!(&whole, &pieces);
        let own = a.iter().chain(&b).filter(|record| record.exposures[0].served == Served::Own);
        let (requests, users) = own.fold((0, std::collections::BTreeSet::new()), |(requests, mut users), record| {
            users.insert(record.user.clone());
            (requests + 1, users)
        });
        let sum = |of: fn(&watershed::store::GroupTotals) -> u64| whole.0.epochs.iter().flat_map(|epoch| epoch.groups.values()).map(of).sum::<u64>();
        prop_assert_eq!(sum(|group| group.requests), requests);
        prop_assert_eq!(sum(|group| group.users), users.len() as u64);
        // Whoever is told earliest, by the clock, in which group, is counted there.
        let mut first = std::collections::BTreeMap::new();
        for record in a.iter().chain(&b).filter(|record| record.exposures[0].served == Served::Own) {
            let told = (record.at_ms, ["control", "b"][record.exposures[0].group.0]);
            first.entry(&record.user).and_modify(|first| *first = told.min(*first)).or_insert(told);
        }
        let in_b = first.values().filter(|(_, group)| *group == "b").count();
        let users_of_b = whole.0.epochs.iter().filter_map(|epoch| epoch.groups.get("b")).map(|group| group.users).sum::<u64>();
        prop_assert_eq!(users_of_b, in_b as u64);
    }
}

/// Where a minted ID and a known one lie in different shards, the join goes to the minted ID's and
/// the user to the known one's, each once.
#[test]
fn join_across_shards_is_applied_in_the_shard_of_the_minted_id() {
    let mut known = AppliedCache::default();
    let shards = vec![HashMap::default(); 5];
    known.experiments.insert("one".to_owned(), shards.clone());
    known.experiments.insert("two".to_owned(), shards);
    let home = aggregate::shard_of(b"m", 5);
    let lies = |at_home: bool| {
        let mut ids = 0_u8..=255;
        ids.find(|&id| (aggregate::shard_of(&[id], 5) == home) == at_home)
    };
    let (same, other) = (lies(true).unwrap(), lies(false).unwrap());
    let record = |at_ms, user: u8| OwnedRecord {
        at_ms,
        user: [user][..].into(),
        declaration: 1,
        status: 200,
        latency_us: 1,
        exposures: [Exposure {
            experiment: ExperimentIndex(0),
            group: GroupIndex(0),
            served: Served::Own,
            epoch: None,
        }]
        .into_iter()
        .collect(),
        segments: String::new(),
        observations: vec![],
        minted: Some(b"m".to_vec()),
        is_new: false,
        unit: String::new(),
    };
    // The earlier one comes later, and each comes twice.
    let records = [
        record(9, same),
        record(3, other),
        record(8, same),
        record(7, other),
    ];
    let chunks = [chunk(0, 1, &records)];
    let batch = aggregate::aggregate(&chunks, &known, &Buckets::new(), NOW_MS);
    let mut users = Vec::new();
    for delta in &batch.deltas {
        let joins = delta.joins.iter().map(|join| (join.known[0], join.apart));
        let joins: Vec<_> = joins.collect();
        match delta.shard as usize == home {
            true => assert_eq!(joins, [(other, true), (same, false)]),
            false => assert_eq!(joins, []),
        }
        if delta.experiment == "one" {
            users.extend(
                delta
                    .users
                    .iter()
                    .map(|user| (delta.shard as usize, user.user[0])),
            );
        }
        known.given(delta);
    }
    users.sort_unstable();
    let mut expected = [(home, same), (aggregate::shard_of(&[other], 5), other)];
    expected.sort_unstable();
    assert_eq!(users, expected);
    assert_eq!(
        aggregate::aggregate(&chunks, &known, &Buckets::new(), NOW_MS).deltas,
        []
    );
}

/// A process whose clock is 30 days ahead ends neither what is remembered nor what waits.
#[test]
fn record_from_the_future_drops_no_waiting_event() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let now_ms = 20_000 * DAY_MS;
    let mut known = AppliedCache::default();
    for name in ["one", "two"] {
        let shards = vec![HashMap::default()];
        known.experiments.insert(name.to_owned(), shards);
    }
    let record = |at_ms| OwnedRecord {
        at_ms,
        user: b"u"[..].into(),
        declaration: 1,
        status: 200,
        latency_us: 1,
        exposures: [Exposure {
            experiment: ExperimentIndex(0),
            group: GroupIndex(0),
            served: Served::Own,
            epoch: None,
        }]
        .into_iter()
        .collect(),
        segments: String::new(),
        observations: vec![],
        minted: None,
        is_new: false,
        unit: String::new(),
    };
    for (at_ms, bounded) in [
        (now_ms - DAY_MS, now_ms - DAY_MS),
        (now_ms + 30 * DAY_MS, now_ms),
        (u64::MAX, now_ms),
    ] {
        let chunks = [chunk(0, 1, &[record(at_ms)])];
        let batch = aggregate::aggregate(&chunks, &known, &Buckets::new(), now_ms);
        let delta = &batch.deltas[0];
        assert_eq!(delta.wait_from_ms, bounded - aggregate::WAIT_MS, "{at_ms}");
        assert_eq!(delta.remember_from_ms, bounded - 2 * DAY_MS, "{at_ms}");
        assert_eq!(delta.users[0].exposures[0].at_ms, at_ms);
    }
}
