//! Every store against a model: random batches, sent twice, cut short, reordered
//! between journals, give the same totals everywhere.

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use tempfile::TempDir;
use watershed::experiment::EpochDigest;
use watershed::experiment::not_counted::NotCounted;
use watershed::store::apply_semantics::CROSSED_OVER;
use watershed::store::identities::{IdentityCounts, Join};
use watershed::store::postgres::PostgresStore;
use watershed::store::redis::{RedisStore, TlsFiles, Unusable};
use watershed::store::retention;
use watershed::store::sqlite::SqliteStore;
use watershed::store::waiting::{CAME_BACK, came_back};
use watershed::store::{
    Applied, Delta, EpochDefinition, EventAt, ExposureAt, GroupTotals, JournalRange, MetricTotals,
    Store, Tally, UserDelta,
};

/// The simplest thing that could be right: every user's story kept whole, counted anew each time.
#[derive(Default)]
struct Model {
    applied: BTreeMap<String, u64>,
    users: BTreeMap<Vec<u8>, ModelUser>,
    /// Who was seen once and came back too late.
    left: Vec<ModelUser>,
    waiting: BTreeMap<Vec<u8>, Vec<EventAt>>,
    /// By minted ID: the first known ID that came with it, and whether that lies in another shard.
    claimed: BTreeMap<Vec<u8>, (Vec<u8>, bool)>,
    absorbers: BTreeSet<Vec<u8>>,
    further: BTreeSet<Vec<u8>>,
    tallies: Vec<Tally>,
    epochs: BTreeMap<u64, u64>,
    /// When an event with this ID of this user was counted.
    ids: BTreeMap<(Vec<u8>, u64), u64>,
    remember_from_ms: u64,
}

