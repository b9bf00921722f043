//! What is asked of the past.

use crate::experiment::record::DeclaredMetric;

/// A metric of one experiment, counted from archived records.
#[derive(Clone, Debug)]
pub struct ReplayQuestion {
    /// The name of the experiment.
    pub experiment: String,
    /// The archived events that the metric counts; `None` for one of latencies, which exposures have.
    pub events: Option<EventSource>,
    /// What adds to the base of a ratio.
    pub base: ReplayBase,
    /// The metric. It replaces all others of the experiment.
    pub metric: DeclaredMetric,
    /// Whether the metric has values.
    pub has_values: bool,
}

/// Archived events.
#[derive(Clone, Debug, PartialEq)]
pub enum EventSource {
    /// Those of this name in the column `event`.
    Named(String),
    /// Those of a metric that counted this rule then: see
    /// [`MetricRule::text`](crate::experiment::metric::MetricRule::text).
    Rule(String),
}

/// What adds to the base of a ratio.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayBase {
    /// What was archived with the events of the metric.
    Archived,
    /// Each of these events adds one.
    Events(EventSource),
}

impl ReplayQuestion {
    /// Returns all archived events that are read.
    pub fn sources(&self) -> impl Iterator<Item = &EventSource> {
        let base = match &self.base {
            ReplayBase::Archived => None,
            ReplayBase::Events(source) => Some(source),
        };
        self.events.iter().chain(base)
    }
}
