//! How many users an experiment needs that has none yet, by a model of its users. `watershed simulate`
//! plays the same model.

use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::metric::{Metric, MetricGoal, MetricKind};
use crate::stats::normal_mixture::VALUED_USERS_MIN;
use crate::stats::planning::POWER;
use crate::stats::special::normal_quantile;

/// The standard deviation of the logarithm of a value: a few users have most of the revenue.
pub const VALUE_SIGMA: f64 = 1.0;
/// The mean number of events beyond the first, of users with an event.
pub const MORE_EVENTS: f64 = 0.5;
/// The mean number of requests beyond the first.
pub const MORE_REQUESTS: f64 = 2.0;

/// Returns the users of all groups with which a sequential test finds the planned lift of the primary
/// metric in 80 to 85 of 100 runs: twice the fixed-horizon sample size. `None` without a metric, or
/// where that metric is a latency.
pub fn usual_users(plan: &Plan, experiment: &Experiment, rate: f64) -> Option<u64> {
    let metric = plan.metric(*experiment.metrics.first()?);
    // Simulated users send events and have no latency.
    if metric.kind == MetricKind::Latency {
        return None;
    }
    // The variance of one user divided by the squared mean, by the model of `watershed simulate`.
    let relative = |rate: f64| match metric.kind {
        MetricKind::Conversion | MetricKind::Latency => (1.0 - rate) / rate,
        MetricKind::Count => {
            let mean = 1.0 + MORE_EVENTS;
            (MORE_EVENTS + mean * mean) / (mean * mean) / rate - 1.0
        }
        MetricKind::Mean => (VALUE_SIGMA * VALUE_SIGMA).exp() / rate - 1.0,
        MetricKind::Ratio => {
            let mean = 1.0 + MORE_REQUESTS;
            (1.0 - rate) / rate + MORE_REQUESTS / (mean * mean)
        }
    };
    let lifted = match metric.kind {
        MetricKind::Mean => rate,
        MetricKind::Conversion | MetricKind::Count | MetricKind::Ratio | MetricKind::Latency => {
            (rate * planned_lift(metric)).min(1.0)
        }
    };
    let weights = || experiment.groups.iter().map(|group| group.weight.get());
    let all: f64 = weights().sum();
    let control = experiment.groups[experiment.control.0].weight.get();
    // A group of weight 0 gets nobody to compare.
    let others: Vec<f64> = weights()
        .enumerate()
        .filter(|(place, weight)| *place != experiment.control.0 && *weight > 0.0)
        .map(|(_, weight)| weight)
        .collect();
    let smallest = others.iter().copied().min_by(f64::total_cmp)?;
    if control == 0.0 {
        return None;
    }
    let others = others.len() as f64;
    let z = -normal_quantile(0.025 / others) + normal_quantile(POWER);
    let variance = relative(rate) * all / control + relative(lifted) * all / smallest;
    let users = 2.0 * variance * (z / metric.detect.ln_1p()).powi(2);
    // Values are compared only after enough users of each group have one.
    let least = match metric.kind {
        MetricKind::Mean | MetricKind::Ratio => {
            2.0 * VALUED_USERS_MIN as f64 / (rate * smallest.min(control) / all)
        }
        MetricKind::Conversion | MetricKind::Count | MetricKind::Latency => 0.0,
    };
    Some(users.max(least).ceil() as u64)
}

/// Returns the factor of a rate in a group with the planned lift.
pub fn planned_lift(metric: &Metric) -> f64 {
    match metric.goal {
        MetricGoal::Increase => 1.0 + metric.detect,
        MetricGoal::Decrease => 1.0 / (1.0 + metric.detect),
    }
}
