//! Reads archived records back, batch by batch, as what is asked of them.

use super::declared::{Declared, digest_of};
use super::encode::decode;
use super::error::ArchiveError;
use super::location::Location;
use super::question::{EventSource, ReplayBase, ReplayQuestion};
use super::rows_back::ArchivedRows;
use super::tables::{RecordTable, VALUE_SCALE};
use crate::config::plan::ArchiveTarget;
use crate::experiment::event::EventId;
use crate::experiment::metric::Observation;
use crate::experiment::not_counted::NotCounted;
use crate::experiment::record::{Exposure, Served};
use crate::experiment::user_id::unreadable;
use crate::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex};
use crate::journal::{Chunk, Id, OwnedRecord};
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

/// How often an object store is asked again after an error of its own.
const RETRIES_MAX: usize = 5;
/// The user of records that belong to none.
const NOBODY: &[u8] = b"-";

/// The records of an archive, as a metric of one experiment needs them.
pub struct ArchivedPast {
    location: Location,
    question: ReplayQuestion,
    declared: Declared,
    /// Names of files, by the latest hour of their batch and its name; the last batch first.
    batches: Vec<Vec<(RecordTable, String)>>,
    /// The number of records that were returned.
    sequence: u64,
}

impl ArchivedPast {
    /// Lists the files of an archive. An error names what is there, if the experiment or the event is not.
    pub async fn open(
        archive: &ArchiveTarget,
        question: ReplayQuestion,
    ) -> Result<ArchivedPast, ArchiveError> {
        let location = Location::open(archive, RETRIES_MAX)?;
        let declared = Declared::read(&location, &question).await?;
        if let Some(missing) = declared.missing(&question) {
            return Err(ArchiveError::Missing(missing));
        }
        let mut batches = BTreeMap::<String, (String, Vec<(RecordTable, String)>)>::new();
        for table in RecordTable::ALL {
            let names = location.list(table.name(), None)?;
            let names: Vec<String> = names.try_collect().await?;
            for name in names.into_iter().filter(|name| name.ends_with(".parquet")) {
                let Some((folder, file)) = name.rsplit_once('/') else {
                    continue;
                };
                let hour = folder.trim_start_matches(table.name()).to_owned();
                let (latest, files) = batches.entry(file.to_owned()).or_default();
                *latest = hour.max(std::mem::take(latest));
                files.push((table, name.clone()));
            }
        }
        let by_hour = batches
            .into_iter()
            .map(|(file, (hour, files))| ((hour, file), files));
        let by_hour: BTreeMap<_, _> = by_hour.collect();
        Ok(ArchivedPast {
            location,
            question,
            declared,
            batches: by_hour.into_values().rev().collect(),
            sequence: 0,
        })
    }

