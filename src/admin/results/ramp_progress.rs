//! Where an experiment is on its ramp, what comes next, and why it does not come.

use crate::admin::decisions::ramp::{DataHealth, RampMove, next_move, standing};
use crate::admin::format::rfc3339;
use crate::admin::results::evaluator::Evaluation;
use crate::admin::results::ramp_result::{RampResult, RampStepResult};
use crate::experiment::lifecycle::RampStep;
use crate::store::decisions::StandingDecisions;

/// What decides about ramps besides counts.
#[derive(Debug, Default)]
pub(crate) struct RampContext {
    /// The standing decisions; empty if no experiment has a ramp.
    pub decisions: StandingDecisions,
    /// Whether the counts of all replicas can be believed.
    pub health: DataHealth,
}

/// Returns the progress of a ramp; `None` without one.
pub(crate) fn ramp_progress(
    evaluation: &Evaluation,
    context: &RampContext,
    down: &[Option<String>],
) -> Option<RampResult> {
    let experiment = &evaluation.experiment;
    let ramp = experiment.ramp.as_ref()?;
    let own = standing(&context.decisions, experiment);
    let position = own.and_then(|own| own.ramp.as_ref());
    let place = position.map(|position| ramp.step_of(position.share));
    let next = match place {
        None => ramp.steps.first(),
        Some(place) => ramp.steps.get(place + 1),
    };
    let runs = experiment.is_running();
    let next_ms = match next_move(ramp, position, evaluation.at_ms) {
        RampMove::WaitUntil(due_ms) | RampMove::Widen(_, due_ms) if runs => Some(due_ms),
        _ => None,
    };
    let holds = match (runs, next) {
        (_, None) => None,
        (false, Some(_)) => Some(format!(
            "the experiment is {}",
            experiment.lifecycle.name().replace('_', " ")
        )),
        (true, Some(_)) => evaluation
            .alarm(context.health, down)
            .map(|alarm| alarm.reason),
    };
    let shown = |step: &RampStep| RampStepResult {
        share: step.share.get(),
        seconds: step.for_ms.map(|ms| ms as f64 / 1000.0),
    };
    Some(RampResult {
        steps: ramp.steps.iter().map(shown).collect(),
        step: place.map(|place| place as u32 + 1),
        // This process may serve the step before for a moment.
        share: place
            .map_or(experiment.traffic, |place| ramp.steps[place].share)
            .get(),
        since: position.and_then(|position| rfc3339(position.began_ms)),
        next_share: next.map(|step| step.share.get()),
        next_at: next_ms.and_then(rfc3339),
        on_alarm: ramp.on_alarm.word(),
        holds,
    })
}
