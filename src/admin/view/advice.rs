//! The recommended action: what follows from a verdict, in one sentence, and its button. PURE.

use crate::admin::decisions::action::Action;
use crate::admin::format;
use crate::admin::format::thousands;
use crate::admin::results::planning_result::PlanningResult;
use crate::admin::results::schema::{ExperimentResult, GroupResult, Recently};

/// Returns the recommended decision, if there is one.
pub(crate) fn due(experiment: &ExperimentResult) -> Option<(Action, Option<&str>)> {
    if experiment.status != "running" && !has_ended_by_plan(experiment) {
        return None;
    }
    match experiment.verdict.state {
        "winner" => Some((Action::Promote, experiment.verdict.group.as_deref())),
        "loser" => Some((Action::Rollback, None)),
        _ => None,
    }
}

/// Whether the planned end in the file has come.
pub(crate) fn has_ended_by_plan(experiment: &ExperimentResult) -> bool {
    experiment.status == "ended" && experiment.ends_at.is_some()
}

/// Returns the recommended action as a sentence.
pub(crate) fn advice(experiment: &ExperimentResult) -> String {
    let verdict = &experiment.verdict;
    let shown = experiment.winner.as_deref().unwrap_or("control");
    let name = experiment.shown(shown);
    match (experiment.status, verdict.state) {
        ("draft", _) => {
            "Remove `state: draft` from the file to start it. Until then, only overrides reach the other groups."
                .to_owned()
        }
        ("scheduled", _) => format!(
            "Nothing. It starts on {}.",
            experiment.starts_at.as_deref().map_or("?".to_owned(), format::minute)
        ),
        ("ended", "collecting") if has_ended_by_plan(experiment) => {
            "Decide: promote the version that is cheaper to keep, or set a later `end`. It ended without a verdict."
                .to_owned()
        }
        ("ended", _) if !has_ended_by_plan(experiment) => of_ended(experiment, name),
        ("promoted", _) if is_down(experiment, shown) => format!(
            "Check the upstream of {name}: none of its endpoints is healthy, and the version that stands in for it is served. Or promote another group."
        ),
        ("promoted", _) => format!(
            "Nothing. All matching users get {name}. The experiment may leave the file: they keep this version, until `retired: [{}]` ends that. Keep its upstream in the file.",
            experiment.name
        ),
        ("rolled_back", _) => {
            format!("Nothing. All matching users get {name}. Improve the other version and try again.")
        }
        ("paused", _) => {
            format!("Resume it, or decide. All matching users get {name}, and nothing is recorded.")
        }
        (_, "winner") if !verdict.harms.is_empty() => format!(
            "Weigh the harm first: {} is worse with {}. Promote it only if the gain is worth it.",
            verdict.harms.join(" and "),
            winner(experiment)
        ),
        (_, "winner") if experiment.confirm.is_some() => confirm(experiment),
        (_, "winner") => format!(
            "Promote {}: all matching users get its version.",
            winner(experiment)
        ),
        (_, "loser") => "Roll back: all matching users get control.".to_owned(),
        (_, "no_difference") => format!(
            "Promote the version that is cheaper to keep: the versions differ by less than {}.",
            experiment
                .metrics
                .first()
                .map_or("the margin".to_owned(), |metric| format::share(metric.margin))
        ),
        (_, "inconclusive") => {
            "End it, or begin a new phase with a later horizon: the planned end has come, and the versions may differ by what the interval says."
                .to_owned()
        }
        (_, "no_planned_lift") => {
            "End it: roll back, or promote the version that is cheaper to keep. There is no lift of the planned size."
                .to_owned()
        }
        (_, "invalid") => format!(
            "Do not act on these results: sample ratio mismatch. Find the cause, fix it, and restart the experiment with another salt, such as `salt: {}-2`.",
            experiment.name
        ),
        _ => waiting(experiment),
    }
}

/// The group of the verdict, as people read it.
fn winner(experiment: &ExperimentResult) -> &str {
    let group = experiment.verdict.group.as_deref();
    group.map_or("it", |group| experiment.shown(group))
}

/// Whether the upstream of a group is down.
fn is_down(experiment: &ExperimentResult, group: &str) -> bool {
    let mut groups = experiment.groups.iter();
    groups.any(|it| it.name == group && it.down.is_some())
}

fn of_ended(experiment: &ExperimentResult, name: &str) -> String {
    if !experiment.in_effect {
        return "Nothing. The experiment is no longer in the file; its counts stay.".to_owned();
    }
    let except = match &*experiment.in_effect_except {
        [] => String::new(),
        [all @ .., last] if !all.is_empty() => format!(", but not {} and {last}", all.join(", ")),
        all => format!(", but not {}", all.join(", ")),
    };
    format!(
        "Nothing. The experiment is no longer in the file, and all matching users still get {name}{except}. Do not end that with `retired: [{}]` before `default` or a route serves this version: these users would get the other one.",
        experiment.name
    )
}

/// The sentence for a winner that waits for somebody.
fn confirm(experiment: &ExperimentResult) -> String {
    let confirm = experiment.confirm.as_ref();
    let group = winner(experiment);
    match confirm.map(|confirm| confirm.waits_for) {
        Some("webhook") => format!(
            "Wait for a webhook to confirm {group}, or promote it: it then serves all matching users."
        ),
        _ => format!(
            "Promote {group}: it waits for a person to confirm it, and then serves all matching users."
        ),
    }
}