#[derive(Clone)]
struct ModelUser {
    group: String,
    epoch: u64,
    first_ms: u64,
    latency: u16,
    segments: String,
    crossed: bool,
    /// The minted ID has not come back.
    seen_once: bool,
    metrics: BTreeMap<String, ModelMetric>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelMetric {
    count: i128,
    sum: i128,
    base: i128,
    /// The lowest cap of all events.
    cap: Option<i128>,
    /// The sum from before the first exposure.
    before: Option<i128>,
}

impl ModelMetric {
    fn add(&mut self, more: &ModelMetric) {
        self.count = (self.count + more.count).min(MOST);
        self.sum = (self.sum + more.sum).clamp(-MOST, MOST);
        self.base = (self.base + more.base).clamp(-MOST, MOST);
        self.cap = match (self.cap, more.cap) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

impl ModelUser {
    /// The first exposure: the earliest one decides.
    fn place(&self) -> (u64, u64, String, u16, String) {
        let (group, segments) = (self.group.clone(), self.segments.clone());
        (self.first_ms, self.epoch, group, self.latency, segments)
    }

    /// Adds what the user brings.
    fn count(&self, group: &mut GroupTotals) {
        if self.seen_once {
            group.seen_once += 1;
            return;
        }
        group.users += 1;
        *group.first_latency.entry(self.latency).or_default() += 1;
        group.crossed_over += u64::from(self.crossed);
        for (name, of) in &self.metrics {
            let metric = group.metrics.entry(name.clone()).or_default();
            let (count, base) = (of.count, of.base);
            let over = of.cap.map_or(0, |cap| (of.sum.abs() - cap).max(0));
            let sum = of.sum.signum() * (of.sum.abs() - over);
            metric.capped += u64::from(over > 0);
            metric.cut += over;
            metric.converted += u64::from(count > 0);
            metric.count += u64::try_from(count).unwrap();
            metric.count_sq += count * count;
            metric.sum += sum;
            metric.sum_sq += sum * sum;
            metric.base += base;
            metric.base_sq += base * base;
            metric.cross += sum * base;
            if let Some(before) = of.before {
                let most = of.cap.unwrap_or(MOST);
                let before = before.clamp(-most, most);
                metric.known += 1;
                metric.known_sum += sum;
                metric.before += before;
                metric.before_sq += before * before;
                metric.before_cross += before * sum;
            }
        }
    }
}

impl ModelUser {
    /// Adds what the user brings to the wanted of the segments, and to crossovers with the same within.
    fn count_parts(&self, group: &mut GroupTotals, is_wanted: impl Fn(&str) -> bool) {
        let own = || {
            let own = self.segments.split(',').filter(|it| !it.is_empty());
            own.filter(|it| is_wanted(it))
        };
        let count = |group: &mut GroupTotals| {
            for segment in own() {
                let name = segment.trim_start_matches('+').to_owned();
                self.count(group.segments.entry(name).or_default());
            }
        };
        count(group);
        if self.crossed {
            let crossed = group.segments.entry(CROSSED_OVER.to_owned()).or_default();
            self.count(crossed);
            count(crossed);
        }
    }
}

const MOST: i128 = 1_000_000_000_000_000;

impl Model {
    fn apply(&mut self, delta: &Delta) {
        for range in &delta.ranges {
            let given = self.applied.entry(range.journal.to_string()).or_default();
            assert_eq!(*given, range.after);
            *given = range.through;
        }
        self.remember_from_ms = delta.remember_from_ms;
        self.tallies.extend(delta.tallies.iter().cloned());
        for epoch in &delta.epochs {
            let first = self.epochs.entry(epoch.digest.0).or_insert(epoch.first_ms);
            *first = (*first).min(epoch.first_ms);
        }
        for join in &delta.joins {
            self.join(join);
        }
        for delta in &delta.users {
            let mut delta = delta.clone();
            delta.user = self.root(&delta.user);
            let waiting = self.waiting.remove(&delta.user).unwrap_or_default();
            self.leave_stale(&delta.user, delta.came_back_ms.map_or(0, NonZeroU64::get));
            // What waits was brought by another request than that of an exposure of the same time.
            let of_another = |event: &EventAt| {
                let mut exposures = delta.exposures.iter();
                event.metric == CAME_BACK || exposures.all(|seen| seen.at_ms != event.reported_ms)
            };
            let is_back = delta.came_back_ms.is_some() || waiting.iter().any(of_another);
            if let Some(user) = self.users.get_mut(&delta.user) {
                user.seen_once &= !is_back;
            }
            for seen in &delta.exposures {
                let user = self
                    .users
                    .entry(delta.user.clone())
                    .or_insert_with(|| ModelUser {
                        group: seen.group.clone(),
                        epoch: seen.epoch.0,
                        first_ms: seen.at_ms,
                        latency: seen.latency,
                        segments: seen.segments.clone(),
                        crossed: false,
                        seen_once: !is_back,
                        metrics: BTreeMap::new(),
                    });
                user.crossed |= user.group != seen.group;
                let seen = (
                    seen.at_ms,
                    seen.epoch.0,
                    seen.group.clone(),
                    seen.latency,
                    seen.segments.clone(),
                );
                if seen < user.place() {
                    let metrics = user.metrics.values_mut();
                    metrics.for_each(|metric| metric.before = None);
                }
                (
                    user.first_ms,
                    user.epoch,
                    user.group,
                    user.latency,
                    user.segments,
                ) = user.place().min(seen);
            }
            let mut events: Vec<_> = waiting.iter().chain(&delta.events).cloned().collect();
            if events.is_empty()
                && !self.users.contains_key(&delta.user)
                && let Some(at_ms) = delta.came_back_ms
            {
                events.push(came_back(at_ms.get()));
            }
            self.settle(&delta.user, events);
        }
        let since = |event: &EventAt| event.reported_ms + event.covariate_ms.unwrap_or(0);
        let waits = |event: &EventAt| since(event) >= delta.wait_from_ms;
        self.waiting.retain(|_, waiting| waiting.iter().any(waits));
        self.ids.retain(|_, at_ms| *at_ms >= delta.remember_from_ms);
    }

    fn root(&self, user: &[u8]) -> Vec<u8> {
        match self.claimed.get(user) {
            Some((known, false)) => known.clone(),
            _ => user.to_vec(),
        }
    }

    /// The first known ID absorbs a minted one; others are counted.
    fn join(&mut self, join: &Join) {
        let (minted, known) = (join.minted.clone(), join.known.clone());
        if minted == known || self.claimed.contains_key(&known) {
            return;
        }
        if let Some((by, _)) = self.claimed.get(&minted) {
            if *by != known {
                self.further.insert(known);
            }
            return;
        }
        if self.absorbers.contains(&minted) || self.further.contains(&minted) {
            return;
        }
        self.claimed
            .insert(minted.clone(), (known.clone(), join.apart));
        if !join.apart {
            self.absorbers.insert(known.clone());
            for id in [&known, &minted] {
                self.leave_stale(id, join.at_ms);
            }
            self.absorb(known, minted);
        }
    }

    /// A visitor who was seen once begins anew after 30 days, and stays counted as seen once.
    fn leave_stale(&mut self, id: &[u8], back_ms: u64) {
        let stale = |user: &ModelUser| user.seen_once && back_ms > user.first_ms + 2_592_000_000;
        if self.users.get(id).is_some_and(stale) {
            self.left.extend(self.users.remove(id));
        }
    }

    /// Two users become one.
    fn absorb(&mut self, first: Vec<u8>, second: Vec<u8>) {
        let mut events = self.waiting.remove(&first).unwrap_or_default();
        events.extend(self.waiting.remove(&second).unwrap_or_default());
        let whole = match (self.users.remove(&first), self.users.remove(&second)) {
            (Some(a), Some(b)) => {
                let (mut whole, rest) = match a.place() <= b.place() {
                    true => (a, b),
                    false => (b, a),
                };
                whole.crossed |= rest.crossed || whole.group != rest.group;
                for (metric, values) in rest.metrics {
                    whole.metrics.entry(metric).or_default().add(&values);
                }
                Some(whole)
            }
            (a, b) => a.or(b),
        };
        let whole = whole.map(|whole| ModelUser {
            seen_once: false,
            ..whole
        });
        self.users.extend(whole.map(|whole| (first.clone(), whole)));
        let all = std::mem::take(&mut self.ids);
        let (theirs, others) = all.into_iter().partition(|((user, _), _)| *user == second);
        self.ids = others;
        let theirs: BTreeMap<(Vec<u8>, u64), u64> = theirs;
        for ((_, id), at_ms) in theirs {
            self.ids.entry((first.clone(), id)).or_insert(at_ms);
        }
        self.settle(&first, events);
    }

    fn settle(&mut self, user_id: &[u8], events: Vec<EventAt>) {
        for event in events {
            let user = self.users.get_mut(user_id);
            if event.metric == CAME_BACK && user.is_some() {
                continue;
            }
            let Some(user) = user.filter(|user| event.at_ms + 2_000 >= user.first_ms) else {
                let waiting = self.waiting.entry(user_id.to_vec()).or_default();
                let again = |other: &EventAt| event.id.is_some() && other.id == event.id;
                if !waiting.iter().any(again) {
                    waiting.push(event.clone());
                }
                continue;
            };
            let late = event
                .within_ms
                .is_some_and(|within| event.at_ms > user.first_ms + within);
            if late {
                continue;
            }
            if let Some(id) = event.id {
                let known = self.ids.entry((user_id.to_vec(), id)).or_default();
                if *known > 0 && *known >= self.remember_from_ms {
                    continue;
                }
                // One that is too old to be remembered counts, and is not.
                *known = event.reported_ms;
            }
            let of = user.metrics.entry(event.metric.clone()).or_default();
            of.add(&ModelMetric {
                count: event.count.into(),
                sum: event.sum.into(),
                base: event.base.into(),
                cap: event.cap.map(Into::into),
                before: None,
            });
        }
        self.sum_up_before(user_id);
    }

    /// Events that wait and were reported before the exposure are the covariate.
    fn sum_up_before(&mut self, user_id: &[u8]) {
        let (Some(user), Some(waiting)) = (self.users.get_mut(user_id), self.waiting.get(user_id))
        else {
            return;
        };
        let first_ms = user.first_ms;
        let belongs = |event: &&EventAt, name: &str| {
            let from_ms = event
                .covariate_ms
                .map(|ms| i128::from(first_ms) - i128::from(ms));
            event.metric == name
                && event.reported_ms < first_ms
                && from_ms.is_some_and(|from_ms| i128::from(event.at_ms) >= from_ms)
        };
        for name in METRICS {
            let events = waiting.iter().filter(|event| belongs(event, name));
            let mut sum = ModelMetric::default();
            for event in events {
                sum.add(&ModelMetric {
                    sum: event.sum.into(),
                    cap: event.cap.map(Into::into),
                    before: Some(0),
                    ..ModelMetric::default()
                });
                sum.before = Some(sum.sum);
            }
            if sum.before.is_some() {
                let of = user.metrics.entry(name.to_owned()).or_default();
                of.before = sum.before;
                of.add(&ModelMetric {
                    cap: sum.cap,
                    ..ModelMetric::default()
                });
            }
        }
    }

    fn identities(&self) -> IdentityCounts {
        let apart = self.claimed.values().filter(|(_, apart)| *apart).count();
        IdentityCounts {
            joined: (self.claimed.len() - apart) as u64,
            shared_devices: self.further.len() as u64,
            apart: apart as u64,
        }
    }

    /// By epoch and group.
    fn totals(&self) -> BTreeMap<(u64, String), GroupTotals> {
        let mut totals: BTreeMap<(u64, String), GroupTotals> = BTreeMap::new();
        for tally in &self.tallies {
            let group = totals
                .entry((tally.epoch.0, tally.group.clone()))
                .or_default();
            group.requests += tally.requests;
            group.fallbacks += tally.fallbacks;
            group.unfinished += tally.unfinished;
            for (&why, &count) in &tally.not_counted {
                *group.not_counted.entry(why).or_default() += count;
            }
            for (sum, count) in group.classes.iter_mut().zip(tally.classes) {
                *sum += count;
            }
            for (&bucket, &count) in &tally.latency {
                *group.latency.entry(bucket).or_default() += count;
            }
        }
        for user in self.users.values().chain(&self.left) {
            let group = totals.entry((user.epoch, user.group.clone())).or_default();
            user.count(group);
            user.count_parts(group, |_| true);
        }
        totals.values_mut().for_each(drop_zeros);
        totals.retain(|_, group| *group != GroupTotals::default());
        totals
    }

    /// By hour, epoch and group: what users brought.
    fn hours(&self) -> BTreeMap<(u64, u64, String), GroupTotals> {
        let mut hours: BTreeMap<_, GroupTotals> = BTreeMap::new();
        for user in self.users.values().chain(&self.left) {
            let key = (user.first_ms / HOUR_MS, user.epoch, user.group.clone());
            let hour = hours.entry(key).or_default();
            user.count(hour);
            user.count_parts(hour, |segment| segment.starts_with('+'));
        }
        hours.values_mut().for_each(|hour| {
            drop_latencies(hour);
            drop_zeros(hour);
        });
        hours.retain(|_, hour| *hour != GroupTotals::default());
        hours
    }
}

const HOUR_MS: u64 = 3_600_000;

/// A metric that is all zero says nothing, whether it stands there or not.
fn drop_zeros(group: &mut GroupTotals) {
    group
        .metrics
        .retain(|_, metric| *metric != MetricTotals::default());
    group.segments.values_mut().for_each(drop_zeros);
    group
        .segments
        .retain(|_, part| *part != GroupTotals::default());
}

/// Latencies are not counted by hour.
fn drop_latencies(group: &mut GroupTotals) {
    group.first_latency.clear();
    group.segments.values_mut().for_each(drop_latencies);
}

const EPOCHS: [u64; 2] = [7, 0xffff_0000_0000_0001];
const GROUPS: [&str; 3] = ["control", "b.1", "c-2"];
const METRICS: [&str; 3] = ["purchase", "revenue", "r"];

fn exposure() -> impl Strategy<Value = ExposureAt> {
    (
        // Equal times are not rare.
        prop_oneof![4 => 0u64..20_000, 1 => Just(7), 1 => HOUR_MS..HOUR_MS + 9_000],
        0usize..2,
        prop_oneof![8 => Just(0usize), 1 => Just(1), 1 => Just(2)],
        0u16..3,
        prop_oneof![
            Just(""),
            Just("d=x"),
            Just("d=y,plan=a.1"),
            Just("d=x,plan=b"),
            // These are also counted by hour.
            Just("+d=x,+plan=b"),
            Just("+d=y")
        ],
    )
        .prop_map(|(at_ms, epoch, group, latency, segments)| ExposureAt {
            at_ms,
            epoch: EpochDigest(EPOCHS[epoch]),
            group: GROUPS[group].to_owned(),
            latency,
            segments: segments.to_owned(),
        })
}

fn event() -> impl Strategy<Value = EventAt> {
    let value = prop_oneof![6 => -5_000i64..5_000, 1 => Just(1_000_000_000_000), 1 => Just(999_999_999_999_999), 1 => Just(-999_999_999_999_999)];
    (
        1u64..30_000,
        0usize..3,
        proptest::option::of(0u64..10_000),
        0u64..4,
        value,
        -3i64..9,
        proptest::option::of(0u64..5),
        prop_oneof![4 => Just(None), 2 => (1i64..8_000).prop_map(Some), 1 => Just(Some(900_000_000_000_000))],
        proptest::option::of(1u64..15_000),
    )
        .prop_map(|(at_ms, metric, within_ms, count, sum, base, id, cap, covariate_ms)| EventAt {
            at_ms,
            // Some carry a time of their own, and were reported later.
            reported_ms: at_ms + [0, 7_000][metric % 2],
            metric: METRICS[metric].to_owned(),
            within_ms,
            cap,
            covariate_ms,
            count,
            sum,
            base,
            id,
        })
}

/// When an ID comes back. Some do about when visitors who were seen once are forgotten.
fn back_ms() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1u64..20_000, 1 => 2_592_000_000u64..2_592_025_000]
}

fn user() -> impl Strategy<Value = UserDelta> {
    let id = prop_oneof![
        5 => "[a-e]".prop_map(String::into_bytes),
        1 => Just(b"\x00\xff |:{}\n\"".to_vec()),
        1 => Just("ü".repeat(200).into_bytes()),
    ];
    let came_back = proptest::option::weighted(0.8, back_ms());
    let all = (id, came_back, vec(exposure(), 0..3), vec(event(), 0..4));
    all.prop_map(|(user, came_back_ms, exposures, events)| UserDelta {
        user,
        came_back_ms: came_back_ms.and_then(NonZeroU64::new),
        exposures,
        events,
    })
}

fn tally() -> impl Strategy<Value = Tally> {
    (0usize..2, 0usize..3, 0u64..3, 0u64..9, 0u64..9).prop_map(
        |(epoch, group, hour, requests, slow)| Tally {
            epoch: EpochDigest(EPOCHS[epoch]),
            group: GROUPS[group].to_owned(),
            hour,
            requests,
            classes: [0, requests, 0, 0, slow],
            fallbacks: slow,
            unfinished: slow / 2,
            not_counted: [(NotCounted::ALL[hour as usize], requests + 1)].into(),
            latency: BTreeMap::from([(1 + 100 * slow, requests + 1), (5, 1)]),
        },
    )
}

/// A delta's content, and what happens around it: which journal, sent again, sent as if something
/// were missing.
type Step = (Vec<UserDelta>, Vec<Tally>, usize, bool, bool, Vec<Join>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        (
            vec(user(), 0..6),
            vec(tally(), 0..3),
            0usize..3,
            any::<bool>(),
            any::<bool>(),
            vec(
                ("[a-g]", "[a-e]", proptest::bool::weighted(0.1), back_ms()).prop_map(
                    |(a, b, apart, at_ms)| Join {
                        at_ms,
                        minted: a.into_bytes(),
                        known: b.into_bytes(),
                        apart,
                    },
                ),
                0..4,
            ),
        ),
        1..8,
    )
}

