//! Sentences about the plan of an experiment: what it is about, its schedule, its ramp. PURE.

use crate::admin::format::{minute, share};
use crate::admin::results::ramp_result::RampResult;
use crate::admin::results::schema::ExperimentResult;

/// Returns what the file says of an experiment: a label and a text of each.
pub(crate) fn about(experiment: &ExperimentResult) -> Vec<(&'static str, String)> {
    let texts = [
        ("Description", experiment.description.clone()),
        ("Hypothesis", experiment.hypothesis.clone()),
        ("Owner", experiment.owner.clone()),
        ("Link", experiment.link.clone()),
        ("Planned start", experiment.starts_at.as_deref().map(minute)),
        ("Planned end", experiment.ends_at.as_deref().map(minute)),
        ("Ramp", experiment.ramp.as_ref().map(ramp)),
    ];
    let texts = texts.into_iter();
    texts
        .filter_map(|(label, text)| Some((label, text?)))
        .collect()
}

/// Describes the step of a ramp, and the next one.
pub(crate) fn ramp(ramp: &RampResult) -> String {
    let mut text = match (ramp.step, &ramp.since) {
        (Some(step), Some(since)) => format!(
            "step {step} of {}: {} of matching users are admitted, since {}",
            ramp.steps.len(),
            share(ramp.share),
            minute(since)
        ),
        _ => "no step has begun".to_owned(),
    };
    if let Some(next) = ramp.next_share {
        let next = share(next);
        text += &match (&ramp.holds, &ramp.next_at) {
            (Some(reason), _) => format!("; it does not widen to {next}: {reason}"),
            (None, Some(at)) => format!(
                "; {next} from {} on, if guardrails, sample ratio and data are sound",
                minute(at)
            ),
            (None, None) => format!("; next: {next}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramp_says_what_comes_next_or_why_it_holds() {
        let mut result = RampResult {
            steps: Vec::new(),
            step: Some(1),
            share: 0.01,
            since: Some("2026-01-01T00:00:00Z".to_owned()),
            next_share: Some(0.1),
            next_at: Some("2026-01-01T01:00:00Z".to_owned()),
            on_alarm: "hold",
            holds: None,
        };
        let said = ramp(&result);
        assert!(said.contains("1 % of matching users"), "{said}");
        assert!(said.contains("10 % from 1 Jan 2026, 01:00 UTC"), "{said}");
        result.holds = Some("guardrail errors is breached in next".to_owned());
        let said = ramp(&result);
        assert!(
            said.ends_with("does not widen to 10 %: guardrail errors is breached in next"),
            "{said}"
        );
        result.next_share = None;
        assert!(ramp(&result).ends_with("00:00 UTC"));
    }
}
