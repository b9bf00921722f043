//! Guardrails: limits on harm, and which responses count as harm.

use super::MetricIndex;
use super::metric::{Metric, Observation, Observations};
use std::borrow::Cow;
use std::time::Duration;

/// A limit on the harm of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Guardrail {
    /// What is limited.
    pub what: GuardrailTarget,
    /// The tolerated relative increase, such as 0.01 for 1 %; at least 0.
    pub max_increase: f64,
    /// The index in the declaration's metrics under which it is counted: that of its metric, or one after
    /// all metrics of the plan.
    pub counted_as: MetricIndex,
}

/// What a guardrail watches, per user.
#[derive(Clone, Debug, PartialEq)]
pub enum GuardrailTarget {
    /// Users with at least one 5xx response.
    Errors,
    /// Users with at least one response whose head took longer than this.
    Slow {
        /// The limit, in microseconds.
        over_us: u64,
    },
    /// Users with at least one event of this metric.
    Metric(MetricIndex),
}

impl Guardrail {
    /// Returns its name in the file.
    pub fn name<'a>(&self, metrics: &'a [Metric]) -> &'a str {
        match self.what {
            GuardrailTarget::Errors => "errors",
            GuardrailTarget::Slow { .. } => "slow",
            GuardrailTarget::Metric(MetricIndex(metric)) => &metrics[metric].name,
        }
    }

    /// Returns the name of its counts in stores. It begins with `~`, as no name of the file does. Another
    /// limit of slow responses has another name.
    pub fn counted_name<'a>(&self, metrics: &'a [Metric]) -> Cow<'a, str> {
        match self.what {
            GuardrailTarget::Errors => "~errors".into(),
            GuardrailTarget::Slow { over_us } => format!("~slow-{over_us}us").into(),
            GuardrailTarget::Metric(MetricIndex(metric)) => (*metrics[metric].name).into(),
        }
    }

    /// Whether a response counts as harm. Guardrails of metrics are observed as metrics.
    fn is_broken_by(&self, status: u16, latency: Duration) -> bool {
        match self.what {
            GuardrailTarget::Errors => status >= 500,
            GuardrailTarget::Slow { over_us } => latency.as_micros() > u128::from(over_us),
            GuardrailTarget::Metric(_) => false,
        }
    }
}

/// Adds the harm of a response to its observations. `latency` is the time to its head.
pub fn observe(guardrails: &[Guardrail], status: u16, latency: Duration, seen: &mut Observations) {
    let broken = guardrails
        .iter()
        .filter(|guardrail| guardrail.is_broken_by(status, latency));
    seen.extend(broken.map(|guardrail| Observation {
        metric: guardrail.counted_as,
        count: 1,
        sum: 0,
        base: 0,
        event_id: None,
        at_ms: None,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, latency_us: u64, harm: &[usize]) {
        let guardrail = |what, place| Guardrail {
            what,
            max_increase: 0.0,
            counted_as: MetricIndex(place),
        };
        let guardrails = [
            guardrail(GuardrailTarget::Metric(MetricIndex(0)), 0),
            guardrail(GuardrailTarget::Errors, 1),
            guardrail(GuardrailTarget::Slow { over_us: 500 }, 2),
        ];
        let mut seen = Observations::new();
        observe(
            &guardrails,
            status,
            Duration::from_micros(latency_us),
            &mut seen,
        );
        let found: Vec<usize> = seen.iter().map(|seen| seen.metric.0).collect();
        assert_eq!(found, harm);
    }

    #[test]
    fn errors_and_slow_responses_count_as_harm() {
        check(200, 500, &[]);
        check(499, 500, &[]);
        check(500, 500, &[1]);
        check(200, 501, &[2]);
        check(503, 9999, &[1, 2]);
    }
}