fn part_of(step: &Step, number: u64, model: &Model) -> Delta {
    let (users, tallies, journal, _, _, joins) = step;
    let mut users = users.clone();
    users.sort_by(|a, b| a.user.cmp(&b.user));
    users.dedup_by(|a, b| a.user == b.user);
    let definition = |digest| EpochDefinition {
        digest: EpochDigest(digest),
        traffic: 0.25,
        groups: GROUPS
            .iter()
            .map(|name| ((*name).to_owned(), 1.5))
            .collect(),
        first_ms: 1000 - number,
        series: vec!["m~0000002a".to_owned()],
    };
    let journal: Arc<str> = format!("journal-{journal}").into();
    let after = model.applied.get(&*journal).copied().unwrap_or(0);
    Delta {
        experiment: "exp.1".to_owned(),
        shard: 0,
        ranges: vec![JournalRange {
            journal,
            after,
            through: after + 1 + number,
        }],
        epochs: EPOCHS.iter().map(|&digest| definition(digest)).collect(),
        joins: joins.clone(),
        users,
        tallies: tallies.clone(),
        wait_from_ms: 2_000 * number,
        forgotten: 0,
        remember_from_ms: 3_000 * number,
    }
}

async fn play(store: &dyn Store, steps: &[Step]) {
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let delta = part_of(step, number as u64, &model);
        let &(_, _, _, again, gap, _) = step;
        if gap {
            let mut ahead = delta.clone();
            ahead.ranges[0].after += 500;
            ahead.ranges[0].through += 500;
            let has = vec![(delta.ranges[0].journal.clone(), delta.ranges[0].after)];
            assert_eq!(
                store.apply(&ahead).await.unwrap(),
                Applied::PositionMismatch(has)
            );
        }
        assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
        model.apply(&delta);
        if again {
            assert_eq!(store.apply(&delta).await.unwrap(), Applied::AlreadyApplied);
        }
    }
    let mut found = BTreeMap::new();
    let totals = store.totals("exp.1").await.unwrap();
    assert!(totals.epochs.is_sorted_by_key(|epoch| epoch.number));
    for epoch in &totals.epochs {
        assert_eq!(
            epoch.definition.first_ms,
            model.epochs[&epoch.definition.digest.0]
        );
        assert_eq!(
            (epoch.definition.traffic, epoch.definition.groups[2].1),
            (0.25, 1.5)
        );
        assert_eq!(epoch.definition.series, ["m~0000002a"]);
        for (name, group) in &epoch.groups {
            let mut group = group.clone();
            group
                .metrics
                .retain(|_, metric| *metric != MetricTotals::default());
            if group != GroupTotals::default() {
                found.insert((epoch.definition.digest.0, name.clone()), group);
            }
        }
    }
    assert_eq!(found, model.totals(), "{} totals", store.kind());
    assert_eq!(totals.identities, model.identities(), "{}", store.kind());
    hours_add_up(store, &model).await;
    for id in model.claimed.keys() {
        let counted = store.user("exp.1", &model.root(id)).await.unwrap();
        assert_eq!(store.user("exp.1", id).await.unwrap(), counted);
    }
    for (id, user) in &model.users {
        let record = store.user("exp.1", id).await.unwrap().unwrap();
        assert_eq!(
            (
                &record.group,
                record.epoch.0,
                record.first_ms,
                record.crossed_over
            ),
            (&user.group, user.epoch, user.first_ms, user.crossed)
        );
        let metrics = record.metrics.iter().map(|(name, of)| {
            let of = ModelMetric {
                count: of.count.into(),
                sum: of.sum.into(),
                base: of.base.into(),
                cap: of.cap.map(Into::into),
                before: of.before.map(Into::into),
            };
            (name.clone(), of)
        });
        assert_eq!(
            metrics.collect::<BTreeMap<_, _>>(),
            user.metrics,
            "{} user",
            store.kind()
        );
    }
    assert_eq!(store.user("exp.1", b"nobody").await.unwrap(), None);
}

