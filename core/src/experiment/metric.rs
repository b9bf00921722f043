//! What a response counts as: the file's rules and the upstream's `Watershed-Event` header
//! turn an answer into observations of metrics.

use super::MetricIndex;
use super::event::{self, Event, EventFault, EventFaultReason, EventId, EventTime, ParameterValue};
use super::http_view::{HeaderView, ResponseView};
use super::normal_path::LazyPath;
use super::pattern::{PathPattern, ValuePattern};
use http::Method;
use http::header::HeaderName;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::num::NonZeroU64;

/// One metric of the plan.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// What people read in place of its name.
    pub label: Option<Box<str>>,
    /// The unit of its values, such as `EUR`, for people.
    pub unit: Option<Box<str>>,
    /// How users are turned into a rate.
    pub kind: MetricKind,
    /// Which direction is better.
    pub goal: MetricGoal,
    /// Whether it decides the verdict.
    pub role: MetricRole,
    /// What counts as an event of it.
    pub trigger: Trigger,
    /// The event parameter that holds the value; `None` counts 1 for each event.
    pub value: Option<Box<str>>,
    /// The largest size of a value, in units of 10^-scale: an event beyond it is refused. At most
    /// [`VALUE_MAX`], which is also what holds without.
    pub max: Option<i64>,
    /// For [`MetricKind::Mean`]: how much of one user's sum counts, in size and in units of
    /// 10^-scale. At most [`VALUE_MAX`]; `None` counts all of it.
    pub cap: Option<i64>,
    /// For [`MetricKind::Mean`]: for how long before the first exposure each user's sum is kept, to
    /// adjust the sum after it. In milliseconds.
    pub covariate_ms: Option<u64>,
    /// For [`MetricKind::Ratio`]: what the value is divided by.
    pub per: Option<RatioBase>,
    /// Decimal places kept of a value: 2 stores 19.90 as 1990. From 0 to 6.
    pub scale: u8,
    /// The attribution window after the user's first exposure, in milliseconds.
    pub within_ms: Option<u64>,
    /// The relative lift the experiment is planned for, such as 0.1.
    pub detect: f64,
    /// The relative difference that counts as none, such as 0.01.
    pub margin: f64,
    /// The rate expected before the start: it decides which test judges the metric. For
    /// conversions a share of users; for other kinds in whole units, not 0.
    pub baseline: Option<f64>,
}

/// How a metric's events become one number per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// The share of users with at least one event.
    Conversion,
    /// Events per user.
    Count,
    /// Sum of values per user.
    Mean,
    /// Sum of values over sum of a base, both per user.
    Ratio,
    /// A quantile, over users, of the latency of their first response.
    Latency,
}

impl MetricKind {
    /// As the file writes it.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Conversion => "conversion",
            MetricKind::Count => "count",
            MetricKind::Mean => "mean",
            MetricKind::Ratio => "ratio",
            MetricKind::Latency => "latency",
        }
    }
}

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricGoal {
    /// More is better.
    Increase,
    /// Less is better.
    Decrease,
}

/// What a metric is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricRole {
    /// It decides the verdict.
    Primary,
    /// It is shown and corrected for multiplicity.
    Secondary,
}

/// What counts as an event of a metric.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The upstream (or a browser, or a server) reports an event of this name.
    Event(Box<str>),
    /// A request and its answer match a rule.
    Rule(MetricRule),
    /// Nothing is an event: what counts is the latency of each user's first response.
    Latency(LatencyQuantile),
}

/// Which quantile of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatencyQuantile {
    /// Half of all users have a lower latency.
    P50,
    /// 95 % have.
    P95,
    /// 99 % have.
    P99,
}

impl LatencyQuantile {
    /// The share of users below it.
    pub fn share(self) -> f64 {
        match self {
            LatencyQuantile::P50 => 0.5,
            LatencyQuantile::P95 => 0.95,
            LatencyQuantile::P99 => 0.99,
        }
    }

    /// Its name in the file and in results.
    pub fn name(self) -> &'static str {
        match self {
            LatencyQuantile::P50 => "p50",
            LatencyQuantile::P95 => "p95",
            LatencyQuantile::P99 => "p99",
        }
    }
}

