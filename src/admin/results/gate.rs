//! The answer of a gate: may a pipeline go on with an experiment? PURE.

use crate::admin::results::schema::{ExperimentResult, GroupResult, Recently};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a pipeline waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GateGoal {
    /// A group other than control has won.
    Winner,
    /// The experiment has an answer, whichever it is.
    End,
    /// Nothing is known against the experiment.
    Safe,
}

/// The state of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GateState {
    /// The goal is reached.
    Passed,
    /// The goal may still be reached.
    Waiting,
    /// The goal cannot be reached any more, or the data cannot be believed.
    Failed,
    /// A version does harm.
    Harm,
}

/// The state of a gate and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GateAnswer {
    /// The state; `passed` is the only one of status 200.
    pub state: GateState,
    /// One sentence for people.
    pub reason: String,
}

/// Compares an experiment with a goal.
pub(crate) fn gate(goal: GateGoal, experiment: &ExperimentResult) -> GateAnswer {
    let (state, reason) = match goal {
        GateGoal::Winner => winner(experiment),
        GateGoal::End => end(experiment),
        GateGoal::Safe => safe(experiment),
    };
    GateAnswer { state, reason }
}

type Found = (GateState, String);

fn winner(experiment: &ExperimentResult) -> Found {
    let verdict = &experiment.verdict;
    if let Some((group, is_control)) = decided(experiment) {
        let name = &experiment.name;
        return match is_control {
            false => (GateState::Passed, format!("{group} of {name} was promoted")),
            true => (GateState::Failed, decided_otherwise(experiment)),
        };
    }
    let state = match verdict.state {
        // Whether a gain is worth the harm is for a person to say.
        "winner" if !verdict.harms.is_empty() => GateState::Harm,
        "winner" => GateState::Passed,
        "loser" => GateState::Harm,
        "collecting" if experiment.status == "ended" => {
            let name = &experiment.name;
            return (
                GateState::Failed,
                format!("{name} has ended without a winner"),
            );
        }
        "collecting" => return (GateState::Waiting, waiting(experiment)),
        _ => GateState::Failed,
    };
    (state, verdict.reason.clone())
}

/// Why there is no verdict yet.
fn waiting(experiment: &ExperimentResult) -> String {
    let name = &experiment.name;
    match (experiment.status, experiment.starts_at.as_deref()) {
        ("draft", _) => format!("{name} is a draft"),
        ("scheduled", Some(start)) => format!("{name} starts at {start}"),
        ("paused", _) => format!("{name} is paused"),
        _ => experiment.verdict.reason.clone(),
    }
}

fn end(experiment: &ExperimentResult) -> Found {
    let verdict = &experiment.verdict;
    let is_over = matches!(experiment.status, "promoted" | "rolled_back" | "ended");
    if is_over {
        return (GateState::Passed, decided_otherwise(experiment));
    }
    let state = match verdict.state {
        "collecting" => return (GateState::Waiting, waiting(experiment)),
        "invalid" => GateState::Failed,
        _ => GateState::Passed,
    };
    (state, verdict.reason.clone())
}

fn safe(experiment: &ExperimentResult) -> Found {
    let verdict = &experiment.verdict;
    if let Some(reason) = harm(experiment) {
        return (GateState::Harm, reason);
    }
    if verdict.state == "invalid" {
        return (GateState::Failed, verdict.reason.clone());
    }
    if experiment.status == "rolled_back" {
        return (GateState::Failed, decided_otherwise(experiment));
    }
    let mut groups = experiment.groups.iter();
    let fails = groups.find_map(|group| {
        let recently = group.recently.as_ref();
        let recently = recently.filter(|it| it.fails())?;
        Some((&group.name, recently))
    });
    if let Some((
        name,
        Recently {
            answers, failed, ..
        },
    )) = fails
    {
        let name = experiment.shown(name);
        let reason = format!("{failed} of the last {answers} responses of {name} failed");
        return (GateState::Waiting, reason);
    }
    let reason = format!("no version of {} is known to do harm", experiment.name);
    (GateState::Passed, reason)
}

/// Returns what is known of harm, in one sentence.
fn harm(experiment: &ExperimentResult) -> Option<String> {
    let verdict = &experiment.verdict;
    if verdict.state == "loser" || !verdict.harms.is_empty() {
        return Some(verdict.reason.clone());
    }
    let mut groups = experiment.groups.iter();
    if let Some((group, why)) = groups.clone().find_map(|it| Some((it, it.down.as_ref()?))) {
        return Some(format!("{}: {why}", experiment.shown(&group.name)));
    }
    let is_dead = |group: &&GroupResult| group.recently.as_ref().is_some_and(|it| it.dead);
    if let Some(group) = groups.find(is_dead) {
        let name = experiment.shown(&group.name);
        return Some(format!("most responses of {name} failed lately"));
    }
    let breaches = experiment.guardrails.iter().flat_map(|guardrail| {
        let groups = guardrail.groups.iter();
        groups.map(move |group| (&*guardrail.name, group))
    });
    let mut breaches =
        breaches.filter(|(_, group)| group.breached == Some(true) || group.dead == Some(true));
    let (guardrail, group) = breaches.next()?;
    let name = experiment.shown(&group.name);
    Some(format!("{name} breaches the guardrail {guardrail}"))
}

/// Returns the group that a person, the file or a rule chose for everybody, and whether it is control.
fn decided(experiment: &ExperimentResult) -> Option<(&str, bool)> {
    let is_final = matches!(experiment.status, "promoted" | "rolled_back" | "ended");
    let group = experiment.winner.as_deref().filter(|_| is_final)?;
    let mut groups = experiment.groups.iter();
    let is_control = groups.any(|it| it.name == group && it.role == "control");
    Some((experiment.shown(group), is_control))
}

fn decided_otherwise(experiment: &ExperimentResult) -> String {
    let name = &experiment.name;
    match (experiment.status, decided(experiment)) {
        ("rolled_back", _) => format!("{name} was rolled back"),
        (_, Some((group, _))) => format!("{group} of {name} was promoted"),
        _ => format!("{name} has ended"),
    }
}