/// What is counted by hour is what is counted.
async fn hours_add_up(store: &dyn Store, model: &Model) {
    let mut found = BTreeMap::new();
    let mut requests = BTreeMap::<(u64, String), u64>::new();
    for hour in store.hours("exp.1").await.unwrap() {
        let key = (hour.epoch.0, hour.group.clone());
        *requests.entry(key).or_default() += hour.totals.requests;
        let mut totals = GroupTotals {
            requests: 0,
            classes: [0; 5],
            fallbacks: 0,
            unfinished: 0,
            not_counted: BTreeMap::new(),
            ..hour.totals
        };
        drop_zeros(&mut totals);
        if totals != GroupTotals::default() {
            found.insert((hour.hour, hour.epoch.0, hour.group), totals);
        }
    }
    assert_eq!(found, model.hours(), "{} hours", store.kind());
    for (key, group) in model.totals() {
        let requests = requests.get(&key).copied().unwrap_or_default();
        assert_eq!(requests, group.requests, "{} hours", store.kind());
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn against_the_model(cases: u32, check: impl Fn(&[Step])) {
    // The same cases in every run: what fails once fails again.
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    runner
        .run(&steps(), |steps| {
            check(&steps);
            Ok(())
        })
        .unwrap();
}

#[test]
fn sqlite_equals_the_model() {
    let runtime = runtime();
    against_the_model(60, |steps| {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(&folder.path().join("watershed.db")).unwrap();
        runtime.block_on(play(&store, steps));
    });
}

#[test]
fn postgres_equals_the_model() {
    let (postgres, runtime) = (Postgres::start(), runtime());
    against_the_model(60, |steps| {
        postgres
            .sql("DROP SCHEMA IF EXISTS watershed CASCADE")
            .unwrap();
        runtime.block_on(play(&shop(&postgres), steps));
    });
}

/// The store in the database of the tests.
pub fn shop(postgres: &Postgres) -> PostgresStore {
    PostgresStore::at(&postgres.url(), TlsFiles::default(), "watershed").unwrap()
}

#[test]
fn redis_equals_the_model() {
    redis_like_the_model(&Redis::start(), 150);
}

#[test]
fn valkey_equals_the_model() {
    redis_like_the_model(&Redis::valkey(), 40);
}

fn redis_like_the_model(redis: &Redis, cases: u32) {
    let runtime = runtime();
    against_the_model(cases, |steps| {
        redis.command(&["FLUSHALL"]).unwrap();
        runtime.block_on(async {
            let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws")
                .await
                .unwrap();
            store.shards("exp.1").await.unwrap();
            play(&store, steps).await;
        });
    });
}

pub fn one_user(number: u64) -> Delta {
    let exposed = ExposureAt {
        at_ms: 1,
        epoch: EpochDigest(7),
        group: "control".to_owned(),
        latency: 9,
        segments: String::new(),
    };
    let step: Step = (
        vec![UserDelta {
            user: vec![number as u8],
            came_back_ms: NonZeroU64::new(1),
            exposures: vec![exposed],
            events: vec![],
        }],
        vec![],
        0,
        false,
        false,
        vec![],
    );
    let mut model = Model::default();
    model.applied.insert("journal-0".to_owned(), number);
    let mut delta = part_of(&step, 0, &model);
    delta.epochs.truncate(1);
    delta
}

pub async fn users(store: &dyn Store) -> u64 {
    let totals = store.totals("exp.1").await.unwrap();
    totals
        .epochs
        .iter()
        .flat_map(|epoch| epoch.groups.values())
        .map(|group| group.users)
        .sum()
}

/// To the millisecond: what comes too early, in time, and too late.
async fn bounds_are_exact(store: &dyn Store) {
    store.shards("exp.1").await.unwrap();
    let exposure = ExposureAt {
        at_ms: 10_000,
        epoch: EpochDigest(7),
        group: "control".to_owned(),
        latency: 9,
        segments: String::new(),
    };
    let events = [
        (7_999, None, 1),
        (8_000, None, 10),
        (15_000, Some(5_000), 100),
        (15_001, Some(5_000), 1_000),
    ];
    let event = |(at_ms, within_ms, sum)| EventAt {
        at_ms,
        reported_ms: at_ms,
        metric: "m".to_owned(),
        within_ms,
        cap: None,
        covariate_ms: None,
        count: 1,
        sum,
        base: 0,
        id: None,
    };
    let user = UserDelta {
        user: b"u".to_vec(),
        came_back_ms: NonZeroU64::new(1),
        exposures: vec![exposure],
        events: events.map(event).to_vec(),
    };
    let delta = part_of(
        &(vec![user], vec![], 0, false, false, vec![]),
        0,
        &Model::default(),
    );
    assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
    let record = store.user("exp.1", b"u").await.unwrap().unwrap();
    let of = record.metrics["m"];
    assert_eq!((of.count, of.sum), (2, 110), "{}", store.kind());
}

/// Users of what is over are forgotten in time, and its counts are kept.
async fn retention_is_kept(store: &dyn Store) {
    const HOUR: u64 = 3_600_000;
    store.shards("exp.1").await.unwrap();
    let mut delta = one_user(0);
    delta.tallies = vec![Tally {
        epoch: EpochDigest(7),
        group: "control".to_owned(),
        hour: 0,
        requests: 1,
        classes: [0, 1, 0, 0, 0],
        fallbacks: 0,
        unfinished: 0,
        not_counted: BTreeMap::new(),
        latency: BTreeMap::new(),
    }];
    assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
    let kept = std::time::Duration::from_secs(7200);
    let is_known = async || store.user("exp.1", &[0]).await.unwrap().is_some();
    let running = ["exp.1".to_owned()];
    let sweep = async |running: &[String], now_ms| {
        retention::sweep(store, kept, running, now_ms)
            .await
            .unwrap()
    };
    assert_eq!(sweep(&running, 100 * HOUR).await, [""; 0]);
    // The hour of the last answer ends at 1, and two more are kept.
    assert_eq!(sweep(&[], 3 * HOUR - 1).await, [""; 0]);
    assert!(is_known().await, "{}", store.kind());
    assert_eq!(sweep(&[], 3 * HOUR).await, ["exp.1"]);
    assert!(!is_known().await, "{}", store.kind());
    assert_eq!(users(store).await, 1, "{}", store.kind());
}

#[test]
fn users_expire_in_every_store() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    runtime().block_on(async {
        retention_is_kept(&SqliteStore::open(&folder.path().join("watershed.db")).unwrap()).await;
        let url = redis.url();
        let connecting = RedisStore::connect(&url, TlsFiles::default(), "ws");
        retention_is_kept(&connecting.await.unwrap()).await;
        retention_is_kept(&shop(&Postgres::start())).await;
    });
}

#[test]
fn early_and_late_events_are_distinguished_in_every_store() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    runtime().block_on(async {
        bounds_are_exact(&SqliteStore::open(&folder.path().join("watershed.db")).unwrap()).await;
        bounds_are_exact(
            &RedisStore::connect(&redis.url(), TlsFiles::default(), "ws")
                .await
                .unwrap(),
        )
        .await;
        bounds_are_exact(&shop(&Postgres::start())).await;
    });
}

