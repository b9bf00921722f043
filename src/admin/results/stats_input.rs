//! Turns plan and totals into the question that the statistics answer. PURE.

use crate::admin::results::conversion_window;
use crate::config::plan::Plan;
use crate::experiment::guardrail::{Guardrail, GuardrailTarget};
use crate::experiment::latency_bucket;
use crate::experiment::metric::{Metric, MetricGoal, MetricKind, Trigger};
use crate::experiment::{Experiment, Horizon};
use crate::stats;
use crate::store::phases::Placement;
use crate::store::{EpochTotals, ExperimentTotals, GroupTotals, HourTotals, MetricTotals};

/// What is asked of the statistics about an experiment with these totals. By its hours, metrics
/// with a window are asked about users whose window is over; without them, about all users.
pub(crate) fn question(
    plan: &Plan,
    experiment: &Experiment,
    placement: &Placement,
    totals: &ExperimentTotals,
    hours: Option<&[HourTotals]>,
    now_ms: u64,
) -> stats::Question {
    let groups: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
    let all_totals = |counted_name: &str, within_ms: Option<u64>| -> Vec<Vec<stats::Totals>> {
        let over = within_ms
            .zip(hours)
            .map(|(within_ms, hours)| conversion_window::over(totals, hours, within_ms, now_ms));
        over.as_ref()
            .unwrap_or(totals)
            .epochs
            .iter()
            .map(|epoch| {
                // Users of other epochs came when the metric was another one, or was not there.
                let counts = placement.counts_in(counted_name, &epoch.definition);
                let series = placement.series_of(counted_name);
                let of = |name| epoch.groups.get(name).filter(|_| counts);
                groups
                    .iter()
                    .map(|&name| totals_of(series, of(name)))
                    .collect()
            })
            .collect()
    };
    let epochs = totals
        .epochs
        .iter()
        .map(|epoch| epoch_input(epoch, &groups));
    let metrics = experiment.metrics.iter().enumerate();
    let metrics = metrics.map(|(place, &index)| {
        let metric = plan.metric(index);
        let samples = samples(metric, placement, totals, &groups);
        let totals = all_totals(&metric.name, metric.within_ms);
        stats::MetricInput {
            samples,
            ..metric_input(metric, place, totals)
        }
    });
    let guardrails = experiment.guardrails.iter().map(|guardrail| {
        let metric = bounded_metric(plan, guardrail);
        let name = guardrail.counted_name(&plan.metrics);
        let samples = metric.and_then(|metric| samples(metric, placement, totals, &groups));
        let totals = all_totals(&name, metric.and_then(|metric| metric.within_ms));
        stats::MetricInput {
            samples,
            ..guardrail_input(plan, guardrail, totals)
        }
    });
    let primary = experiment.metrics.first().map(|&index| plan.metric(index));
    stats::Question {
        groups: group_inputs(experiment),
        epochs: epochs.collect(),
        metrics: metrics.chain(guardrails).collect(),
        started_at_ms: started_at_ms(plan, experiment, placement, totals),
        now_ms,
        min_duration_ms: experiment.min_duration_ms,
        horizon: experiment.horizon.map(|horizon| stats::PlannedEnd {
            at: end(horizon),
            wait_ms: primary.and_then(|metric| metric.within_ms).unwrap_or(0),
            made: Vec::new(),
        }),
        ..stats::Question::default()
    }
}

fn group_inputs(experiment: &Experiment) -> Vec<stats::GroupInput> {
    let groups = experiment.groups.iter().enumerate();
    let groups = groups.map(|(place, group)| stats::GroupInput {
        name: group.shown().to_owned(),
        is_control: place == experiment.control.0,
    });
    groups.collect()
}

fn epoch_input(epoch: &EpochTotals, groups: &[&str]) -> stats::Epoch {
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
}

