//! Automatic decisions: what `act_on` says is to be done about a verdict.

use crate::admin::decisions::action::Action;
use crate::admin::decisions::decide::{Decision, Undecided, decide};
use crate::admin::results::evaluation::Evaluation;
use crate::admin::view::verdict_text::reason;
use crate::config::plan::Plan;
use crate::experiment::Confirmer;
use crate::notify::{Board, confirmation_key, winner_key};
use crate::stats::State;
use crate::store::decisions::DecidedBy;
use crate::store::{Store, StoreError};
use std::time::{Duration, Instant};

/// How long a promotion waits until the store knows that webhooks are to be told of the winner.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// Does what the file says is to be done about a verdict.
pub(crate) async fn act(
    plan: &Plan,
    evaluation: &Evaluation,
    store: &dyn Store,
    board: &Board,
) -> Result<(), StoreError> {
    let (experiment, verdict) = (&evaluation.experiment, &evaluation.judgement.verdict);
    if !experiment.is_running() {
        return Ok(());
    }
    let group = verdict.group.map(|place| &*experiment.groups[place].name);
    let (action, group) = match verdict.state {
        // Whether a gain is worth the harm is for a person to say.
        State::Winner if !verdict.harms.is_empty() => return Ok(()),
        State::Winner if experiment.act_on.winner => (Action::Promote, group),
        State::Loser if experiment.act_on.loser => (Action::Rollback, None),
        _ => return Ok(()),
    };
    let mut reason = reason(&evaluation.question, &evaluation.judgement);
    if let Some(group) = group {
        let won = winner_key(&evaluation.placement.key, group);
        if !plan.webhooks.is_empty() {
            until_told(board, &won).await;
        }
        match experiment.confirm {
            None => {}
            Some(Confirmer::Person) => return Ok(()),
            Some(Confirmer::Webhook) => {
                if store.reported_ms(&confirmation_key(&won)).await?.is_none() {
                    return Ok(());
                }
                reason.push_str(" (confirmed by a webhook)");
            }
        }
    }
    let decision = Decision {
        action,
        group,
        by: "watershed (act_on)",
        reason: Some(&reason),
        source: DecidedBy::Rule,
    };
    match decide(plan, store, &experiment.name, &decision).await {
        Err(Undecided::Away(error)) => Err(error),
        Err(Undecided::Refused(_, why)) => {
            // Another replica was quicker, most often.
            tracing::debug!("{}: not {}: {why}", experiment.name, action.name());
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Waits until the store knows that webhooks are to be told of a winner: after the promotion, a process that
/// starts finds none. Webhooks never prevent a promotion.
async fn until_told(board: &Board, event: &str) {
    let until = Instant::now() + TOLD_WITHIN;
    while !board.is_reported(event) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
