//! Defines what one delta adds to which count. PURE. SQLite uses this file, and the script of Redis
//! implements the same; a test checks both against a reference model.

use super::event_ids::{EventCounts, EventIdOutcome, EventIds};
use super::keys::{self, CLASSES};
use super::waiting::{self, Waiting};
use super::{Delta, EventAt, ExposureAt, UserDelta, UserMetric, UserRecord};
use crate::experiment::identity::SEEN_ONCE_MS;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU64;

/// An event up to this long before its user's first exposure counts, because clocks of replicas differ.
pub const TOLERANCE_MS: u64 = 2_000;

/// The largest absolute sum, base or count of one user. It limits the effect of hostile values, and
/// keeps every number of the script exact.
pub const USER_MAX: i64 = 1_000_000_000_000_000;

/// The count of visitors whose minted ID has not come back.
const SEEN_ONCE: &str = "seen_once";

/// Additions to counts, by field.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Additions to totals.
    pub totals: BTreeMap<String, i128>,
    /// Additions to hours.
    pub hours: BTreeMap<String, i128>,
    /// Additions to the events that are not counted.
    pub uncounted: EventCounts,
    /// The number of new event IDs.
    pub ids_added: u64,
}

impl Additions {
    /// Returns the additions of a delta that do not depend on users.
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
            for (why, &count) in &tally.not_counted {
                add(&format!("not_counted:{}", why.name()), count);
            }
            for (class, count) in CLASSES.iter().zip(tally.classes) {
                add(class, count);
            }
            for (bucket, &count) in &tally.latency {
                add(&format!("latency:{bucket}"), count);
            }
        }
        additions
    }

    /// Applies a delta to one user, and adds the difference. The order in which records arrive does not
    /// matter: the earliest exposure by the clock decides group, epoch and hour, and events before it
    /// wait for a still earlier exposure.
    pub fn user(&mut self, before: UserState, user_delta: &UserDelta) -> UserState {
        let back_ms = user_delta.came_back_ms.map_or(0, NonZeroU64::get);
        let UserState {
            record,
            waiting: waited,
            mut ids,
        } = before.without_stale(back_ms);
        // Only a request of the user brings what waits.
        let mut brought = waited.iter();
        let came_back = user_delta.came_back_ms.is_some()
            || brought.any(|event| is_of_another_request(event, &user_delta.exposures));
        let mut record = self.exposed(record, &user_delta.exposures, came_back);
        let mut waiting = Waiting::default();
        if record.is_none()
            && user_delta.events.is_empty()
            && waited.is_empty()
            && let Some(at_ms) = user_delta.came_back_ms
        {
            waiting.add(&waiting::came_back(at_ms.get()));
        }
        for event in waited.iter().chain(&user_delta.events) {
            let settled = match &mut record {
                Some(record) => self.event(record, &mut ids, event),
                None => Event::Early,
            };
            if matches!(settled, Event::Early) && !waiting.add(event) {
                self.uncounted.dropped_waiting += 1;
            }
        }
        if let Some(record) = &mut record {
            self.covariates(record, &waiting.events);
        }
        UserState {
            record,
            waiting: waiting.events,
            ids,
        }
    }

    /// Removes a user from the counts.
    pub fn take_out(&mut self, record: &UserRecord) {
        self.whole(record, -1);
    }

    /// Merges two users that are the same person, as a request said at a time in Unix milliseconds. The first has the
    /// event IDs of the second already.
    pub fn join(&mut self, first: UserState, second: UserState, at_ms: u64) -> UserState {
        let (first, second) = (first.without_stale(at_ms), second.without_stale(at_ms));
        for record in [&first.record, &second.record].into_iter().flatten() {
            self.whole(record, -1);
        }
        let record = match (first.record, second.record) {
            (Some(first), Some(second)) => Some(joined(first, second)),
            (first, second) => first.or(second),
        };
        // The minted ID came with the known one.
        let record = record.map(|record| UserRecord {
            seen_once: false,
            ..record
        });
        let mut waiting = first.waiting;
        waiting.extend(second.waiting);
        if let Some(record) = &record {
            self.whole(record, 1);
        }
        // Events that waited for one may follow an exposure of the other.
        let nothing = UserDelta {
            user: Vec::new(),
            came_back_ms: None,
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
        came_back: bool,
    ) -> Option<UserRecord> {
        let mut exposures = exposures.iter();
        let mut record = match record {
            Some(mut record) => {
                if record.seen_once && came_back {
                    self.whole(&record, -1);
                    record.seen_once = false;
                    self.whole(&record, 1);
                }
                record
            }
            None => {
                let first = exposures.next()?;
                let record = UserRecord {
                    group: first.group.clone(),
                    epoch: first.epoch,
                    first_ms: first.at_ms,
                    crossed_over: false,
                    latency: Some(first.latency),
                    segments: first.segments.clone(),
                    seen_once: !came_back,
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

    /// Applies an exposure. Another group makes the user a crossover, once. An earlier exposure (from a
    /// journal that came late) moves the user and all its counts to the earlier group and hour.
    fn seen(&mut self, record: &mut UserRecord, exposure: &ExposureAt) {
        if exposure.group != record.group && !record.crossed_over {
            self.whole(record, -1);
            crosses_over(record);
            self.whole(record, 1);
        }
        let first = (
            record.first_ms,
            record.epoch,
            &record.group,
            record.latency,
            own_segments(record),
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
            let is_apart = own_segments(record).len() < record.segments.len();
            record.segments.clone_from(&exposure.segments);
            if is_apart {
                crosses_over(record);
            }
            // Some of what came before the old time came after this one.
            let metrics = record.metrics.values_mut();
            metrics.for_each(|metric| metric.before = None);
            self.whole(record, 1);
        }
    }

    /// Adds all counts of a user or, with a sign of -1, removes them.
    fn whole(&mut self, record: &UserRecord, sign: i128) {
        if record.seen_once {
            self.add(record, SEEN_ONCE, sign);
            return;
        }
        self.add(record, "users", sign);
        if let Some(latency) = record.latency {
            self.add_to_totals(record, &keys::first_latency_field(latency), sign);
        }
        if record.crossed_over {
            self.add(record, "crossed_over", sign);
        }
        for (metric, values) in &record.metrics {
            self.metric(record, metric, UserMetric::default(), *values, sign);
        }
    }

    /// Adds up what a user's waiting events brought before the first exposure, by metric. What was known
    /// of a metric whose events no longer wait stays as it is.
    fn covariates(&mut self, record: &mut UserRecord, waiting: &[EventAt]) {
        let mut sums: BTreeMap<&str, (i64, Option<i64>)> = BTreeMap::new();
        for event in waiting.iter().filter(|it| is_before(it, record.first_ms)) {
            let (sum, cap) = sums.entry(&event.metric).or_default();
            (*sum, *cap) = (bounded(*sum, event.sum), lower(*cap, event.cap));
        }
        for (name, (sum, cap)) in sums {
            let old = record.metrics.get(name).copied().unwrap_or_default();
            let new = UserMetric {
                before: Some(sum),
                cap: lower(old.cap, cap),
                ..old
            };
            record.metrics.insert(name.to_owned(), new);
            self.metric(record, name, old, new, 1);
        }
    }

    /// Counts an event for the user's first group and epoch, if it came after the first exposure and
    /// within the metric's window, and was not counted before.
    fn event(&mut self, record: &mut UserRecord, ids: &mut EventIds, event: &EventAt) -> Event {
        if event.metric == waiting::CAME_BACK {
            return Event::Settled;
        }
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
        let new = UserMetric {
            count: bounded(old.count as i64, count) as u64,
            sum: bounded(old.sum, event.sum),
            base: bounded(old.base, event.base),
            cap: lower(old.cap, event.cap),
            before: old.before,
        };
        record.metrics.insert(event.metric.clone(), new);
        self.metric(record, &event.metric, old, new, 1);
        Event::Settled
    }

    /// Adds the difference between a user's old and new values of a metric.
    fn metric(
        &mut self,
        record: &UserRecord,
        metric: &str,
        old: UserMetric,
        new: UserMetric,
        sign: i128,
    ) {
        let mut add = |what: &str, value: i128| {
            if value != 0 {
                self.add(record, &keys::metric_field(metric, what), sign * value);
            }
        };
        let wide = |of: UserMetric| {
            let (count, sum, base) = (of.count.into(), of.counted().into(), of.base.into());
            (count, sum, base, i128::from(of.cut()))
        };
        let (old_count, old_sum, old_base, old_cut): (i128, i128, i128, i128) = wide(old);
        let (count, sum, base, cut): (i128, i128, i128, i128) = wide(new);
        add("converted", i128::from(old_count == 0 && count > 0));
        add("count", count - old_count);
        add("count_sq", count * count - old_count * old_count);
        add("sum", sum - old_sum);
        add("sum_sq", sum * sum - old_sum * old_sum);
        add("base", base - old_base);
        add("base_sq", base * base - old_base * old_base);
        add("cross", sum * base - old_sum * old_base);
        add("capped", i128::from(cut > 0) - i128::from(old_cut > 0));
        add("cut", cut - old_cut);
        let before = |of: UserMetric| match of.counted_before() {
            Some(sum) => (1, i128::from(sum)),
            None => (0, 0),
        };
        let (old_known, old_before) = before(old);
        let (known, before) = before(new);
        add("known", known - old_known);
        add("known_sum", known * sum - old_known * old_sum);
        add("before", before - old_before);
        add("before_sq", before * before - old_before * old_before);
        add("before_cross", before * sum - old_before * old_sum);
    }

    /// Adds to the epoch and the hour of the user's first exposure.
    fn add(&mut self, record: &UserRecord, what: &str, value: i128) {
        if record.seen_once && what != SEEN_ONCE {
            return;
        }
        let hour = record.first_ms / 3_600_000;
        self.add_to_totals(record, what, value);
        let hours = &mut self.hours;
        let mut add = |what: &str| {
            let field = keys::hour_field(hour, record.epoch, &record.group, what);
            *hours.entry(field).or_default() += value;
        };
        add(what);
        for part in parts(record).filter(|part| part.by_hour) {
            add(&part.field(what));
        }
    }

    /// Adds to totals, and to those of each of the user's segments, but to no hour.
    fn add_to_totals(&mut self, record: &UserRecord, what: &str, value: i128) {
        let mut add = |what: &str| {
            let field = keys::field(record.epoch, &record.group, what);
            *self.totals.entry(field).or_default() += value;
        };
        add(what);
        parts(record).for_each(|part| add(&part.field(what)));
    }
}

/// A part of all users that a user is counted in.
struct CountedPart<'a> {
    segment: &'a str,
    /// Whether these are the users of the segment who crossed over.
    is_crossed: bool,
    /// Whether its users are also counted by hour.
    by_hour: bool,
}

impl<'a> CountedPart<'a> {
    fn of(segment: &'a str, is_crossed: bool) -> CountedPart<'a> {
        let marked = segment.strip_prefix(BY_HOUR);
        CountedPart {
            segment: marked.unwrap_or(segment),
            is_crossed,
            by_hour: marked.is_some(),
        }
    }

    fn field(&self, what: &str) -> String {
        let field = keys::segment_field(self.segment, what);
        match self.is_crossed {
            true => keys::segment_field(CROSSED_OVER, &field),
            false => field,
        }
    }
}

/// The parts that a user is counted in: the segments and, of a user who crossed over, [`CROSSED_OVER`] with the
/// same segments within. A user whom an earlier version counted in fewer parts stays in those, so that what is
/// taken out is what was added.
fn parts(record: &UserRecord) -> impl Iterator<Item = CountedPart<'_>> {
    let all = split(&record.segments).map(|it| CountedPart::of(it, false));
    let is_divided = is_marked(&record.segments) && own_segments(record) != record.segments;
    let own = split(own_segments(record)).filter(move |_| is_divided);
    all.chain(own.map(|it| CountedPart::of(it, true)))
}

fn split(segments: &str) -> impl Iterator<Item = &str> {
    segments.split(',').filter(|it| !it.is_empty())
}

/// Whether the last of the segments is marked.
fn is_marked(segments: &str) -> bool {
    let last = split(segments).last();
    last.is_some_and(|last| last.starts_with(BY_HOUR))
}

/// Marks a segment whose users are also counted by hour: metrics with a window are judged on users whose
/// window is over.
const BY_HOUR: char = '+';

/// The segments of an exposure as the store counts them: marked where they are also counted by hour.
pub fn counted_segments(segments: &str, by_hour: bool) -> Cow<'_, str> {
    if !by_hour {
        return Cow::Borrowed(segments);
    }
    let marked: Vec<String> = split(segments).map(|it| format!("{BY_HOUR}{it}")).collect();
    Cow::Owned(marked.join(","))
}

/// The segment of users who were seen in a second group: so they are also counted apart, and can be left
/// out. Users who crossed over in version 0.1.0 are not in it.
pub const CROSSED_OVER: &str = "~crossed=yes";

/// Notes that a user was seen in a second group.
fn crosses_over(record: &mut UserRecord) {
    record.crossed_over = true;
    if own_segments(record).len() == record.segments.len() {
        let comma = if record.segments.is_empty() { "" } else { "," };
        record.segments += comma;
        record.segments.push(BY_HOUR);
        record.segments += CROSSED_OVER;
    }
}

/// The segments of the first exposure.
fn own_segments(record: &UserRecord) -> &str {
    let own = record.segments.strip_suffix(CROSSED_OVER);
    let own = own.map(|own| own.strip_suffix(BY_HOUR).unwrap_or(own));
    own.map_or(&record.segments, |own| own.strip_suffix(',').unwrap_or(own))
}

/// Merges two records.
fn joined(first: UserRecord, second: UserRecord) -> UserRecord {
    let place = |record: &UserRecord| {
        let group = record.group.clone();
        let segments = own_segments(record).to_owned();
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
    if whole.crossed_over || other.crossed_over || whole.group != other.group {
        crosses_over(&mut whole);
    }
    for (metric, more) in other.metrics {
        let of = whole.metrics.entry(metric).or_default();
        *of = UserMetric {
            count: bounded(of.count as i64, more.count as i64) as u64,
            sum: bounded(of.sum, more.sum),
            base: bounded(of.base, more.base),
            cap: lower(of.cap, more.cap),
            before: of.before,
        };
    }
    whole
}

/// Whether what waits came with another request than these exposures. An exposure by a difference is journaled after
/// the events of its own request, with the same time.
fn is_of_another_request(event: &EventAt, exposures: &[ExposureAt]) -> bool {
    let mut exposures = exposures.iter();
    event.metric == waiting::CAME_BACK || exposures.all(|seen| seen.at_ms != event.reported_ms)
}

/// Whether an early event belongs to its metric's covariate: it was reported before the exposure, so
/// that no version can have changed it, and not too long before.
fn is_before(event: &EventAt, first_ms: u64) -> bool {
    event.covariate_ms.is_some_and(|covariate_ms| {
        event.reported_ms < first_ms && event.at_ms.saturating_add(covariate_ms) >= first_ms
    })
}

/// The state of a user before or after a delta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserState {
    /// `None` until an exposure is known.
    pub record: Option<UserRecord>,
    /// Events without an earlier exposure, oldest arrival first.
    pub waiting: Vec<EventAt>,
    /// IDs of events that were counted.
    pub ids: EventIds,
}

impl UserState {
    /// A visitor who was seen once and returns too late, in Unix milliseconds, begins anew, whether or not the clean-up
    /// came first.
    fn without_stale(self, back_ms: u64) -> UserState {
        let is_stale = |record: &UserRecord| {
            record.seen_once && back_ms > record.first_ms.saturating_add(SEEN_ONCE_MS)
        };
        UserState {
            record: self.record.filter(|record| !is_stale(record)),
            ..self
        }
    }
}

/// The outcome of an event.
enum Event {
    /// It waits, because it came before the first known exposure.
    Early,
    /// It is counted, too late, or counted before.
    Settled,
}

/// The lower of two caps, so that the order in which events arrive does not matter.
fn lower(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

fn bounded(old: i64, more: i64) -> i64 {
    old.saturating_add(more).clamp(-USER_MAX, USER_MAX)
}