/// The first metric of an experiment decides.
fn metric_input(
    metric: &Metric,
    place: usize,
    totals: Vec<Vec<stats::Totals>>,
) -> stats::MetricInput {
    let kind = kind(metric.kind);
    stats::MetricInput {
        name: metric.name.to_string(),
        kind,
        goal: goal(metric.goal),
        role: match place {
            0 => stats::Role::Primary,
            _ => stats::Role::Secondary,
        },
        baseline: metric.baseline.filter(|_| kind != stats::Kind::Conversion),
        detect: metric.detect,
        margin: metric.margin,
        scale: metric.scale,
        totals,
        samples: None,
        history: Vec::new(),
    }
}

/// The metric of a guardrail that limits one.
fn bounded_metric<'a>(plan: &'a Plan, guardrail: &Guardrail) -> Option<&'a Metric> {
    match guardrail.what {
        GuardrailTarget::Metric(metric) => Some(plan.metric(metric)),
        GuardrailTarget::Errors | GuardrailTarget::Slow { .. } => None,
    }
}

fn guardrail_input(
    plan: &Plan,
    guardrail: &Guardrail,
    totals: Vec<Vec<stats::Totals>>,
) -> stats::MetricInput {
    let metric = bounded_metric(plan, guardrail);
    // Harm that the proxy sees is counted as users with at least one such answer.
    let kind = metric.map_or(stats::Kind::Conversion, |metric| kind(metric.kind));
    stats::MetricInput {
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
        totals,
        samples: None,
        history: Vec::new(),
    }
}

/// The first exposure of a user who counts for the metric that decides.
fn started_at_ms(
    plan: &Plan,
    experiment: &Experiment,
    placement: &Placement,
    totals: &ExperimentTotals,
) -> Option<u64> {
    let primary = experiment.metrics.first().map(|&index| plan.metric(index));
    let counts = |epoch: &&EpochTotals| {
        primary.is_none_or(|metric| placement.counts_in(&metric.name, &epoch.definition))
    };
    let epochs = totals.epochs.iter().filter(counts);
    epochs.map(|epoch| epoch.definition.first_ms).min()
}

/// The latency of each user's first response, for a metric that is a quantile of it. Users who came
/// when the metric was another one have none.
fn samples(
    metric: &Metric,
    placement: &Placement,
    totals: &ExperimentTotals,
    groups: &[&str],
) -> Option<stats::Samples> {
    let Trigger::Latency(quantile) = metric.trigger else {
        return None;
    };
    let of = |group: Option<&GroupTotals>| {
        group.map_or_else(Default::default, |group| group.first_latency.clone())
    };
    let epochs = totals.epochs.iter().map(|epoch| {
        let counts = placement.counts_in(&metric.name, &epoch.definition);
        let of_group = |name| of(epoch.groups.get(name).filter(|_| counts));
        groups.iter().map(|&name| of_group(name)).collect()
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
        capped,
        cut,
        known,
        known_sum,
        before,
        before_sq,
        before_cross,
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
        capped,
        cut,
        known,
        known_sum,
        before,
        before_sq,
        before_cross,
    }
}

/// Whether a metric of the experiment has a window, its guardrails' among them.
pub(crate) fn has_windows(plan: &Plan, experiment: &Experiment) -> bool {
    let guarded = experiment.guardrails.iter().filter_map(|it| match it.what {
        GuardrailTarget::Metric(metric) => Some(metric),
        GuardrailTarget::Errors | GuardrailTarget::Slow { .. } => None,
    });
    let mut metrics = experiment.metrics.iter().copied().chain(guarded);
    metrics.any(|metric| plan.metric(metric).within_ms.is_some())
}

/// A planned end, as the statistics know it.
fn end(horizon: Horizon) -> stats::EndAfter {
    match horizon {
        Horizon::Users(users) => stats::EndAfter::Users(users),
        Horizon::Time(ms) => stats::EndAfter::Time(ms),
    }
}

/// A metric's goal, as the statistics know it.
pub(crate) fn goal(goal: MetricGoal) -> stats::Goal {
    match goal {
        MetricGoal::Increase => stats::Goal::Increase,
        MetricGoal::Decrease => stats::Goal::Decrease,
    }
}

/// A metric's kind, as the statistics know it.
pub(crate) fn kind(kind: MetricKind) -> stats::Kind {
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
pub(crate) fn units(metric: &Metric) -> f64 {
    10f64.powi(i32::from(metric.scale))
}
