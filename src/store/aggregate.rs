//! Aggregates records into deltas. PURE: the same chunks and the same positions give the same batch.

use super::applied_cache::{AppliedCache, SeenUsers};
use super::apply_semantics::{USER_MAX, counted_segments};
use super::buckets::Buckets;
use super::event_ids;
use super::forgotten::ForgottenUsers;
use super::identities::Join;
use super::phases::Placement;
use super::{
    Batch, Delta, EpochDefinition, EventAt, ExposureAt, Forget, JournalId, JournalRange, Tally,
    UserDelta,
};
use crate::experiment::assign::murmur3_32;
use crate::experiment::latency_bucket;
use crate::experiment::record::{Declaration, DeclaredExperiment, Exposure, Served};
use crate::experiment::{EpochDigest, ExperimentIndex, GroupIndex};
use crate::journal::{Chunk, OwnedRecord};
use foldhash::fast::RandomState;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

/// How long an event waits for its user's exposure: longer than most outages of a replica that
/// has the exposure in its journal.
pub const WAIT_MS: u64 = 3_600_000;

/// What records of a declaration concern.
#[derive(Debug, Default)]
pub struct Concerned {
    /// Places of experiments that users were exposed to.
    pub exposed: BTreeSet<usize>,
    /// Places of experiments that requests took part in, exposed or not.
    seen: BTreeSet<usize>,
    /// Places of metrics that were observed.
    observed: BTreeSet<usize>,
    /// Whether minted IDs came with known ones, or came back.
    minted: bool,
}

impl Concerned {
    /// Whether anything is to be counted for an experiment.
    pub fn has(&self, place: usize, experiment: &DeclaredExperiment) -> bool {
        let observed = || {
            experiment
                .metrics
                .iter()
                .any(|it| self.observed.contains(it))
        };
        self.seen.contains(&place) || experiment.running && (self.minted || observed())
    }
}

/// What the records of some chunks concern, by declaration.
pub fn concerned(chunks: &[Chunk]) -> BTreeMap<u64, Concerned> {
    let mut all = BTreeMap::<u64, Concerned>::new();
    for (_, record) in chunks.iter().flat_map(|chunk| &chunk.records) {
        let concerned = all.entry(record.declaration).or_default();
        for exposure in &record.exposures {
            concerned.seen.insert(exposure.experiment.0);
            if exposure.served == Served::Own {
                concerned.exposed.insert(exposure.experiment.0);
            }
        }
        let observed = record.observations.iter().map(|seen| seen.metric.0);
        concerned.observed.extend(observed);
        concerned.minted |= record.minted.is_some() || only_came_back(record);
    }
    all
}

/// Aggregates chunks into what the store does not have yet. `now_ms` bounds the times of the records,
/// so that a record of a wrong clock makes nothing expire early.
pub fn aggregate(chunks: &[Chunk], cache: &AppliedCache, buckets: &Buckets, now_ms: u64) -> Batch {
    let mut aggregation = Aggregation {
        cache,
        buckets,
        now_ms,
        deltas: BTreeMap::new(),
        forget: Vec::new(),
    };
    for chunk in chunks {
        let mut declared: Option<Declared<'_>> = None;
        for (sequence, record) in &chunk.records {
            // Most records refer to the same plan as the record before.
            if declared.as_ref().map(Declared::digest) != Some(record.declaration) {
                let found = chunk.declarations.get(&record.declaration);
                declared = found.map(|declaration| Declared::new(declaration, cache, chunk));
            }
            if let Some(declared) = &declared {
                aggregation.add(&chunk.journal, *sequence, declared, record);
            }
        }
    }
    Batch {
        deltas: aggregation
            .deltas
            .into_values()
            .map(DeltaBuilder::finish)
            .collect(),
        forget: aggregation.forget,
    }
}

/// Returns the shard of a user.
pub fn shard_of(user: &[u8], shards: usize) -> usize {
    match shards {
        0 | 1 => 0,
        _ => murmur3_32(user) as usize % shards,
    }
}

/// A declaration and what is known of its experiments, looked up once and not for each record.
struct Declared<'a> {
    declaration: &'a Declaration,
    experiments: Vec<CachedExperiment<'a>>,
}

