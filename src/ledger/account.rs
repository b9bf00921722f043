//! What one part adds to which count. PURE: the embedded file does just this, and the script in
//! Redis does the same in its own language; a test holds both to a third writing of it.

use super::keys::{self, CLASSES};
use super::{EventAt, ExposureAt, Part, UserDelta, UserRecord};
use std::collections::BTreeMap;

/// Clocks of replicas differ: an event this much before its user's first exposure still counts.
pub const TOLERANCE_MS: u64 = 2_000;

/// The most that one user's sum, base or count can reach, in size. It bounds what hostile values
/// can do, and keeps every number of the script exact.
pub const USER_MAX: i64 = 1_000_000_000_000_000;

/// Additions to counts, by field.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// To totals.
    pub totals: BTreeMap<String, i128>,
    /// To hours.
    pub hours: BTreeMap<String, i128>,
}

impl Additions {
    /// What the part adds whoever its users are.
    pub fn of_tallies(part: &Part) -> Additions {
        let mut additions = Additions::default();
        for tally in &part.tallies {
            let mut add = |what: &str, count: u64| {
                if count > 0 {
                    *additions
                        .totals
                        .entry(keys::field(tally.epoch, &tally.group, what))
                        .or_default() += i128::from(count);
                    if !what.starts_with("latency:") {
                        let field = keys::hour_field(tally.hour, tally.epoch, &tally.group, what);
                        *additions.hours.entry(field).or_default() += i128::from(count);
                    }
                }
            };
            add("requests", tally.requests);
            add("fallbacks", tally.fallbacks);
            for (class, count) in CLASSES.iter().zip(tally.classes) {
                add(class, count);
            }
            for (bucket, &count) in &tally.latency {
                add(&format!("latency:{bucket}"), count);
            }
        }
        additions
    }

    /// What became of one user, and what that adds. `None` when nothing is to be kept: events
    /// without an exposure are nobody's.
    pub fn user(&mut self, before: Option<UserRecord>, delta: &UserDelta) -> Option<UserRecord> {
        let mut record = match before {
            Some(record) => record,
            None => self.first(delta.exposures.first()?),
        };
        for exposure in &delta.exposures {
            self.seen(&mut record, exposure);
        }
        for event in &delta.events {
            self.event(&mut record, event);
        }
        Some(record)
    }

    /// The first exposure that the ledger ever sees decides the user's group and epoch.
    fn first(&mut self, exposure: &ExposureAt) -> UserRecord {
        let record = UserRecord {
            group: exposure.group.clone(),
            epoch: exposure.epoch,
            first_ms: exposure.at_ms,
            crossed_over: false,
            metrics: BTreeMap::new(),
        };
        self.add(&record, "users", 1);
        record
    }

    /// Another group makes the user crossed over, once. The same group earlier (another
    /// replica's journal came late) moves the first exposure, but neither epoch nor counts.
    fn seen(&mut self, record: &mut UserRecord, exposure: &ExposureAt) {
        if exposure.group == record.group {
            record.first_ms = record.first_ms.min(exposure.at_ms);
        } else if !record.crossed_over {
            record.crossed_over = true;
            self.add(record, "crossed_over", 1);
        }
    }

    /// Counts for the user's first group and epoch, if it came after the first exposure and
    /// within the metric's window.
    fn event(&mut self, record: &mut UserRecord, event: &EventAt) {
        let early = event.at_ms.saturating_add(TOLERANCE_MS) < record.first_ms;
        let late = event
            .within_ms
            .is_some_and(|within| event.at_ms > record.first_ms.saturating_add(within));
        if early || late {
            return;
        }
        let (count, sum, base) = record
            .metrics
            .get(&event.metric)
            .copied()
            .unwrap_or_default();
        let next = (
            bounded(count as i64, i64::try_from(event.count).unwrap_or(USER_MAX)) as u64,
            bounded(sum, event.sum),
            bounded(base, event.base),
        );
        record.metrics.insert(event.metric.clone(), next);
        let mut add = |what: &str, value: i128| {
            if value != 0 {
                self.add(record, &keys::metric_field(&event.metric, what), value);
            }
        };
        let square = |new: i128, old: i128| new * new - old * old;
        let (old_count, new_count) = (i128::from(count), i128::from(next.0));
        let (old_sum, new_sum) = (i128::from(sum), i128::from(next.1));
        let (old_base, new_base) = (i128::from(base), i128::from(next.2));
        add("converted", i128::from(count == 0 && next.0 > 0));
        add("count", new_count - old_count);
        add("count_sq", square(new_count, old_count));
        add("sum", new_sum - old_sum);
        add("sum_sq", square(new_sum, old_sum));
        add("base", new_base - old_base);
        add("base_sq", square(new_base, old_base));
        add("cross", new_sum * new_base - old_sum * old_base);
    }

    /// A user's counts stand in the epoch and the hour of the first exposure.
    fn add(&mut self, record: &UserRecord, what: &str, value: i128) {
        let hour = record.first_ms / 3_600_000;
        *self
            .totals
            .entry(keys::field(record.epoch, &record.group, what))
            .or_default() += value;
        *self
            .hours
            .entry(keys::hour_field(hour, record.epoch, &record.group, what))
            .or_default() += value;
    }
}

fn bounded(old: i64, more: i64) -> i64 {
    old.saturating_add(more).clamp(-USER_MAX, USER_MAX)
}
