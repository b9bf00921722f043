//! Where groups part that do not have the sizes that their weights ask for.

use crate::admin::results::evaluator::Evaluation;
use crate::admin::results::schema::{PartingResult, StageResult};
use crate::experiment::Experiment;
use crate::stats::srm::sample_ratio;
use crate::store::GroupTotals;

/// From this share of a group's answers or users on, something is worth naming.
const WORTH_NAMING: f64 = 0.002;

/// Where the groups part, the most telling place first. `None` while their sizes are sound.
pub fn parting(experiment: &Experiment, evaluation: &Evaluation) -> Option<PartingResult> {
    if !evaluation.judgement.sample_ratio.mismatch {
        return None;
    }
    let (stage, sentence) = unanswered(evaluation)
        .or_else(|| uncompleted(evaluation))
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

/// How much of each group reached which stage: what a person compares with the weights to see
/// where it was lost.
pub fn stages(evaluation: &Evaluation) -> Vec<StageResult> {
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
            group.requests.saturating_sub(group.users)
        }),
        stage("crossed_over", "users", |group| group.crossed_over),
    ]
}

/// Users whose group's upstream was away saw control's version, and are not counted.
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
        "between assigned and answered: {fallbacks} of {all} answers to users of {name} were given by control's upstream because its own was away, and who saw no other answer is not counted"
    );
    Some(("answered", sentence))
}

/// Answers that broke off, or that nobody waited for: a slow or broken version drives users away
/// before they are seen again.
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
        "between answered and completed: {unfinished} of {all} answers to users of {name} broke off, or the user left before their end"
    );
    Some(("completed", sentence))
}

/// Users who are seen in a second group: replicas with different files, or IDs that change hands.
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
            "when users are seen again: {crossed} of {users} users were seen in a second group; look whether all replicas have the same file, and whether weights or salt were changed"
        );
        ("seen_again", sentence)
    })
}

/// Nothing that is counted parts them: they came in these proportions.
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
        "already when assigned ({}): all were answered and few crossed over, so who comes is not random; look for IDs that are shared or made up (robots, a cookie that one version of {} sets anew)",
        sizes.join(", "),
        experiment.name
    );
    ("assigned", sentence)
}
