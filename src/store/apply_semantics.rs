//! What one delta adds to which count. PURE: the embedded file does just this, and the script in
//! Redis does the same in its own language; a test holds both to a third writing of it.

use super::event_ids::{EventCounts, EventIdOutcome, EventIds};
use super::keys::{self, CLASSES};
use super::waiting::Waiting;
use super::{Delta, EventAt, ExposureAt, UserDelta, UserRecord};
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
    /// To events that are not counted.
    pub uncounted: EventCounts,
    /// How many IDs of events are to be remembered.
    pub ids_added: u64,
}

impl Additions {
    /// What the delta adds whoever its users are.
    pub fn of_tallies(delta: &Delta) -> Additions {
        let mut additions = Additions::default();
        for tally in &delta.tallies {
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
            add("unfinished", tally.unfinished);
            for (class, count) in CLASSES.iter().zip(tally.classes) {
                add(class, count);
            }
            for (bucket, &count) in &tally.latency {
                add(&format!("latency:{bucket}"), count);
            }
        }
        additions
    }

    /// What became of one user, and what that adds. The order in which facts arrive does not
    /// matter: the earliest exposure by the clock decides group, epoch and hour, and events that
    /// come before it wait for one that came earlier still.
    pub fn user(&mut self, before: UserState, user_delta: &UserDelta) -> UserState {
        let UserState {
            record,
            waiting: waited,
            mut ids,
        } = before;
        let mut record = self.exposed(record, &user_delta.exposures);
        let mut waiting = Waiting::default();
        for event in waited.iter().chain(&user_delta.events) {
            let settled = match &mut record {
                Some(record) => self.event(record, &mut ids, event),
                None => Event::Early,
            };
            if matches!(settled, Event::Early) && !waiting.add(event) {
                self.uncounted.dropped_waiting += 1;
            }
        }
        UserState {
            record,
            waiting: waiting.events,
            ids,
        }
    }

    /// Takes everything that a user brought out of the counts.
    pub fn take_out(&mut self, record: &UserRecord) {
        self.whole(record, -1);
    }

    /// Makes one of two that turned out to be the same person. The first has the second's IDs of
    /// events already.
    pub fn join(&mut self, first: UserState, second: UserState) -> UserState {
        for record in [&first.record, &second.record].into_iter().flatten() {
            self.whole(record, -1);
        }
        let record = match (first.record, second.record) {
            (Some(first), Some(second)) => Some(joined(first, second)),
            (first, second) => first.or(second),
        };
        let mut waiting = first.waiting;
        waiting.extend(second.waiting);
        if let Some(record) = &record {
            self.whole(record, 1);
        }
        // What waited for one may follow an exposure of the other.
        let nothing = UserDelta {
            user: Vec::new(),
            exposures: Vec::new(),
            events: Vec::new(),
        };
        let ids = first.ids;
        let whole = UserState {
            record,
            waiting,
            ids,
        };
        self.user(whole, &nothing)
    }

    fn exposed(
        &mut self,
        record: Option<UserRecord>,
        exposures: &[ExposureAt],
    ) -> Option<UserRecord> {
        let mut exposures = exposures.iter();
        let mut record = match record {
            Some(record) => record,
            None => {
                let first = exposures.next()?;
                let record = UserRecord {
                    group: first.group.clone(),
                    epoch: first.epoch,
                    first_ms: first.at_ms,
                    crossed_over: false,
                    latency: Some(first.latency),
                    segments: first.segments.clone(),
                    metrics: BTreeMap::new(),
                };
                self.whole(&record, 1);
                record
            }
        };
        for exposure in exposures {
            self.seen(&mut record, exposure);
        }
        Some(record)
    }

    /// Another group makes the user crossed over, once. An earlier exposure (another worker's or
    /// replica's journal came late) moves all of the user to where the user was first.
    fn seen(&mut self, record: &mut UserRecord, exposure: &ExposureAt) {
        if exposure.group != record.group && !record.crossed_over {
            record.crossed_over = true;
            self.add(record, "crossed_over", 1);
        }
        let first = (
            record.first_ms,
            record.epoch,
            &record.group,
            record.latency,
            &*record.segments,
        );
        let latency = Some(exposure.latency);
        let seen = (
            exposure.at_ms,
            exposure.epoch,
            &exposure.group,
            latency,
            &*exposure.segments,
        );
        if seen < first {
            self.whole(record, -1);
            record.group.clone_from(&exposure.group);
            record.epoch = exposure.epoch;
            record.first_ms = exposure.at_ms;
            record.latency = latency;
            record.segments.clone_from(&exposure.segments);
            self.whole(record, 1);
        }
    }