#[test]
fn redis_that_lost_data_is_noticed() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    runtime().block_on(async {
        let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws")
            .await
            .unwrap();
        store.shards("exp.1").await.unwrap();
        assert_eq!(store.apply(&one_user(0)).await.unwrap(), Applied::Added);
        redis.kill();
        assert!(store.apply(&one_user(1)).await.is_err());
        redis.up();
        // The script is not known to it any more; the counts are.
        let mut tried = store.apply(&one_user(1)).await;
        for _ in 0..50 {
            if tried.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            tried = store.apply(&one_user(1)).await;
        }
        assert!(matches!(
            tried.unwrap(),
            Applied::Added | Applied::AlreadyApplied
        ));
        assert_eq!(users(&store).await, 2);
        redis.command(&["FLUSHALL"]).unwrap();
        let has = vec![("journal-0".into(), 0)];
        assert_eq!(
            store.apply(&one_user(2)).await.unwrap(),
            Applied::PositionMismatch(has)
        );
    });
}

#[test]
fn read_only_redis_gets_no_partial_delta() {
    let redis = Redis::start();
    runtime().block_on(async {
        let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws")
            .await
            .unwrap();
        store.shards("exp.1").await.unwrap();
        store.apply(&one_user(0)).await.unwrap();
        for (break_it, mend_it) in [
            (
                ["CONFIG", "SET", "maxmemory", "1"],
                ["CONFIG", "SET", "maxmemory", "0"],
            ),
            (
                ["CONFIG", "SET", "min-replicas-to-write", "1"],
                ["CONFIG", "SET", "min-replicas-to-write", "0"],
            ),
        ] {
            let next = one_user(users(&store).await);
            redis.command(&break_it).unwrap();
            assert!(store.apply(&next).await.is_err(), "{break_it:?}");
            redis.command(&mend_it).unwrap();
            assert_eq!(
                store.apply(&next).await.unwrap(),
                Applied::Added,
                "{break_it:?}: something was written"
            );
        }
    });
}

