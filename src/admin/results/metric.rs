//! One metric's results, at any look or at a single one.

use crate::admin::format::rfc3339;
use crate::admin::results::enums::method;
use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::schema::{
    AveragedResult, CappedResult, CovariateResult, FixedResult, LiftResult, MetricGroup,
    MetricResult,
};
use crate::admin::results::sequential_state;
use crate::admin::results::stats_input::units;
use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::metric::{Metric, Trigger};
use crate::experiment::metric_definition::duration;
use crate::stats::{self, GroupJudgement, fixed};
use crate::store::ExperimentTotals;
use crate::store::phases::Placement;

/// How results are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// All that is shown holds however often one looks.
    #[default]
    AnyLook,
    /// Besides, what is right for whoever looks once, at a time fixed before.
    Fixed,
}

/// What goes with every number of the fixed view.
pub(crate) const ONCE: &str = "valid only if you look once";

/// How the fixed view is named.
const FIXED_METHOD: &str = "fixed horizon (valid only for a single look)";

/// What goes with `chance_to_beat_control` and `expected_loss`.
const CHANCE_CAVEAT: &str = "Bayesian: not protected against peeking, and no part of the verdict";

/// All metrics of the experiment, the primary one first.
pub(crate) fn metric_results(
    plan: &Plan,
    experiment: &Experiment,
    evaluation: &Evaluation,
    view: View,
) -> Vec<MetricResult> {
    let adapts = experiment.allocation.is_some();
    let single = match view {
        View::AnyLook => Vec::new(),
        // Neither a single look nor a posterior is valid where weights follow the counts.
        View::Fixed if adapts => Vec::new(),
        View::Fixed => fixed::view(&evaluation.question),
    };
    let judged = experiment.metrics.iter().zip(&evaluation.judgement.metrics);
    let each = judged.enumerate().map(|(place, (&index, judged))| {
        let (metric, asked) = (plan.metric(index), &evaluation.question.metrics[place]);
        let gain = judged.gain;
        let groups = experiment.groups.iter().zip(&judged.groups).enumerate();
        let groups = groups.map(|(group_place, (group, judged))| {
            let totals = asked_totals(asked, group_place);
            let (placement, all) = (&evaluation.placement, &evaluation.totals);
            let came = came(placement, all, &group.name, &metric.name);
            let measured = measured(asked, group_place);
            let single = single.get(place).and_then(|groups| groups[group_place]);
            MetricGroup {
                name: group.name.to_string(),
                users: totals.users,
                users_waiting: metric.within_ms.map(|_| came.saturating_sub(totals.users)),
                converted: measured.unwrap_or(totals.converted),
                count: measured.unwrap_or(totals.count),
                sum: totals.sum as f64 / units(metric),
                capped: metric.cap.map(|_| capped(&totals, units(metric))),
                rate: judged.rate,
                unadjusted_rate: gain.and_then(|_| plain_mean(&totals, units(metric))),
                interval: judged.interval.low.zip(judged.interval.high),
                lift: judged.lift.map(lift_result),
                p_value: judged.p_value,
                p_value_lowest: judged.history.lowest.map(|lowest| lowest.p),
                p_value_lowest_at: lowest_at(judged),
                adjusted_p: judged.adjusted_p,
                planned_lift_p: judged.planned_lift_p,
                chance_to_beat_control: judged.chance_to_beat_control.filter(|_| !adapts),
                expected_loss: judged.expected_loss.filter(|_| !adapts),
                fixed: single.map(fixed_result),
            }
        });
        MetricResult {
            name: metric.name.to_string(),
            label: metric.label.as_deref().map(str::to_owned),
            unit: metric.unit.as_deref().map(str::to_owned),
            kind: metric.kind.name(),
            goal: sequential_state::goal_name(asked.goal),
            role: match place {
                0 => "primary",
                _ => "secondary",
            },
            latency: quantile(metric),
            method: method(judged.method),
            detect: asked.detect,
            margin: asked.margin,
            started_at: series_started_at(evaluation, &metric.name),
            cap: metric.cap.map(|cap| cap as f64 / units(metric)),
            covariate: covariate(metric, asked, judged.gain),
            chance_caveat: CHANCE_CAVEAT,
            groups: groups.collect(),
            over_time: Vec::new(),
        }
    });
    each.collect()
}

