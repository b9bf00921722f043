//! What a response counts as: the file's rules and the upstream's `Watershed-Event` header
//! turn an answer into observations of metrics.

use super::MetricIndex;
use super::asked::{Answered, Fields};
use super::matcher::PathPattern;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::borrow::Cow;

/// The header in which an upstream reports events; removed before the client sees it.
pub const EVENT_HEADER: HeaderName = HeaderName::from_static("watershed-event");

/// One metric of the plan.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// How users are turned into a rate.
    pub kind: Kind,
    /// Which direction is better.
    pub goal: Goal,
    /// Whether it decides the verdict.
    pub role: Role,
    /// What counts as an event of it.
    pub trigger: Trigger,
    /// The event parameter that holds the value; `None` counts 1 for each event.
    pub value: Option<Box<str>>,
    /// For [`Kind::Ratio`]: what the value is divided by.
    pub per: Option<Per>,
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
pub enum Kind {
    /// The share of users with at least one event.
    Conversion,
    /// Events per user.
    Count,
    /// Sum of values per user.
    Mean,
    /// Sum of values over sum of a base, both per user.
    Ratio,
}

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// More is better.
    Increase,
    /// Less is better.
    Decrease,
}

/// What a metric is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
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
    Rule(Rule),
}

/// The denominator of a ratio metric.
#[derive(Clone, Debug)]
pub enum Per {
    /// Every recorded request of the user.
    Requests,
    /// Events of this name, 1 each.
    Event(Box<str>),
    /// Answers that match a rule, 1 each.
    Rule(Rule),
}

/// `POST /checkout -> 2xx`: every given part must match; a part not given always does.
#[derive(Clone, Debug, Default)]
pub struct Rule {
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
    /// The exact value asked for; `None` asks only that the header is there.
    pub value: Option<HeaderValue>,
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
}

/// What one answer counted for, in the order of the plan's metrics.
pub type Observations = SmallVec<[Observation; 4]>;

/// The largest value an event may carry, in units of 10^-scale. A billion users of this value
/// fit the sums kept of them, and a hostile one cannot drown the others' digits.
pub const VALUE_MAX: i64 = 1_000_000_000_000;

impl Rule {
    /// Whether a request and the head of its answer match.
    pub fn matches<'a>(&self, method: &Method, path: &str, answer: impl Answered<'a>) -> bool {
        let status = answer.status();
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path.as_ref().is_none_or(|wanted| wanted.matches(path))
            && self
                .status
                .is_none_or(|wanted| (wanted.low..=wanted.high).contains(&status))
            && self
                .header
                .as_ref()
                .is_none_or(|wanted| wanted.matches(answer))
    }
}

impl HeaderRule {
    fn matches<'a>(&self, answer: impl Answered<'a>) -> bool {
        let mut found = answer.fields().all(&self.name);
        match &self.value {
            Some(value) => found.any(|found| found == value.as_bytes()),
            None => found.next().is_some(),
        }
    }
}

/// What was reported to have happened: by an upstream's header, a browser or a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// Its name, a token of RFC 9651.
    pub name: Cow<'a, str>,
    /// Its numeric parameters.
    pub parameters: SmallVec<[(Cow<'a, str>, f64); 2]>,
}

/// What one answer counts for: rules first, then the events that its header reports.
/// A header that is not a list of tokens reports nothing and is counted as unreadable by the
/// second value.
pub fn observe<'a>(
    metrics: &[Metric],
    method: &Method,
    path: &str,
    answer: impl Answered<'a>,
) -> (Observations, bool) {
    let (events, readable) = match answer.fields().first(&EVENT_HEADER).is_some() {
        true => match events_of(answer.fields()) {
            Some(events) => (events, true),
            None => (Vec::new(), false),
        },
        false => (Vec::new(), true),
    };
    let mut seen = Observations::new();
    for (index, metric) in metrics.iter().enumerate() {
        let observation = metric.observed(MetricIndex(index), &events, true, |rule| {
            rule.matches(method, path, answer)
        });
        seen.extend(observation);
    }
    (seen, readable)
}

