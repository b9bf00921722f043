//! Diagnosis of a sample ratio mismatch: the stage at which group sizes stop matching their weights.

use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::schema::{PartingResult, StageResult};
use crate::experiment::Experiment;
use crate::stats::srm::sample_ratio;
use crate::store::GroupTotals;

/// The share of a group's responses or users above which a cause is named.
const WORTH_NAMING: f64 = 0.002;

/// Returns the first stage that explains the mismatch; `None` without a mismatch.
pub(crate) fn parting(experiment: &Experiment, evaluation: &Evaluation) -> Option<PartingResult> {
    if !evaluation.judgement.sample_ratio.mismatch {
        return None;
    }
    let (stage, sentence) = unanswered(evaluation)
        .or_else(|| uncompleted(evaluation))
        .or_else(|| unreturned(evaluation))
        .or_else(|| crossing(evaluation))
        .unwrap_or_else(|| assigned(experiment, evaluation));
    let epochs = evaluation
        .totals
        .epochs
        .iter()
        .zip(&evaluation.question.epochs);
    let at_fault = epochs.filter(|(_, asked)| {
        let alone = sample_ratio(std::slice::from_ref(*asked), None);
        alone.mismatch
    });
    Some(PartingResult {
        stage,
        sentence,
        epochs: at_fault.map(|(epoch, _)| epoch.number).collect(),
    })
}

/// Returns the count of each group at every stage, to compare with the weights.
pub(crate) fn stages(evaluation: &Evaluation) -> Vec<StageResult> {
    let stage = |stage, unit, of: fn(&GroupTotals) -> u64| {
        let groups = evaluation.question.groups.iter().map(|group| {
            let totals = evaluation.totals.epochs.iter();
            let totals = totals.filter_map(|epoch| epoch.groups.get(&group.name));
            (group.name.clone(), totals.map(of).sum())
        });
        StageResult {
            stage,
            unit,
            groups: groups.collect(),
        }
    };
    vec![
        stage("assigned", "answers", |group| {
            group.requests + group.fallbacks
        }),
        stage("answered", "answers", |group| group.requests),
        stage("completed", "answers", |group| {
            group.requests.saturating_sub(group.unfinished)
        }),
        stage("exposed", "users", |group| group.users),
        stage("seen_again", "answers", |group| {
            let first = group.users + group.seen_once;
            group.requests.saturating_sub(first)
        }),
        stage("crossed_over", "users", |group| group.crossed_over),
        stage("first_seen", "users", |group| group.users + group.seen_once),
    ]
}

/// Users who saw only control's version because their group's upstream was unavailable are not counted.
fn unanswered(evaluation: &Evaluation) -> Option<(&'static str, String)> {
    let groups = &evaluation.question.groups;
    let each = groups.iter().map(|group| {
        let totals = evaluation.totals.epochs.iter();
        let totals = totals.filter_map(|epoch| epoch.groups.get(&group.name));
        let (fallbacks, requests) = totals.fold((0, 0), |sum, group| {
            (sum.0 + group.fallbacks, sum.1 + group.requests)
        });
        (&group.name, fallbacks, fallbacks + requests)
    });
    let (name, fallbacks, all) = each
        .filter(|(_, fallbacks, all)| *fallbacks as f64 > WORTH_NAMING * *all as f64)
        .max_by_key(|(_, fallbacks, _)| *fallbacks)?;
    let sentence = format!(
        "between assigned and answered: {fallbacks} of {all} responses to users of {name} came from control's upstream because its own was unavailable; users who saw no other response are not counted"
    );
    Some(("answered", sentence))
}

/// Responses that broke off, or that clients did not wait for: a slow or broken version loses users
/// before they return.
fn uncompleted(evaluation: &Evaluation) -> Option<(&'static str, String)> {
    let each = evaluation.question.groups.iter().map(|group| {
        let totals = evaluation.totals.epochs.iter();
        let totals = totals.filter_map(|epoch| epoch.groups.get(&group.name));
        let (unfinished, requests) = totals.fold((0, 0), |sum, group| {
            (sum.0 + group.unfinished, sum.1 + group.requests)
        });
        (&group.name, unfinished, requests)
    });
    let (name, unfinished, all) = each
        .filter(|(_, unfinished, all)| *unfinished as f64 > WORTH_NAMING * *all as f64)
        .max_by_key(|(_, unfinished, _)| *unfinished)?;
    let sentence = format!(
        "between answered and completed: {unfinished} of {all} responses to users of {name} broke off, or the user left before their end"
    );
    Some(("completed", sentence))
}

/// Visitors whose minted ID did not come back: with them, the sizes match the weights.
fn unreturned(evaluation: &Evaluation) -> Option<(&'static str, String)> {
    let Evaluation {
        totals, question, ..
    } = evaluation;
    let mut epochs = question.epochs.clone();
    let mut once = vec![0; question.groups.len()];
    for (asked, epoch) in epochs.iter_mut().zip(&totals.epochs) {
        for (place, group) in question.groups.iter().enumerate() {
            let found = epoch.groups.get(&group.name);
            let seen_once = found.map_or(0, |group| group.seen_once);
            asked.users[place] += seen_once;
            once[place] += seen_once;
        }
    }
    let is_cause = once.iter().any(|count| *count > 0) && !sample_ratio(&epochs, None).mismatch;
    is_cause.then(|| {
        let groups = question.groups.iter().zip(&once);
        let counts: Vec<String> = groups
            .map(|(group, count)| format!("{} {count}", group.name))
            .collect();
        let sentence = format!(
            "between first seen and exposed: visitors whose minted ID did not come back ({}) make the difference; look for a version whose first page fails or loses the cookie",
            counts.join(", ")
        );
        ("exposed", sentence)
    })
}

/// Users in a second group (crossovers): replicas with different files, or shared IDs.
fn crossing(evaluation: &Evaluation) -> Option<(&'static str, String)> {
    let groups = || {
        evaluation
            .totals
            .epochs
            .iter()
            .flat_map(|epoch| epoch.groups.values())
    };
    let crossed: u64 = groups().map(|group| group.crossed_over).sum();
    let users: u64 = groups().map(|group| group.users).sum();
    (crossed as f64 > WORTH_NAMING * users as f64).then(|| {
        let sentence = format!(
            "when users return: {crossed} of {users} users were exposed to a second group; check whether all replicas have the same file, and whether weights or salt were changed"
        );
        ("seen_again", sentence)
    })
}

/// No other stage explains the mismatch, so users already arrived in these proportions.
fn assigned(experiment: &Experiment, evaluation: &Evaluation) -> (&'static str, String) {
    let groups = evaluation.question.groups.iter();
    let sizes: Vec<String> = groups
        .enumerate()
        .map(|(place, group)| {
            let users: u64 = evaluation
                .question
                .epochs
                .iter()
                .map(|epoch| epoch.users[place])
                .sum();
            format!("{} {users}", group.name)
        })
        .collect();
    let sentence = format!(
        "at assignment ({}): nearly all users got their group's response and few crossed over, so arrivals are not random; look for shared or generated IDs (robots, a cookie that one version of {} resets)",
        sizes.join(", "),
        experiment.name
    );
    ("assigned", sentence)
}
