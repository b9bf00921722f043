//! Decides about an experiment (pause, resume, promote, roll back). The store keeps each decision for
//! all replicas, with its author, time and reason.

use crate::admin::clock::now_ms;
use crate::admin::decisions::action::Action;
use crate::admin::decisions::record::record_decision;
use crate::admin::http::error::{Failure, no_experiment};
use crate::admin::results::enums;
use crate::config::plan::Plan;
use crate::experiment::{Experiment, Lifecycle};
use crate::store::decisions::{AuditEntry, DecidedBy, DecidedState, StandingDecision};
use crate::store::{Store, StoreError};
use axum::http::StatusCode;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A decision and its author.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    /// The action.
    pub action: Action,
    /// The group, for `promote` only.
    pub group: Option<&'a str>,
    /// The author.
    pub by: &'a str,
    /// The reason.
    pub reason: Option<&'a str>,
    /// What decides.
    pub source: DecidedBy,
}

/// Why a decision was not taken.
#[derive(Debug)]
pub(crate) enum Undecided {
    /// The decision is not possible; a message for the caller.
    Refused(StatusCode, String),
    /// The store is unavailable; nothing has changed.
    Away(StoreError),
}

/// The outcome of a decision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    experiment: String,
    /// The state of the experiment now.
    #[schema(schema_with = enums::status)]
    pub status: &'static str,
    /// The group whose version all matching users get; `null` while the experiment splits.
    group: Option<String>,
    /// The state before, such as `running` or `promoted experiment`.
    from: String,
    /// The state now, in the same form.
    to: String,
    /// `false` if the experiment was in this state already.
    changed: bool,
}

/// How often a decision is tried when ramps, weights or the routes file change at the same moment.
const ATTEMPTS: usize = 10;

/// Stores a decision about an experiment with its author. Repeating a decision has no effect.
///
/// Another decision at the same moment is a conflict if it changed the state. One that did not, as when a ramp
/// takes a step or leaves the file, is built on.
pub(crate) async fn decide(
    plan: &Plan,
    store: &dyn Store,
    name: &str,
    decision: &Decision<'_>,
) -> Result<Done, Undecided> {
    let experiment = experiment_to_decide(plan, name, decision.action)?;
    let group = group_after(experiment, decision)?;
    let mut seen = None;
    for _ in 0..ATTEMPTS {
        let decisions = store.decisions().await.map_err(Undecided::Away)?;
        let before = decisions.get(name);
        let current = before.filter(|decision| decision.salt == *experiment.salt);
        let found = current.map(|current| (current.state, current.group.clone()));
        if *seen.get_or_insert_with(|| found.clone()) != found {
            break;
        }
        let (next, done) = change(experiment, (before, current), group.clone(), decision);
        if !done.changed {
            return Ok(done);
        }
        let entry = AuditEntry {
            experiment: name.to_owned(),
            action: decision.action.name().to_owned(),
            from: done.from.clone(),
            to: done.to.clone(),
            at_ms: next.at_ms,
            by: decision.by.to_owned(),
            reason: decision.reason.map(str::to_owned),
            source: Some(decision.source),
        };
        let before_ms = before.map_or(0, |decision| decision.at_ms);
        let stored = record_decision(store, before_ms, &next, &entry).await;
        if stored.map_err(Undecided::Away)? {
            return Ok(done);
        }
    }
    Err(Undecided::Refused(
        StatusCode::CONFLICT,
        "another decision was made at the same moment: check the state and decide again".to_owned(),
    ))
}

