//! Records as rows of tables, by the hour of each row.

use super::columns;
use super::error::ArchiveError;
use super::tables::RecordTable;
use crate::experiment::record::Declaration;
use crate::journal::Chunk;
use crate::journal::rows::{EventRow, ExposureRow, JournaledRecord, TIME_MAX_MS};
use arrow_array::RecordBatch;
use std::collections::{BTreeMap, HashMap};

/// By declaration and the index of an experiment in it: the number of the phase that its exposures belong to.
pub(super) type PhaseNumbers = HashMap<(u64, usize), u32>;

const HOUR_MS: u64 = 3_600_000;
/// The rows of some records of one journal, by hour: Unix milliseconds divided by 3,600,000.
#[derive(Default)]
pub(super) struct BatchRows<'a> {
    exposures: BTreeMap<u64, Vec<ExposureRow<'a>>>,
    events: BTreeMap<u64, Vec<EventRow<'a>>>,
    identities: BTreeMap<u64, Vec<JournaledRecord<'a>>>,
}

impl<'a> BatchRows<'a> {
    /// Makes the rows of records, but for those of users of whom `is_gone` says that they are forgotten at a time.
    pub(super) fn of(
        chunks: &'a [Chunk],
        phases: &PhaseNumbers,
        is_gone: impl Fn(&[u8], u64) -> bool,
    ) -> BatchRows<'a> {
        let mut rows = BatchRows::default();
        for chunk in chunks {
            for (seq, record) in &chunk.records {
                let declaration = chunk.declarations.get(&record.declaration);
                let is_kept = !is_gone(&record.user, record.at_ms);
                let Some(declaration) = declaration.filter(|_| is_kept) else {
                    continue;
                };
                let of = JournaledRecord {
                    journal: &chunk.journal,
                    seq: *seq,
                    record,
                };
                rows.add(of, declaration, phases);
                let minted = record.minted.as_deref();
                if !minted.is_some_and(|minted| is_gone(minted, record.at_ms)) {
                    rows.add_identity(of);
                }
            }
        }
        rows
    }

    fn add(
        &mut self,
        of: JournaledRecord<'a>,
        declaration: &'a Declaration,
        phases: &PhaseNumbers,
    ) {
        let JournaledRecord { record, .. } = of;
        for exposure in &record.exposures {
            let index = exposure.experiment.0;
            let Some(experiment) = declaration.experiments.get(index) else {
                continue;
            };
            let phase = phases.get(&(declaration.digest, index)).copied();
            let row = ExposureRow {
                of,
                experiment,
                exposure,
                phase: phase.unwrap_or(1),
            };
            let rows = self.exposures.entry(hour(record.at_ms)).or_default();
            rows.push(row);
        }
        for (ordinal, observation) in record.observations.iter().enumerate() {
            let Some(metric) = declaration.metrics.get(observation.metric.0) else {
                continue;
            };
            let row = EventRow {
                of,
                metric,
                observation,
                ordinal,
            };
            self.events.entry(hour(row.at_ms())).or_default().push(row);
        }
    }

    fn add_identity(&mut self, of: JournaledRecord<'a>) {
        let JournaledRecord { record, .. } = of;
        let nothing = record.exposures.is_empty() && record.observations.is_empty();
        let only_came_back = nothing && !record.is_new;
        if record.minted.is_some() || only_came_back {
            let rows = self.identities.entry(hour(record.at_ms)).or_default();
            rows.push(of);
        }
    }

    /// Returns the rows of each table and hour that has any.
    pub(super) fn batches(&self) -> Result<Vec<(RecordTable, u64, RecordBatch)>, ArchiveError> {
        let mut batches = Vec::new();
        for (&hour, rows) in &self.exposures {
            batches.push((RecordTable::Exposures, hour, columns::exposures(rows)?));
        }
        for (&hour, rows) in &self.events {
            batches.push((RecordTable::Events, hour, columns::events(rows)?));
        }
        for (&hour, rows) in &self.identities {
            batches.push((RecordTable::Identities, hour, columns::identities(rows)?));
        }
        Ok(batches)
    }
}

fn hour(at_ms: u64) -> u64 {
    at_ms.min(TIME_MAX_MS) / HOUR_MS
}

/// Returns the folder of a table's rows of an hour.
pub(super) fn folder(table: RecordTable, hour: u64) -> String {
    let time = jiff::Timestamp::from_second((hour * 3600) as i64).unwrap_or_default();
    let place = time.strftime("dt=%Y-%m-%d/hour=%H");
    format!("{}/{place}", table.name())
}
