//! Turns plan and totals into the question that the statistics answer.

use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::metric::{Goal, Kind, Metric};
use crate::ledger::{GroupTotals, MetricTotals, Totals};
use crate::stats;
use crate::stats::moments::Sums;

/// The error allowed to verdicts and intervals.
const ALPHA: f64 = 0.05;

/// What is asked of the statistics about an experiment with these totals.
pub fn question(
    plan: &Plan,
    experiment: &Experiment,
    totals: &Totals,
    now_ms: u64,
) -> stats::Question {
    let groups: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
    let epochs = totals.epochs.iter().map(|epoch| {
        let weight = |name: &&str| {
            epoch
                .definition
                .groups
                .iter()
                .find(|(other, _)| other == name)
                .map_or(0.0, |(_, weight)| *weight)
        };
        let all: f64 = epoch
            .definition
            .groups
            .iter()
            .map(|(_, weight)| weight)
            .sum();
        stats::Epoch {
            shares: groups.iter().map(|name| weight(name) / all).collect(),
            users: groups
                .iter()
                .map(|&name| epoch.groups.get(name).map_or(0, |group| group.users))
                .collect(),
        }
    });
    let sums = |metric: &Metric| -> Vec<Vec<Sums>> {
        let of = |group: Option<&GroupTotals>| {
            group.map_or_else(Sums::default, |group| sums_of(metric, group))
        };
        totals
            .epochs
            .iter()
            .map(|epoch| {
                groups
                    .iter()
                    .map(|&name| of(epoch.groups.get(name)))
                    .collect()
            })
            .collect()
    };
    let metrics = experiment.metrics.iter().map(|&index| {
        let metric = plan.metric(index);
        stats::Metric {
            kind: match metric.kind {
                Kind::Conversion => stats::Kind::Conversion,
                Kind::Count | Kind::Mean => stats::Kind::Mean,
                Kind::Ratio => stats::Kind::Ratio,
            },
            increase: metric.goal == Goal::Increase,
            detect: metric.detect,
            margin: metric.margin,
            sums: sums(metric),
        }
    });
    let first_ms = totals
        .epochs
        .iter()
        .map(|epoch| epoch.definition.first_ms)
        .min();
    stats::Question {
        epochs: epochs.collect(),
        metrics: metrics.collect(),
        control: experiment.control.0,
        ripe: first_ms
            .is_some_and(|first| now_ms >= first.saturating_add(experiment.min_duration_ms)),
        groups: groups.into_iter().map(str::to_owned).collect(),
        alpha: ALPHA,
    }
}

fn sums_of(metric: &Metric, group: &GroupTotals) -> Sums {
    let MetricTotals {
        converted,
        count,
        count_sq,
        sum,
        sum_sq,
        base,
        base_sq,
        cross,
    } = group
        .metrics
        .get(&*metric.name)
        .copied()
        .unwrap_or_default();
    let counts = metric.kind == Kind::Count;
    Sums {
        users: group.users,
        converted,
        sum: if counts { i128::from(count) } else { sum },
        sum_sq: if counts { count_sq } else { sum_sq },
        base,
        base_sq,
        cross,
        unit: if counts { 1.0 } else { unit(metric) },
    }
}

/// What one unit of a metric's sums is worth.
pub fn unit(metric: &Metric) -> f64 {
    10f64.powi(-i32::from(metric.scale))
}
