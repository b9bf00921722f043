//! What a store returns: totals of experiments, and the records of users.

use super::delta::EpochDefinition;
use super::event_ids::EventCounts;
use super::identities::IdentityCounts;
use crate::experiment::EpochDigest;
use std::collections::BTreeMap;

/// All counts of one experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentTotals {
    /// In order of first appearance.
    pub epochs: Vec<EpochTotals>,
    /// What came of IDs that arrived together.
    pub identities: IdentityCounts,
    /// Events that are in no epoch.
    pub uncounted: EventCounts,
}

/// All counts of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochTotals {
    /// What the epoch was.
    pub definition: EpochDefinition,
    /// 1 for the first epoch of the experiment, and so on.
    pub number: u32,
    /// By group's name.
    pub groups: BTreeMap<String, GroupTotals>,
}

/// All counts of one group in one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupTotals {
    /// Users whose first exposure was here.
    pub users: u64,
    /// Of those, users later seen in another group.
    pub crossed_over: u64,
    /// See [`Tally::requests`].
    pub requests: u64,
    /// See [`Tally::classes`].
    pub classes: [u64; 5],
    /// See [`Tally::fallbacks`].
    pub fallbacks: u64,
    /// See [`Tally::unfinished`].
    pub unfinished: u64,
    /// See [`Tally::latency`].
    pub latency: BTreeMap<u64, u64>,
    /// Users by the latency of their first exposure's response: see [`UserRecord::latency`].
    pub first_latency: BTreeMap<u16, u64>,
    /// By segment and value, such as `device=mobile`: the same of its users. Responses are not
    /// divided.
    pub segments: BTreeMap<String, GroupTotals>,
    /// By metric's name. A metric without an event is not here.
    pub metrics: BTreeMap<String, MetricTotals>,
}

/// All counts of one metric in one group of one epoch. Squares and products are of the *users'*
/// totals: Σy² over users, not over events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricTotals {
    /// Users with at least one event.
    pub converted: u64,
    /// Events.
    pub count: u64,
    /// Σ count² over users.
    pub count_sq: i128,
    /// Σ values, in units of 10^-scale.
    pub sum: i128,
    /// Σ sum² over users.
    pub sum_sq: i128,
    /// Σ base, for ratios.
    pub base: i128,
    /// Σ base² over users.
    pub base_sq: i128,
    /// Σ sum × base over users.
    pub cross: i128,
}

/// Counts of one hour, for rates over time.
#[derive(Clone, Debug, PartialEq)]
pub struct HourTotals {
    /// The hour: Unix milliseconds divided by 3,600,000. Users stand in the hour of their first
    /// exposure, and so do their conversions and values; requests stand in their own hour.
    pub hour: u64,
    /// In which epoch.
    pub epoch: EpochDigest,
    /// The group's name.
    pub group: String,
    /// `latency`, `first_latency` and `segments` are left empty here.
    pub totals: GroupTotals,
}

/// What the store knows of one user in one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// The group of first exposure.
    pub group: String,
    /// The epoch of first exposure.
    pub epoch: EpochDigest,
    /// First exposure, in Unix milliseconds.
    pub first_ms: u64,
    /// Whether the user was later seen in another group.
    pub crossed_over: bool,
    /// How long the response of the first exposure took: a bucket of
    /// [`crate::experiment::latency_bucket`]. `None` for users whom an earlier version counted.
    pub latency: Option<u16>,
    /// The segments at the first exposure: see [`crate::experiment::segment::describe`].
    pub segments: String,
    /// By metric's name: count, sum, base.
    pub metrics: BTreeMap<String, (u64, i64, i64)>,
}