/// An experiment of a declaration.
struct CachedExperiment<'a> {
    /// Where its counts stand; `None` for its first phase.
    placement: Option<&'a Placement>,
    /// The key of its phase.
    key: &'a str,
    /// The epoch of users who come now.
    epoch: EpochDigest,
    /// Whether a metric has a window.
    has_windows: bool,
    /// What each of its shards was given of the journal before.
    given: Vec<u64>,
    /// The forgotten users of each shard.
    forgotten: &'a [ForgottenUsers],
}

impl<'a> Declared<'a> {
    fn new(declaration: &'a Declaration, cache: &'a AppliedCache, chunk: &Chunk) -> Declared<'a> {
        let experiments = declaration.experiments.iter().enumerate();
        let experiments = experiments.map(|(place, experiment)| {
            let placement = cache.placements.get(&(declaration.digest, place));
            let key = placement.map_or(&*experiment.name, |placement| &*placement.key);
            let shards = cache.experiments.get(key);
            let given = shards.into_iter().flatten();
            let through = given.map(|given| given.get(&chunk.journal).copied().unwrap_or(0));
            let forgotten = cache.forgotten.get(key);
            let epoch = experiment.epoch;
            let metrics = experiment.metrics.iter();
            let mut metrics = metrics.filter_map(|&place| declaration.metrics.get(place));
            CachedExperiment {
                has_windows: metrics.any(|metric| metric.within_ms.is_some()),
                placement,
                key,
                epoch: placement.map_or(epoch, |placement| placement.epoch(epoch)),
                given: through.collect(),
                forgotten: forgotten.map_or(&[], Vec::as_slice),
            }
        });
        Declared {
            declaration,
            experiments: experiments.collect(),
        }
    }

    fn digest(&self) -> u64 {
        self.declaration.digest
    }
}

impl CachedExperiment<'_> {
    /// What the store calls a metric.
    fn series_of<'m>(&'m self, metric: &'m str) -> &'m str {
        let placement = self.placement;
        placement.map_or(metric, |placement| placement.series_of(metric))
    }

    /// The series that users who come now count for, beside those that the phase began with.
    fn series(&self) -> Vec<String> {
        let placement = self.placement;
        placement.map_or(Vec::new(), |it| it.series.values().cloned().collect())
    }

    /// The epoch of an exposure: an earlier one where that has put the user into the group. While other
    /// series are counted than at the start, users who come now are in epochs of their own.
    fn epoch_of(&self, exposure: &Exposure) -> EpochDigest {
        let has_series = self.placement.is_some_and(|it| !it.series.is_empty());
        exposure.epoch.filter(|_| !has_series).unwrap_or(self.epoch)
    }

    /// Returns the shard of a user.
    fn of(&self, user: &[u8]) -> usize {
        shard_of(user, self.given.len())
    }

    /// Returns the time up to which records of a user do not count, in Unix milliseconds.
    fn gone_until_ms(&self, user: &[u8]) -> u64 {
        if self.forgotten.is_empty() {
            return 0;
        }
        let forgotten = self.forgotten.get(self.of(user));
        forgotten.map_or(0, |forgotten| forgotten.until_ms(user))
    }

    /// Returns the version of a shard's forgotten users.
    fn version(&self, shard: usize) -> u64 {
        let forgotten = self.forgotten.get(shard);
        forgotten.map_or(0, |forgotten| forgotten.version)
    }
}

struct Aggregation<'a> {
    cache: &'a AppliedCache,
    buckets: &'a Buckets,
    now_ms: u64,
    deltas: BTreeMap<(&'a str, usize), DeltaBuilder>,
    forget: Vec<Forget>,
}