impl MetricResult {
    /// What people read in place of its name.
    pub fn shown(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

/// A comparison with control, as results show it.
pub(crate) fn lift_result(lift: stats::Lift) -> LiftResult {
    LiftResult {
        absolute: lift.absolute,
        absolute_interval: lift.absolute_interval.low.zip(lift.absolute_interval.high),
        relative: lift.relative,
        relative_interval: (lift.relative_interval.low, lift.relative_interval.high),
        shrunken: lift.shrunken,
        averaged: lift
            .averaged
            .map(|(control, group)| AveragedResult { control, group }),
    }
}

/// The quantile of a metric of latencies.
fn quantile(metric: &Metric) -> Option<&'static str> {
    match metric.trigger {
        Trigger::Latency(quantile) => Some(quantile.name()),
        Trigger::Event(_) | Trigger::Rule(_) => None,
    }
}

/// The first user who counts for a metric, where that is not the first one of the phase.
fn series_started_at(evaluation: &Evaluation, metric: &str) -> Option<String> {
    let placement = &evaluation.placement;
    placement.series.get(metric)?;
    let epochs = evaluation.totals.epochs.iter();
    let counting = epochs.filter(|epoch| placement.counts_in(metric, &epoch.definition));
    rfc3339(counting.map(|epoch| epoch.definition.first_ms).min()?)
}

/// The mean of what users brought, as it was counted.
fn plain_mean(totals: &stats::Totals, units: f64) -> Option<f64> {
    (totals.users > 0).then(|| totals.sum as f64 / units / totals.users as f64)
}

/// How the metric is adjusted, if it has a covariate.
fn covariate(
    metric: &Metric,
    asked: &stats::MetricInput,
    gain: Option<stats::Gain>,
) -> Option<CovariateResult> {
    let time = duration(metric.covariate_ms?);
    let all = || asked.totals.iter().flatten();
    let users: u64 = all().map(|totals| totals.users).sum();
    let left = gain.map(|gain| 1.0 - gain.reduction);
    let left = left.filter(|left| *left > 0.0);
    Some(CovariateResult {
        time,
        users_known: all().map(|totals| totals.known).sum(),
        variance_reduction: gain.map(|gain| gain.reduction),
        effective_users: left.map(|left| (users as f64 / left).round() as u64),
    })
}

/// For a latency: the number of users whose latency is known.
fn measured(metric: &stats::MetricInput, group: usize) -> Option<u64> {
    let samples = metric.samples.as_ref()?;
    let counts = samples.counts.iter().filter_map(|epoch| epoch.get(group));
    Some(counts.flat_map(|counts| counts.values()).sum())
}

/// What a metric is judged on in a group, as far as it is shown, over all epochs.
pub(crate) fn asked_totals(metric: &stats::MetricInput, group: usize) -> stats::Totals {
    let each = metric.totals.iter().filter_map(|groups| groups.get(group));
    each.fold(stats::Totals::default(), |sum, totals| stats::Totals {
        users: sum.users + totals.users,
        converted: sum.converted + totals.converted,
        count: sum.count + totals.count,
        sum: sum.sum + totals.sum,
        capped: sum.capped + totals.capped,
        cut: sum.cut + totals.cut,
        ..sum
    })
}

/// What the cap cut off.
fn capped(totals: &stats::Totals, units: f64) -> CappedResult {
    let share = |part: f64, of: f64| (of > 0.0).then(|| part / of);
    let (counted, cut) = (totals.sum.unsigned_abs() as f64, totals.cut as f64);
    CappedResult {
        users: totals.capped,
        share_of_users: share(totals.capped as f64, totals.users as f64),
        sum: cut / units,
        share_of_sum: share(cut, counted + cut),
    }
}

/// When the smallest p-value of a group was found.
pub(crate) fn lowest_at(judged: &GroupJudgement) -> Option<String> {
    rfc3339(judged.history.lowest?.at_ms?)
}

/// A group's users over all epochs that count for a metric, whether or not their window is over.
pub(crate) fn came(
    placement: &Placement,
    totals: &ExperimentTotals,
    group: &str,
    metric: &str,
) -> u64 {
    let epochs = totals.epochs.iter();
    let counting = epochs.filter(|epoch| placement.counts_in(metric, &epoch.definition));
    let groups = counting.filter_map(|epoch| epoch.groups.get(group));
    groups.map(|group| group.users).sum()
}

fn fixed_result(view: fixed::FixedHorizon) -> FixedResult {
    let ends =
        |evaluation: fixed::SingleLook| evaluation.interval.low.zip(evaluation.interval.high);
    FixedResult {
        note: ONCE,
        method: FIXED_METHOD,
        absolute: view.absolute.estimate,
        absolute_interval: ends(view.absolute),
        relative: view.relative.estimate,
        relative_interval: ends(view.relative),
        p_value: view.absolute.p_value,
    }
}
