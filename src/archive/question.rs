//! What is asked of the past.

use crate::experiment::record::DeclaredMetric;

/// A metric of one experiment, counted from archived events.
#[derive(Clone, Debug)]
pub struct ReplayQuestion {
    /// The name of the experiment.
    pub experiment: String,
    /// The name of the archived events that the metric counts.
    pub event: String,
    /// The metric. It replaces all others of the experiment.
    pub metric: DeclaredMetric,
    /// Whether the metric has values.
    pub has_values: bool,
}