/// What reported events alone count for, where there is no answer to match rules with.
pub fn observe_events(metrics: &[Metric], events: &[Event<'_>]) -> Observations {
    let indexed = metrics.iter().enumerate();
    indexed
        .filter_map(|(index, metric)| metric.observed(MetricIndex(index), events, false, |_| false))
        .collect()
}

impl Metric {
    fn observed(
        &self,
        metric: MetricIndex,
        events: &[Event<'_>],
        answered: bool,
        matches: impl Fn(&Rule) -> bool,
    ) -> Option<Observation> {
        let mut seen = Observation {
            metric,
            count: 0,
            sum: 0,
            base: 0,
        };
        match &self.trigger {
            Trigger::Rule(rule) if matches(rule) => {
                seen.count = 1;
                seen.sum = self.stored(1.0);
            }
            Trigger::Rule(_) => {}
            Trigger::Event(name) => {
                for event in events.iter().filter(|event| event.name == **name) {
                    seen.count += 1;
                    seen.sum = clamp(seen.sum + self.value_of(event));
                }
            }
        }
        seen.base = match &self.per {
            None => 0,
            // Requests are the base of the requests that are recorded: one for each answer.
            Some(Per::Requests) => i64::from(answered),
            Some(Per::Rule(rule)) => i64::from(matches(rule)),
            Some(Per::Event(name)) => {
                events.iter().filter(|event| event.name == **name).count() as i64
            }
        };
        (seen.count > 0 || seen.base > 0).then_some(seen)
    }

    fn value_of(&self, event: &Event<'_>) -> i64 {
        match &self.value {
            None => self.stored(1.0),
            Some(wanted) => {
                let found = event.parameters.iter().find(|(name, _)| *name == **wanted);
                found.map_or(0, |&(_, value)| self.stored(value))
            }
        }
    }

    /// A value as the ledger keeps it: an integer of 10^-scale, bounded by [`VALUE_MAX`]. Metrics
    /// that count heads, not values, keep none.
    fn stored(&self, value: f64) -> i64 {
        if matches!(self.kind, Kind::Conversion | Kind::Count) && self.value.is_none() {
            return 0;
        }
        // A cast of a float saturates, and NaN becomes 0.
        clamp((value * 10f64.powi(i32::from(self.scale))).round() as i64)
    }
}

fn clamp(value: i64) -> i64 {
    value.clamp(-VALUE_MAX, VALUE_MAX)
}

/// The events that an answer's [`EVENT_HEADER`] reports, or `None` when it cannot be read.
fn events_of<'a>(fields: impl Fields<'a>) -> Option<Vec<Event<'static>>> {
    let name = EVENT_HEADER;
    let mut lines = fields.all(&name);
    let first = lines.next()?;
    // RFC 9651, 4.2: several lines are one list.
    let joined: Cow<'_, [u8]> = lines.fold(Cow::Borrowed(first), |mut all, line| {
        all.to_mut().extend_from_slice(b", ");
        all.to_mut().extend_from_slice(line);
        all
    });
    let list: sfv::List = sfv::Parser::new(&*joined).parse().ok()?;
    list.into_iter().map(event_of).collect()
}

fn event_of(entry: sfv::ListEntry) -> Option<Event<'static>> {
    let sfv::ListEntry::Item(item) = entry else {
        return None;
    };
    let sfv::BareItem::Token(name) = item.bare_item else {
        return None;
    };
    let parameters = item.params.into_iter().filter_map(|(name, value)| {
        let value = match value {
            sfv::BareItem::Integer(value) => i64::from(value) as f64,
            sfv::BareItem::Decimal(value) => f64::from(value),
            _ => return None,
        };
        Some((Cow::Owned(String::from(name.as_str())), value))
    });
    Some(Event {
        name: Cow::Owned(String::from(name.as_str())),
        parameters: parameters.collect(),
    })
}