impl<'a> Aggregation<'a> {
    fn add(
        &mut self,
        journal: &JournalId,
        sequence: u64,
        declared: &Declared<'a>,
        record: &OwnedRecord,
    ) {
        let declaration = declared.declaration;
        let at_ms = record.at_ms.min(self.now_ms);
        for (index, experiment) in declaration.experiments.iter().enumerate() {
            let exposure = record
                .exposures
                .iter()
                .find(|exposure| exposure.experiment == ExperimentIndex(index));
            // An ID of another kind is another user's.
            let unit = experiment.unit.as_deref().unwrap_or_default();
            if exposure.is_none() && unit != record.unit {
                continue;
            }
            // A user who got another group's version, or an override, shows nothing about the group.
            let counts = exposure.is_none_or(|exposure| exposure.served == Served::Own);
            let minted = record.minted.as_ref().filter(|_| experiment.running);
            let shards = &declared.experiments[index];
            let events = || events_of(declaration, (experiment, shards), record);
            let gone_until_ms = shards.gone_until_ms(&record.user);
            // The response still counts: it names nobody.
            let is_gone = record.at_ms <= gone_until_ms;
            if is_gone && let Some(minted) = minted {
                self.forget_too(minted, shards, gone_until_ms);
            }
            let minted =
                minted.filter(|minted| !is_gone && record.at_ms > shards.gone_until_ms(minted));
            if let Some(minted) = minted {
                let shard = shards.of(minted);
                let seen = &self.cache.seen;
                if !seen.has_joined(shards.key, minted, &record.user)
                    && let Some(delta) = self.delta(journal, sequence, (shard, shards))
                {
                    let apart = shard != shards.of(&record.user);
                    delta.join(minted, record, apart);
                }
            }
            let has_events = || events().next().is_some() || only_came_back(record);
            if exposure.is_none() && (!experiment.running || !has_events()) {
                continue;
            }
            let shard = shards.of(&record.user);
            let (buckets, seen) = (self.buckets, &self.cache.seen);
            let Some(delta) = self.delta(journal, sequence, (shard, shards)) else {
                continue;
            };
            let wait_from_ms = at_ms.saturating_sub(WAIT_MS);
            delta.delta.wait_from_ms = delta.delta.wait_from_ms.max(wait_from_ms);
            let remember_from_ms = at_ms.saturating_sub(event_ids::KEEP_MS);
            delta.delta.remember_from_ms = delta.delta.remember_from_ms.max(remember_from_ms);
            if let Some(exposure) = exposure {
                let experiment = (experiment, shards);
                delta.answered(experiment, exposure, record, buckets, (seen, is_gone));
            }
            if counts && !is_gone {
                delta.events(record, events());
                if only_came_back(record) {
                    delta.user(record);
                }
            }
        }
    }

    /// Forgets a minted ID that came with a known ID which was forgotten.
    fn forget_too(&mut self, minted: &[u8], shards: &CachedExperiment<'_>, until_ms: u64) {
        let forget = Forget {
            experiment: shards.key.to_owned(),
            user: minted.to_vec(),
            until_ms,
        };
        let is_known = shards.gone_until_ms(minted) >= until_ms;
        if !is_known && !self.forget.contains(&forget) {
            self.forget.push(forget);
        }
    }

    /// Returns the delta of the record's shard. `None` if the shard has the record already, or if the
    /// experiment is not known.
    fn delta(
        &mut self,
        journal: &JournalId,
        sequence: u64,
        (shard, shards): (usize, &CachedExperiment<'a>),
    ) -> Option<&mut DeltaBuilder> {
        let before = *shards.given.get(shard)?;
        if sequence <= before {
            return None;
        }
        let delta = self
            .deltas
            .entry((shards.key, shard))
            .or_insert_with(|| DeltaBuilder::new(shards.key, shard, shards.version(shard)));
        delta.reach(journal, before, sequence);
        Some(delta)
    }
}

/// Whether a record says nothing but that its user's minted ID came back.
fn only_came_back(record: &OwnedRecord) -> bool {
    let nothing = record.exposures.is_empty() && record.observations.is_empty();
    nothing && record.minted.is_none() && !record.is_new
}

fn events_of<'a>(
    declaration: &'a Declaration,
    (experiment, shards): (&'a DeclaredExperiment, &'a CachedExperiment<'_>),
    record: &'a OwnedRecord,
) -> impl Iterator<Item = EventAt> + 'a {
    record
        .observations
        .iter()
        .filter(|seen| experiment.metrics.contains(&seen.metric.0))
        .filter_map(|seen| {
            let metric = declaration.metrics.get(seen.metric.0)?;
            let series = shards.series_of(&metric.name);
            Some(EventAt {
                at_ms: seen.at_ms.map_or(record.at_ms, NonZeroU64::get),
                reported_ms: record.at_ms,
                metric: series.to_owned(),
                within_ms: metric.within_ms,
                cap: metric.cap,
                covariate_ms: metric.covariate_ms,
                count: u64::from(seen.count),
                sum: seen.sum,
                base: seen.base,
                id: seen
                    .event_id
                    .map(|id| id.get().wrapping_add(metric_digest(series))),
            })
        })
}

