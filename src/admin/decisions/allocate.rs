//! Thompson allocation: at intervals, the weights of an experiment follow the chance of each group to be
//! the best by the primary metric. Each change is a decision that the store keeps, and begins an epoch.

use crate::admin::decisions::decide::describe_weights;
use crate::admin::decisions::record::record_decision;
use crate::config::plan::Plan;
use crate::experiment::metric::MetricGoal;
use crate::experiment::{Experiment, Lifecycle};
use crate::stats::bayes::{self, Posterior};
use crate::store::decisions::{AuditEntry, DecidedBy, DecidedState, StandingDecision};
use crate::store::phases::Placement;
use crate::store::{ExperimentTotals, Store, StoreError};
use std::collections::BTreeMap;

/// Before each group has so many users, weights stay as the file has them.
const USERS_MIN: u64 = 100;
/// A smaller change of every share is not made: it would begin an epoch for nothing.
const CHANGE_MIN: f64 = 0.01;
/// Who decides.
const BY: &str = "watershed (allocation)";

/// Changes the weights, if it is time.
pub(crate) async fn allocate(
    plan: &Plan,
    experiment: &Experiment,
    (placement, totals): (&Placement, &ExperimentTotals),
    store: &dyn Store,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Some(allocation) = &experiment.allocation else {
        return Ok(());
    };
    if experiment.lifecycle != Lifecycle::Running {
        return Ok(());
    }
    let first_ms = totals.epochs.iter().map(|epoch| epoch.definition.first_ms);
    let decisions = store.decisions().await?;
    let before = decisions.get(&*experiment.name);
    let own = before.filter(|decision| decision.salt == *experiment.salt);
    let since_ms = own.map(|decision| decision.at_ms).or(first_ms.min());
    let is_due = since_ms.is_some_and(|since| now_ms >= since.saturating_add(allocation.every_ms));
    let runs = own.is_none_or(|decision| decision.state == DecidedState::Running);
    if !is_due || !runs {
        return Ok(());
    }
    let Some(shares) = shares(plan, experiment, allocation.least, (placement, totals)) else {
        return Ok(());
    };
    let sum: f64 = experiment.groups.iter().map(|it| it.weight.get()).sum();
    let old = experiment.groups.iter().map(|it| it.weight.get() / sum);
    if old
        .zip(&shares)
        .all(|(old, new)| (old - new).abs() < CHANGE_MIN)
    {
        return Ok(());
    }
    let names = experiment.groups.iter().map(|group| group.name.to_string());
    // A tenth of a percent is exact enough, and reads well.
    let weights: BTreeMap<String, f64> = names
        .zip(shares.iter().map(|share| (share * 1000.0).round() / 10.0))
        .collect();
    let before_ms = before.map_or(0, |decision| decision.at_ms);
    let next = StandingDecision {
        weights,
        ..StandingDecision::running(&experiment.salt, before, now_ms, BY)
    };
    let from = experiment.groups.iter();
    let from = from.map(|group| (group.name.to_string(), group.weight.get()));
    let entry = AuditEntry {
        experiment: experiment.name.to_string(),
        action: "allocate".to_owned(),
        from: describe_weights(&from.collect()),
        to: describe_weights(&next.weights),
        at_ms: next.at_ms,
        by: BY.to_owned(),
        reason: None,
        source: Some(DecidedBy::Rule),
    };
    // If another replica was quicker, its weights apply.
    record_decision(store, before_ms, &next, &entry).await?;
    Ok(())
}

/// The groups' shares by their chance to be the best, in file order; `None` until enough is known.
fn shares(
    plan: &Plan,
    experiment: &Experiment,
    least: f64,
    (placement, totals): (&Placement, &ExperimentTotals),
) -> Option<Vec<f64>> {
    let metric = plan.metric(*experiment.metrics.first()?);
    let series = placement.series_of(&metric.name);
    let counting = |name: &str| {
        let epochs = totals.epochs.iter();
        let epochs = epochs.filter(|epoch| placement.counts_in(&metric.name, &epoch.definition));
        let groups = epochs.filter_map(|epoch| epoch.groups.get(name));
        groups.fold((0, 0), |(users, converted), group| {
            let of = group.metrics.get(series);
            (
                users + group.users,
                converted + of.map_or(0, |it| it.converted),
            )
        })
    };
    let counts: Vec<(u64, u64)> = experiment
        .groups
        .iter()
        .map(|group| counting(&group.name))
        .collect();
    if counts.iter().any(|(users, _)| *users < USERS_MIN) {
        return None;
    }
    let posterior = |&(users, converted): &(u64, u64)| match metric.goal {
        MetricGoal::Increase => Posterior::new(users, converted),
        MetricGoal::Decrease => Posterior::new(users, users.saturating_sub(converted)),
    };
    let posteriors: Vec<Posterior> = counts.iter().map(posterior).collect();
    let chances = bayes::chances_to_be_best(&posteriors);
    Some(bayes::shares_by_chance(&chances, least))
}