fn waiting(experiment: &ExperimentResult) -> String {
    let mut groups = experiment.groups.iter();
    let is_dead = |group: &&GroupResult| {
        group.down.is_some() || group.recently.as_ref().is_some_and(Recently::fails)
    };
    if let Some(group) = groups.find(is_dead) {
        let name = experiment.shown(&group.name);
        let why = match group.down {
            Some(_) => "none of its endpoints is healthy",
            None => "most of its responses fail",
        };
        return format!("Check the upstream of {name}, or pause the experiment: {why}.");
    }
    if experiment.started_at.is_none() {
        return "Wait for the first users. If there are none, check the `match` of the experiment."
            .to_owned();
    }
    let Some(planning) = &experiment.planning else {
        return "Define a metric in the file. Without one there is nothing to compare.".to_owned();
    };
    match planning.seconds_left {
        Some(left) if left > 0.0 => {
            format!("Keep it running, for about {}.", format::duration(left))
        }
        Some(_) => enough(planning),
        None => "Keep it running.".to_owned(),
    }
}

/// The sentence after the planned number of users without a verdict.
fn enough(planning: &PlanningResult) -> String {
    format!(
        "End it, or keep it running to detect a smaller lift: {} users are enough to detect a lift of {} with {} power, and none was detected.",
        thousands(planning.users),
        format::share(planning.detect),
        format::share(planning.power)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::{ConfirmationResult, VerdictResult};

    fn experiment(status: &'static str, state: &'static str) -> ExperimentResult {
        ExperimentResult {
            status,
            started_at: Some("2026-01-01T00:00:00Z".to_owned()),
            groups: Vec::new(),
            verdict: VerdictResult {
                state,
                group: Some("next".to_owned()),
                ..VerdictResult::default()
            },
            ..ExperimentResult::of_metrics(Vec::new())
        }
    }

    fn planned(seconds_left: Option<f64>) -> ExperimentResult {
        let planning = PlanningResult {
            metric: "buy".to_owned(),
            detect: 0.2,
            power: 0.8,
            users: 1234,
            users_needed: None,
            groups: Vec::new(),
            users_per_day: None,
            seconds_left,
            earliest_verdict_at: None,
            seconds_in_all: None,
            even_split: None,
            horizon: None,
        };
        ExperimentResult {
            planning: Some(planning),
            ..experiment("running", "collecting")
        }
    }

    #[test]
    fn advice_follows_from_the_verdict() {
        let check = |experiment: &ExperimentResult, says: &str, asks: Option<Action>| {
            let said = advice(experiment);
            assert!(said.starts_with(says), "{said}");
            assert_eq!(due(experiment).map(|(action, _)| action), asks, "{said}");
        };
        let of = experiment;
        check(
            &of("running", "winner"),
            "Promote next",
            Some(Action::Promote),
        );
        check(&of("running", "loser"), "Roll back", Some(Action::Rollback));
        check(
            &of("running", "no_difference"),
            "Promote the version that is cheaper to keep: the versions differ by less than",
            None,
        );
        check(&of("running", "no_planned_lift"), "End it", None);
        check(&of("running", "inconclusive"), "End it, or begin", None);
        let mut harm = of("running", "winner");
        harm.verdict.harms = vec!["revenue".to_owned()];
        let says = "Weigh the harm first: revenue is worse with next.";
        check(&harm, says, Some(Action::Promote));
        for (waits_for, says) in [
            ("person", "Promote next: it waits for a person"),
            (
                "webhook",
                "Wait for a webhook to confirm next, or promote it",
            ),
        ] {
            let mut waits = of("running", "winner");
            let group = "next".to_owned();
            waits.confirm = Some(ConfirmationResult { waits_for, group });
            check(&waits, says, Some(Action::Promote));
        }
        check(&of("running", "invalid"), "Do not act", None);
        check(&of("running", "collecting"), "Define a metric", None);
        check(&of("paused", "winner"), "Resume it", None);
        check(&of("promoted", "winner"), "Nothing", None);
        check(&of("rolled_back", "loser"), "Nothing", None);
        check(&of("ended", "collecting"), "Nothing", None);
        check(&of("draft", "collecting"), "Remove `state: draft`", None);
        check(&of("scheduled", "collecting"), "Nothing", None);
        let planned_end = |state| ExperimentResult {
            ends_at: Some("2026-01-15T00:00:00Z".to_owned()),
            ..of("ended", state)
        };
        let promote = Some(Action::Promote);
        check(&planned_end("winner"), "Promote next", promote);
        check(&planned_end("collecting"), "Decide", None);
        check(&planned(None), "Keep it running.", None);
        let days = planned(Some(6.0 * 86_400.0));
        check(&days, "Keep it running, for about 6 days.", None);
        let enough = "End it, or keep it running to detect a smaller lift: 1,234 users are enough to detect a lift of 20 %";
        check(&planned(Some(0.0)), enough, None);
        let nobody = ExperimentResult {
            started_at: None,
            ..planned(None)
        };
        check(&nobody, "Wait for the first users", None);
    }
}