/// The denominator of a ratio metric.
#[derive(Clone, Debug)]
pub enum RatioBase {
    /// Every recorded request of the user.
    Requests,
    /// Events of this name, 1 each.
    Event(Box<str>),
    /// Answers that match a rule, 1 each.
    Rule(MetricRule),
}

/// `POST /checkout -> 2xx`: every given part must match; a part not given always does.
#[derive(Clone, Debug, Default)]
pub struct MetricRule {
    /// The request's method.
    pub method: Option<Method>,
    /// The request's path, without its query.
    pub path: Option<PathPattern>,
    /// The answer's status.
    pub status: Option<StatusRange>,
    /// A header of the answer.
    pub header: Option<HeaderRule>,
}

/// Statuses from `low` to `high`, inclusive; `2xx` is 200 to 299.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest status that matches.
    pub low: u16,
    /// The highest status that matches.
    pub high: u16,
}

/// A header of the answer that must be there, and its value where one is given.
#[derive(Clone, Debug)]
pub struct HeaderRule {
    /// The header's name.
    pub name: HeaderName,
    /// What the value must match; `None` asks only that the header is there.
    pub value: Option<ValuePattern>,
}

/// What one answer counted for one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Which metric of the plan.
    pub metric: MetricIndex,
    /// Events: 0 where only the base of a ratio was seen.
    pub count: u32,
    /// The sum of the events' values, in units of 10^-scale; 0 for metrics without a value.
    pub sum: i64,
    /// What was added to the base of a ratio, in whole units; 0 for other kinds.
    pub base: i64,
    /// The event's, where this is one that may be reported again.
    pub event_id: Option<EventId>,
    /// When the event happened, in Unix milliseconds; `None` for the time of its report.
    pub at_ms: Option<NonZeroU64>,
}

/// A response to the request of a rule, and whether it was one that the rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleResponse {
    /// Whose rule it is.
    pub metric: MetricIndex,
    /// Why it does not count, if it does not.
    pub miss: Option<NearMiss>,
}

/// Why a response to the request of a rule does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NearMiss {
    /// It has another status.
    Status(u16),
    /// It does not have the header.
    Header,
}

impl NearMiss {
    /// The number that stands for it where kinds are counted.
    pub fn code(self) -> u16 {
        match self {
            NearMiss::Header => 1,
            NearMiss::Status(status) => status,
        }
    }

    /// What a number stands for.
    pub fn of_code(code: u16) -> NearMiss {
        match code {
            1 => NearMiss::Header,
            status => NearMiss::Status(status),
        }
    }
}

/// What a response says of the site.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What it counts for.
    pub observations: Observations,
    /// What is wrong with its event header.
    pub faults: Vec<EventFault>,
    /// What it is to the rules for requests like its own.
    pub rules: SmallVec<[RuleResponse; 2]>,
    /// Events of its header that no metric counts.
    pub unused: Vec<String>,
}

/// What one answer counted for, in the order of the plan's metrics.
pub type Observations = SmallVec<[Observation; 1]>;

/// The largest value an event may carry, in units of 10^-scale. A billion users of this value
/// fit the sums kept of them, and a hostile one cannot drown the others' digits.
pub const VALUE_MAX: i64 = 1_000_000_000_000;

impl MetricRule {
    /// Whether a request matches.
    fn is_for(&self, method: &Method, path: &LazyPath<'_>) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self
                .path
                .as_ref()
                .is_none_or(|wanted| wanted.matches(path.normal()))
    }

    /// Why the head of a response does not match, if it does not.
    fn miss<'a>(&self, answer: impl ResponseView<'a>) -> Option<NearMiss> {
        let status = answer.status();
        if let Some(wanted) = self.status
            && !(wanted.low..=wanted.high).contains(&status)
        {
            return Some(NearMiss::Status(status));
        }
        let header = self.header.as_ref();
        header
            .is_some_and(|wanted| !wanted.matches(answer))
            .then_some(NearMiss::Header)
    }

    /// Whether responses to requests of this rule may be near misses: it says which requests it means, and
    /// which of their responses count.
    fn may_be_missed(&self) -> bool {
        self.path.is_some() && (self.status.is_some() || self.header.is_some())
    }

    /// Says which requests it means: `POST /checkout`.
    pub fn request_text(&self) -> String {
        let method = self.method.as_ref().map(ToString::to_string);
        let path = self.path.as_ref().map(ToString::to_string);
        let words: Vec<String> = [method, path].into_iter().flatten().collect();
        words.join(" ")
    }
}