#[test]
fn unusable_redis_is_an_error() {
    let guarded = Redis::with(&["--requirepass", "sesame"]);
    let not_redis = crate::support::origin::Origin::start("site");
    runtime().block_on(async {
        let refused = |url: String| async move {
            RedisStore::connect(&url, TlsFiles::default(), "ws")
                .await
                .err()
        };
        assert!(matches!(
            refused(guarded.url()).await,
            Some(Unusable::Password(_))
        ));
        let wrong = format!("redis://:wrong@{}", guarded.address);
        assert!(matches!(refused(wrong).await, Some(Unusable::Password(_))));
        let right = format!("redis://:sesame@{}", guarded.address);
        assert!(refused(right).await.is_none());
        let other = refused(format!("redis://{}", not_redis.address)).await;
        assert!(matches!(other, Some(Unusable::NotRedis(_))), "{other:?}");
        assert!(matches!(
            refused("redis://".to_owned()).await,
            Some(Unusable::Address(_))
        ));
    });
}

#[test]
fn file_that_is_no_store_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("watershed.db");
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at as one",
    )
    .unwrap();
    assert!(SqliteStore::open(&path).is_err());
    let newer = folder.path().join("newer.db");
    rusqlite::Connection::open(&newer)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(
        SqliteStore::open(&newer)
            .unwrap_err()
            .to_string()
            .contains("99")
    );
}

