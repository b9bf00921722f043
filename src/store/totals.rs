//! What a store returns: totals of experiments, and the records of users.

use super::delta::EpochDefinition;
use super::event_ids::EventCounts;
use super::identities::IdentityCounts;
use crate::experiment::EpochDigest;
use crate::experiment::not_counted::NotCounted;
use std::collections::BTreeMap;

/// All counts of one experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentTotals {
    /// In order of first appearance.
    pub epochs: Vec<EpochTotals>,
    /// The outcomes of IDs that came together.
    pub identities: IdentityCounts,
    /// Events that do not count.
    pub uncounted: EventCounts,
}

impl ExperimentTotals {
    /// Leaves out the users of a segment: see [`GroupTotals::leave_out`].
    pub fn leave_out(&mut self, segment: &str) {
        let groups = self.epochs.iter_mut();
        groups
            .flat_map(|epoch| epoch.groups.values_mut())
            .for_each(|group| group.leave_out(segment));
    }

    /// The counts of the users of a segment. Epochs stay, also those without such a user.
    pub fn of_segment(&self, segment: &str) -> ExperimentTotals {
        let epochs = self.epochs.iter().map(|epoch| {
            let groups = epoch.groups.iter();
            let parts = groups.filter_map(|(name, group)| {
                let part = group.segments.get(segment)?;
                Some((name.clone(), part.clone()))
            });
            EpochTotals {
                definition: epoch.definition.clone(),
                number: epoch.number,
                groups: parts.collect(),
            }
        });
        ExperimentTotals {
            epochs: epochs.collect(),
            ..ExperimentTotals::default()
        }
    }
}

/// All counts of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochTotals {
    /// The definition of the epoch.
    pub definition: EpochDefinition,
    /// 1 for the first epoch of the experiment, and so on.
    pub number: u32,
    /// By group.
    pub groups: BTreeMap<String, GroupTotals>,
}

/// All counts of one group in one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupTotals {
    /// Users whose first exposure was here.
    pub users: u64,
    /// Of those, users who were later exposed to another group.
    pub crossed_over: u64,
    /// Visitors whose minted ID has not come back: they are no users.
    pub seen_once: u64,
    /// See [`Tally::not_counted`].
    pub not_counted: BTreeMap<NotCounted, u64>,
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
    /// By segment and value, such as `device=mobile`: the same counts of its users. Responses are not
    /// divided. Those of the users who crossed over are divided by the other segments again.
    pub segments: BTreeMap<String, GroupTotals>,
    /// By metric. A metric without an event is missing.
    pub metrics: BTreeMap<String, MetricTotals>,
}

impl GroupTotals {
    /// Leaves out the users of a segment, also in the other segments. Responses, which no segment divides, stay, and
    /// so does the number of crossovers.
    pub fn leave_out(&mut self, segment: &str) {
        if let Some(part) = self.segments.remove(segment) {
            self.subtract(&part);
        }
    }

    fn subtract(&mut self, part: &GroupTotals) {
        self.users = self.users.saturating_sub(part.users);
        for (latency, users) in &part.first_latency {
            let all = self.first_latency.entry(*latency).or_default();
            *all = all.saturating_sub(*users);
        }
        for (metric, part) in &part.metrics {
            self.metrics
                .entry(metric.clone())
                .or_default()
                .subtract(part);
        }
        for (segment, part) in &part.segments {
            if let Some(own) = self.segments.get_mut(segment) {
                own.subtract(part);
            }
        }
    }
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
    /// Users whose sum is larger, in size, than the metric's cap. Above, it counts up to the cap.
    pub capped: u64,
    /// Σ of what the cap cut off, in size.
    pub cut: i128,
    /// Users with a known sum from before their first exposure: see [`UserMetric::before`].
    pub known: u64,
    /// Σ sum over these users.
    pub known_sum: i128,
    /// Σ of their sums from before.
    pub before: i128,
    /// Σ of the squares of these.
    pub before_sq: i128,
    /// Σ sum × sum from before.
    pub before_cross: i128,
}

impl MetricTotals {
    fn subtract(&mut self, part: &MetricTotals) {
        let less = |all: &mut u64, part: u64| *all = all.saturating_sub(part);
        less(&mut self.converted, part.converted);
        less(&mut self.count, part.count);
        less(&mut self.capped, part.capped);
        less(&mut self.known, part.known);
        self.count_sq -= part.count_sq;
        self.sum -= part.sum;
        self.sum_sq -= part.sum_sq;
        self.base -= part.base;
        self.base_sq -= part.base_sq;
        self.cross -= part.cross;
        self.cut -= part.cut;
        self.known_sum -= part.known_sum;
        self.before -= part.before;
        self.before_sq -= part.before_sq;
        self.before_cross -= part.before_cross;
    }
}

/// Counts of one hour, for rates over time.
#[derive(Clone, Debug, PartialEq)]
pub struct HourTotals {
    /// The hour: Unix milliseconds divided by 3,600,000. Users, their conversions and values are in the
    /// hour of the first exposure; requests are in their own hour.
    pub hour: u64,
    /// The epoch.
    pub epoch: EpochDigest,
    /// The name of the group.
    pub group: String,
    /// The counts, without `latency` and `first_latency`. `segments` holds crossovers, and the users who came
    /// while a metric had a window; none whom an earlier version counted.
    pub totals: GroupTotals,
}

impl HourTotals {
    /// The counts of the users of a segment. `None` without any.
    pub fn of_segment(&self, segment: &str) -> Option<HourTotals> {
        Some(HourTotals {
            hour: self.hour,
            epoch: self.epoch,
            group: self.group.clone(),
            totals: self.totals.segments.get(segment)?.clone(),
        })
    }
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
    /// Whether the user was later exposed to another group.
    pub crossed_over: bool,
    /// The latency of the first exposure's response: a bucket of
    /// [`crate::experiment::latency_bucket`]. `None` for users whom an earlier version counted.
    pub latency: Option<u16>,
    /// The segments at the first exposure: see [`crate::experiment::segment::describe`].
    pub segments: String,
    /// Whether the client has not sent the minted ID yet. Such a visitor is not counted.
    pub seen_once: bool,
    /// By metric's name.
    pub metrics: BTreeMap<String, UserMetric>,
}

/// What one user brought to one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserMetric {
    /// Events.
    pub count: u64,
    /// The sum of their values, in units of 10^-scale: all of it, whatever the cap.
    pub sum: i64,
    /// What they add to a ratio's base.
    pub base: i64,
    /// How much of the sum counts, in size.
    pub cap: Option<i64>,
    /// The sum of events from before the first exposure, within the time that the metric's `covariate`
    /// names; `None` without such an event.
    pub before: Option<i64>,
}

impl UserMetric {
    /// The sum as it counts.
    pub fn counted(&self) -> i64 {
        self.cap.map_or(self.sum, |cap| self.sum.clamp(-cap, cap))
    }

    /// The sum from before the first exposure, up to the cap.
    pub fn counted_before(&self) -> Option<i64> {
        let cap = self.cap.unwrap_or(i64::MAX);
        Some(self.before?.clamp(-cap, cap))
    }

    /// What the cap cuts off, in size.
    pub fn cut(&self) -> u64 {
        self.sum.abs_diff(self.counted())
    }
}
