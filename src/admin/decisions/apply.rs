//! Applies a decision: stores it and waits until this process applies it.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::decide::{Decision, Done, Undecided, decide};
use crate::admin::http::error::{Failure, no_experiment};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::state::AdminState;
use crate::store::decisions::DecidedBy;
use axum::http::StatusCode;
use std::time::Duration;

/// The most characters of `by` and `reason`.
const CHARS_MAX: usize = 500;
/// The time in which this process should apply a decision that it has stored.
const EFFECT_WITHIN: Duration = Duration::from_secs(5);

/// A decision that a caller of the admin API requests.
#[derive(Debug)]
pub(crate) struct DecisionRequest<'a> {
    /// The action.
    pub action: Action,
    /// The group to promote; the winner of the verdict if `None`.
    pub group: Option<String>,
    /// The author.
    pub by: &'a str,
    /// The reason.
    pub reason: Option<&'a str>,
}

/// Stores a decision and waits until this process applies it.
pub(crate) async fn apply(
    state: &AdminState,
    name: &str,
    request: DecisionRequest<'_>,
) -> Result<Done, Failure> {
    let DecisionRequest {
        action,
        mut group,
        by,
        reason,
    } = request;
    let (by, reason) = (one_line(by)?, reason.map(one_line).transpose()?);
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    if action == Action::Promote && group.is_none() {
        group = Some(winner(state, name).await?);
    }
    let decision = Decision {
        action,
        group: group.as_deref(),
        by: &by,
        reason,
        source: DecidedBy::Person,
    };
    let plan = state.plan();
    let done = match decide(&plan, &*state.store, name, &decision).await {
        Ok(done) => done,
        Err(Undecided::Refused(status, sentence)) => return Err(Failure::new(status, sentence)),
        Err(Undecided::Away(error)) => return Err(error.into()),
    };
    // Respond once this replica has applied the decision; others follow within two seconds.
    state.server.decided.notify_one();
    let mut plans = state.plans.clone();
    let effect = plans.wait_for(|plan| {
        let index = plan.experiment_named(name);
        index.is_none_or(|index| plan.experiment(index).lifecycle.name() == done.status)
    });
    if tokio::time::timeout(EFFECT_WITHIN, effect).await.is_err() {
        tracing::warn!(
            "{name}: {} is stored, but not applied yet after {EFFECT_WITHIN:?}",
            action.name()
        );
    }
    Ok(done)
}

/// Returns a caller's text as one line of a log or a table.
fn one_line(text: &str) -> Result<String, Failure> {
    if text.chars().count() > CHARS_MAX {
        let error = format!("`by` and `reason` can have at most {CHARS_MAX} characters");
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error));
    }
    let chars = text.chars();
    let plain = chars.map(|it| if it.is_control() { ' ' } else { it });
    Ok(plain.collect::<String>().trim().to_owned())
}

/// Returns the winner of the verdict.
async fn winner(state: &AdminState, name: &str) -> Result<String, Failure> {
    let request = ResultsRequest {
        only: Some(name),
        ..ResultsRequest::default()
    };
    let results = state.results(request).await?;
    let experiment = results.experiments.first();
    let verdict = &experiment.ok_or_else(|| no_experiment(name))?.verdict;
    let group = verdict.group.clone().filter(|_| verdict.state == "winner");
    group.ok_or_else(|| {
        let hint = "no group has won yet; name the group: {\"group\": \"NAME\"}";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, hint)
    })
}
