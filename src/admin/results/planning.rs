//! How many users it takes, and how long at the present traffic.

use crate::admin::format::rfc3339;
use crate::admin::results::evaluator::Evaluation;
use crate::admin::results::schema::{PlanningGroup, PlanningResult};
use crate::experiment::Experiment;
use crate::stats;

/// What is planned for the metric that decides. `None` where no metric does.
pub fn planning(experiment: &Experiment, evaluation: &Evaluation) -> Option<PlanningResult> {
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
    let missing = needed.map(|needed| needed.saturating_sub(users));
    let by_users = match (missing, per_day) {
        (Some(0), _) => Some(0.0),
        (Some(missing), Some(per_day)) => Some(missing as f64 / per_day * 86_400.0),
        _ => None,
    };
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
    })
}