    /// Adds (or, with a sign of -1, takes out) all that a user brings.
    fn whole(&mut self, record: &UserRecord, sign: i128) {
        self.add(record, "users", sign);
        if let Some(latency) = record.latency {
            self.add_to_totals(record, &keys::first_latency_field(latency), sign);
        }
        if record.crossed_over {
            self.add(record, "crossed_over", sign);
        }
        for (metric, values) in &record.metrics {
            self.metric(record, metric, (0, 0, 0), *values, sign);
        }
    }

    /// Counts for the user's first group and epoch, if it came after the first exposure and
    /// within the metric's window, and was not counted before.
    fn event(&mut self, record: &mut UserRecord, ids: &mut EventIds, event: &EventAt) -> Event {
        if event.at_ms.saturating_add(TOLERANCE_MS) < record.first_ms {
            return Event::Early;
        }
        let late = event
            .within_ms
            .is_some_and(|within| event.at_ms > record.first_ms.saturating_add(within));
        if late {
            return Event::Settled;
        }
        match ids.admit(event) {
            EventIdOutcome::Yes => self.ids_added += u64::from(event.id.is_some()),
            EventIdOutcome::Again => return Event::Settled,
            EventIdOutcome::TooMany => {
                self.uncounted.refused_ids += 1;
                return Event::Settled;
            }
        }
        let old = record
            .metrics
            .get(&event.metric)
            .copied()
            .unwrap_or_default();
        let count = i64::try_from(event.count).unwrap_or(USER_MAX);
        let new = (
            bounded(old.0 as i64, count) as u64,
            bounded(old.1, event.sum),
            bounded(old.2, event.base),
        );
        record.metrics.insert(event.metric.clone(), new);
        self.metric(record, &event.metric, old, new, 1);
        Event::Settled
    }

    /// Adds the difference that a user's new values of a metric make.
    fn metric(
        &mut self,
        record: &UserRecord,
        metric: &str,
        old: (u64, i64, i64),
        new: (u64, i64, i64),
        sign: i128,
    ) {
        let mut add = |what: &str, value: i128| {
            if value != 0 {
                self.add(record, &keys::metric_field(metric, what), sign * value);
            }
        };
        let wide = |of: (u64, i64, i64)| (i128::from(of.0), i128::from(of.1), i128::from(of.2));
        let ((old_count, old_sum, old_base), (count, sum, base)) = (wide(old), wide(new));
        add("converted", i128::from(old_count == 0 && count > 0));
        add("count", count - old_count);
        add("count_sq", count * count - old_count * old_count);
        add("sum", sum - old_sum);
        add("sum_sq", sum * sum - old_sum * old_sum);
        add("base", base - old_base);
        add("base_sq", base * base - old_base * old_base);
        add("cross", sum * base - old_sum * old_base);
    }

    /// A user's counts stand in the epoch and the hour of the first exposure.
    fn add(&mut self, record: &UserRecord, what: &str, value: i128) {
        let hour = record.first_ms / 3_600_000;
        self.add_to_totals(record, what, value);
        *self
            .hours
            .entry(keys::hour_field(hour, record.epoch, &record.group, what))
            .or_default() += value;
    }
}

impl Additions {
    /// The same, but for no hour; also for each of the user's segments.
    fn add_to_totals(&mut self, record: &UserRecord, what: &str, value: i128) {
        let mut add = |what: &str| {
            let field = keys::field(record.epoch, &record.group, what);
            *self.totals.entry(field).or_default() += value;
        };
        add(what);
        let segments = record.segments.split(',').filter(|it| !it.is_empty());
        segments.for_each(|segment| add(&keys::segment_field(segment, what)));
    }
}

/// One record of two.
fn joined(first: UserRecord, second: UserRecord) -> UserRecord {
    let place = |record: &UserRecord| {
        let group = record.group.clone();
        let segments = record.segments.clone();
        (
            record.first_ms,
            record.epoch,
            group,
            record.latency,
            segments,
        )
    };
    let (mut whole, other) = match place(&first) <= place(&second) {
        true => (first, second),
        false => (second, first),
    };
    whole.crossed_over |= other.crossed_over || whole.group != other.group;
    for (metric, (count, sum, base)) in other.metrics {
        let of = whole.metrics.entry(metric).or_default();
        of.0 = bounded(of.0 as i64, count as i64) as u64;
        (of.1, of.2) = (bounded(of.1, sum), bounded(of.2, base));
    }
    whole
}

/// What is known of a user before or after a delta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserState {
    /// `None` until an exposure is known.
    pub record: Option<UserRecord>,
    /// Events that no known exposure comes before, oldest arrival first.
    pub waiting: Vec<EventAt>,
    /// IDs of events that were counted.
    pub ids: EventIds,
}

/// What became of an event.
enum Event {
    /// It came before the first exposure that is known: it waits.
    Early,
    /// Counted, too late, or counted before.
    Settled,
}

fn bounded(old: i64, more: i64) -> i64 {
    old.saturating_add(more).clamp(-USER_MAX, USER_MAX)
}
