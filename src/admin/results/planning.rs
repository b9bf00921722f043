//! How many users it takes, and how long at the present traffic.

use crate::admin::format::rfc3339;
use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::planning_result::{
    EvenSplitResult, HorizonResult, PlanningGroup, PlanningResult,
};
use crate::experiment::{Experiment, Horizon};
use crate::stats::{self, EndAfter, MetricJudgement};

/// How far the way to the planned end is over.
fn horizon(evaluation: &Evaluation, judged: &MetricJudgement) -> Option<HorizonResult> {
    let question = &evaluation.question;
    let end = question.horizon.as_ref()?;
    let users = match end.at {
        EndAfter::Users(users) => Some(users),
        EndAfter::Time(_) => None,
    };
    let ends_at = end.ends_ms(question.started_at_ms).and_then(rfc3339);
    let control = question.control();
    let others = judged.groups.iter().enumerate();
    let others = others.filter(|(place, _)| *place != control);
    // The group that is analyzed last.
    let last = others
        .map(|(_, group)| group.analyses.last().copied())
        .min_by_key(|last| last.map(|last| last.number))
        .flatten();
    Some(HorizonResult {
        users,
        ends_at,
        analyses: stats::ANALYSES,
        analysis: last.map(|last| last.number),
        analyzed_at: last.and_then(|last| rfc3339(last.at_ms)),
        standard_errors: last.map(|last| last.bound),
    })
}

/// What is planned for the metric that decides. `None` where no metric does.
pub(crate) fn planning(experiment: &Experiment, evaluation: &Evaluation) -> Option<PlanningResult> {
    let primary = evaluation.question.primary()?;
    let (metric, judged) = (
        &evaluation.question.metrics[primary],
        &evaluation.judgement.metrics[primary],
    );
    let users: u64 = evaluation
        .question
        .epochs
        .iter()
        .flat_map(|epoch| &epoch.users)
        .sum();
    let needed = judged.users_needed;
    let weights: f64 = experiment
        .groups
        .iter()
        .map(|group| group.weight.get())
        .sum();
    let groups = experiment.groups.iter().map(|group| {
        // Users who are still to come are split by the weights of today.
        let share = group.weight.get() / weights;
        PlanningGroup {
            name: group.name.to_string(),
            users_needed: needed.map(|needed| (needed as f64 * share).ceil() as u64),
        }
    });
    let per_day = evaluation.recent.users_per_day();
    let in_all = |users: u64| {
        let seconds = users as f64 / per_day? * 86_400.0;
        Some(seconds.max(experiment.min_duration_ms as f64 / 1000.0))
    };
    // A planned end comes when it does, however users are split.
    let even_split = match experiment.horizon {
        None => even_split(experiment, needed, in_all),
        Some(_) => None,
    };
    let missing = needed.map(|needed| needed.saturating_sub(users));
    let by_users = match (missing, per_day) {
        (Some(0), _) => Some(0.0),
        (Some(missing), Some(per_day)) => Some(missing as f64 / per_day * 86_400.0),
        _ => None,
    };
    let question = &evaluation.question;
    let end = question.horizon.as_ref();
    let end_ms = end.and_then(|end| end.ends_ms(question.started_at_ms));
    let by_end = end_ms.map(|end_ms| end_ms.saturating_sub(evaluation.at_ms) as f64 / 1000.0);
    let by_users =
        by_end.or(by_users.filter(|_| !matches!(experiment.horizon, Some(Horizon::Time(_)))));
    let earliest_ms = stats::timing::due_ms(&evaluation.question);
    // No verdict comes before the shortest duration is over.
    let by_duration = earliest_ms.map(|ms| ms.saturating_sub(evaluation.at_ms) as f64 / 1000.0);
    Some(PlanningResult {
        metric: metric.name.clone(),
        detect: metric.detect,
        power: stats::planning::POWER,
        users,
        users_needed: needed,
        groups: groups.collect(),
        users_per_day: per_day,
        seconds_left: by_users.map(|seconds| seconds.max(by_duration.unwrap_or(0.0))),
        earliest_verdict_at: earliest_ms.and_then(rfc3339),
        seconds_in_all: needed.and_then(in_all),
        even_split,
        horizon: horizon(evaluation, judged),
    })
}

/// What an even split between the groups would take. `in_all` is the time that so many users take.
fn even_split(
    experiment: &Experiment,
    needed: Option<u64>,
    in_all: impl Fn(u64) -> Option<f64>,
) -> Option<EvenSplitResult> {
    let weights = experiment.groups.iter().map(|group| group.weight.get());
    let weights: Vec<f64> = weights.collect();
    let factor = stats::planning::split_factor(&weights, experiment.control.0)?;
    let users_needed = needed.map(|needed| (needed as f64 / factor).ceil() as u64);
    Some(EvenSplitResult {
        factor,
        users_needed,
        seconds_in_all: users_needed.and_then(in_all),
    })
}