struct DeltaBuilder {
    delta: Delta,
    // Hashed for every record: the standard hasher would take a quarter of the time of aggregation.
    places: HashMap<Vec<u8>, usize, RandomState>,
    /// By the two IDs.
    joins: HashMap<(Vec<u8>, Vec<u8>), Join, RandomState>,
    tallies: HashMap<(EpochDigest, GroupIndex, u64), Tally, RandomState>,
}

impl DeltaBuilder {
    fn new(experiment: &str, shard: usize, forgotten: u64) -> DeltaBuilder {
        let delta = Delta {
            shard: shard as u32,
            forgotten,
            ..Delta::nothing(experiment)
        };
        DeltaBuilder {
            delta,
            places: HashMap::default(),
            joins: HashMap::default(),
            tallies: HashMap::default(),
        }
    }

    fn reach(&mut self, journal: &JournalId, after: u64, through: u64) {
        match self
            .delta
            .ranges
            .iter_mut()
            .find(|range| Arc::ptr_eq(&range.journal, journal) || range.journal == *journal)
        {
            Some(range) => range.through = through,
            None => self.delta.ranges.push(JournalRange {
                journal: journal.clone(),
                after,
                through,
            }),
        }
    }

    fn join(&mut self, minted: &[u8], record: &OwnedRecord, apart: bool) {
        let (ids, at_ms) = ((minted.to_vec(), record.user.to_vec()), record.at_ms);
        let join = self.joins.entry(ids).or_insert_with_key(|ids| Join {
            at_ms,
            minted: ids.0.clone(),
            known: ids.1.clone(),
            apart,
        });
        join.at_ms = join.at_ms.min(at_ms);
    }

    fn user(&mut self, record: &OwnedRecord) -> &mut UserDelta {
        let users = &mut self.delta.users;
        let place = *self.places.entry(record.user.to_vec()).or_insert_with(|| {
            users.push(UserDelta {
                user: record.user.to_vec(),
                came_back_ms: None,
                exposures: Vec::new(),
                events: Vec::new(),
            });
            users.len() - 1
        });
        let user = &mut users[place];
        if !record.is_new {
            let at_ms = NonZeroU64::new(record.at_ms).unwrap_or(NonZeroU64::MIN);
            user.came_back_ms = user.came_back_ms.max(Some(at_ms));
        }
        user
    }

