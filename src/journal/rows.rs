//! What a record says, one row for each exposure and each observation, for those who write it elsewhere.

use super::layout::OwnedRecord;
use crate::experiment::metric::{MetricKind, Observation};
use crate::experiment::record::{DeclaredExperiment, DeclaredMetric, Exposure, Served};
use crate::experiment::user_id::readable;
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

impl JournaledRecord<'_> {
    /// Returns the user's ID as a text.
    pub fn user(&self) -> String {
        readable(&self.record.user)
    }

    /// Returns the name of what the user's ID is the ID of; `None` for a user.
    pub fn unit(&self) -> Option<&str> {
        Some(&*self.record.unit).filter(|unit| !unit.is_empty())
    }
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

impl ExposureRow<'_> {
    /// Returns the name of the group.
    pub fn group(&self) -> &str {
        let group = self.experiment.groups.get(self.exposure.group.0);
        group.map_or("", |group| group.name.as_str())
    }
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

    /// Returns the value, in units of 10^-scale of the metric; `None` for an event without one.
    pub fn value(&self) -> Option<i64> {
        let sum = self.observation.sum;
        let has_value = matches!(self.metric.kind, MetricKind::Mean | MetricKind::Ratio);
        (has_value || sum != 0).then_some(sum)
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
