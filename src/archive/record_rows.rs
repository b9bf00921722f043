//! Rows of records, before they are columns.

use crate::experiment::metric::Observation;
use crate::experiment::record::{DeclaredExperiment, DeclaredMetric, Exposure, Served};
use crate::journal::OwnedRecord;
use std::num::NonZeroU64;

/// The end of the year 9999, beyond which no database has times.
pub const TIME_MAX_MS: u64 = 253_402_300_799_999;

/// A record and where it stands.
#[derive(Clone, Copy)]
pub struct JournaledRecord<'a> {
    /// The journal.
    pub journal: &'a str,
    /// The sequence number.
    pub seq: u64,
    /// The record.
    pub record: &'a OwnedRecord,
}

/// A row of exposures.
pub struct ExposureRow<'a> {
    /// The record.
    pub of: JournaledRecord<'a>,
    /// The experiment.
    pub experiment: &'a DeclaredExperiment,
    /// The exposure.
    pub exposure: &'a Exposure,
    /// The number of the phase.
    pub phase: u32,
}

/// A row of events.
pub struct EventRow<'a> {
    /// The record.
    pub of: JournaledRecord<'a>,
    /// The metric that counts the event.
    pub metric: &'a DeclaredMetric,
    /// What was observed.
    pub observation: &'a Observation,
    /// The place of the observation in the record.
    pub ordinal: usize,
}

impl EventRow<'_> {
    /// Returns when the event happened, in Unix milliseconds.
    pub fn at_ms(&self) -> u64 {
        let own = self.observation.at_ms.map(NonZeroU64::get);
        own.unwrap_or(self.of.record.at_ms)
    }
}

/// Returns what `served` says of an exposure, and why it is not counted.
pub fn served(exposure: &Exposure) -> (&'static str, Option<&'static str>) {
    match exposure.served {
        Served::Own => ("own", None),
        Served::Fallback => ("fallback", None),
        Served::Override => ("override", None),
        Served::Unfinished => ("unfinished", None),
        Served::NotCounted(why) => ("not_counted", Some(why.name())),
    }
}