    fn answered(
        &mut self,
        (experiment, shards): (&DeclaredExperiment, &CachedExperiment<'_>),
        exposure: &Exposure,
        record: &OwnedRecord,
        buckets: &Buckets,
        (seen, is_gone): (&SeenUsers, bool),
    ) {
        let Some(group) = experiment.groups.get(exposure.group.0) else {
            return;
        };
        if exposure.served == Served::Override {
            return;
        }
        let epoch = shards.epoch_of(exposure);
        self.epoch((experiment, shards), epoch, record.at_ms);
        let hour = record.at_ms / 3_600_000;
        // The digest of an epoch determines its groups and their order.
        let key = (epoch, exposure.group, hour);
        let tally = self.tallies.entry(key).or_insert_with(|| Tally {
            epoch,
            group: group.name.clone(),
            hour,
            requests: 0,
            classes: [0; 5],
            fallbacks: 0,
            unfinished: 0,
            not_counted: BTreeMap::new(),
            latency: BTreeMap::new(),
        });
        match exposure.served {
            Served::Fallback => {
                tally.fallbacks += 1;
                return;
            }
            Served::Unfinished => {
                tally.unfinished += 1;
                return;
            }
            Served::NotCounted(why) => {
                *tally.not_counted.entry(why).or_default() += 1;
                return;
            }
            Served::Own | Served::Override => {}
        }
        tally.requests += 1;
        if let Some(class) = tally
            .classes
            .get_mut((usize::from(record.status) / 100).wrapping_sub(1))
        {
            *class += 1;
        }
        *tally
            .latency
            .entry(buckets.of(record.latency_us))
            .or_default() += 1;
        let name = &self.delta.experiment;
        if !is_gone && !seen.has(name, &group.name, &record.user, record.at_ms) {
            let segments = counted_segments(&record.segments, shards.has_windows);
            self.exposed((epoch, &group.name), record, segments);
        }
    }

    /// Adds an exposure of a user, the earliest in each group.
    fn exposed(
        &mut self,
        (epoch, group): (EpochDigest, &str),
        record: &OwnedRecord,
        segments: Cow<'_, str>,
    ) {
        let exposures = &mut self.user(record).exposures;
        let latency = latency_bucket::of(record.latency_us);
        let at = (record.at_ms, epoch, latency, &*segments);
        match exposures.iter_mut().find(|seen| seen.group == group) {
            Some(seen) if at < (seen.at_ms, seen.epoch, seen.latency, &*seen.segments) => {
                (seen.at_ms, seen.epoch, seen.latency) = (at.0, at.1, at.2);
                seen.segments = segments.into_owned();
            }
            Some(_) => {}
            None => exposures.push(ExposureAt {
                at_ms: record.at_ms,
                epoch,
                group: group.to_owned(),
                latency,
                segments: segments.into_owned(),
            }),
        }
    }

    /// Defines an epoch. An earlier one has a definition already, which stays.
    fn epoch(
        &mut self,
        (experiment, shards): (&DeclaredExperiment, &CachedExperiment<'_>),
        digest: EpochDigest,
        at_ms: u64,
    ) {
        let known = self
            .delta
            .epochs
            .iter_mut()
            .find(|epoch| epoch.digest == digest);
        match known {
            Some(epoch) => epoch.first_ms = epoch.first_ms.min(at_ms),
            None => self.delta.epochs.push(EpochDefinition {
                digest,
                traffic: experiment.traffic.get(),
                groups: experiment
                    .groups
                    .iter()
                    .map(|group| (group.name.clone(), group.weight.get()))
                    .collect(),
                first_ms: at_ms,
                series: shards.series(),
            }),
        }
    }

    fn events(&mut self, record: &OwnedRecord, events: impl Iterator<Item = EventAt>) {
        for event in events {
            let user = self.user(record);
            // Events after an exposure in this delta count whatever the store has, so they can be
            // merged into one sum. The store decides about all others by their time.
            let first_ms = user.exposures.iter().map(|seen| seen.at_ms).min();
            let sums = |event: &EventAt| {
                event.id.is_none()
                    && event.within_ms.is_none()
                    && first_ms.is_some_and(|first_ms| event.at_ms >= first_ms)
            };
            let same = user
                .events
                .iter_mut()
                .find(|other| other.metric == event.metric && sums(other));
            match same {
                Some(other) if sums(&event) => {
                    other.at_ms = other.at_ms.max(event.at_ms);
                    other.reported_ms = other.reported_ms.max(event.reported_ms);
                    other.count += event.count;
                    other.sum = bounded(other.sum.saturating_add(event.sum));
                    other.base = bounded(other.base.saturating_add(event.base));
                }
                _ => user.events.push(event),
            }
        }
    }

    fn finish(self) -> Delta {
        let mut delta = self.delta;
        // The first known ID by the clock absorbs the minted one; the IDs break a tie.
        delta.joins = self.joins.into_values().collect();
        delta.joins.sort_unstable();
        // Of events with the same ID, the first by the clock counts, in whichever journal it is.
        for user in &mut delta.users {
            user.events.sort_by_key(|event| event.at_ms);
        }
        delta.tallies = self.tallies.into_values().collect();
        delta
            .tallies
            .sort_by(|a, b| (a.hour, a.epoch, &a.group).cmp(&(b.hour, b.epoch, &b.group)));
        delta
    }
}

/// Returns the ID of an event for one of its metrics.
fn metric_digest(name: &str) -> u64 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).unwrap_or_default() as u64
}

/// Clamps merged values to the range in which both stores count exactly.
fn bounded(value: i64) -> i64 {
    value.clamp(-USER_MAX, USER_MAX)
}
