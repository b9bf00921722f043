//! What guardrails say, with their evidence.

use crate::admin::results::enums::method;
use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::metric::{asked_totals, lowest_at};
use crate::admin::results::schema::{GuardrailGroup, GuardrailResult};
use crate::config::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::guardrail::GuardrailTarget;

/// All guardrails of the experiment, in file order.
pub(crate) fn guardrail_results(
    plan: &Plan,
    experiment: &Experiment,
    evaluation: &Evaluation,
) -> Vec<GuardrailResult> {
    // They come after the metrics that judge.
    let judged = evaluation
        .judgement
        .metrics
        .iter()
        .skip(experiment.metrics.len());
    let asked = evaluation.question.metrics.iter();
    let judged = judged.zip(asked.skip(experiment.metrics.len()));
    let each = experiment.guardrails.iter().zip(judged);
    let each = each.map(|(guardrail, (judged, asked))| {
        let groups = experiment.groups.iter().zip(&judged.groups).enumerate();
        let groups = groups.map(|(place, (group, judged))| {
            let totals = asked_totals(asked, place);
            let found = judged.guardrail;
            GuardrailGroup {
                name: group.name.to_string(),
                users: totals.users,
                harmed: totals.converted,
                rate: judged.rate,
                increase: judged.lift.and_then(|lift| lift.relative),
                at_least: found.and_then(|found| found.at_least),
                p_value: judged.p_value,
                p_value_lowest: judged.history.lowest.map(|lowest| lowest.p),
                p_value_lowest_at: lowest_at(judged),
                breached: found.map(|found| found.breached),
                dead: found.map(|found| found.dead),
            }
        });
        GuardrailResult {
            name: guardrail.name(&plan.metrics).to_owned(),
            over_ms: match guardrail.what {
                GuardrailTarget::Slow { over_us } => Some(over_us as f64 / 1000.0),
                GuardrailTarget::Errors | GuardrailTarget::Metric(_) => None,
            },
            max_increase: guardrail.max_increase,
            // Each group of each guardrail has an equal part of the whole.
            alpha: evaluation.question.guardrail_alpha
                / (experiment.guardrails.len() * (experiment.groups.len() - 1)) as f64,
            method: method(judged.method),
            groups: groups.collect(),
        }
    });
    each.collect()
}