impl HeaderRule {
    fn matches<'a>(&self, answer: impl ResponseView<'a>) -> bool {
        let mut found = answer.fields().all(&self.name);
        match &self.value {
            Some(value) => found.any(|found| value.matches(found)),
            None => found.next().is_some(),
        }
    }
}

/// What one response counts for: rules first, then the events that its header reports. Events
/// without an ID and a time of their own are one sum for each metric; others are observations of
/// their own. What is wrong with the header is returned beside it.
pub fn observe<'a>(
    metrics: &[Metric],
    method: &Method,
    path: &str,
    answer: impl ResponseView<'a>,
    now_ms: u64,
) -> Observed {
    let mut observed = Observed::default();
    let faults = &mut observed.faults;
    let header = match answer.fields().field(event::EVENT_FIELD).is_some() {
        true => event::lines(answer.fields()),
        false => None,
    };
    let events = match &header {
        Some(header) => event::of_header(header, faults),
        None => Vec::new(),
    };
    let path = LazyPath::new(path);
    let seen = &mut observed.observations;
    for (index, metric) in metrics.iter().enumerate() {
        let index = MetricIndex(index);
        let uncounted = events.iter().filter(|event| !stands_alone(event));
        let matches = |rule: &MetricRule| {
            if !rule.is_for(method, &path) {
                return false;
            }
            let miss = rule.miss(answer);
            if metric.is_missed_by(rule) {
                let metric = index;
                observed.rules.push(RuleResponse { metric, miss });
            }
            miss.is_none()
        };
        seen.extend(metric.observed(index, uncounted, true, matches, faults));
    }
    for event in events.iter().filter(|event| stands_alone(event)) {
        seen.extend(of_event(metrics, event, now_ms, faults));
    }
    let unused = events.iter().map(|event| &*event.name);
    let unused = unused.filter(|name| !counts_event(metrics, name));
    observed.unused.extend(unused.map(str::to_owned));
    observed
}

/// Whether some metric counts events of this name.
fn counts_event(metrics: &[Metric], name: &str) -> bool {
    metrics.iter().any(|metric| {
        let is_trigger = matches!(&metric.trigger, Trigger::Event(own) if **own == *name);
        is_trigger || matches!(&metric.per, Some(RatioBase::Event(own)) if **own == *name)
    })
}

/// Whether an event cannot be part of a sum.
fn stands_alone(event: &Event<'_>) -> bool {
    event.id.is_some() || event.at != EventTime::Reported
}

/// What a reported event alone counts for, where there is no answer to match rules with, and what
/// is wrong with it.
pub fn observe_event(
    metrics: &[Metric],
    event: &Event<'_>,
    now_ms: u64,
) -> (Observations, Vec<EventFault>) {
    let mut faults = Vec::new();
    let seen = of_event(metrics, event, now_ms, &mut faults);
    (seen, faults)
}

/// The most names of unused parameters that a reporter hears of.
pub const UNUSED_MAX: usize = 64;

/// Notes the parameters of an event that no metric reads: a `timestamp` where `at` was meant.
pub fn note_unused(metrics: &[Metric], event: &Event<'_>, unused: &mut BTreeSet<String>) {
    let counts = |metric: &&Metric| match &metric.trigger {
        Trigger::Event(name) => **name == event.name,
        Trigger::Rule(_) | Trigger::Latency(_) => false,
    };
    for (name, _) in &event.parameters {
        let mut counting = metrics.iter().filter(counts);
        let is_read = counting.any(|metric| metric.value.as_deref() == Some(&**name));
        if !is_read && unused.len() < UNUSED_MAX && !unused.contains(&**name) {
            unused.insert(name.to_string());
        }
    }
}

