//! Applies a decision: takes it, and waits until this process follows it.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::decide::{Decision, Done, Undecided, decide};
use crate::admin::http::error::{Failure, no_experiment};
use crate::admin::results::gather::ResultsRequest;
use crate::admin::state::AdminState;
use axum::http::StatusCode;
use std::time::Duration;

/// The most letters of what is kept of who decided and why.
const LETTERS_MAX: usize = 500;
/// How long this process is given to go by a decision that it has made.
const EFFECT_WITHIN: Duration = Duration::from_secs(5);

/// A decision that a caller of the admin API asks for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What.
    pub action: Action,
    /// With which group; for `promote`, the one that has won unless given.
    pub group: Option<String>,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
}

/// Decides, and waits until it is so here.
pub async fn apply(state: &AdminState, name: &str, asked: Asked<'_>) -> Result<Done, Failure> {
    let Asked {
        action,
        mut group,
        by,
        reason,
    } = asked;
    let (by, reason) = (line(by)?, reason.map(line).transpose()?);
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    if action == Action::Promote && group.is_none() {
        group = Some(won(state, name).await?);
    }
    let decision = Decision {
        action,
        group: group.as_deref(),
        by: &by,
        reason,
    };
    let plan = state.plan();
    let done = match decide(&plan, &*state.store, name, &decision).await {
        Ok(done) => done,
        Err(Undecided::Refused(status, sentence)) => return Err(Failure::new(status, sentence)),
        Err(Undecided::Away(error)) => return Err(error.into()),
    };
    // What it answers is so, here; other replicas follow within two seconds.
    state.server.decided.notify_one();
    let mut plans = state.plans.clone();
    let effect = plans.wait_for(|plan| {
        let index = plan.experiment_named(name);
        index.is_none_or(|index| plan.experiment(index).lifecycle.name() == done.status)
    });
    if tokio::time::timeout(EFFECT_WITHIN, effect).await.is_err() {
        tracing::warn!(
            "{name}: {} takes effect later than it should",
            action.name()
        );
    }
    Ok(done)
}

/// What somebody wrote, as one line of a log or a table.
fn line(text: &str) -> Result<String, Failure> {
    if text.chars().count() > LETTERS_MAX {
        let said = format!("`by` and `reason` have at most {LETTERS_MAX} letters");
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, said));
    }
    let letters = text.chars();
    let plain = letters.map(|letter| if letter.is_control() { ' ' } else { letter });
    Ok(plain.collect::<String>().trim().to_owned())
}

/// The group that the verdict says has won.
async fn won(state: &AdminState, name: &str) -> Result<String, Failure> {
    let request = ResultsRequest {
        only: Some(name),
        ..ResultsRequest::default()
    };
    let results = state.results(request).await?;
    let experiment = results.experiments.first();
    let verdict = &experiment.ok_or_else(|| no_experiment(name))?.verdict;
    let group = verdict.group.clone().filter(|_| verdict.state == "winner");
    group.ok_or_else(|| {
        let hint = "no group has won yet; say which one: {\"group\": \"NAME\"}";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, hint)
    })
}
