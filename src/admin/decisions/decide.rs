//! Pause, resume, promote, roll back: decisions about experiments, kept in the store for all
//! replicas, with who decided what when.

use crate::admin::clock::now_ms;
use crate::admin::decisions::action::Action;
use crate::admin::http::error::{Failure, no_experiment};
use crate::admin::results::enums;
use crate::config::plan::Plan;
use crate::store::decisions::{AuditEntry, DecidedState, StandingDecision};
use crate::store::{Store, StoreError};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

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