/// An event whose own time is not sound counts for nothing. One that no metric names is unknown,
/// whatever its time.
fn of_event(
    metrics: &[Metric],
    event: &Event<'_>,
    now_ms: u64,
    faults: &mut Vec<EventFault>,
) -> Observations {
    let indexed = metrics.iter().enumerate();
    let seen = indexed.filter_map(|(index, metric)| {
        let one = std::iter::once(event);
        let seen = metric.observed(MetricIndex(index), one, false, |_| false, faults)?;
        Some(Observation {
            event_id: event.id,
            ..seen
        })
    });
    let mut seen: Observations = seen.collect();
    if seen.is_empty() {
        return seen;
    }
    match event.own_time(now_ms) {
        Ok(at_ms) => seen.iter_mut().for_each(|one| one.at_ms = at_ms),
        Err(fault) => {
            faults.push(fault);
            seen.clear();
        }
    }
    seen
}

impl Metric {
    /// Tells its rule from others, also from the one that it had before.
    pub fn rule_key(&self) -> String {
        format!("{}\0{}", self.name, self.definition())
    }

    fn observed<'e, 'a: 'e>(
        &self,
        metric: MetricIndex,
        events: impl Iterator<Item = &'e Event<'a>> + Clone,
        answered: bool,
        mut matches: impl FnMut(&MetricRule) -> bool,
        faults: &mut Vec<EventFault>,
    ) -> Option<Observation> {
        let mut seen = Observation {
            metric,
            count: 0,
            sum: 0,
            base: 0,
            event_id: None,
            at_ms: None,
        };
        match &self.trigger {
            Trigger::Rule(rule) if matches(rule) => {
                seen.count = 1;
                seen.sum = self.one();
            }
            Trigger::Rule(_) | Trigger::Latency(_) => {}
            Trigger::Event(name) => {
                for event in events.clone().filter(|event| event.name == **name) {
                    seen.count += 1;
                    let value = self.value_of(event).unwrap_or_else(|fault| {
                        note(faults, fault);
                        0
                    });
                    seen.sum = (seen.sum + value).clamp(-VALUE_MAX, VALUE_MAX);
                }
            }
        }
        seen.base = match &self.per {
            None => 0,
            // Requests are the base of the requests that are recorded: one for each answer.
            Some(RatioBase::Requests) => i64::from(answered),
            Some(RatioBase::Rule(rule)) => i64::from(matches(rule)),
            Some(RatioBase::Event(name)) => {
                events.filter(|event| event.name == **name).count() as i64
            }
        };
        (seen.count > 0 || seen.base > 0).then_some(seen)
    }

    /// Whether a response may be a near miss by this rule: one that says what the metric counts.
    fn is_missed_by(&self, rule: &MetricRule) -> bool {
        let is_trigger = matches!(&self.trigger, Trigger::Rule(own) if std::ptr::eq(own, rule));
        is_trigger && rule.may_be_missed()
    }

    /// An event's value in units of 10^-scale.
    fn value_of(&self, event: &Event<'_>) -> Result<i64, EventFault> {
        let Some(wanted) = &self.value else {
            return Ok(self.one());
        };
        let fault = |reason| EventFault {
            event: event.name.to_string(),
            parameter: wanted.to_string(),
            reason,
        };
        match event.parameter(wanted) {
            None => Err(fault(EventFaultReason::Missing)),
            Some(ParameterValue::Other(what)) => Err(fault(EventFaultReason::NotANumber(what))),
            Some(ParameterValue::Number(number)) => {
                let max = self.max.unwrap_or(VALUE_MAX);
                let units = number.units(self.scale);
                let within = units.filter(|units| units.unsigned_abs() <= max.unsigned_abs());
                within.ok_or_else(|| {
                    fault(EventFaultReason::TooLarge {
                        max,
                        scale: self.scale,
                    })
                })
            }
        }
    }

    /// What an event without a value adds: metrics that count heads, not values, keep none.
    fn one(&self) -> i64 {
        match self.kind {
            MetricKind::Conversion | MetricKind::Count | MetricKind::Latency => 0,
            MetricKind::Mean | MetricKind::Ratio => 10i64.pow(u32::from(self.scale)),
        }
    }
}

/// Two metrics may read one parameter: what is wrong with it is said once.
fn note(faults: &mut Vec<EventFault>, fault: EventFault) {
    if faults.last() != Some(&fault) {
        faults.push(fault);
    }
}
