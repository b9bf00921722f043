//! What a response counts as: the file's rules and the upstream's `Watershed-Event` header
//! turn an answer into observations of metrics.

use super::MetricIndex;
use super::matcher::PathPattern;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;

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
