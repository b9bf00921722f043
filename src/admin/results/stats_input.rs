//! Turns plan and totals into the question that the statistics answer. PURE.

use crate::admin::results::conversion_window;
use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::guardrail::GuardrailTarget;
use crate::experiment::latency_bucket;
use crate::experiment::metric::{Metric, MetricGoal, MetricKind, MetricRole, Trigger};
use crate::stats;
use crate::store::{ExperimentTotals, GroupTotals, HourTotals, MetricTotals};

/// What is asked of the statistics about an experiment with these totals. By its hours, metrics
/// with a window are asked about users whose window is over; without them, about all users.
pub fn question(
    plan: &Plan,
    experiment: &Experiment,
    totals: &ExperimentTotals,
    hours: Option<&[HourTotals]>,
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
    let all_totals = |counted_name: &str, within_ms: Option<u64>| -> Vec<Vec<stats::Totals>> {
        let over = within_ms
            .zip(hours)
            .map(|(within_ms, hours)| conversion_window::over(totals, hours, within_ms, now_ms));
        over.as_ref()
            .unwrap_or(totals)
            .epochs
            .iter()
            .map(|epoch| {
                groups
                    .iter()
                    .map(|&name| totals_of(counted_name, epoch.groups.get(name)))
                    .collect()
            })
            .collect()
    };
    let metrics = experiment.metrics.iter().map(|&index| {
        let metric = plan.metric(index);
        let kind = kind(metric.kind);
        stats::Metric {
            name: metric.name.to_string(),
            kind,
            goal: match metric.goal {
                MetricGoal::Increase => stats::Goal::Increase,
                MetricGoal::Decrease => stats::Goal::Decrease,
            },
            role: match metric.role {
                MetricRole::Primary => stats::Role::Primary,
                MetricRole::Secondary => stats::Role::Secondary,
            },
            baseline: metric.baseline.filter(|_| kind != stats::Kind::Conversion),
            detect: metric.detect,
            margin: metric.margin,
            scale: metric.scale,
            totals: all_totals(&metric.name, metric.within_ms),
            samples: samples(metric, totals, &groups),
            history: Vec::new(),
        }
    });
    let guardrails = experiment.guardrails.iter().map(|guardrail| {
        let metric = match guardrail.what {
            GuardrailTarget::Metric(metric) => Some(plan.metric(metric)),
            GuardrailTarget::Errors | GuardrailTarget::Slow { .. } => None,
        };
        // Harm that the proxy sees is counted as users with at least one such answer.
        let kind = metric.map_or(stats::Kind::Conversion, |metric| kind(metric.kind));
        stats::Metric {
            name: match guardrail.what {
                GuardrailTarget::Slow { over_us } => {
                    format!("answers over {} ms", over_us as f64 / 1e3)
                }
                GuardrailTarget::Errors | GuardrailTarget::Metric(_) => {
                    guardrail.name(&plan.metrics).to_owned()
                }
            },
            kind,
            goal: stats::Goal::Decrease,
            role: stats::Role::Guardrail {
                max_increase: guardrail.max_increase,
            },
            baseline: None,
            detect: metric.map_or(0.1, |metric| metric.detect),
            margin: metric.map_or(0.01, |metric| metric.margin),
            scale: metric.map_or(0, |metric| metric.scale),
            totals: all_totals(
                &guardrail.counted_name(&plan.metrics),
                metric.and_then(|metric| metric.within_ms),
            ),
            samples: metric.and_then(|metric| samples(metric, totals, &groups)),
            history: Vec::new(),
        }
    });
    let control = experiment.control.0;
    stats::Question {
        groups: groups
            .iter()
            .enumerate()
            .map(|(place, name)| stats::Group {
                name: (*name).to_owned(),
                is_control: place == control,
            })
            .collect(),
        epochs: epochs.collect(),
        metrics: metrics.chain(guardrails).collect(),
        started_at_ms: totals
            .epochs
            .iter()
            .map(|epoch| epoch.definition.first_ms)
            .min(),
        now_ms,
        min_duration_ms: experiment.min_duration_ms,
        ..stats::Question::default()
    }
}

/// The latency of each user's first response, for a metric that is a quantile of it.
fn samples(metric: &Metric, totals: &ExperimentTotals, groups: &[&str]) -> Option<stats::Samples> {
    let Trigger::Latency(quantile) = metric.trigger else {
        return None;
    };
    let of = |group: Option<&GroupTotals>| {
        group.map_or_else(Default::default, |group| group.first_latency.clone())
    };
    let epochs = totals.epochs.iter().map(|epoch| {
        let groups = groups.iter().map(|&name| of(epoch.groups.get(name)));
        groups.collect()
    });
    Some(stats::Samples {
        share: quantile.share(),
        first: latency_bucket::FIRST_US / 1000.0,
        step: latency_bucket::step(),
        counts: epochs.collect(),
    })
}

fn totals_of(counted_name: &str, group: Option<&GroupTotals>) -> stats::Totals {
    let Some(group) = group else {
        return stats::Totals::default();
    };
    let MetricTotals {
        converted,
        count,
        count_sq,
        sum,
        sum_sq,
        base,
        base_sq,
        cross,
    } = group.metrics.get(counted_name).copied().unwrap_or_default();
    stats::Totals {
        users: group.users,
        converted,
        count,
        count_sq,
        sum,
        sum_sq,
        base,
        base_sq,
        cross,
    }
}

/// Whether a metric of the experiment has a window, its guardrails' among them.
pub fn has_windows(plan: &Plan, experiment: &Experiment) -> bool {
    let guarded = experiment.guardrails.iter().filter_map(|it| match it.what {
        GuardrailTarget::Metric(metric) => Some(metric),
        GuardrailTarget::Errors | GuardrailTarget::Slow { .. } => None,
    });
    let mut metrics = experiment.metrics.iter().copied().chain(guarded);
    metrics.any(|metric| plan.metric(metric).within_ms.is_some())
}

/// A metric's kind, as the statistics know it.
pub fn kind(kind: MetricKind) -> stats::Kind {
    match kind {
        MetricKind::Conversion => stats::Kind::Conversion,
        MetricKind::Count => stats::Kind::Count,
        MetricKind::Mean => stats::Kind::Mean,
        MetricKind::Ratio => stats::Kind::Ratio,
        MetricKind::Latency => stats::Kind::Quantile,
    }
}

/// How many units of a metric's sums make one. By this is divided: a tenth is no binary number, and
/// what is multiplied by one is 19.900000000000002 where 19.9 was meant.
pub fn units(metric: &Metric) -> f64 {
    10f64.powi(i32::from(metric.scale))
}