/// Returns what a decision makes of the one that stands, which is `current` if it is of this salt, and its outcome.
fn change(
    experiment: &Experiment,
    (before, current): (Option<&StandingDecision>, Option<&StandingDecision>),
    group: Option<String>,
    decision: &Decision<'_>,
) -> (StandingDecision, Done) {
    let state = decision.action.state();
    // The store may have lost the decision that is served.
    let is_lost = current.is_none()
        && matches!(
            experiment.lifecycle,
            Lifecycle::Paused | Lifecycle::Promoted | Lifecycle::RolledBack
        );
    let same = match current {
        None => state == DecidedState::Running && !is_lost,
        Some(current) => current.state == state && current.group == group,
    };
    let now_ms = now_ms();
    let runs = state == DecidedState::Running;
    let ramp = current.and_then(|current| current.ramp.as_ref());
    let next = StandingDecision {
        state,
        group: group.clone(),
        // Weights that an allocation has chosen end: a resumed experiment begins with those of the file.
        weights: BTreeMap::new(),
        // The ramp goes on where it was.
        ramp: ramp.map(|ramp| ramp.when(runs, now_ms)),
        ..StandingDecision::running(&experiment.salt, before, now_ms, decision.by)
    };
    let scheduled = experiment.schedule.at(now_ms);
    let describe = |decision| describe(decision, scheduled);
    let (from, to) = (describe(current), describe(Some(&next)));
    let done = Done {
        experiment: experiment.name.to_string(),
        status: status(state, scheduled),
        group,
        from,
        to,
        changed: !same,
    };
    (next, done)
}

/// Finds the experiment, unless the routes file has ended it. One that has left the file does not split.
fn experiment_to_decide<'a>(
    plan: &'a Plan,
    name: &str,
    action: Action,
) -> Result<&'a Experiment, Undecided> {
    let index = plan.experiment_named(name).ok_or_else(|| {
        let Failure { status, error } = no_experiment(name);
        Undecided::Refused(status, error)
    })?;
    let experiment = plan.experiment(index);
    if experiment.ended_by_file {
        return Err(Undecided::Refused(
            StatusCode::CONFLICT,
            "`winner` in the routes file ended this experiment: remove it first".to_owned(),
        ));
    }
    if experiment.has_left_file && matches!(action, Action::Pause | Action::Resume) {
        return Err(Undecided::Refused(
            StatusCode::CONFLICT,
            "this experiment is no longer in the routes file: promote another group, roll back, or put it back into the file"
                .to_owned(),
        ));
    }
    Ok(experiment)
}

/// Returns the group whose version all matching users get after the decision.
fn group_after(
    experiment: &Experiment,
    decision: &Decision<'_>,
) -> Result<Option<String>, Undecided> {
    let refused = |message: String| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Err(Undecided::Refused(status, message))
    };
    match (decision.action, decision.group) {
        (Action::Promote, Some(group)) if experiment.group_named(group).is_none() => {
            refused(format!("{} has no group {group:?}", experiment.name))
        }
        (Action::Promote, Some(group)) => Ok(Some(group.to_owned())),
        (Action::Promote, None) => {
            refused("promote needs a group: {\"group\": \"NAME\"}".to_owned())
        }
        (Action::Resume, None) => Ok(None),
        (Action::Pause | Action::Rollback, None) => {
            let control = &experiment.groups[experiment.control.0];
            Ok(Some(control.name.to_string()))
        }
        (_, Some(_)) => refused("only promote takes a group".to_owned()),
    }
}

/// Describes the state after a decision, such as `promoted experiment`. `scheduled` is what the experiment does
/// by its schedule.
fn describe(decision: Option<&StandingDecision>, scheduled: Lifecycle) -> String {
    match decision {
        None => scheduled.name().to_owned(),
        Some(StandingDecision {
            state: DecidedState::Promoted,
            group: Some(group),
            ..
        }) => format!("promoted {group}"),
        Some(decision) if !decision.weights.is_empty() => {
            let weights = describe_weights(&decision.weights);
            format!("{} {weights}", status(decision.state, scheduled))
        }
        Some(decision) => status(decision.state, scheduled).to_owned(),
    }
}

/// Describes weights, such as `control 40, experiment 60`.
pub(crate) fn describe_weights(weights: &BTreeMap<String, f64>) -> String {
    let each = weights
        .iter()
        .map(|(group, weight)| format!("{group} {weight}"));
    each.collect::<Vec<_>>().join(", ")
}

/// The status of an experiment after a decision, which does what its schedule says while it runs.
pub(crate) fn status(state: DecidedState, scheduled: Lifecycle) -> &'static str {
    match state {
        DecidedState::Running => scheduled.name(),
        DecidedState::Paused => Lifecycle::Paused.name(),
        DecidedState::Promoted => Lifecycle::Promoted.name(),
        DecidedState::RolledBack => Lifecycle::RolledBack.name(),
    }
}