    /// Returns the records of the next batch, the earliest first; `None` after the last. They are numbered anew, as if
    /// they were of one journal.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ArchiveError> {
        let Some(files) = self.batches.pop() else {
            return Ok(None);
        };
        let mut records = BTreeMap::<u64, OwnedRecord>::new();
        for (table, name) in files {
            let Some((bytes, _)) = self.location.read(&name).await? else {
                continue;
            };
            for batch in decode(&name, bytes)? {
                let rows = ArchivedRows::new(&name, &batch);
                for row in 0..rows.len() {
                    self.add(&mut records, table, &rows, row)?;
                }
            }
        }
        let declarations = &self.declared.declarations;
        records.retain(|_, record| declarations.contains_key(&record.declaration));
        let numbered = records.into_values().map(|record| {
            self.sequence += 1;
            (self.sequence, record)
        });
        Ok(Some(Chunk {
            journal: "replay".into(),
            records: numbered.collect(),
            declarations: declarations
                .iter()
                .map(|(digest, it)| (*digest, Arc::clone(it)))
                .collect(),
        }))
    }

    /// Adds a row to its record.
    fn add(
        &self,
        records: &mut BTreeMap<u64, OwnedRecord>,
        table: RecordTable,
        rows: &ArchivedRows<'_>,
        row: usize,
    ) -> Result<(), ArchiveError> {
        let digest = digest_of(rows, "declaration", row)?;
        let (mut exposure, mut observation) = (None, None);
        match table {
            RecordTable::Exposures => {
                if rows.needed("experiment_id", row)? != self.question.experiment {
                    return Ok(());
                }
                exposure = self.exposure(digest, rows, row)?;
            }
            RecordTable::Events => {
                let event = rows.needed("event", row)?;
                let part = self.part(digest, event);
                let is_counted = || self.declared.counted.contains(&(digest, event.to_owned()));
                if part == Part::default() && !is_counted() {
                    return Ok(());
                }
                observation = Some(self.observation(part, rows, row)?);
            }
            RecordTable::Identities => {}
        }
        let sequence = rows.long("seq", row)? as u64;
        let record = match records.entry(sequence) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(record(digest, table, rows, row)?)
            }
        };
        record.observations.extend(observation);
        if let Some(exposure) = exposure {
            record.exposures.push(exposure);
            record.status = rows.int("status", row)?.unwrap_or_default() as u16;
            record.latency_us = rows.long("latency_us", row)? as u64;
            record.segments = rows.needed("segments", row)?.to_owned();
        }
        if table == RecordTable::Identities {
            record.minted = rows.text("minted_id", row)?.map(unreadable);
        }
        Ok(())
    }

    /// The exposure of a row; `None` if its group is not known.
    fn exposure(
        &self,
        digest: u64,
        rows: &ArchivedRows<'_>,
        row: usize,
    ) -> Result<Option<Exposure>, ArchiveError> {
        let Some(declaration) = self.declared.declarations.get(&digest) else {
            return Ok(None);
        };
        let experiment = &declaration.experiments[0];
        let name = rows.needed("variation_id", row)?;
        let Some(group) = experiment.groups.iter().position(|it| it.name == name) else {
            return Ok(None);
        };
        let served = match rows.needed("served", row)? {
            "own" => Served::Own,
            "fallback" => Served::Fallback,
            "override" => Served::Override,
            "unfinished" => Served::Unfinished,
            _ => {
                let why = rows.text("not_counted", row)?.and_then(NotCounted::named);
                Served::NotCounted(why.ok_or_else(|| rows.unreadable("not_counted"))?)
            }
        };
        let epoch = EpochDigest(digest_of(rows, "epoch", row)?);
        Ok(Some(Exposure {
            experiment: ExperimentIndex(0),
            group: GroupIndex(group),
            served,
            epoch: Some(epoch).filter(|epoch| *epoch != experiment.epoch),
        }))
    }

    /// What events of this name are for the metric.
    fn part(&self, digest: u64, event: &str) -> Part {
        let is_of = |source: &EventSource| self.declared.has(source, digest, event);
        Part {
            counts: self.question.events.as_ref().is_some_and(is_of),
            is_base: match &self.question.base {
                ReplayBase::Archived => false,
                ReplayBase::Events(source) => is_of(source),
            },
        }
    }

    /// The event of a row. Of another event than the one that is asked for it is known only that it was there: it shows
    /// that the user came back.
    fn observation(
        &self,
        part: Part,
        rows: &ArchivedRows<'_>,
        row: usize,
    ) -> Result<Observation, ArchiveError> {
        let (at_ms, reported_ms) = (rows.ms("ts", row)?, rows.ms("reported_ts", row)?);
        let mut observation = Observation {
            metric: MetricIndex(0),
            count: 0,
            sum: 0,
            base: 0,
            event_id: None,
            at_ms: NonZeroU64::new(at_ms).filter(|_| at_ms != reported_ms),
        };
        let number = rows.long("n", row)?;
        if part.counts {
            observation.count = u32::try_from(number).unwrap_or(u32::MAX);
            let value = rows
                .value("value", row)?
                .filter(|_| self.question.has_values);
            observation.sum = in_units(value.unwrap_or_default(), self.question.metric.scale);
            if self.question.base == ReplayBase::Archived {
                observation.base = rows.long("base", row)?;
            }
        }
        if part.is_base {
            observation.base = number;
        }
        if part != Part::default() {
            // One that its reporter gave is a digest; another one is a place in a journal.
            let id = rows.needed("event_id", row)?;
            let digest = Some(id).filter(|id| id.len() == 16);
            let digest = digest.and_then(|id| u64::from_str_radix(id, 16).ok());
            observation.event_id = digest.and_then(EventId::new);
        }
        Ok(observation)
    }
}

/// What an event is for the metric that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    counts: bool,
    /// Whether it adds to the base of a ratio.
    is_base: bool,
}

/// A record without exposures and observations.
fn record(
    digest: u64,
    table: RecordTable,
    rows: &ArchivedRows<'_>,
    row: usize,
) -> Result<OwnedRecord, ArchiveError> {
    let user = rows.text("user_id", row)?;
    let user = user.map_or(NOBODY.to_vec(), unreadable);
    Ok(OwnedRecord {
        at_ms: rows.ms(table.recorded_at(), row)?,
        user: Id::from_slice(&user),
        declaration: digest,
        status: 0,
        latency_us: 0,
        exposures: Default::default(),
        segments: String::new(),
        observations: Vec::new(),
        minted: None,
        is_new: rows.truth("is_new", row)?,
        unit: rows.text("unit", row)?.unwrap_or_default().to_owned(),
    })
}

/// A value in units of 10^-scale, rounded half away from zero.
fn in_units(value: i128, scale: u8) -> i64 {
    let one = 10i128.pow(VALUE_SCALE.saturating_sub(scale).into());
    let half = value.signum() * (one / 2);
    let units = (value + half) / one;
    units.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