/// The work of a script must not depend on what clients sent earlier. Chains of IDs as 0.1.0 could be
/// made to keep them, and the joins of somebody who tries to make them now.
#[test]
fn work_of_scripts_does_not_grow_with_earlier_events() {
    const LONG: usize = 22_000;
    const USERS: usize = 1_000;
    let redis = Redis::start();
    let users = |ids: &dyn Fn(usize) -> String| -> Vec<UserDelta> {
        let user = |number| UserDelta {
            user: ids(number).into_bytes(),
            came_back_ms: NonZeroU64::new(1),
            exposures: vec![ExposureAt {
                at_ms: 5,
                epoch: EpochDigest(7),
                group: "control".to_owned(),
                latency: 9,
                segments: String::new(),
            }],
            events: vec![],
        };
        (0..USERS).map(user).collect()
    };
    let joins = |pairs: &dyn Fn(usize) -> (String, String), count: usize| -> Vec<Join> {
        let join = |number| {
            let (minted, known) = pairs(number);
            Join {
                at_ms: 1,
                minted: minted.into_bytes(),
                known: known.into_bytes(),
                apart: false,
            }
        };
        (0..count).map(join).collect()
    };
    let name = |number: usize| format!("c{:07}", number % LONG);
    runtime().block_on(async {
        let store = RedisStore::connect(&redis.url(), TlsFiles::default(), "ws")
            .await
            .unwrap();
        store.shards("exp.1").await.unwrap();
        let mut model = Model::default();
        let mut apply = async |users: Vec<UserDelta>, joins: Vec<Join>| -> u64 {
            let step = (users, vec![], 0, false, false, joins);
            let delta = part_of(&step, 0, &model);
            redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
            assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
            let through = delta.ranges[0].through;
            model.applied.insert("journal-0".to_owned(), through);
            commands(&redis)
        };
        let plain = |number| format!("plain-{number:07}");
        let plain_work = apply(users(&plain), vec![]).await;
        // Each ID leads to the next one, as 0.1.0 kept them.
        let chain = "for i = 0, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], string.format('c%07d', i), string.format('c%07d', i + 1)) end";
        let long = (LONG - 1).to_string();
        redis
            .command(&["EVAL", chain, "1", "ws:{exp.1:0}:aliases", &long])
            .unwrap();
        let old = apply(users(&name), vec![]).await;
        // The same, tried now: every minted ID is given for the known one of the next.
        let link = |number| (name(number + 1), name(number));
        let mut tried = 0;
        for start in (0..LONG).step_by(USERS) {
            let delta = joins(&|number| link(start + number), USERS);
            tried = tried.max(apply(vec![], delta).await);
        }
        let after = apply(users(&name), joins(&link, USERS)).await;
        for (what, work) in [("old", old), ("tried", tried), ("after", after)] {
            assert!(work < 20 * plain_work, "{what}: {work}, and {plain_work} without them");
        }
    });
}

/// How many commands Redis has run since the last reset, those of scripts included.
fn commands(redis: &Redis) -> u64 {
    let client = ::redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut info = ::redis::cmd("INFO");
    let text: String = info.arg("commandstats").query(&mut connection).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (_, counts) = line.split_once(":calls=")?;
        counts.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}

/// What 0.1.0 joined stays joined, whatever it has left: also where IDs lead in a circle.
#[test]
fn old_aliases_are_followed_and_forgotten_in_both_stores() {
    const OLD: [(&str, &str); 4] = [("uid", "m1"), ("m1", "m2"), ("x", "y"), ("y", "x")];
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    let path = folder.path().join("watershed.db");
    runtime().block_on(async {
        let embedded = SqliteStore::open(&path).unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        let url = redis.url();
        let connecting = RedisStore::connect(&url, TlsFiles::default(), "ws");
        let shared = connecting.await.unwrap();
        for (id, first) in OLD {
            let sql = "INSERT INTO aliases VALUES ('exp.1', CAST(? AS BLOB), CAST(? AS BLOB))";
            file.execute(sql, [id, first]).unwrap();
            let words = ["HSET", "ws:{exp.1:0}:aliases", id, first];
            redis.command(&words).unwrap();
        }
        old_aliases(&embedded).await;
        old_aliases(&shared).await;
        let sql =
            "SELECT count(*) FROM aliases WHERE user IN (CAST('uid' AS BLOB), CAST('m1' AS BLOB))";
        let left: i64 = file.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
        let left = redis.command(&["HMGET", "ws:{exp.1:0}:aliases", "uid", "m1"]);
        assert_eq!(left.unwrap(), "array([nil, nil])");
    });
}

