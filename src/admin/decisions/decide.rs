//! Pause, resume, promote, roll back: decisions about experiments, kept in the store for all
//! replicas, with who decided what when.

use crate::admin::http::auth::Caller;
use crate::admin::http::error::Failure;
use crate::admin::results::enums;
use crate::config::plan::Plan;
use crate::store::decisions::{AuditEntry, DecidedState, StandingDecision};
use crate::store::{Store, StoreError, chain};
use axum::http::StatusCode;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Action {
    /// Control for everybody, for now.
    Pause,
    /// Split again.
    Resume,
    /// One group's version for everybody.
    Promote,
    /// Control for everybody, for good.
    Rollback,
}

impl Action {
    /// As paths and acts name it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Promote => "promote",
            Action::Rollback => "rollback",
        }
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Action> {
        let all = [
            Action::Pause,
            Action::Resume,
            Action::Promote,
            Action::Rollback,
        ];
        all.into_iter().find(|action| action.name() == name)
    }

    fn state(self) -> DecidedState {
        match self {
            Action::Pause => DecidedState::Paused,
            Action::Resume => DecidedState::Running,
            Action::Promote => DecidedState::Promoted,
            Action::Rollback => DecidedState::RolledBack,
        }
    }
}

/// A decision, and who makes it.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What is to be done.
    pub action: Action,
    /// With which group; for `promote` only.
    pub group: Option<&'a str>,
    /// Who decides.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
}

/// Why a decision was not taken.
#[derive(Debug)]
pub enum Undecided {
    /// It cannot be, as a sentence for who asked.
    Refused(StatusCode, String),
    /// The store did not answer: nothing has changed.
    Away(StoreError),
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    experiment: String,
    /// What it does now.
    #[schema(schema_with = enums::status)]
    pub status: &'static str,
    /// Whose version everybody gets; `null` while it splits.
    group: Option<String>,
    /// What it did before, such as `running` or `promoted experiment`.
    from: String,
    to: String,
    /// Whether it was not so already.
    changed: bool,
}

/// What is said of an experiment that nobody knows.
pub fn no_experiment(name: &str) -> Failure {
    let said = format!("there is no experiment {name:?}");
    Failure::new(StatusCode::NOT_FOUND, said)
}

/// Keeps that somebody did something that is no decision about an experiment. It is done: a store
/// that is away cannot undo it, so that is only logged.
pub async fn note(store: &dyn Store, act: AuditEntry) {
    tracing::info!("{} by {}: {} -> {}", act.action, act.by, act.from, act.to);
    if let Err(error) = store.record_action(&act).await {
        let (action, error) = (&act.action, chain(&error));
        tracing::warn!("{action} by {} is not kept: {error}", act.by);
    }
}

/// Something that was done at the door.
pub fn act(action: &str, caller: &Caller, from: String, to: String) -> AuditEntry {
    AuditEntry {
        experiment: String::new(),
        action: action.to_owned(),
        from,
        to,
        at_ms: now_ms(),
        by: caller.by(None),
        reason: None,
    }
}

/// Decides about an experiment, and keeps who did. What is so already changes nothing.
pub async fn decide(
    plan: &Plan,
    store: &dyn Store,
    name: &str,
    decision: &Decision<'_>,
) -> Result<Done, Undecided> {
    let refused = |status, sentence: String| Err(Undecided::Refused(status, sentence));
    let Some(index) = plan.experiment_named(name) else {
        let Failure { status, error } = no_experiment(name);
        return refused(status, error);
    };
    let experiment = plan.experiment(index);
    if experiment.ended_by_file {
        return refused(
            StatusCode::CONFLICT,
            "the file says who has won: take `winner` out of it first".to_owned(),
        );
    }
    let state = decision.action.state();
    let group = match (decision.action, decision.group) {
        (Action::Promote, Some(group)) => {
            if !experiment.groups.iter().any(|it| &*it.name == group) {
                return refused(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("{name} has no group {group:?}"),
                );
            }
            Some(group.to_owned())
        }
        (Action::Promote, None) => {
            return refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "say which group".to_owned(),
            );
        }
        (Action::Resume, None) => None,
        (Action::Pause | Action::Rollback, None) => {
            Some(experiment.groups[experiment.control.0].name.to_string())
        }
        (_, Some(_)) => {
            return refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "only promote takes a group".to_owned(),
            );
        }
    };
    let controls = store.decisions().await.map_err(Undecided::Away)?;
    let before = controls.get(name);
    let stands = before.filter(|control| control.salt == *experiment.salt);
    let same = match stands {
        None => state == DecidedState::Running,
        Some(stands) => stands.state == state && stands.group == group,
    };
    let before_ms = before.map_or(0, |control| control.at_ms);
    let next = StandingDecision {
        state,
        group: group.clone(),
        salt: experiment.salt.to_string(),
        at_ms: now_ms().max(before_ms + 1),
        by: decision.by.to_owned(),
    };
    let (from, to) = (stood(stands), stood(Some(&next)));
    let done = Done {
        experiment: name.to_owned(),
        status: status(state),
        group,
        from: from.clone(),
        to: to.clone(),
        changed: !same,
    };
    if same {
        return Ok(done);
    }
    let act = AuditEntry {
        experiment: name.to_owned(),
        action: decision.action.name().to_owned(),
        from,
        to,
        at_ms: next.at_ms,
        by: decision.by.to_owned(),
        reason: decision.reason.map(str::to_owned),
    };
    let taken = store.decide(before_ms, &next, &act).await;
    if !taken.map_err(Undecided::Away)? {
        return refused(
            StatusCode::CONFLICT,
            "somebody else decided in the same moment: look, and decide again".to_owned(),
        );
    }
    tracing::info!(
        "{name}: {} by {}: {} -> {}",
        act.action,
        act.by,
        act.from,
        act.to
    );
    Ok(done)
}

fn stood(control: Option<&StandingDecision>) -> String {
    match control {
        None => "running".to_owned(),
        Some(StandingDecision {
            state: DecidedState::Promoted,
            group: Some(group),
            ..
        }) => format!("promoted {group}"),
        Some(control) => status(control.state).to_owned(),
    }
}

fn status(state: DecidedState) -> &'static str {
    use crate::experiment::Lifecycle as Own;
    match state {
        DecidedState::Running => Own::Running.name(),
        DecidedState::Paused => Own::Paused.name(),
        DecidedState::Promoted => Own::Promoted.name(),
        DecidedState::RolledBack => Own::RolledBack.name(),
    }
}

/// Now, in Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}
