//! Results by segment: displayed, corrected for how many there are, and no part of the verdict.

use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::metric::{asked_totals, came, lift_result};
use crate::admin::results::schema::{
    SegmentGroup, SegmentMetric, SegmentRatio, SegmentResult, SegmentValue,
};
use crate::admin::results::stats_input::question;
use crate::config::plan::Plan;
use crate::experiment::segment::UserSegment;
use crate::stats;
use crate::store::{ExperimentTotals, HourTotals};
use std::collections::BTreeSet;

/// Returns the segments of the file that have users.
pub(crate) fn segment_results(plan: &Plan, evaluation: &Evaluation) -> Vec<SegmentResult> {
    let counted: Vec<(&UserSegment, Vec<String>)> = plan
        .segments
        .iter()
        .map(|segment| (segment, values(&segment.key, &evaluation.totals)))
        .filter(|(_, values)| !values.is_empty())
        .collect();
    // Each value of each segment has an equal part of the error.
    let all: usize = counted.iter().map(|(_, values)| values.len()).sum();
    let shown = counted.into_iter().map(|(segment, values)| SegmentResult {
        name: segment.name.to_string(),
        users_before: users_before(&segment.key, &evaluation.totals),
        values: values
            .into_iter()
            .map(|value| of_value(plan, evaluation, (&segment.key, &value), all as f64))
            .collect(),
    });
    shown.collect()
}

/// The number of users who first came when the segment was not defined as it is now.
fn users_before(segment: &str, totals: &ExperimentTotals) -> u64 {
    let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
    let before = groups.map(|group| {
        let parts = group.segments.iter();
        let own = parts.filter(|(key, _)| key.split('=').next() == Some(segment));
        let own: u64 = own.map(|(_, part)| part.users).sum();
        // Crossovers that are left out are still in their segments.
        group.users.saturating_sub(own)
    });
    before.sum()
}

/// The values of a segment that have users.
fn values(segment: &str, totals: &ExperimentTotals) -> Vec<String> {
    let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
    let parts = groups.flat_map(|group| &group.segments);
    let values = parts.filter_map(|(key, part)| {
        let (name, value) = key.split_once('=')?;
        (name == segment && part.users > 0).then(|| value.to_owned())
    });
    let values: BTreeSet<String> = values.collect();
    values.into_iter().collect()
}

fn of_value(
    plan: &Plan,
    evaluation: &Evaluation,
    (segment, value): (&str, &str),
    all: f64,
) -> SegmentValue {
    let key = format!("{segment}={value}");
    let totals = evaluation.totals.of_segment(&key);
    let hours = evaluation.hours.iter();
    let hours: Vec<HourTotals> = hours.filter_map(|hour| hour.of_segment(&key)).collect();
    let Evaluation {
        experiment,
        placement,
        at_ms,
        ..
    } = evaluation;
    let mut asked = question(plan, experiment, placement, &totals, Some(&hours), *at_ms);
    asked.metrics.truncate(experiment.metrics.len());
    for (metric, known) in asked.metrics.iter_mut().zip(&evaluation.question.metrics) {
        metric.detect = known.detect;
    }
    asked.alpha /= all;
    // The analyses of a planned end are made once, of all users. Segments are looked at any time.
    asked.horizon = None;
    let judged = stats::judge(&asked);
    let corrected = |p: f64| (p * all).min(1.0);
    let sample_ratio = judged.sample_ratio.p_value.map(corrected);
    let metrics = experiment.metrics.iter().zip(&judged.metrics).enumerate();
    let metrics = metrics.map(|(metric_place, (&index, judged))| {
        let metric = plan.metric(index);
        let groups = experiment.groups.iter().zip(&judged.groups).enumerate();
        let groups = groups.map(|(place, (group, judged))| {
            let users = asked_totals(&asked.metrics[metric_place], place).users;
            let came = came(placement, &totals, &group.name, &metric.name);
            SegmentGroup {
                name: group.name.to_string(),
                users,
                users_waiting: metric.within_ms.map(|_| came.saturating_sub(users)),
                rate: judged.rate,
                interval: judged.interval.low.zip(judged.interval.high),
                lift: judged.lift.map(lift_result),
                adjusted_p: judged.adjusted_p.map(corrected),
            }
        });
        SegmentMetric {
            name: metric.name.to_string(),
            kind: metric.kind.name(),
            groups: groups.collect(),
        }
    });
    SegmentValue {
        value: value.to_owned(),
        sample_ratio: SegmentRatio {
            p_value: sample_ratio,
            mismatch: sample_ratio.is_some_and(|p| p < stats::srm::ALARM),
        },
        metrics: metrics.collect(),
    }
}