async fn old_aliases(store: &dyn Store) {
    store.shards("exp.1").await.unwrap();
    let user = |id: &str, group: &str, at_ms| UserDelta {
        user: id.as_bytes().to_vec(),
        came_back_ms: NonZeroU64::new(1),
        exposures: vec![ExposureAt {
            at_ms,
            epoch: EpochDigest(7),
            group: group.to_owned(),
            latency: 9,
            segments: String::new(),
        }],
        events: vec![],
    };
    let join = |minted: &str, known: &str| Join {
        at_ms: 1,
        minted: minted.as_bytes().to_vec(),
        known: known.as_bytes().to_vec(),
        apart: false,
    };
    let mut model = Model::default();
    let mut apply = async |users: Vec<UserDelta>, joins: Vec<Join>| {
        let step = (users, vec![], 0, false, false, joins);
        let delta = part_of(&step, 0, &model);
        assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
        let through = delta.ranges[0].through;
        model.applied.insert("journal-0".to_owned(), through);
    };
    apply(
        vec![user("m2", "control", 5), user("x", "control", 5)],
        vec![],
    )
    .await;
    apply(
        vec![user("uid", "control", 6), user("new", "b.1", 4)],
        vec![],
    )
    .await;
    assert_eq!(users(store).await, 3, "{}", store.kind());
    // A minted ID moves to where the known one is kept.
    apply(
        vec![user("new", "b.1", 9)],
        vec![join("new", "uid"), join("new", "x")],
    )
    .await;
    assert_eq!(users(store).await, 2, "{}", store.kind());
    let known = async |id: &[u8]| store.user("exp.1", id).await.unwrap();
    let record = known(b"uid").await.unwrap();
    assert_eq!((record.first_ms, record.crossed_over), (4, true));
    for id in [&b"m1"[..], b"m2", b"new"] {
        assert_eq!(known(id).await.as_ref(), Some(&record), "{}", store.kind());
    }
    let totals = store.totals("exp.1").await.unwrap();
    assert_eq!(totals.identities.values(), [1, 1, 0]);
    assert!(store.forget_user("exp.1", b"uid", 0).await.unwrap());
    assert!(!store.forget_user("exp.1", b"m1", 0).await.unwrap());
    assert_eq!(users(store).await, 1, "{}", store.kind());
}

/// A crossover whom an earlier version counted by no hour, and whom it did not divide by segment, stays counted
/// so until all of the user's counts move.
#[test]
fn crossovers_of_earlier_versions_are_taken_out_as_they_were_counted() {
    let (folder, redis) = (TempDir::new().unwrap(), Redis::start());
    let path = folder.path().join("watershed.db");
    runtime().block_on(async {
        let embedded = SqliteStore::open(&path).unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        old_crossover(&embedded, || {
            file.execute_batch(
                "UPDATE users SET record = replace(record, '+~', '~');
                 DELETE FROM totals WHERE field LIKE '%|s:~crossed=yes:s:%';
                 DELETE FROM hours WHERE field LIKE '%|s:~crossed=yes:%';",
            )
            .unwrap();
        })
        .await;
        let url = redis.url();
        let connecting = RedisStore::connect(&url, TlsFiles::default(), "ws");
        let script = "local user = redis.call('HGET', KEYS[1], 'u'):gsub('%+~', '~')
            redis.call('HSET', KEYS[1], 'u', user)
            for key, text in pairs({[KEYS[2]] = '|s:~crossed=yes:s:', [KEYS[3]] = '|s:~crossed=yes:'}) do
              for _, field in ipairs(redis.call('HKEYS', key)) do
                if field:find(text, 1, true) then redis.call('HDEL', key, field) end
              end
            end";
        old_crossover(&connecting.await.unwrap(), || {
            let keys = ["users", "totals", "hours"].map(|key| format!("ws:{{exp.1:0}}:{key}"));
            let words = ["EVAL", script, "3", &keys[0], &keys[1], &keys[2]];
            redis.command(&words).unwrap();
        })
        .await;
    });
}

async fn old_crossover(store: &dyn Store, make_old: impl FnOnce()) {
    store.shards("exp.1").await.unwrap();
    let seen = |at_ms, group: &str| ExposureAt {
        at_ms,
        epoch: EpochDigest(7),
        group: group.to_owned(),
        latency: 9,
        segments: "d=x".to_owned(),
    };
    let event = EventAt {
        at_ms: 30,
        reported_ms: 30,
        metric: "m".to_owned(),
        within_ms: None,
        cap: None,
        covariate_ms: None,
        count: 1,
        sum: 5,
        base: 0,
        id: None,
    };
    let mut model = Model::default();
    let mut apply = async |exposures: Vec<ExposureAt>, events: Vec<EventAt>| {
        let user = UserDelta {
            user: b"u".to_vec(),
            came_back_ms: NonZeroU64::new(1),
            exposures,
            events,
        };
        let step = (vec![user], vec![], 0, false, false, vec![]);
        let delta = part_of(&step, 0, &model);
        assert_eq!(store.apply(&delta).await.unwrap(), Applied::Added);
        let through = delta.ranges[0].through;
        model.applied.insert("journal-0".to_owned(), through);
    };
    let crossed = async || {
        let totals = store.totals("exp.1").await.unwrap();
        let group = &totals.epochs[0].groups["control"];
        assert_eq!(group.users, 1);
        let part = &group.segments[CROSSED_OVER];
        let by_hour = store.hours("exp.1").await.unwrap();
        let by_hour = by_hour[0].totals.segments.contains_key(CROSSED_OVER);
        (
            part.metrics.contains_key("m"),
            part.segments.contains_key("d=x"),
            by_hour,
        )
    };
    apply(vec![seen(10, "control"), seen(20, "b.1")], vec![]).await;
    assert_eq!(crossed().await, (false, true, true), "{}", store.kind());
    make_old();
    apply(vec![], vec![event]).await;
    assert_eq!(crossed().await, (true, false, false), "{}", store.kind());
    apply(vec![seen(5, "control")], vec![]).await;
    assert_eq!(crossed().await, (true, true, true), "{}", store.kind());
    assert!(store.forget_user("exp.1", b"u", 0).await.unwrap());
    let totals = store.totals("exp.1").await.unwrap();
    assert!(
        totals.epochs.iter().all(|epoch| epoch.groups.is_empty()),
        "{totals:?}"
    );
    assert_eq!(store.hours("exp.1").await.unwrap(), []);
    assert_eq!(store.damaged_records(), 0, "{}", store.kind());
}
